"""`harness verify`: a whole chain holds, wherever it lies; whatever is changed is named."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folders import POLICY_OF_TESTS, decide, write_run
from safetensors.torch import save_file

from harness import cli
from harness.core.errors import EvidenceFault
from harness.core.layout import EVIDENCE
from harness.core.store import sha256_file, stage, write_json
from harness.gate.comparison import compare
from harness.lineage.chain import Chain, EvidencePaths
from harness.lineage.steps import steps_of
from harness.lineage.verify import broken_links, verify_evidence
from harness.lineage.write import evidence_paths, write_evidence
from harness.records.base import load
from harness.records.gate import Comparison
from harness.results.evidence import read_evidence
from harness.workflows.compose import config_for
from harness.workflows.gate import write_verdict
from harness.workflows.run import Run, scale_stage

ADAPTER = "adapter_model.safetensors"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "first", 220)


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def anchored(run: Path) -> None:
    """run.json once more, so that only the chain itself can tell."""
    recorded = json.loads((run / "run.json").read_text())
    recorded["outputs"] = {name: sha256_file(run / name) for name in recorded["outputs"]}
    write_json(run / "run.json", recorded)


class TestChain:
    def test_every_stage_names_its_inputs(self, run: Path) -> None:
        chain = load(Chain, run / EVIDENCE)
        stages = ["data", "model", "contract", "train", "evaluate_baseline", "evaluate_candidate", "compare", "gate"]
        assert [step.stage for step in chain.steps] == stages
        named = {name for step in chain.steps for name in step.inputs}
        links = {"data.dataset", "contract.digest", "model.weights", "train.weights", "data.items"}
        links |= {"evaluate_baseline.evaluation", "evaluate_candidate.evaluation", "compare.comparison"}
        assert links <= named
        assert {"source mine", "policy", "template", "tokenizer"} <= named

    def test_a_scaled_checkpoint_is_linked_to_its_training_and_through_it_to_the_data(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "runs" / "half", 220, alpha=0.5)
        chain = load(Chain, run / EVIDENCE)
        steps = {step.stage: step for step in chain.steps}
        assert (steps["train"].folder, steps["scale"].folder) == ("trained", "checkpoint")
        assert {"data.dataset", "model.weights", "contract.digest"} <= set(steps["train"].inputs)
        assert {"train.weights", "train.fingerprint"} <= set(steps["scale"].inputs)
        assert steps["evaluate_candidate"].inputs["scale.weights"] == steps["scale"].outputs["weights"]
        assert broken_links(verify_evidence(run)) == []

    def test_what_the_scaling_stage_writes_is_what_the_chain_reads(self, tmp_path: Path) -> None:
        config = config_for(["experiment=finance_disclaimer", "alpha=0.5", f"runs_dir={tmp_path / 'runs'}"])
        half = Run.of(config)
        run = half.folder.path

        def train(out: Path) -> None:
            save_file({"q.lora_A.weight": torch.ones(2, 4), "q.lora_B.weight": torch.ones(4, 2)}, out / ADAPTER)
            (out / "adapter_config.json").write_text(json.dumps({"r": 2, "peft_type": "LORA"}))

        trained, _ = stage(run.parent, run / "trained", "train", {"base": "b", "data": "d"}, train)
        scale_stage(half, trained, tmp_path)
        steps = {step.stage: step for step in steps_of(EvidencePaths.of_run(run))}
        made = {f"train.{name}": digest for name, digest in steps["train"].outputs.items()}
        assert made.items() <= steps["scale"].inputs.items()
        assert steps["train"].inputs == {"data.dataset": "d", "model.weights": "b"}
        assert steps["scale"].outputs["weights"] != steps["train"].outputs["weights"]

    def test_a_checkpoint_scaled_from_another_training(self, tmp_path: Path) -> None:
        run, other = (write_run(tmp_path / "runs" / name, 220, alpha=0.5) for name in ("half", "other"))
        shutil.rmtree(run / "trained")
        shutil.copytree(other / "trained", run / "trained")
        write_evidence(EvidencePaths.of_run(run), run.name, "forged", run.parent)
        anchored(run)
        told = broken_links(verify_evidence(run))
        assert [line.partition(":")[0] for line in told] == ["train.fingerprint → scale"]

    def test_it_says_where_and_by_what_it_was_made(self, run: Path) -> None:
        chain = load(Chain, run / EVIDENCE)
        assert chain.command == "test"
        assert int(chain.hardware["cores"]) > 0
        assert "tuning-harness" in chain.versions

    def test_the_same_evidence_is_not_written_anew(self, run: Path) -> None:
        before = (run / EVIDENCE).stat().st_mtime_ns
        write_evidence(EvidencePaths.of_run(run), run.name, "another command", run.parent)
        assert (run / EVIDENCE).stat().st_mtime_ns == before


class TestFurtherBaselines:
    """A comparison with a further baseline follows from that baseline's samples, as the main one does."""

    def judged(self, run: Path, further: Path, candidate: Path) -> Path:
        base, mine, theirs, against = (
            read_evidence(run.parent / folder / "eval" / side, POLICY_OF_TESTS.fields)
            for folder, side in (
                (run.name, "base"),
                (run.name, "candidate"),
                (candidate.name, "candidate"),
                (further.name, "candidate"),
            )
        )
        other = compare(replace(against, label=further.name), theirs, POLICY_OF_TESTS)
        other = other.model_copy(update={"flips": []})
        comparison = compare(base, mine, POLICY_OF_TESTS).model_copy(update={"others": [other]})
        out = run / "against" / "both"
        write_verdict(POLICY_OF_TESTS, comparison, out)
        self.write(run, out)
        return out

    def write(self, run: Path, out: Path) -> None:
        places = evidence_paths(out, run / "eval" / "base", run / "eval" / "candidate", run.parent)
        write_evidence(places, "both", "test", run.parent)

    @pytest.fixture
    def other(self, run: Path) -> Path:
        return write_run(run.with_name("other.v2"), 210)

    def test_the_chain_holds_its_evaluation(self, run: Path, other: Path) -> None:
        out = self.judged(run, other, run)
        chain = load(Chain, out / EVIDENCE)
        step, compared = chain.step("baseline other.v2"), chain.step("compare")
        assert step is not None
        assert compared is not None
        assert (out / step.folder).resolve() == other / "eval" / "candidate"
        assert compared.inputs["baseline other.v2.evidence"] == step.outputs["evidence"]
        assert broken_links(verify_evidence(out)) == []

    def test_numbers_that_do_not_follow_from_its_samples(self, run: Path, other: Path) -> None:
        out = self.judged(run, other, run)
        comparison = load(Comparison, out / "compare.json")
        (further,) = comparison.others
        softened = [further.metrics[0].model_copy(update={"delta": 0.9}), *further.metrics[1:]]
        further = further.model_copy(update={"metrics": softened})
        write_verdict(POLICY_OF_TESTS, comparison.model_copy(update={"others": [further]}), out)
        self.write(run, out)
        (told,) = broken_links(verify_evidence(out))
        assert told.startswith("comparison recomputed: others[0].metrics[0].delta: 0.9 is recorded")

    def test_samples_that_were_changed(self, run: Path, other: Path) -> None:
        out = self.judged(run, other, run)
        edit(other / "eval" / "candidate" / "samples_quiz.jsonl", lambda text: text.replace("1.0", "0.0", 1))
        assert any("baseline other.v2 files: " in told for told in broken_links(verify_evidence(out)))

    def test_an_evaluation_that_the_chain_does_not_hold(self, run: Path, other: Path) -> None:
        out = self.judged(run, other, run)
        edit(out / EVIDENCE, lambda text: json.dumps(without(json.loads(text), "baseline other.v2")))
        assert any("the baseline other.v2 is not in the chain" in told for told in broken_links(verify_evidence(out)))

    def test_a_comparison_of_another_candidate(self, run: Path, other: Path) -> None:
        better = write_run(run.with_name("better"), 390)
        (told,) = broken_links(verify_evidence(self.judged(run, other, better)))
        assert "the baseline other.v2 was compared with another candidate" in told


def without(chain: dict[str, Any], stage: str) -> dict[str, Any]:
    return chain | {"steps": [step for step in chain["steps"] if step["stage"] != stage]}


class TestVerify:
    def test_a_whole_run(self, run: Path) -> None:
        links = verify_evidence(run)
        assert broken_links(links) == []
        told = [link.line() for link in links]
        assert any(line.startswith("OK      train.weights → evaluate_candidate") for line in told)
        assert any(line.startswith("OK      verdict recomputed: PASS follows") for line in told)

    def test_a_run_that_was_moved(self, run: Path, tmp_path: Path) -> None:
        moved = tmp_path / "elsewhere" / "copy"
        shutil.copytree(run, moved)
        shutil.rmtree(run)
        assert broken_links(verify_evidence(moved)) == []

    def test_a_verdict_beside_the_run(self, run: Path) -> None:
        other = write_run(run.with_name("second"), 300)
        decide(other, run / "eval" / "candidate", other / "against" / "production")
        assert broken_links(verify_evidence(other / "against" / "production")) == []

    def test_a_base_model_that_is_here_is_checked(self, run: Path, tmp_path: Path) -> None:
        base = tmp_path / "base"
        base.mkdir()
        (base / "model.safetensors").write_bytes(b"another base model")
        edit(
            run / "checkpoint" / "adapter_config.json",
            lambda _: json.dumps({"r": 4, "base_model_name_or_path": str(base)}),
        )
        assert any("are not the ones that were trained on" in told for told in broken_links(verify_evidence(run)))

    def test_without_evidence(self, run: Path) -> None:
        (run / EVIDENCE).unlink()
        with pytest.raises(EvidenceFault, match=r"evidence\.json is missing"):
            verify_evidence(run)

    def test_evidence_that_is_no_record(self, run: Path) -> None:
        (run / EVIDENCE).write_text("{}")
        assert any("is not a Chain record" in told for told in broken_links(verify_evidence(run)))


class TestForgery:
    """Files and their digests rewritten together: the links between stages still tell."""

    def test_a_manifest_with_other_inputs(self, run: Path) -> None:
        edit(run / "checkpoint" / "stage.json", lambda text: text.replace('"base": "bbb', '"base": "ccc'))
        write_evidence(EvidencePaths.of_run(run), run.name, "forged", run.parent)
        assert not (run / EVIDENCE).exists(), "nothing is made of a manifest that contradicts itself"

    def test_another_model_s_evaluation(self, run: Path) -> None:
        """The samples of a better model in the place of the candidate's own."""
        other = write_run(run.with_name("second"), 390)
        shutil.rmtree(run / "eval" / "candidate")
        shutil.copytree(other / "eval" / "candidate", run / "eval" / "candidate")
        write_evidence(EvidencePaths.of_run(run), run.name, "forged", run.parent)
        anchored(run)
        told = broken_links(verify_evidence(run))
        assert any(line.startswith("train.weights → evaluate_candidate: the input is") for line in told)
        assert any("comparison recomputed" in line for line in told)

    def test_another_run_s_training_data(self, run: Path) -> None:
        path = run / "data" / "audit.json"
        edit(path, lambda text: text.replace("i" * 64, "j" * 64))
        write_evidence(EvidencePaths.of_run(run), run.name, "forged", run.parent)
        anchored(run)
        assert any(
            "stage.json no longer match" in line or "changed after" in line
            for line in broken_links(verify_evidence(run))
        )

    def test_a_softer_policy_put_in_afterwards(self, run: Path) -> None:
        failed = write_run(run.with_name("worse"), 150)
        edit(failed / "policy.json", lambda text: text.replace("5 points", "40 points", 1))
        write_evidence(EvidencePaths.of_run(failed), failed.name, "forged", failed.parent)
        anchored(failed)
        assert any(
            line.startswith("verdict recomputed: verdict: 'FAIL'") for line in broken_links(verify_evidence(failed))
        )


class TestVerb:
    @pytest.fixture(autouse=True)
    def own_signals(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGTERM)
        yield
        signal.signal(signal.SIGTERM, before)

    def test_codes_and_lines(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["verify", str(run)]) == 0
        assert "links hold" in capsys.readouterr().out
        (run / "checkpoint" / "adapter_model.safetensors").write_bytes(b"others")
        assert cli.main(["verify", "first", "--runs-dir", str(run.parent)]) == 12
        assert "BROKEN  train files: " in capsys.readouterr().out

    def test_a_misspelt_run(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["verify", "frist", "--runs-dir", str(run.parent)]) == 2
        assert "Did you mean 'first'?" in capsys.readouterr().err
