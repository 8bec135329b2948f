"""A short summary for a pull request or a CI job page (GitHub-flavoured Markdown)."""

import html
import re

from harness.records import MetricVerdict
from harness.report import wording
from harness.report.bundle import RunView

MARKER = "<!-- tuning-harness-verdict -->"

# An underscore inside a word starts no emphasis; escaping it would spoil the plain text.
_SYNTAX = re.compile(r"[\\`*~|\[\]#!]|(?<!\w)_|_(?!\w)")


def summary_markdown(view: RunView) -> str:
    """Verdict, reasons, one table row a metric, and flips in a collapsed section.

    The first line is a comment that never changes, by which a bot finds its earlier message.
    """
    verdict = view.verdict
    parts = [
        MARKER,
        f"## {verdict.verdict}: {escape(view.name)}",
        "",
        wording.SENTENCES[verdict.verdict],
        "",
        *(f"- {escape(reason)}" for reason in verdict.reasons),
        "",
        *(_table(wording.worst_first(verdict)) if verdict.metrics else []),
        *(_flips(wording.worst_first(verdict)) if verdict.metrics else []),
        f"Baseline {_code(verdict.baseline.label)}, candidate {_code(verdict.candidate.label)}, "
        f"policy {_code(verdict.policy)}, run {_code(view.run_id)}",
    ]
    return "\n".join(parts) + "\n"


def escape(text: str) -> str:
    """`text` on one line, with nothing left that Markdown or HTML would read as syntax."""
    return _SYNTAX.sub(lambda found: f"\\{found[0]}", html.escape(wording.one_line(text), quote=False))


def _code(text: str) -> str:
    """As code: also keeps GitHub from reading @name as a person and #1 as an issue."""
    return f"<code>{escape(text)}</code>"


def _table(metrics: list[MetricVerdict]) -> list[str]:
    rows = [
        [column.capitalize() if column != "n" else column for column in wording.COLUMNS],
        ["---:" if column in wording.NUMBERS else "---" for column in wording.COLUMNS],
        *(_cells(metric) for metric in metrics),
    ]
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


def _cells(metric: MetricVerdict) -> list[str]:
    name, *facts, outcome = wording.cells(metric)
    return [_code(name), *facts, outcome if metric.role == "info" else f"**{outcome}**"]


def _flips(metrics: list[MetricVerdict]) -> list[str]:
    counted = [metric for metric in metrics if metric.only_baseline_right is not None]
    if not counted:
        return []
    lines = [f"- {_code(wording.metric_name(metric))}: {wording.flips_text(metric)}" for metric in counted]
    return ["<details><summary>Items that changed</summary>", "", *lines, "", "</details>", ""]
