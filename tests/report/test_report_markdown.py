import re
from dataclasses import replace

from report_views import HOSTILE, METRICS, PLAIN, make_verdict

from harness.report.markdown import MARKER, escape, summary_markdown


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def cells(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row)[1:-1]


def test_first_line_is_the_marker_and_the_verdict_follows() -> None:
    lines = summary_markdown(PLAIN).splitlines()
    assert lines[0] == MARKER == "<!-- tuning-harness-verdict -->"
    assert lines[1].startswith("## FAIL")
    assert "- smoke/knowledge/acc dropped by 6.1 points" in lines


def test_one_row_a_metric_with_the_numbers() -> None:
    rows = table_rows(summary_markdown(PLAIN))
    assert len(rows) == 2 + len(METRICS)
    worst = [cell.strip() for cell in cells(rows[2])]
    assert worst == [
        "<code>smoke/knowledge/acc</code>", "guard", "412", "71.2%", "65.1%", "-6.1 points [-9.4, -2.8]",
        "margin 2.0 points", "**FAIL**",
    ]  # fmt: skip


def test_hostile_text_keeps_one_row_a_metric() -> None:
    metrics = [metric.model_copy(update={"task": HOSTILE}) for metric in METRICS]
    text = summary_markdown(replace(PLAIN, verdict=make_verdict(metrics, "FAIL", [HOSTILE]), name=HOSTILE))
    rows = table_rows(text)
    assert len(rows) == 2 + len(METRICS)
    assert {len(cells(row)) for row in rows} == {8}
    assert "<script" not in text
    assert not re.search(r"(?<!\\)`", text)
    assert len(re.findall(r"^- .*alert", text, re.MULTILINE)) == 1 + 3  # the reason, and three metrics with flips


def test_flips_are_counted_in_a_collapsed_section() -> None:
    text = summary_markdown(PLAIN)
    details = text[text.index("<details>") : text.index("</details>")]
    assert "<code>smoke/knowledge/acc</code>: 38 worse, 13 better" in details


def test_without_metrics_there_is_no_table() -> None:
    text = summary_markdown(replace(PLAIN, verdict=make_verdict([], "INVALID", ["prompt contracts differ"])))
    assert not table_rows(text)
    assert "- prompt contracts differ" in text


def test_escape_leaves_ordinary_names_readable() -> None:
    assert escape("smoke/arith/exact_match") == "smoke/arith/exact_match"
    assert escape("_a_ & b|c\nd") == "\\_a\\_ &amp; b\\|c d"
