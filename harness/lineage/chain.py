"""The chain of evidence behind one verdict: every stage with the digests of its inputs and outputs.

An input named `stage.output` is a link: its digest must equal that output of an earlier stage. All other inputs are
roots (sources, settings, code, task files). Steps are always computed from the files; `evidence.json` records them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.checkpoint.origin import origins
from harness.checkpoint.resolve import resolve_evaluation
from harness.core.layout import COMPARISON, EVALUATIONS, EVIDENCE, RunFolder
from harness.core.paths import relative_folder
from harness.records.base import Record, load
from harness.records.gate import Comparison

BASELINE_STAGE, CANDIDATE_STAGE = "evaluate_baseline", "evaluate_candidate"
FURTHER = "baseline "  # followed by the name that the policy gives the further baseline
MAKERS = ("train", "scale", "merge")  # the stages that write weights, in order


class ChainStep(Record):
    """One stage of the chain."""

    stage: str
    """Name of the stage."""

    folder: str
    """Folder of the stage, relative to evidence.json."""

    inputs: dict[str, str]
    """Digests of the inputs by name; `stage.output` is a link to an earlier stage."""

    outputs: dict[str, str]
    """Digests of the outputs by name."""

    files: dict[str, str]
    """Digests (sha256) of the files, by their path inside `folder`."""

    fingerprint: str = ""
    """Fingerprint from the stage's manifest; empty where it has no manifest."""


class Chain(Record):
    """The content of evidence.json."""

    schema_version: Literal[1] = 1
    """Version of the file's format."""

    run_id: str
    """Name of the run."""

    command: str
    """Command that made the verdict, without secrets."""

    created: str
    """Time of writing (UTC, ISO 8601)."""

    git_commit: str | None
    """Commit of the working tree; null where it is not a git repository."""

    versions: dict[str, str]
    """Versions of the libraries."""

    hardware: dict[str, str]
    """Machine that wrote the file."""

    steps: list[ChainStep]
    """Stages in order."""

    promotion: dict[str, str] = {}
    """Who promoted the model, when and why, with the digests; only in the registry's copy."""

    def step(self, stage: str) -> ChainStep | None:
        return next((step for step in self.steps if step.stage == stage), None)

    @property
    def served(self) -> ChainStep | None:
        """The stage whose weights were evaluated."""
        return next((step for stage in reversed(MAKERS) if (step := self.step(stage))), None)


@dataclass(frozen=True)
class EvidencePaths:
    """The folders that hold the parts of the evidence.

    `data` and `checkpoint` are None for a model that no run on this machine trained. `made_of` holds the checkpoints
    that a scaled or merged checkpoint was made from, the trained one first. `further` holds the evaluations of further
    baselines, by the names that the policy gives them.
    """

    decision: Path
    baseline: Path
    candidate: Path
    data: Path | None = None
    checkpoint: Path | None = None
    made_of: tuple[Path, ...] = ()
    further: tuple[tuple[str, Path], ...] = ()

    @property
    def training(self) -> Path | None:
        """The folder that the training wrote."""
        return next(iter(self.made_of), self.checkpoint)

    @property
    def derived(self) -> list[Path]:
        """The checkpoints made from the trained one, the evaluated one last."""
        return [*self.made_of[1:], self.checkpoint] if self.made_of and self.checkpoint else []

    @classmethod
    def of_run(cls, run: Path) -> "EvidencePaths":
        place = RunFolder(run)
        return cls(run, place.base, place.candidate, place.data, place.checkpoint, origins(place.checkpoint))

    @classmethod
    def of_chain(cls, folder: Path, chain: Chain) -> "EvidencePaths":
        """The folders that a recorded chain names, relative to `folder`, which holds its evidence.json.

        Raises EvidenceFault for a path that is absolute, odd, or a link.
        """
        found = {step.stage: relative_folder(folder, step.folder, folder / EVIDENCE) for step in chain.steps}
        absent = folder / EVALUATIONS
        baseline, candidate = (found.get(stage, absent) for stage in (BASELINE_STAGE, CANDIDATE_STAGE))
        made = [found[stage] for stage in MAKERS if stage in found]
        checkpoint = made[-1] if made else None
        further = tuple((s.removeprefix(FURTHER), path) for s, path in found.items() if s.startswith(FURTHER))
        return cls(folder, baseline, candidate, found.get("data"), checkpoint, tuple(made[:-1]), further)


def recorded_baselines(paths: EvidencePaths, runs: Path) -> tuple[tuple[str, Path], ...]:
    """The further baselines that compare.json names, with the folders of their evaluations.

    Raises UsageError where a baseline has no evaluation.
    """
    path, known = paths.decision / COMPARISON, dict(paths.further)
    names = [one.baseline.label for one in load(Comparison, path).others] if path.is_file() else []
    return tuple((name, known.get(name) or resolve_evaluation(name, runs)) for name in names)
