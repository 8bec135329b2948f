"""Whether a verdict's policy is at least as strict as the one an alias demands: a partial order over rules."""

from fnmatch import fnmatchcase

from harness.config.gate import GateConfig, RuleConfig, Tolerance

WILD = "*?["


def at_least_as_strict(candidate: GateConfig, demanded: GateConfig) -> list[str]:
    """Why `candidate` demands less than `demanded`; empty when it demands at least as much.

    Every guard and target of `demanded` must stand in `candidate` for the same metrics and in the same role, with
    margins no wider (a guard) or no smaller (a target's gain), limits no laxer, optional or waived only where it was,
    and behind no other rule that may take its metrics away. `alpha_fail` is left out: it only parts FAIL from
    INCONCLUSIVE, and neither promotes.
    """
    reasons = []
    if candidate.alpha_pass > demanded.alpha_pass:
        reasons.append(f"alpha_pass is {candidate.alpha_pass:g}, at most {demanded.alpha_pass:g} is demanded")
    if candidate.minimum_n < demanded.minimum_n:
        reasons.append(f"minimum_n is {candidate.minimum_n}, at least {demanded.minimum_n} is demanded")
    if missing := [role for role in demanded.require if role not in candidate.require]:
        reasons.append(f"it does not require a {' and a '.join(missing)}")
    if untested := sorted(set(demanded.baselines) - set(candidate.baselines)):
        reasons.append(f"it does not test against {', '.join(untested)}")
    if candidate.slice_key != demanded.slice_key:
        reasons.append(f"slice_key is {candidate.slice_key}, {demanded.slice_key} is demanded")
    for place, rule in enumerate(demanded.rules):
        if rule.role != "info":
            reasons += _rule_objections(candidate, rule, demanded.rules[:place], demanded)
    return [f"policy {candidate.name}: {reason}" for reason in reasons]


def _rule_objections(
    policy: GateConfig, demanded: RuleConfig, before: list[RuleConfig], demands: GateConfig
) -> list[str]:
    found = [(place, r) for place, r in enumerate(policy.rules) if r.metric == demanded.metric]
    same = [(place, rule) for place, rule in found if rule.role == demanded.role]
    if not found:
        return [f"there is no {demanded.role} rule for '{demanded.metric}'"]
    if not same:
        return [f"rule '{demanded.metric}' is {found[0][1].role}, {demanded.role} is demanded"]
    place, rule = same[0]
    hiding = [r for r in policy.rules[:place] if r not in before and _overlap(r.metric, rule.metric)]
    hiding = [
        r for r in hiding if _takes_precedence(r, rule) and (r.role == "info" or _laxer(r, demanded, policy, demands))
    ]
    told = [f"rule '{r.metric}' comes before '{rule.metric}' and may take metrics from it" for r in hiding]
    return told + [f"rule '{rule.metric}' {reason}" for reason in _laxer(rule, demanded, policy, demands)]


def _takes_precedence(earlier: RuleConfig, rule: RuleConfig) -> bool:
    """The first guard, the first target and any info rule before them speak for a metric."""
    return earlier.role in ("info", rule.role)


def _laxer(rule: RuleConfig, demanded: RuleConfig, policy: GateConfig, demands: GateConfig) -> list[str]:
    """What a rule demands less than another of the same metrics."""
    reasons = []
    if rule.optional and not demanded.optional:
        reasons.append("is optional, and may not be")
    for key in ("on_missing", "on_inconclusive"):
        if getattr(rule, key) not in ("block", getattr(demanded, key)):
            reasons.append(f"has a waiver ({key}), and may not have it")
    for key in ("direction", "range", "cluster"):
        if getattr(rule, key) != getattr(demanded, key):
            reasons.append(f"has {key} {getattr(rule, key)}, {getattr(demanded, key)} is demanded")
    if missing := sorted(set(demanded.slices) - set(rule.slices)):
        reasons.append(f"does not hold for the slices {', '.join(missing)}")
    if (rule.alpha or policy.alpha_pass) > (demanded.alpha or demands.alpha_pass):
        reasons.append(f"has alpha {rule.alpha or policy.alpha_pass:g}")
    if (rule.minimum_n or policy.minimum_n) < (demanded.minimum_n or demands.minimum_n):
        reasons.append(f"has minimum_n {rule.minimum_n or policy.minimum_n}")
    return [*reasons, *_laxer_numbers(rule, demanded)]


def _laxer_numbers(rule: RuleConfig, demanded: RuleConfig) -> list[str]:
    reasons = []
    for margin in demanded.margins:
        if not any(_margin_holds(rule.role, own, margin) for own in rule.margins):
            bound = "at most" if rule.role == "guard" else "at least"
            reasons.append(f"has margin {rule.margin}, {bound} {demanded.margin} is demanded")
    if demanded.floor is not None and (rule.floor is None or rule.floor < demanded.floor):
        reasons.append(f"has floor {rule.floor}, at least {demanded.floor} is demanded")
    if demanded.ceiling is not None and (rule.ceiling is None or rule.ceiling > demanded.ceiling):
        reasons.append(f"has ceiling {rule.ceiling}, at most {demanded.ceiling} is demanded")
    return reasons


def _margin_holds(role: str, own: Tolerance, demanded: Tolerance) -> bool:
    """Margins in different units cannot be compared without a baseline's score: they do not hold."""
    if own.unit != demanded.unit:
        return False
    return own.size <= demanded.size if role == "guard" else own.size >= demanded.size


def _overlap(left: str, right: str) -> bool:
    """Whether some metric may match both globs; in doubt, yes."""
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
    """The text before the first character that may be a wildcard (read backwards, `]` ends a set)."""
    end = min((glob.index(c) for c in WILD + "]" if c in glob), default=len(glob))
    return glob[:end]
