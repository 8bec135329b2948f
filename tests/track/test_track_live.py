"""A training's curve while it runs: what those who watch see, and what never holds training up."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.experiment import Config, TrackerConfig
from harness.core.store import sha256_json, write_json
from harness.track import run
from harness.track.open import open_tracker
from harness.track.run import live_curve, live_tracking, open_stage
from harness.track.tracker import NoTracker, Tracker
from harness.workflows.compose import config_for


class Seen(NoTracker):
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.codes: list[int] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.points.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.points]


@pytest.fixture(autouse=True)
def quick_and_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "POLL_S", 0.01)
    monkeypatch.setattr(run, "LAST_WAIT_S", 600.0)


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    return tmp_path / "train.jsonl"


def add(path: Path, *steps: int, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(json.dumps({"step": float(n), "loss": 1.0 / n, "note": "x"}) for n in steps) + end)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600  # only ends a test that would never end
    while not condition():
        assert time.monotonic() < deadline, "it was not reported while training ran"
        time.sleep(0.005)


def test_a_step_is_seen_while_training_goes_on(curve: Path) -> None:
    seen = Seen()
    with live_curve(curve, lambda: seen):
        add(curve, 1, 2)
        wait_for(lambda: seen.steps == [1, 2])
        add(curve, 3, end="")
        add(curve, 4, end="")  # the two lines are not complete yet
        assert seen.codes == []
    assert seen.points[0] == (1, {"train/loss": 1.0})
    assert (seen.steps, seen.codes) == ([1, 2], [0])


def test_what_came_last_is_reported_too(curve: Path) -> None:
    seen = Seen()
    with live_curve(curve, lambda: seen):
        add(curve, *range(1, 50))
    assert seen.steps == list(range(1, 50))


def test_steps_that_are_done_again_are_reported_once(curve: Path) -> None:
    """After a kill the curve is cut to the last checkpoint; what lies behind it is trained once more."""
    seen = Seen()
    add(curve, 1, 2, 3, 4, 5, 6)
    with live_curve(curve, lambda: seen):
        wait_for(lambda: seen.steps == [1, 2, 3, 4, 5, 6])
        curve.write_text("")
        add(curve, 1, 2, 3, 4)
        add(curve, 5, 6, 7)
    assert seen.steps == [1, 2, 3, 4, 5, 6, 7]


def test_a_curve_that_is_cut_and_has_grown_past_where_it_was_read(curve: Path) -> None:
    seen = Seen()
    read = run.TrainingCurve(curve)
    add(curve, 1, 2, 3)
    read.report(seen)
    curve.write_text('{"step": 1, "loss": 0.123}\n')
    add(curve, 2, 3, 4, 5, 6)
    read.report(seen)
    assert seen.steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("line", ["", "{", "[]", "7", '{"loss": 1}', '{"step": NaN}', '{"step": Infinity}'])
def test_a_line_that_is_no_row_is_left_out(line: str, curve: Path) -> None:
    seen = Seen()
    with live_curve(curve, lambda: seen):
        add(curve, 1)
        curve.write_text(f"{curve.read_text()}{line}\n")
        add(curve, 2)
    assert (seen.steps, seen.codes) == ([1, 2], [0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_tracker_that_takes_no_more_is_finished_all_the_same(curve: Path) -> None:
    class Full(Seen):
        def metrics(self, values: dict[str, float], step: int) -> None:
            raise OSError("no space left")

    full = Full()
    with live_curve(curve, lambda: full):
        add(curve, 1)
    assert full.codes == [0]


def test_a_training_that_fails_ends_its_run_as_failed(curve: Path) -> None:
    seen = Seen()

    def stopped() -> None:
        add(curve, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), live_curve(curve, lambda: seen):
        stopped()
    assert (seen.steps, seen.codes) == ([1], [1])


def test_a_server_that_is_silent_holds_nobody_up(curve: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LAST_WAIT_S", 0.01)
    answered = threading.Event()

    def silent() -> Tracker:
        answered.wait(20)
        return NoTracker()

    with live_curve(curve, silent):
        add(curve, 1)
        assert not answered.is_set()
    answered.set()


@pytest.fixture
def online() -> Config:
    return config_for(["experiment=finance_disclaimer", "name=tiny", "tracker.mode=online"])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Seen]]:
    """(name of the W&B run, tracker) of everything that was opened."""
    made: list[tuple[str, Seen]] = []

    def open_it(_: TrackerConfig, *, run_name: str, **__: Any) -> Tracker:
        made.append((run_name, Seen()))
        return made[-1][1]

    monkeypatch.setattr(run, "open_tracker", open_it)
    return made


def test_it_is_the_run_that_is_completed_afterwards_even_after_a_kill(
    tmp_path: Path, online: Config, opened: list[tuple[str, Seen]]
) -> None:
    inputs = {"data": "d", "base": "b"}
    fingerprint = sha256_json({"stage": "train", **inputs})
    curve = tmp_path / ".training" / "train.jsonl"
    curve.parent.mkdir()
    for steps in ((1, 2), (3, 4)):
        with live_tracking(tmp_path, online.tracking, fingerprint, curve):
            add(curve, *steps)
    (tmp_path / "checkpoint").mkdir()
    write_json(tmp_path / "checkpoint" / "stage.json", {"stage": "train", "inputs": inputs, "fingerprint": fingerprint})
    open_stage(tmp_path, online.tracking, "train")
    assert len({name for name, _ in opened}) == 1
    assert opened[0][0].startswith(f"{tmp_path.name}-2-train-")
    assert [tracker.steps for _, tracker in opened] == [[1, 2], [1, 2, 3, 4], []]


@pytest.mark.parametrize("tracker", ["tracker.mode=offline", "tracker=none"])
def test_offline_nobody_watches(tracker: str, tmp_path: Path, curve: Path, opened: list[tuple[str, Seen]]) -> None:
    config = config_for(["experiment=finance_disclaimer", tracker])
    with live_tracking(tmp_path, config.tracking, "f", curve):
        add(curve, 1)
    assert opened == []


@pytest.mark.usefixtures("own_wandb_home")
def test_wandb_takes_a_curve_from_beside_the_training(tmp_path: Path, curve: Path) -> None:
    """With wandb itself, offline, opened beside another run of the same process."""
    pytest.importorskip("wandb")
    from test_track_run import logs, read

    def tracker(stage: str) -> Tracker:
        config = TrackerConfig(kind="wandb")
        return open_tracker(config, folder=tmp_path, group="g", stage=stage, run_name=f"r-{stage}", settings={})

    other = tracker("audit")
    with live_curve(curve, lambda: tracker("train")):
        add(curve, 1, 2)
    other.summary({"data/rows": 7.0})
    other.finish(0)
    found = {one["run"]["job_type"]: one for one in map(read, logs(tmp_path))}
    assert [row["train/loss"] for row in found["train"]["history"] if "train/loss" in row] == [1.0, 0.5]
    assert "data/rows" not in found["train"]["summary"]
    assert found["audit"]["summary"]["data/rows"] == 7.0
