"""Markdown of a verdict, for a pull request or the page of a CI job, and of a comparison without a policy."""

import html
import re

from harness.records.gate import Comparison, MetricComparison, MetricVerdict
from harness.report import wording
from harness.report.view import RunView

MARKER = "<!-- tuning-harness-verdict -->"
LIMIT = 65_000  # bytes; GitHub takes 65,536 characters in a comment

# An underscore inside a word starts no emphasis; escaping it would spoil the plain text.
_SYNTAX = re.compile(r"[\\`*~|\[\]#!]|(?<!\w)_|_(?!\w)")
_LINKING = re.compile(
    r"@(?=\w)|(?<=http:)(?=//)|(?<=https:)(?=//)|(?<=ftp:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE
)  # GitHub and GitLab


def summary_markdown(view: RunView) -> str:
    """The verdict, its reasons, a table with a row for each metric, and collapsed sections with slices and flips.

    The first line is a comment that never changes, so that a bot finds its earlier message. At most LIMIT bytes.
    """
    return _fitting(view, wording.worst_first(view.verdict), [])


def comment_markdown(view: RunView) -> str:
    """As the summary, for a pull request: the table holds the metrics that decide, the rest is collapsed."""
    metrics = wording.worst_first(view.verdict)
    return _fitting(view, [m for m in metrics if m.role != "info"], [m for m in metrics if m.role == "info"])


def _fitting(view: RunView, listed: list[MetricVerdict], folded: list[MetricVerdict]) -> str:
    """The message with as many rows as GitHub accepts; the worst come first, so they stay."""
    rows = max(len(listed), len(folded), len(wording.slices(view.verdict)), len(view.verdict.reasons), 1)
    while len((text := _message(view, listed, folded, rows)).encode()) > LIMIT and rows > 1:
        rows //= 2
    return text if len(text.encode()) <= LIMIT else text.encode()[:LIMIT].decode(errors="ignore")


def _message(view: RunView, listed: list[MetricVerdict], folded: list[MetricVerdict], rows: int) -> str:
    verdict = view.verdict
    lost = verdict.forgetting
    parts = [
        MARKER,
        f"## {verdict.verdict}: {escape(view.name)}",
        "",
        wording.SENTENCES[verdict.verdict],
        "",
        *_cut([f"- {escape(reason)}" for reason in verdict.reasons], rows),
        *_cut([f"- {escape(note)}" for note in verdict.notes], rows),
        "",
        *_table(listed, rows),
        *([escape(wording.forgetting_text(lost)), ""] if lost else []),
        *_details("Shown for information", _table(folded, rows)),
        *_details("Slices", _table(wording.slices(verdict), rows)),
        *_details("Items that changed", _flips([*listed, *folded], rows)),
        f"Baseline {code(verdict.baseline.label)}, candidate {code(verdict.candidate.label)}, "
        f"policy {code(verdict.policy)}, run {code(view.run_id)}",
    ]
    return "\n".join(parts) + "\n"


def _cut(lines: list[str], rows: int) -> list[str]:
    more = len(lines) - rows
    return [*lines[:rows], *([f"- and {more} more, in verdict.json"] if more > 0 else [])]


def _details(title: str, lines: list[str]) -> list[str]:
    body = [line for line in lines if line]
    return [f"<details><summary>{title}</summary>", "", *body, "", "</details>", ""] if body else []


def escape(text: str) -> str:
    """`text` on one line, with nothing left that Markdown or HTML reads as syntax, a mention or a link."""
    escaped = _SYNTAX.sub(lambda found: f"\\{found[0]}", html.escape(wording.one_line(text), quote=False))
    return _LINKING.sub(lambda found: f"{found[0]}<!-- -->", escaped)


def code(text: str) -> str:
    """As code, so that GitHub does not read @name as a person or #1 as an issue."""
    return f"<code>{escape(text)}</code>"


def _table(metrics: list[MetricVerdict], limit: int) -> list[str]:
    if not metrics:
        return []
    rows = [
        [column.capitalize() if column != "n" else column for column in wording.COLUMNS],
        ["---:" if column in wording.NUMBERS else "---" for column in wording.COLUMNS],
    ]
    for metric in metrics[:limit]:
        name, *facts, outcome = wording.cells(metric)
        rows.append([code(name), *facts, outcome if metric.role == "info" else f"**{outcome}**"])
    more = len(metrics) - limit
    cut = [f"{more} more are in verdict.json."] if more > 0 else []
    return [*(f"| {' | '.join(row)} |" for row in rows), "", *cut]


def _flips(metrics: list[MetricVerdict], rows: int) -> list[str]:
    counted = [metric for metric in metrics if metric.only_baseline_right is not None]
    texts = [(m, "; ".join(text for text in (wording.flips_text(m), wording.extras_text(m)) if text)) for m in counted]
    return _cut([f"- {code(wording.metric_name(metric))}: {text}" for metric, text in texts], rows)


LISTED = 500  # rows of each table of a comparison


def comparison_markdown(comparison: Comparison) -> str:
    """For each baseline: why it cannot be compared, a table of the metrics, forgetting, and the slices, collapsed."""
    parts = ["## Comparison", ""]
    for one in (comparison, *comparison.others):
        slices = sorted((m for m in one.metrics if m.slice != "all"), key=lambda m: m.delta)
        parts += [f"Baseline {code(one.baseline.label)}, candidate {code(one.candidate.label)}", ""]
        parts += [f"- not comparable: {escape(reason)}" for reason in one.faults] + [""]
        parts += _comparison_table(one.overall)
        if one.forgetting is not None:
            parts += [escape(wording.forgetting_text(one.forgetting)), ""]
        if slices:
            parts += ["<details><summary>Slices</summary>", "", *_comparison_table(slices), "</details>", ""]
    return "\n".join(parts)


def print_comparison(comparison: Comparison) -> None:
    """Prints every metric with its difference and flips, forgetting, and why the evaluations cannot be compared."""
    for one in (comparison, *comparison.others):
        against = "" if one is comparison else f" (against {one.baseline.label})"
        for metric in one.metrics:
            numbers = f"{metric.baseline:.3f} -> {metric.candidate:.3f}  {metric.delta:+.3f}"
            facts = [f"[{metric.ci_low:+.3f}, {metric.ci_high:+.3f}]  n={metric.n}"]
            facts += [f"interval {metric.interval_doubt}"] if metric.interval_doubt else []
            if metric.only_baseline_right is not None:
                facts.append(f"1->0 {metric.only_baseline_right}, 0->1 {metric.only_candidate_right}")
            facts += [text] if (text := wording.extras_text(metric)) else []
            facts += ["lower is better"] if metric.direction == "lower" else []
            print(wording.one_line(f"{wording.measured_name(metric)}{against}: {numbers} {'; '.join(facts)}"))
        if one.forgetting is not None:
            print(wording.one_line(f"{wording.forgetting_text(one.forgetting)}{against}"))
        for reason in one.faults:
            print(wording.one_line(f"not comparable{against}: {reason}"))


def _comparison_table(metrics: list[MetricComparison]) -> list[str]:
    if not metrics:
        return []
    head = ["| Metric | n | Baseline | Candidate | Delta [95% interval] | Worse, better |", "| --- " * 6 + "|"]
    rows = [
        f"| {code(wording.measured_name(m))} | {m.n} | {wording.value_text(m, m.baseline)} "
        f"| {wording.value_text(m, m.candidate)} | {wording.difference_text(m, m.delta)} {wording.interval_text(m)} "
        f"| {wording.flips_text(m)} |"
        for m in metrics[:LISTED]
    ]
    more = [f"{len(metrics) - LISTED} more are in compare.json."] if len(metrics) > LISTED else []
    return [*head, *rows, "", *more]
