"""Whether a verdict's policy is at least as strict as the one an alias demands: a partial order over rules."""

from fnmatch import fnmatchcase

from harness.config import GateConfig, RuleConfig

WILD = "*?["


def at_least_as_strict(candidate: GateConfig, demanded: GateConfig) -> list[str]:
    """Why `candidate` demands less than `demanded`; empty when it demands at least as much.

    Every guard and target of `demanded` must stand in `candidate` for the same metrics and in the same role, with a
    margin no wider (a guard) or no smaller (a target's gain), a floor no lower, optional only where it was, and
    behind no other rule that may take its metrics away (the first match decides). `alpha_fail` is left out: it only
    parts FAIL from INCONCLUSIVE, and neither promotes.
    """
    reasons = []
    if candidate.alpha_pass > demanded.alpha_pass:
        reasons.append(f"alpha_pass is {candidate.alpha_pass:g}, at most {demanded.alpha_pass:g} is demanded")
    if missing := sorted(set(demanded.require) - set(candidate.require)):
        reasons.append(f"it does not require a {' and a '.join(missing)}")
    for place, rule in enumerate(demanded.rules):
        if rule.role != "info":
            reasons += _covered(candidate, rule, demanded.rules[:place])
    return [f"policy {candidate.name}: {reason}" for reason in reasons]


def _covered(policy: GateConfig, demanded: RuleConfig, before: list[RuleConfig]) -> list[str]:
    for place, rule in enumerate(policy.rules):
        if rule.metric == demanded.metric:
            hiding = [r for r in policy.rules[:place] if r not in before and _overlap(r.metric, rule.metric)]
            hiding = [r for r in hiding if _looser(r, demanded)]
            told = [f"rule '{r.metric}' comes before '{rule.metric}' and may take metrics from it" for r in hiding]
            return told + [f"rule '{rule.metric}' {reason}" for reason in _looser(rule, demanded)]
    return [f"there is no {demanded.role} rule for '{demanded.metric}'"]


def _looser(rule: RuleConfig, demanded: RuleConfig) -> list[str]:
    """What a rule demands less than another of the same metrics."""
    if rule.role != demanded.role:
        return [f"is {rule.role}, {demanded.role} is demanded"]
    reasons = []
    if rule.optional and not demanded.optional:
        reasons.append("is optional, and may not be")
    if demanded.margin is not None and not _margin_holds(rule, demanded.margin):
        bound = "at most" if rule.role == "guard" else "at least"
        reasons.append(f"has margin {rule.margin}, {bound} {demanded.margin:g} is demanded")
    if demanded.floor is not None and (rule.floor is None or rule.floor < demanded.floor):
        reasons.append(f"has floor {rule.floor}, at least {demanded.floor:g} is demanded")
    return reasons


def _margin_holds(rule: RuleConfig, demanded: float) -> bool:
    if rule.margin is None:
        return False
    return rule.margin <= demanded if rule.role == "guard" else rule.margin >= demanded


def _overlap(left: str, right: str) -> bool:
    """Whether some metric may match both globs; in doubt, yes."""
    if fnmatchcase(left, right) or fnmatchcase(right, left):
        return True
    if not (set(left) & set(WILD) and set(right) & set(WILD)):
        return False
    heads, tails = (_head(left), _head(right)), (_head(left[::-1]), _head(right[::-1]))
    return all(a.startswith(b) or b.startswith(a) for a, b in (heads, tails))


def _head(glob: str) -> str:
    """The text before the first character that may be a wildcard (read backwards, `]` ends a set)."""
    end = min((glob.index(c) for c in WILD + "]" if c in glob), default=len(glob))
    return glob[:end]
