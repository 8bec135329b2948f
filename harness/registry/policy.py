"""Compares two gate policies: is one at least as strict as the other? A partial order over rules."""

from fnmatch import fnmatchcase

from harness.config.gate import GateConfig, RuleConfig, Tolerance

WILD = "*?["


def at_least_as_strict(candidate: GateConfig, required: GateConfig) -> list[str]:
    """The reasons why `candidate` is less strict than `required`; empty when it is at least as strict.

    `candidate` must hold every guard and target of `required`, for the same metrics and in the same role. A guard's
    margin may not be wider, a target's gain not smaller, a limit not laxer. A rule may be optional or waived only
    where the required one is, and no other rule before it may match its metrics first. `alpha_fail` does not count:
    it only separates FAIL from INCONCLUSIVE, and neither promotes.
    """
    reasons = []
    if candidate.alpha_pass > required.alpha_pass:
        reasons.append(f"alpha_pass is {candidate.alpha_pass:g}, at most {required.alpha_pass:g} is required")
    if candidate.minimum_n < required.minimum_n:
        reasons.append(f"minimum_n is {candidate.minimum_n}, at least {required.minimum_n} is required")
    if missing := [role for role in required.require if role not in candidate.require]:
        reasons.append(f"it does not require a {' and a '.join(missing)}")
    if untested := sorted(set(required.baselines) - set(candidate.baselines)):
        reasons.append(f"it does not test against the baseline {', '.join(untested)}")
    if candidate.slice_key != required.slice_key:
        reasons.append(f"slice_key is {candidate.slice_key}, {required.slice_key} is required")
    for place, rule in enumerate(required.rules):
        if rule.role != "info":
            reasons += _rule_objections(candidate, rule, required.rules[:place], required)
    return [f"policy {candidate.name}: {reason}" for reason in reasons]


def _rule_objections(
    policy: GateConfig, required: RuleConfig, before: list[RuleConfig], required_policy: GateConfig
) -> list[str]:
    found = [(place, r) for place, r in enumerate(policy.rules) if r.metric == required.metric]
    same = [(place, rule) for place, rule in found if rule.role == required.role]
    if not found:
        return [f"there is no {required.role} rule for '{required.metric}'"]
    if not same:
        return [f"rule '{required.metric}' is {found[0][1].role}, {required.role} is required"]
    place, rule = same[0]
    hiding = [r for r in policy.rules[:place] if r not in before and _overlap(r.metric, rule.metric)]
    hiding = [
        r
        for r in hiding
        if _takes_precedence(r, rule) and (r.role == "info" or _laxer(r, required, policy, required_policy))
    ]
    hidden = [f"rule '{r.metric}' comes before '{rule.metric}' and may match its metrics first" for r in hiding]
    return hidden + [f"rule '{rule.metric}' {reason}" for reason in _laxer(rule, required, policy, required_policy)]


def _takes_precedence(earlier: RuleConfig, rule: RuleConfig) -> bool:
    """A metric is judged by the first guard and the first target that match it, unless an info rule comes before."""
    return earlier.role in ("info", rule.role)


def _laxer(rule: RuleConfig, required: RuleConfig, policy: GateConfig, required_policy: GateConfig) -> list[str]:
    """In what a rule is laxer than the required one of the same metrics."""
    reasons = []
    if rule.optional and not required.optional:
        reasons.append("is optional, which is not allowed")
    for key in ("on_missing", "on_inconclusive"):
        if getattr(rule, key) not in ("block", getattr(required, key)):
            reasons.append(f"has a waiver ({key}), which is not allowed")
    for key in ("direction", "range", "cluster"):
        if getattr(rule, key) != getattr(required, key):
            reasons.append(f"has {key} {getattr(rule, key)}, {getattr(required, key)} is required")
    if missing := sorted(set(required.slices) - set(rule.slices)):
        reasons.append(f"does not cover these slices: {', '.join(missing)}")
    if (rule.alpha or policy.alpha_pass) > (required.alpha or required_policy.alpha_pass):
        reasons.append(f"has alpha {rule.alpha or policy.alpha_pass:g}")
    if (rule.minimum_n or policy.minimum_n) < (required.minimum_n or required_policy.minimum_n):
        reasons.append(f"has minimum_n {rule.minimum_n or policy.minimum_n}")
    return [*reasons, *_laxer_numbers(rule, required)]


def _laxer_numbers(rule: RuleConfig, required: RuleConfig) -> list[str]:
    reasons = []
    for margin in required.margins:
        if not any(_margin_holds(rule.role, own, margin) for own in rule.margins):
            bound = "at most" if rule.role == "guard" else "at least"
            reasons.append(f"has margin {rule.margin}, {bound} {required.margin} is required")
    if required.floor is not None and (rule.floor is None or rule.floor < required.floor):
        reasons.append(f"has floor {rule.floor}, at least {required.floor} is required")
    if required.ceiling is not None and (rule.ceiling is None or rule.ceiling > required.ceiling):
        reasons.append(f"has ceiling {rule.ceiling}, at most {required.ceiling} is required")
    return reasons


def _margin_holds(role: str, own: Tolerance, required: Tolerance) -> bool:
    """Margins in different units cannot be compared without a baseline's score, so they never hold."""
    if own.unit != required.unit:
        return False
    return own.size <= required.size if role == "guard" else own.size >= required.size


def _overlap(left: str, right: str) -> bool:
    """Whether a metric may match both globs; true in doubt."""
    if fnmatchcase(left, right) or fnmatchcase(right, left):
        return True
    if not (set(left) & set(WILD) and set(right) & set(WILD)):
        return False
    heads, tails = (
        (_literal_start(left), _literal_start(right)),
        (_literal_start(left[::-1]), _literal_start(right[::-1])),
    )
    return all(a.startswith(b) or b.startswith(a) for a, b in (heads, tails))


def _literal_start(glob: str) -> str:
    """The text before the first wildcard (in a reversed glob, `]` may begin one)."""
    end = min((glob.index(c) for c in WILD + "]" if c in glob), default=len(glob))
    return glob[:end]
