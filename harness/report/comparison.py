"""A comparison without a policy: differences as Markdown, and on the terminal."""

from harness.records import Comparison, MetricComparison
from harness.report import wording
from harness.report.markdown import code, escape

LISTED = 500  # rows of each table


def comparison_markdown(comparison: Comparison) -> str:
    """What cannot be compared, forgetting over the suite, one table row a metric, slices collapsed."""
    parts = ["## Comparison", ""]
    for found in (comparison, *comparison.others):
        slices = sorted((m for m in found.metrics if m.slice != "all"), key=lambda m: m.delta)
        parts += [f"Baseline {code(found.baseline.label)}, candidate {code(found.candidate.label)}", ""]
        parts += [f"- not comparable: {escape(fault)}" for fault in found.faults] + [""]
        parts += _table(found.whole)
        if found.forgetting is not None:
            parts += [escape(wording.forgetting_sentence(found.forgetting)), ""]
        if slices:
            parts += ["<details><summary>Slices</summary>", "", *_table(slices), "</details>", ""]
    return "\n".join(parts)


def print_comparison(comparison: Comparison) -> None:
    """Every metric with its difference and flips, forgetting over the suite, and what makes it incomparable."""
    for found in (comparison, *comparison.others):
        against = "" if found is comparison else f" (against {found.baseline.label})"
        for metric in found.metrics:
            print(wording.one_line(_line(metric, against)))
        if found.forgetting is not None:
            print(wording.one_line(f"{wording.forgetting_sentence(found.forgetting)}{against}"))
        for fault in found.faults:
            print(wording.one_line(f"not comparable{against}: {fault}"))


def _line(metric: MetricComparison, against: str) -> str:
    numbers = f"{metric.baseline:.3f} -> {metric.candidate:.3f}  {metric.delta:+.3f}"
    told = [f"[{metric.ci_low:+.3f}, {metric.ci_high:+.3f}]  n={metric.n}"]
    told += [f"interval {metric.interval_doubt}"] if metric.interval_doubt else []
    if metric.only_baseline_right is not None:
        told.append(f"1->0 {metric.only_baseline_right}, 0->1 {metric.only_candidate_right}")
    told += [text] if (text := wording.extras_text(metric)) else []
    told += ["lower is better"] if metric.direction == "lower" else []
    return f"{wording.measured_name(metric)}{against}: {numbers} {'; '.join(told)}"


def _table(metrics: list[MetricComparison]) -> list[str]:
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
