"""Prints a verdict, and a plan of the gate, on the terminal."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.core.console import plain, plural
from harness.gate.power_plan import PlanLine
from harness.records.gate import MetricVerdict, Verdict, VerdictName
from harness.records.sweep import Sweep
from harness.report import wording

STYLES: dict[VerdictName, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "INVALID": "magenta"}
LOG_WIDTH = 200
ALPHA = 0.05


def print_plan(lines: Sequence[PlanLine], measured: bool) -> None:
    """For each rule and metric: the limit and the outlook, then what can be shown and what is needed; a summary."""
    source = "as measured" if measured else "expected"
    for line in lines:
        size = "" if line.outcome == "invalid" or line.n is None else f"{_items(line.n)}; "
        print(
            line.outlook
            if line.limit == "required"
            else f"{line.role} {line.name} ({line.limit}): {size}{line.outlook}"
        )
        for discordance, needed in line.needed.items():
            seen = line.detectable.get(discordance)
            shown = f"shows a margin of {100 * seen:.1f} points; " if seen is not None else ""
            print(f"  discordance {discordance:.2f} ({source}): {shown}this policy needs {_items(needed)}")
        if line.min_items > 1:
            print(f"  nothing passes on fewer than {_items(line.min_items)}")
    invalid, stuck, weak = ([line for line in lines if line.outcome == kind] for kind in ("invalid", "stuck", "weak"))
    print(
        f"{plural(len(lines) - len(invalid), 'deciding rule')} can be tested on this suite"
        + (f", {len(invalid)} cannot" if invalid else "")
    )
    if weak:
        print(f"{plural(len(weak), 'rule')} may stay undecided with this many items")
    if stuck:
        print(f"{plural(len(stuck), 'rule')} cannot pass with this many items:")
    for line in stuck:
        print(f"- {line.name}")


def _items(n: int) -> str:
    return f"{n:,} item{'' if n == 1 else 's'}"


MOST_LINES = 20  # of metrics, reasons and notes together


def print_verdict(verdict: Verdict, report_path: Path | None) -> None:
    """Prints metrics, reasons, notes, the report's path (never wrapped) and, alone on the last line, the verdict."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, markup=False, emoji=False, width=LOG_WIDTH)
    # Slices whose fall is significant, allowing for their number
    fallen = [m for m in wording.slices(verdict) if m.delta < 0 and m.p_harm is not None and m.p_harm <= ALPHA]
    texts = [*verdict.reasons, *verdict.notes, *(metric.reason for metric in fallen)]
    metrics = wording.worst_first(verdict)
    if metrics:
        _print_metrics(console, metrics, max(MOST_LINES // 2, MOST_LINES - len(texts)))
    most = max(MOST_LINES // 2, MOST_LINES - len(metrics))
    for text in texts[:most]:
        console.print(f"- {plain(wording.one_line(text), 1000)}", soft_wrap=True)
    if len(texts) > most:
        console.print(f"- and {len(texts) - most} more: see the report, or verdict.json", soft_wrap=True)
    if verdict.forgetting is not None:
        console.print(wording.one_line(wording.forgetting_text(verdict.forgetting)), soft_wrap=True)
    if report_path is not None:
        console.print(f"Report: {report_path}", soft_wrap=True)
    console.print(verdict.verdict, style=f"bold {STYLES[verdict.verdict]}")


def _print_metrics(console: Any, metrics: list[MetricVerdict], most: int) -> None:
    """The first metrics, in at most `most` lines: a table if it fits, else two lines each, then where the rest is."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in wording.COLUMNS:
        table.add_column(column, no_wrap=True, justify="right" if column in wording.NUMBERS else "left")
    for metric in metrics[:most]:
        table.add_row(*wording.cells(metric), style=_style(metric))
    unlimited = console.options.update_width(10_000)
    if console.measure(table, options=unlimited).maximum <= console.width:
        console.print(table)
        _print_rest(console, len(metrics) - most)
        return
    for metric in metrics[: most // 2]:
        name, *facts, outcome = wording.cells(metric)
        console.print(f"{outcome} {name}", style=_style(metric), soft_wrap=True)
        console.print(
            "  " + ", ".join(f"{column} {fact}" for column, fact in zip(wording.COLUMNS[1:-1], facts, strict=True)),
            soft_wrap=True,
        )
    _print_rest(console, len(metrics) - most // 2)


def _print_rest(console: Any, more: int) -> None:
    if more > 0:
        console.print(f"and {plural(more, 'metric')} more: see the report, or verdict.json", soft_wrap=True)


def _style(metric: MetricVerdict) -> str:
    return "dim" if metric.role == "info" else STYLES[metric.verdict]


def print_sweep(sweep: Sweep, path: Path) -> None:
    """Prints one line a member, the passing ones first, then the recommendation and where the record is."""
    order = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2, "INVALID": 3, None: 4}
    ranked = sorted(sweep.members, key=lambda member: (order[member.verdict], -(member.gain or 0.0)))
    for one in ranked[:MOST_LINES]:
        gain, general = ("   ?  " if value is None else f"{100 * value:+6.1f}" for value in (one.gain, one.general))
        label = one.verdict or one.state.upper()
        print(f"{label:<12} gain {gain}  general {general}  {plain(one.run)}{'  *' if one.run in sweep.front else ''}")
        if one.reason:
            print(f"{'':<12} {plain(one.reason)}")
    if len(ranked) > MOST_LINES:
        print(f"{plural(len(ranked) - MOST_LINES, 'further member')} in {path}")
    if any(one.gain is not None for one in sweep.members):
        print("points of 100: mean change of the targets and of the guards; * no other run is better in both")
    print(f"recommended: {plain(sweep.recommended or 'none')} ({plain(sweep.why)})")
    print(path)
