"""Checkpoints evaluated during training: the best is kept by policy, and forgetting ends training."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.core.errors import DataError
from harness.core.store import sha256_file
from harness.records.gate import MetricVerdict, Side, Verdict
from harness.records.stages import EvaluatedCheckpoint
from harness.train.finetune import finetune
from harness.train.selection import best_checkpoint
from harness.workflows.checkpoint_selection import checkpoint_result, limited_config

SETTINGS = ("train.sequences_per_step=1", "train.epochs=3", "train.eval_every=2", "train.learning_rate=1e-2")
WEIGHTS = "adapter_model.safetensors"


def found(step: int, slack: float, target: float, *failed: str) -> EvaluatedCheckpoint:
    return EvaluatedCheckpoint(step=step, slack=slack, target=target, verdict="PASS", failed_guards=list(failed))


@pytest.mark.parametrize(
    ("examined", "kept"),
    [
        ([found(2, 0.05, 0.3), found(4, 0.01, 0.9)], 4),  # both hold: the target decides
        ([found(2, 0.05, 0.3), found(4, -0.01, 0.9)], 2),  # a guard below its margin decides first
        ([found(2, 0.05, 0.3), found(4, 0.01, 0.9, "g")], 2),  # and so does a failed one
        ([found(2, -0.02, 0.1), found(4, -0.08, 0.9)], 2),  # none holds: the nearest
        ([found(2, 0.05, 0.9), found(4, 0.06, 0.9)], 2),  # equals: the earliest
    ],
)
def test_what_is_kept(examined: list[EvaluatedCheckpoint], kept: int) -> None:
    assert best_checkpoint(examined).step == kept


def test_nothing_examined_is_told() -> None:
    with pytest.raises(DataError, match=r"train\.eval_every"):
        best_checkpoint([])


def metric(role: Any, candidate: float, delta: float, verdict: Any) -> MetricVerdict:
    return MetricVerdict(
        suite="smoke", task=f"{role}_task", slice="all", metric="acc", role=role, n=50, baseline=candidate - delta,
        candidate=candidate, delta=delta, ci_low=-1, ci_high=1, margin=0.05 if role == "guard" else None, floor=None,
        p_noninferior=None, p_harm=None, verdict=verdict, reason="", n_needed=None, only_baseline_right=0,
        only_candidate_right=0,
    )  # fmt: skip


def test_a_verdict_in_short() -> None:
    side = Side(label="x", weights_sha256="", contract_sha256="")
    metrics = [metric("guard", 0.4, -0.02, "INCONCLUSIVE"), metric("guard", 0.3, -0.2, "FAIL")]
    metrics += [metric("target", 0.9, 0.9, "PASS"), metric("target", 0.5, 0.5, "FAIL"), metric("info", 0, 0, "PASS")]
    verdict = Verdict(
        verdict="FAIL", exit_code=10, policy="p", reasons=[], baseline=side, candidate=side, metrics=metrics
    )
    short = checkpoint_result(7, verdict)
    assert (short.step, short.target, short.failed_guards) == (7, 0.7, ["smoke/guard_task/acc"])
    assert short.slack == pytest.approx(-0.15)


def test_a_checkpoint_is_asked_few_items_a_task() -> None:
    config = tiny.config(Path("unused"), "train.eval_limit=9", "domain_tasks=[{name: disclaimer, limit: 5}]")
    assert [(task.name, task.limit) for task in limited_config(config).tasks] == [
        ("disclaimer", 5),
        ("general_smoke", 9),
    ]


@pytest.mark.integration
class TestTraining:
    def train(
        self, base: Path, folder: Path, verdicts: dict[int, EvaluatedCheckpoint], *overrides: str
    ) -> tuple[Any, dict[int, str]]:
        digests: dict[int, str] = {}

        def judge(step: int, checkpoint: Path) -> EvaluatedCheckpoint:
            digests[step] = sha256_file(checkpoint / WEIGHTS)
            assert (checkpoint / "chat_template.jinja").is_file()
            return verdicts.get(step, found(step, 0.05, 0.0))

        out = folder / "out"
        out.mkdir(parents=True, exist_ok=True)
        config = tiny.config(base, *SETTINGS, *overrides)
        return finetune(config.training, base, tiny.rows(12), out, folder / "progress", {}, judge), digests

    def test_the_best_checkpoint_is_what_comes_out(self, tiny_base: Path, tmp_path: Path) -> None:
        summary, digests = self.train(tiny_base, tmp_path, {4: found(4, 0.05, 0.9)})
        assert summary.kept_step == 4
        assert sha256_file(tmp_path / "out" / WEIGHTS) == digests[4]
        assert [e.step for e in summary.examined] == [*range(2, summary.steps, 2), summary.steps]
        assert len(set(digests.values())) == len(digests)

    def test_forgetting_ends_training(self, tiny_base: Path, tmp_path: Path) -> None:
        summary, digests = self.train(tiny_base, tmp_path, {4: found(4, -0.2, 0.9, "smoke/general/acc")})
        assert (summary.steps, summary.kept_step) == (4, 2)
        assert sha256_file(tmp_path / "out" / WEIGHTS) == digests[2]

    def test_forgetting_need_not_end_training(self, tiny_base: Path, tmp_path: Path) -> None:
        verdicts = {4: found(4, -0.2, 0.9, "smoke/general/acc"), 6: found(6, 0.0, 0.5)}
        summary, _ = self.train(tiny_base, tmp_path, verdicts, "train.stop_on_forgetting=false")
        assert summary.steps > 6
        assert summary.kept_step == 6

    def test_a_full_model_is_kept_in_its_own_precision(self, tiny_base: Path, tmp_path: Path) -> None:
        import torch
        from safetensors.torch import load_file

        def judge(step: int, checkpoint: Path) -> EvaluatedCheckpoint:
            return found(step, 0.05, float(step == 2))

        config = tiny.config(tiny_base, *SETTINGS, "train.method=full", "train.learning_rate=1e-3")
        assert finetune(config.training, tiny_base, tiny.rows(12), tmp_path, None, {}, judge).kept_step == 2
        assert {w.dtype for w in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}

    def test_killed_while_examining_it_examines_again(self, tiny_base: Path, tmp_path: Path) -> None:
        assert tiny.exit_code(_killed_while_examining, tiny_base, tmp_path, 4) == -signal.SIGKILL
        summary, digests = self.train(tiny_base, tmp_path, {4: found(4, 0.05, 0.9)})
        assert [e.step for e in summary.examined][:3] == [2, 4, 6]
        assert summary.kept_step == 4
        assert 2 not in digests

    def test_killed_while_examining_the_last_step_it_examines_that_again(self, tiny_base: Path, tmp_path: Path) -> None:
        """No multiple of eval_every: it is examined because it is the last."""
        rare = "train.eval_every=1000"
        assert tiny.exit_code(_killed_while_examining, tiny_base, tmp_path, 1, rare) == -signal.SIGKILL
        summary, digests = self.train(tiny_base, tmp_path, {}, rare)
        assert summary.resumed_at == [summary.steps] == list(digests)
        assert sha256_file(tmp_path / "out" / WEIGHTS) == digests[summary.steps]


def _killed_while_examining(base: Path, folder: Path, at: int, *overrides: str) -> None:
    def judge(step: int, _: Path) -> EvaluatedCheckpoint:
        if step >= at:
            os.kill(os.getpid(), signal.SIGKILL)
        return found(step, 0.05, 0.0)

    (folder / "dead").mkdir()
    config = tiny.config(base, *SETTINGS, *overrides)
    finetune(config.training, base, tiny.rows(12), folder / "dead", folder / "progress", {}, judge)
