"""Run folders for the registry's tests: every stage with its manifest, and no model behind it."""

import json
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from evaluation_folders import Folder, answers, one_task, policy

from harness.checkpoint.origin import write_origin
from harness.config.gate import GateConfig, RuleConfig
from harness.core import store
from harness.core.layout import EVIDENCE, POLICY
from harness.data.tables import TRAIN, write_parquet
from harness.gate.comparison import compare
from harness.gate.verdict import decide as decide_on
from harness.lineage.chain import EvidencePaths
from harness.lineage.coverage import contamination_gaps
from harness.lineage.write import evidence_paths, write_evidence
from harness.model.load import weights_sha256
from harness.prompt.contract import Contract, sha256_text
from harness.records.gate import Verdict
from harness.records.stages import Dataset, SourceCount
from harness.results.evidence import read_evidence
from harness.workflows.gate import write_verdict

N = 400
GUARD = RuleConfig(metric="*/quiz/acc", role="guard", margin="5 points")
POLICY_OF_TESTS = policy(GUARD)
BASE_SHA = "b" * 64


def contract(template: str = "{{ messages }}") -> Contract:
    return Contract(
        template_name="test",
        template=template,
        template_sha256=sha256_text(template),
        template_kwargs={},
        system_policy="none",
        system=None,
        turns={},
        generation_prompt="",
        special_tokens={},
        guarded=[],
        bos=None,
        bos_policy="none",
        eos=None,
        end_of_turn="<end>",
        end_of_turn_id=1,
        stop_ids=[1],
        max_length=10,
        sampling={},
        tokenizer_sha256="t" * 64,
        golden=[],
        libraries={},
    )


def write_run(
    folder: Path,
    right: int,
    *,
    baseline: int = 200,
    of: int = N,
    demands: GateConfig = POLICY_OF_TESTS,
    template: str = "{{ messages }}",
    config: str = "name: test\n",
    alpha: float = 1,
    stopped_at: int | None = None,
    decided_on: date | None = None,
) -> Path:
    """A complete run: `right` of `of` items right, where its base model had `baseline`."""
    runs, asked = folder.parent, contract(template)
    _stage(runs, folder / "data", {"sources": {"mine": "s" * 64}, "items": "i" * 64}, _write_data)
    dataset = json.loads((folder / "data" / "audit.json").read_text())["sha256"]

    def train(out: Path) -> None:
        (out / "adapter_model.safetensors").write_bytes(f"weights of {folder.name}".encode())
        (out / "adapter_config.json").write_text(json.dumps({"r": 4, "peft_type": "LORA"}))
        asked.save(out)

    inputs = {"base": BASE_SHA, "data": dataset, "name": folder.name}
    checkpoint = _stage(runs, folder / ("checkpoint" if alpha == 1 else "trained"), inputs, train)
    if alpha != 1:
        checkpoint = _scaled(runs, checkpoint, alpha)
    sides = (("base", baseline, BASE_SHA), ("candidate", right, weights_sha256(checkpoint)))
    for label, score, weights in sides:
        early = stopped_at if label == "candidate" else None
        write_evaluation(runs, folder / "eval" / label, answers(score, of), label, weights, asked.digest, early)
    (folder / "config.yaml").write_text(config)
    asked.save(folder)
    _judge(folder, demands, decided_on)
    return folder


def _scaled(runs: Path, trained: Path, alpha: float) -> Path:
    """checkpoint/ beside trained/, as the stage that scales leaves it."""

    def work(out: Path) -> None:
        for file in trained.iterdir():
            if file.name != store.MANIFEST:
                shutil.copyfile(file, out / file.name)
        (out / "adapter_model.safetensors").write_bytes(f"{alpha} of {trained}".encode())
        write_origin(out, trained, alpha=alpha)

    manifest = store.read_manifest(trained)
    assert manifest is not None
    inputs = {"trained": manifest["fingerprint"], "alpha": alpha, "dtype": "bfloat16"}
    return store.stage(runs, trained.with_name("checkpoint"), "scale", inputs, work)[0]


def decide(run: Path, baseline: Path, out: Path, demands: GateConfig = POLICY_OF_TESTS) -> Verdict:
    """The verdict on a run against an evaluation, as `gate … --out` leaves it."""
    candidate = run / "eval" / "candidate"
    before, after = (read_evidence(side, demands.fields) for side in (baseline, candidate))
    comparison = compare(before, after, demands)
    faults = [*comparison.faults, *contamination_gaps(run / "data", read_evidence(candidate))]
    verdict = write_verdict(demands, comparison.model_copy(update={"faults": faults}), out)
    write_evidence(evidence_paths(out, baseline, candidate, run.parent), out.name, "test", run.parent)
    return verdict


def _judge(folder: Path, demands: GateConfig, decided_on: date | None = None) -> None:
    base, candidate = (read_evidence(folder / "eval" / side, demands.fields) for side in ("base", "candidate"))
    comparison = compare(base, candidate, demands)
    write_verdict(demands, comparison, folder, decide_on(demands, comparison, decided_on) if decided_on else None)
    write_evidence(EvidencePaths.of_run(folder), folder.name, "test", folder.parent)
    names = ("config.yaml", "prompt_contract.json", "compare.json", "verdict.json", POLICY, EVIDENCE)
    store.write_json(folder / "run.json", {"outputs": {name: store.sha256_file(folder / name) for name in names}})


def _stage(runs: Path, folder: Path, inputs: dict[str, Any], work: Any) -> Path:
    return store.stage(runs, folder, folder.name, inputs, work)[0]


def _write_data(out: Path) -> None:
    row = {"id": "1", "source": "mine", "topic": "t", "instruction": "Ask.", "input": "", "output": "Answer."}
    rows, digest = write_parquet([row], out / TRAIN)
    source = SourceCount(
        source="mine", path="m", licence="own", role="domain", sha256="s" * 64, read=1, kept=1, quarantined={}
    )
    covered = {"quiz": 10_000}
    Dataset(
        rows=rows,
        sha256=digest,
        sources=[source],
        decontaminated_against="i" * 64,
        evaluation_items=10_000,
        covered=covered,
    ).save(out / "audit.json")


def write_evaluation(
    runs: Path,
    folder: Path,
    values: Sequence[float],
    label: str,
    weights: str,
    contract_sha256: str,
    stopped_at: int | None = None,
) -> None:
    def work(out: Path) -> None:
        made: Folder = one_task(values, label=label, contract=contract_sha256)
        written = made.write(out / "made")
        for path in written.iterdir():
            path.rename(out / path.name)
        written.rmdir()
        record = json.loads((out / "evaluation.json").read_text())
        if stopped_at is not None:
            record["tasks"]["quiz"] |= {"planned": len(values), "stopped_at": stopped_at, "order_seed": 0}
        (out / "evaluation.json").write_text(json.dumps(record | {"weights_sha256": weights}))

    inputs = {"weights": weights, "contract": contract_sha256, "label": label, "values": list(values)}
    _stage(runs, folder, inputs, work)
