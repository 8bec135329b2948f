"""Draws the report's figures as inline SVG: the same bytes for the same numbers, colours from the page's CSS."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup

from harness.records.gate import MetricVerdict, VerdictName
from harness.report.wording import is_share, metric_name, one_line

# matplotlib has no CSS variables: these stand-in colours are replaced in the finished SVG.
TEXT, GRID, ACCENT = "#0a0b01", "#0a0b02", "#0a0b03"
VERDICT_COLOURS: dict[VerdictName, str] = {
    "PASS": "#0a0b04",
    "FAIL": "#0a0b05",
    "INCONCLUSIVE": "#0a0b06",
    "INVALID": "#0a0b07",
}
MARKERS: dict[VerdictName, str] = {"PASS": "o", "FAIL": "X", "INCONCLUSIVE": "s", "INVALID": "D"}
_CSS = {
    TEXT: "currentColor",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    **{colour: f"var(--{name.lower()})" for name, colour in VERDICT_COLOURS.items()},
}
_WIDTH_IN = 4.6
_ROW_IN = 0.46
_LABEL_CHARS = 54


def forest(metrics: list[MetricVerdict], salt: str) -> Markup | None:
    """Differences with 95% intervals and limits, one row per metric; None when no metric is a share.

    `salt` names the drawing; no two drawings of a page have the same.
    """
    shares = [metric for metric in metrics if is_share(metric)]
    if not shares:
        return None
    with _axes(salt, _ROW_IN * len(shares) + 0.75) as (axes, svg):
        for row, metric in enumerate(shares):
            _interval(axes, -row, metric)
        axes.set_ylim(-len(shares) + 0.35, 0.75)
        axes.set_yticks([])
        axes.margins(x=0.06)
        axes.set_xlabel("candidate − baseline, percentage points (right of 0: better)")
        return svg()


def loss_curve(curve: list[dict[str, float]]) -> Markup | None:
    """Training loss by optimiser step; None with fewer than two points."""
    points = [(row["step"], row["loss"]) for row in curve if "step" in row and "loss" in row]
    if len(points) < 2:
        return None
    with _axes("loss", 2.2) as (axes, svg):
        axes.plot(*zip(*points, strict=True), color=ACCENT, linewidth=1.4)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("loss")
        axes.grid(visible=True, axis="y", color=GRID, linewidth=0.6)
        return svg()


def _interval(axes: Any, y: float, metric: MetricVerdict) -> None:
    colour = TEXT if metric.role == "info" else VERDICT_COLOURS[metric.verdict]
    axes.plot([0, 0], [y - 0.26, y + 0.12], color=TEXT, linewidth=0.8)
    axes.plot([100 * metric.ci_low, 100 * metric.ci_high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot([100 * metric.delta], [y], marker=MARKERS[metric.verdict], color=colour, markersize=6)
    for limit in _limits(metric):
        axes.plot([100 * limit, 100 * limit], [y - 0.2, y + 0.14], color=TEXT, linewidth=1.6, dashes=(1.5, 1))
    outcome = "info" if metric.role == "info" else metric.verdict
    name = one_line(metric_name(metric))
    name = name if len(name) <= _LABEL_CHARS else f"{name[: _LABEL_CHARS - 1]}…"
    for x, side, text in ((0.005, "left", name), (0.995, "right", outcome)):
        axes.text(
            x, y + 0.26, text, transform=axes.get_yaxis_transform(), ha=side, color=TEXT, fontsize=8, parse_math=False
        )


def _limits(metric: MetricVerdict) -> list[float]:
    """The differences that the policy's limits amount to: −margin for a guard, the gain still needed for a target."""
    limits = []
    if metric.margin is not None:
        limits.append(metric.margin if metric.role == "target" else -metric.margin)
    if metric.floor is not None:
        limits.append(metric.floor - metric.baseline)
    if metric.ceiling is not None:
        limits.append(metric.baseline - metric.ceiling)
    return limits


@contextmanager
def _axes(salt: str, height_in: float) -> Iterator[tuple[Any, Callable[[], Markup]]]:
    """Axes to draw on, and a function that returns the drawing. `salt` keeps the ids of a page's drawings apart."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.edgecolor": GRID,
        "axes.labelcolor": TEXT,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser draws the text with its own fonts; matplotlib only measures it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        yield figure.add_subplot(), lambda: _inline(figure)


def _inline(figure: Any) -> Markup:
    """The SVG element alone, without XML prologue, metadata, namespaces (HTML needs none) and unused ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(<svg\b[^>]*?)\s+width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?)\s+height="[^"]*"', r"\1", text, count=1)
    referenced = set(re.findall(r"#([\w-]+)[\")]", text))
    text = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in referenced else "", text)
    for stand_in, css in _CSS.items():
        text = text.replace(stand_in, css)
    return Markup(text)  # noqa: S704 - matplotlib's own markup; it escapes text
