"""Slices and failed answers in the report: rule, expected and found of each."""

import json
from dataclasses import replace
from pathlib import Path

from report_views import PLAIN

from harness.evaluate.write import slice_scores
from harness.records.stages import Evaluation, TaskIdentity
from harness.report.domain import slice_rows, task_failures
from harness.report.html import write_html

IDENTITY = TaskIdentity(version="1", num_fewshot=0, generation="", samples_sha256="", asked=3, scored=3, failed=0)


def sample(item: str, slice_: str, valid: float, found: str = "") -> dict[str, object]:
    finding = {"rule": "schema", "pass": valid == 1.0, "expected": "a valid record", "found": found}
    return {
        "doc": {"id": item, "instruction": f"Make a record of {item}.", "input": "text", "slice": slice_},
        "doc_hash": item,
        "metrics": ["valid"],
        "valid": valid,
        "filtered_resps": [f"answer to {item}"],
        "findings": [finding],
    }


SAMPLES = [sample("a", "terse", 1.0), sample("b", "terse", 0.0, "no <object> at all"), sample("c", "adversarial", 0.0)]


def evaluation(label: str, samples: list[dict[str, object]]) -> Evaluation:
    scores = slice_scores("json_record", samples)
    return Evaluation(
        label=label,
        suite="smoke",
        weights_sha256="",
        contract_sha256="",
        tasks={"json_record": IDENTITY},
        groups={},
        scores=scores,
        prompts_checked=3,
        seconds=1.0,
    )


def folder_of(tmp_path: Path, samples: list[dict[str, object]]) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in samples)
    (tmp_path / "samples_json_record.jsonl").write_text(lines)
    return tmp_path


def test_each_slice_has_its_mean_and_its_count() -> None:
    scores = {score.slice: (score.value, score.n) for score in slice_scores("json_record", SAMPLES)}
    assert scores == {"terse": (0.5, 2), "adversarial": (0.0, 1)}


def test_items_without_slices_give_none() -> None:
    assert slice_scores("gsm8k", [{"doc": {"question": "?"}, "metrics": ["acc"], "acc": 1.0}]) == []


def test_both_sides_stand_in_one_row() -> None:
    rows = slice_rows([evaluation("base", SAMPLES[1:]), evaluation("candidate", SAMPLES[:2])])
    values = {row.slice: (row.n, row.values) for row in rows}
    assert values == {
        "terse": (2, {"base": 0.0, "candidate": 0.5}),
        "adversarial": (1, {"base": 0.0, "candidate": None}),
    }


def test_failed_answers_are_found_with_their_reasons(tmp_path: Path) -> None:
    (task,) = task_failures(folder_of(tmp_path, SAMPLES))
    assert (task.task, task.answers, task.count) == ("json_record", 3, 2)
    assert [(failure.item, failure.broken[0]["found"]) for failure in task.shown] == [
        ("b", "no <object> at all"),
        ("c", ""),
    ]


def test_a_damaged_samples_file_does_not_stop_the_report(tmp_path: Path) -> None:
    (folder_of(tmp_path, SAMPLES) / "samples_json_record.jsonl").write_text('{"doc": ')
    assert task_failures(tmp_path) == []


def test_the_page_shows_slices_and_reasons(tmp_path: Path) -> None:
    shown = replace(
        PLAIN,
        evaluations=[evaluation("base", SAMPLES), evaluation("candidate", SAMPLES)],
        failures=task_failures(folder_of(tmp_path, SAMPLES)),
    )
    write_html(shown, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert "json_record/valid: 2 slices" in page
    assert "json_record: 2 of 3 answers" in page
    assert "a valid record" in page
    assert "no &lt;object&gt; at all" in page
    assert "answer to b" in page
