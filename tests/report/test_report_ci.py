"""Outputs for CI systems: every one parses, none can be broken by a name, and none is larger than GitHub takes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_views import HOSTILE, METRICS, PLAIN, make_verdict

from harness.config.gate import GateConfig, RuleConfig
from harness.core.errors import EvidenceFault, HarnessError
from harness.records.base import load
from harness.records.gate import MetricVerdict, Verdict
from harness.report import formats
from harness.report.markdown import LIMIT, MARKER, comment_markdown, summary_markdown
from harness.report.write import OUTPUTS, write_report
from harness.workflows.gate import write_verdict

PROPERTY = re.compile(r"::(error|warning|notice) title=[^,:\n]*::[^\n]*")
SERIES = re.compile(r'[a-z_]+(\{([a-z]+="(\\.|[^"\\])*",?)+\})? -?[\d.e+-]+')


def hostile() -> Verdict:
    metrics = [metric.model_copy(update={"task": HOSTILE, "reason": HOSTILE}) for metric in METRICS]
    return make_verdict(metrics, "FAIL", [HOSTILE]).model_copy(update={"notes": [HOSTILE], "policy": HOSTILE})


@pytest.mark.parametrize("verdict", [PLAIN.verdict, hostile(), make_verdict([], "INVALID", [HOSTILE])])
def test_annotations_are_workflow_commands_and_nothing_else(verdict: Verdict) -> None:
    lines = formats.annotations(verdict).splitlines()
    assert all(PROPERTY.fullmatch(line) for line in lines)
    assert lines[0].startswith(f"::error title=gate {verdict.verdict}::")


def test_annotations_name_what_did_not_pass_worst_first() -> None:
    lines = formats.annotations(PLAIN.verdict).splitlines()
    assert lines[1] == ("::error title=FAIL%3A smoke/knowledge/acc::dropped by 6.1 points, more than the 2.0 allowed")
    assert lines[2].startswith("::warning title=INCONCLUSIVE%3A smoke/reading/f1::")
    assert len(lines) == 3


def test_no_more_annotations_than_github_shows() -> None:
    many = [METRICS[1].model_copy(update={"task": f"task{number}"}) for number in range(40)]
    lines = formats.annotations(make_verdict(many, "FAIL", [])).splitlines()
    assert sum(line.startswith("::error") for line in lines) == 10
    assert "31 more in the summary" in lines[-1]


@pytest.mark.parametrize("verdict", [PLAIN.verdict, hostile()])
def test_code_quality_has_a_finding_for_what_blocks(verdict: Verdict) -> None:
    found = json.loads(formats.code_quality(verdict))
    assert [one["severity"] for one in found] == ["blocker", "major"]
    assert all({"description", "check_name", "fingerprint", "location"} <= one.keys() for one in found)
    assert len({one["fingerprint"] for one in found}) == 2


def test_code_quality_of_a_pass_is_empty_and_of_bad_evidence_is_not() -> None:
    assert json.loads(formats.code_quality(make_verdict(METRICS[:1], "PASS", []))) == []
    (finding,) = json.loads(formats.code_quality(make_verdict([], "INVALID", ["contracts differ"])))
    assert finding["severity"] == "critical"


@pytest.mark.parametrize("verdict", [PLAIN.verdict, hostile()])
def test_metrics_are_series_that_parse(verdict: Verdict) -> None:
    lines = formats.open_metrics(verdict).splitlines()
    assert lines[-1] == "# EOF"
    series = [line for line in lines if not line.startswith("#")]
    assert all(SERIES.fullmatch(line) for line in series)
    assert len(series) == 1 + 3 * len(METRICS)
    assert "gate_exit_code 10" in series


def waived() -> MetricVerdict:
    return METRICS[3].model_copy(update={"waived": "small suite"})


def test_a_waived_metric_blocks_nothing_and_is_seen_everywhere() -> None:
    note = "waiver 'small suite' for */reading/f1 (inconclusive): July; until 2030-06-15"
    verdict = make_verdict([METRICS[0], waived()], "PASS", []).model_copy(update={"notes": [note]})
    view = replace(PLAIN, verdict=verdict)
    assert json.loads(formats.code_quality(verdict)) == []
    for text in (formats.annotations(verdict), summary_markdown(view), comment_markdown(view)):
        assert "small suite" in text
    assert "INCONCLUSIVE (waived)" in comment_markdown(view)


def test_the_comment_shows_what_decides_and_folds_the_rest() -> None:
    text = comment_markdown(PLAIN)
    assert text.splitlines()[0] == MARKER
    shown, folded = text.split("<details>", 1)
    assert "smoke/reading/words" not in shown
    assert "smoke/reading/words" in folded
    assert text.count("<details>") == text.count("</details>")


def test_slices_are_folded_the_worst_first() -> None:
    slices = [
        METRICS[-1].model_copy(update={"slice": name, "delta": delta}) for name, delta in (("a", 0.0), ("b", -0.5))
    ]
    text = summary_markdown(replace(PLAIN, verdict=make_verdict([*METRICS, *slices], "FAIL", [])))
    assert text.index("<summary>Slices") < text.index("words \\[b") < text.index("words \\[a")


@pytest.mark.parametrize("make", [summary_markdown, comment_markdown])
def test_a_long_verdict_fits_into_a_comment(make: object) -> None:
    long = "x" * 300
    metrics = [METRICS[1].model_copy(update={"task": f"{long}{number}", "reason": long}) for number in range(900)]
    view = replace(PLAIN, verdict=make_verdict(metrics, "FAIL", [long] * 900))
    text = summary_markdown(view) if make is summary_markdown else comment_markdown(view)
    assert len(text.encode()) <= LIMIT < 65_536
    assert "more are in verdict.json" in text
    assert text.count("<details>") == text.count("</details>")


POLICY = GateConfig(name="clinical", rules=[RuleConfig(metric="smoke/*", role="guard", margin="2 points")])


def gate_folder(path: Path, baseline: str = "production") -> Path:
    side = PLAIN.verdict.baseline.model_copy(update={"label": baseline})
    write_verdict(POLICY, PLAIN.comparison.model_copy(update={"baseline": side}), path)
    return path


def test_every_output_has_its_fixed_name(tmp_path: Path) -> None:
    write_report(gate_folder(tmp_path / "out"))
    written = {file.name for file in (tmp_path / "out" / "report").iterdir()}
    assert written == {"index.html", "verdict.json", *OUTPUTS}


@pytest.mark.parametrize("file", ["verdict.json", "compare.json"])
def test_a_verdict_from_another_run_is_refused(tmp_path: Path, file: str) -> None:
    mine, other = gate_folder(tmp_path / "mine"), gate_folder(tmp_path / "other", "another")
    write_report(other)
    (mine / file).write_bytes((other / file).read_bytes())
    with pytest.raises(HarnessError, match="does not belong to the compare"):
        write_report(mine)


def test_a_verdict_that_was_edited_is_refused(tmp_path: Path) -> None:
    folder = gate_folder(tmp_path / "out")
    verdict = load(Verdict, folder / "verdict.json")
    assert verdict.verdict != "PASS"
    verdict.model_copy(update={"verdict": "PASS", "exit_code": 0, "reasons": []}).save(folder / "verdict.json")
    with pytest.raises(EvidenceFault, match="verdict: 'PASS' is recorded"):
        write_report(folder)
    (folder / "policy.json").unlink()
    with pytest.raises(EvidenceFault, match=r"policy\.json"):
        write_report(folder)
