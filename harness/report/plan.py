"""What a policy can decide on a suite, on the terminal."""

from collections.abc import Sequence

from harness.gate.plan import PlanLine


def print_plan(lines: Sequence[PlanLine], measured: bool) -> None:
    """Two lines a rule and metric: the limit and outlook, then what can be shown and what is needed."""
    source = "as measured" if measured else "expected"
    for line in lines:
        size = f"{line.n:,} items" if line.n is not None else "unknown size"
        print(f"{line.role} {line.name} ({line.limit}): {size}; {line.outlook}")
        for discordance, needed in line.needed.items():
            seen = line.detectable.get(discordance)
            shown = f"shows a margin of {100 * seen:.1f} points; " if seen is not None else ""
            print(f"  discordance {discordance:.2f} ({source}): {shown}this policy needs {needed:,} items")
        if line.least > 1:
            print(f"  nothing passes on fewer than {line.least:,} items")
    invalid = [line.name for line in lines if "INVALID" in line.outlook]
    stuck = [line.name for line in lines if line.outlook.startswith(("can only", "will end"))]
    weak = [line.name for line in lines if line.outlook.startswith("an equal model passes")]
    print(
        f"{len(lines) - len(invalid)} deciding rules meet this suite, {len(invalid)} do not; "
        f"{len(stuck)} can only end INCONCLUSIVE or FAIL, {len(weak)} more lack the policy's power"
    )
    for name in stuck:
        print(f"- {name}")
