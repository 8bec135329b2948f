"""Markdown tables whose values are marked where they miss their target."""


def header(*names: str) -> None:
    print("| " + " | ".join(names) + " |\n" + "| --- " * len(names) + "|", flush=True)


def row(*values: object) -> None:
    print("| " + " | ".join(_shown(value) for value in values) + " |", flush=True)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def at_most(share: float, limit: float) -> str:
    return f"{share:.2%}" + (" ✗" if share > limit else "")


def at_least(share: float, limit: float) -> str:
    return f"{share:.2%}" + (" ✗" if share < limit else "")


def within(share: float, low: float, high: float) -> str:
    return f"{share:.2%}" + ("" if low <= share <= high else " ✗")
