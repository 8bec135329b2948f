"""The report as one self-contained HTML page: no script, no external resource, texts of data and models escaped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.console import plural
from harness.core.paths import write_text
from harness.records.gate import Flip, Role
from harness.report import wording
from harness.report.domain import SliceRow, slice_rows
from harness.report.plots import forest, loss_curve
from harness.report.view import RunView

FLIPS_SHOWN = 100
SYMBOLS = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?", "INVALID": "!"}
ROLES: dict[Role, str] = {
    "guard": "must not get worse by more than its margin",
    "target": "must reach its floor or improve by its margin",
    "info": "is only shown and decides nothing",
}


@dataclass(frozen=True)
class FlipGroup:
    """Items of one metric that changed in one direction; `hidden` more are in compare.json."""

    metric: str
    direction: str
    count: int
    shown: list[Flip]

    @property
    def hidden(self) -> int:
        return self.count - len(self.shown)


def write_html(view: RunView, path: Path) -> None:
    """Writes the report page of `view`; the same view gives the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: wording.printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        one_line=wording.one_line,
        share=_share,
        count=_count,
        counted=_counted,
        counts=_counts,
        duration=_duration,
    )
    page = environment.get_template("index.html.jinja").render(_context(view))
    write_text(path, page)


def _context(view: RunView) -> dict[str, Any]:
    metrics = wording.worst_first(view.verdict)
    deciding = [metric for metric in view.verdict.metrics if metric.role != "info"]
    passed = sum(metric.verdict == "PASS" for metric in deciding)
    tally = f"{passed} of {plural(len(deciding), 'deciding metric')} passed."
    # Guards and targets have separate drawings: a target often moves thirty times as far as a guard may.
    drawings = {
        "Differences": forest([metric for metric in metrics if metric.role != "target"], "guards"),
        "Differences of targets": forest([metric for metric in metrics if metric.role == "target"], "targets"),
    }
    return {
        "view": view,
        "verdict": view.verdict,
        "metrics": metrics,
        "tally": tally if deciding else "No deciding metric was tested.",
        "forgetting": wording.forgetting_text(view.verdict.forgetting) if view.verdict.forgetting else None,
        "slice_lines": wording.slices(view.verdict),
        "incomparable": [reason for reason in view.comparison.faults if reason not in view.verdict.reasons],
        "not_drawn": [wording.metric_name(metric) for metric in metrics if not wording.is_share(metric)],
        "forests": {title: drawing for title, drawing in drawings.items() if drawing is not None},
        "loss": loss_curve(view.curve),
        "flip_groups": _flip_groups(view.comparison.flips),
        "slices": _by_metric(slice_rows(view.evaluations)),
        "symbols": SYMBOLS,
        "roles": ROLES,
        "say": wording,
    }


def _flip_groups(flips: list[Flip]) -> list[FlipGroup]:
    """Flips by task, metric and direction, those that got worse first."""
    groups: dict[tuple[str, str], list[Flip]] = {}
    for flip in flips:
        direction = "worse" if flip.got_worse else "better"
        groups.setdefault((f"{flip.task}/{flip.metric}", direction), []).append(flip)
    ordered = sorted(groups.items(), key=lambda entry: (entry[0][0], entry[0][1] == "better"))
    return [FlipGroup(name, way, len(items), items[:FLIPS_SHOWN]) for (name, way), items in ordered]


def _by_metric(rows: list[SliceRow]) -> dict[str, list[SliceRow]]:
    """Slices by metric, the lowest first."""
    groups: dict[str, list[SliceRow]] = {}
    for row in rows:
        groups.setdefault(f"{row.task}/{row.metric}", []).append(row)
    return {name: sorted(group, key=lambda row: row.lowest) for name, group in groups.items()}


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}%" if whole else wording.NOTHING


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _counted(number: float, noun: str) -> str:
    return f"{_count(number)} {noun}{'' if number == 1 else 's'}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {_count(n)}" for name, n in counts.items()) or wording.NOTHING


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
