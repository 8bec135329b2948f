"""Never lost: a training that is killed anywhere ends with the same bits as one that nobody disturbed."""

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.core.errors import UsageError
from harness.core.layout import CURVE
from harness.records.base import load
from harness.records.stages import TrainingSummary
from harness.track.run import live_curve
from harness.track.tracker import NoTracker
from harness.train.finetune import finetune
from harness.train.progress import SavedProgress, mark_complete

pytestmark = pytest.mark.integration
STEPS = 9
SETTINGS = ("train.learning_rate=1e-2", "train.sequences_per_step=1", "train.epochs=3", "train.save_every=2")
IDENTITY = {"data": "d1", "base": "b1", "template": "t1", "train": {"seed": 0, "epochs": 3}, "versions": {"torch": "2"}}


class Trained:
    """One training of the tiny model, in a folder of its own."""

    def __init__(self, base: Path, folder: Path, *overrides: str):
        self.base, self.out, self.progress = base, folder / "out", folder / "progress"
        self.config = tiny.config(base, *SETTINGS, "train.lora.dropout=0.2", *overrides)
        folder.mkdir(exist_ok=True)

    def run(self) -> TrainingSummary:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        return finetune(self.config.training, self.base, tiny.rows(12), self.out, self.progress, IDENTITY)

    def in_child(self, prepare: Callable[[], None]) -> int:
        """Trains in a process of its own; returns how it ended (see tiny.exit_code)."""
        return tiny.exit_code(_trained, self, prepare)

    @property
    def weights(self) -> bytes:
        return next(self.out.glob("*model.safetensors")).read_bytes()


def _trained(training: Trained, prepare: Callable[[], None]) -> None:
    prepare()
    training.run()


def signal_at(step: int, number: signal.Signals) -> Callable[[], None]:
    """The process gets a signal when the loss of a step is known, before anything of that step is saved."""
    return partial(_signalled, step, number)


def _signalled(step: int, number: signal.Signals) -> None:
    from harness.train.callbacks import StepWriter

    usual = StepWriter.on_log

    def on_log(self: Any, args: Any, state: Any, *others: Any, **values: Any) -> None:
        usual(self, args, state, *others, **values)
        if state.global_step == step:
            os.kill(os.getpid(), number)

    pytest.MonkeyPatch().setattr(StepWriter, "on_log", on_log)


def killed_while_saving(step: int) -> None:
    """All files of a checkpoint are there but the marker."""

    def mark(folder: Path) -> None:
        if folder.name == f"checkpoint-{step}":
            os.kill(os.getpid(), signal.SIGKILL)
        mark_complete(folder)

    pytest.MonkeyPatch().setattr("harness.train.trainer.mark_complete", mark)


@pytest.fixture(scope="module")
def undisturbed(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    made = Trained(tiny_base, tmp_path_factory.mktemp("undisturbed"))
    assert made.run().steps >= STEPS
    return made


def test_killed_at_several_steps_it_ends_with_the_same_bits(
    tiny_base: Path, tmp_path: Path, undisturbed: Trained
) -> None:
    training = Trained(tiny_base, tmp_path / "killed")
    for step in (1, 2, 5, 6):
        assert training.in_child(signal_at(step, signal.SIGKILL)) == -signal.SIGKILL
    assert training.in_child(partial(killed_while_saving, 8)) == -signal.SIGKILL
    assert training.in_child(signal_at(STEPS, signal.SIGKILL)) == -signal.SIGKILL
    summary = training.run()
    assert training.weights == undisturbed.weights
    assert summary.resumed_at == [4, 4, 6, 8]
    before = load(TrainingSummary, undisturbed.out / "training.json")
    assert (summary.order_sha256, summary.final_loss) == (before.order_sha256, before.final_loss)
    steps = [row["step"] for row in SavedProgress(training.progress).curve()]
    assert steps == list(range(1, before.steps + 1))


def on_two_threads(prepare: Callable[[], None]) -> None:
    import torch

    torch.set_num_threads(2)
    prepare()


def test_parts_that_are_computed_side_by_side_end_with_the_same_bits_too(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Started with two threads, it goes on with one, and in as many parts as before."""
    settings = ("train.lora.dropout=0", "train.sequences_per_step=2", "train.epochs=5")
    whole = Trained(tiny_base, tmp_path / "whole", *settings, "train.parts_at_once=2")
    whole.run()
    training = Trained(tiny_base, tmp_path / "killed", *settings)
    for step, prepare in (
        (3, partial(on_two_threads, signal_at(3, signal.SIGKILL))),
        (5, signal_at(5, signal.SIGKILL)),
    ):
        assert training.in_child(prepare) == -signal.SIGKILL, step
    summary = training.run()
    assert summary.resumed_at == [2, 4]
    assert (summary.parts_at_once, summary.threads) == (2, [2, 1, 1])
    assert "started on cpu with 2 threads and resumes on cpu with 1 thread:" in capsys.readouterr().err
    assert training.weights == whole.weights


class Seen(NoTracker):
    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def metrics(self, values: dict[str, float], step: int) -> None:
        assert step not in self.losses
        self.losses[step] = values["train/loss"]


def test_a_full_training_goes_on_too_and_so_does_its_live_curve(tiny_base: Path, tmp_path: Path) -> None:
    settings = ("train.method=full", "train.learning_rate=1e-3")
    whole, training = (Trained(tiny_base, tmp_path / name, *settings) for name in ("whole", "killed"))
    whole.run()
    assert training.in_child(signal_at(5, signal.SIGKILL)) == -signal.SIGKILL
    seen = Seen()
    with live_curve(training.progress / CURVE, lambda: seen):
        assert training.run().resumed_at == [4]
    curve = SavedProgress(training.progress).curve()
    assert seen.losses == {int(row["step"]): row["loss"] for row in curve}
    assert list(seen.losses) == list(range(1, len(curve) + 1))
    assert training.weights == whole.weights


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_first(
    tiny_base: Path, tmp_path: Path, undisturbed: Trained, number: signal.Signals
) -> None:
    training = Trained(tiny_base, tmp_path / "stopped", "train.save_every=0")
    assert training.in_child(signal_at(3, number)) == 130
    kept = {path.name for path in training.progress.glob("checkpoint-*")}
    assert kept in ({"checkpoint-3"}, {"checkpoint-4"})  # the step that was running is finished
    assert training.run().resumed_at[0] in (3, 4)
    assert training.weights == undisturbed.weights


def test_a_damaged_checkpoint_is_not_gone_on_from(tiny_base: Path, tmp_path: Path, undisturbed: Trained) -> None:
    training = Trained(tiny_base, tmp_path / "damaged")
    training.in_child(signal_at(5, signal.SIGKILL))
    (training.progress / "checkpoint-4" / "optimizer.pt").write_bytes(b"cut")
    assert training.run().resumed_at == [2]
    assert training.weights == undisturbed.weights


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"data": "d2"}, "the dataset changed"),
        ({"base": "b2"}, "the base model's weights changed"),
        ({"template": "t2"}, "the prompt template changed"),
        ({"train": {"seed": 1, "epochs": 3}}, r"the training configuration \(seed\) changed"),
        ({"versions": {"torch": "3"}, "data": "d2"}, r"the dataset changed; library versions \(torch\) changed"),
    ],
)
def test_what_changed_is_refused_by_name(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    SavedProgress(tmp_path).open(IDENTITY)
    SavedProgress(tmp_path).open(IDENTITY)
    with pytest.raises(UsageError, match=rf"had other settings: {told}\. .*rm -r {tmp_path}"):
        SavedProgress(tmp_path).open({**IDENTITY, **changed})
