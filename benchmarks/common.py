"""What several benchmarks share: the checkout's folder, and Markdown tables.

Import this module before `labelled` (labelled rows), `faults` (prompt faults) or `approved_cases` (answers): those
belong to the tests, and this module puts their folders on the path.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests" / folder) for folder in ("data", "prompt", "behavior")]


def header(*names: str) -> None:
    print("| " + " | ".join(names) + " |\n" + "| --- " * len(names) + "|", flush=True)


def row(*values: object) -> None:
    print("| " + " | ".join(_shown(value) for value in values) + " |", flush=True)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def at_most(share: float, limit: float) -> str:
    """The share as a percentage, marked ✗ above the limit."""
    return f"{share:.2%}" + (" ✗" if share > limit else "")


def at_least(share: float, limit: float) -> str:
    """The share as a percentage, marked ✗ below the limit."""
    return f"{share:.2%}" + (" ✗" if share < limit else "")


def within(share: float, low: float, high: float) -> str:
    """The share as a percentage, marked ✗ outside the limits."""
    return f"{share:.2%}" + ("" if low <= share <= high else " ✗")
