"""The A/A check's word on a comparison."""

from pathlib import Path

import pytest
from evaluation_folders import answers, compare_both, one_task

from harness.gate.verdict import repeat_check_notes
from harness.results.evidence import read_evidence


@pytest.mark.parametrize(("share", "told"), [(0.05, True), (0.02, True), (0.019, False), (None, False)])
def test_differences_within_the_models_own_noise_are_told(tmp_path: Path, share: float | None, told: bool) -> None:
    folders = [one_task(answers(right, 100)).write(tmp_path / str(right)) for right in (90, 92)]
    metrics = compare_both(map(read_evidence, folders)).metrics
    notes = repeat_check_notes(metrics, {} if share is None else {"quiz": share})
    assert bool(notes) == told
    assert all("smoke/quiz/acc: 2 of 100 answers differ (2.0%)" in note for note in notes)


def test_equal_answers_are_not_noise(tmp_path: Path) -> None:
    folders = [one_task(answers(90, 100)).write(tmp_path / name) for name in ("a", "b")]
    assert repeat_check_notes(compare_both(map(read_evidence, folders)).metrics, {"quiz": 0.1}) == []
