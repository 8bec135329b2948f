"""The paths of a run and of a decision. Names inside a stage's folder are defined where the files are written.

    runs/<run_id>/
      run.json                  written last: the command, fingerprints and digests
      config.yaml               the resolved configuration
      prompt_contract.json
      data/                     train.parquet, quarantine.parquet, audit.json, data_card.md
      trained/                  only with alpha below 1: the checkpoint before scaling
      .training/                an unfinished training
      checkpoint/               weights, tokenizer, template, training.json, train.jsonl
      eval/base/                evaluation.json, results.json, samples_<task>.jsonl
      eval/candidate/
      compare.json  verdict.json  policy.json  evidence.json
      report/                   index.html and the files for CI systems
      logs/vllm.log
      against/<alias>/          a later decision on the same checkpoint: compare.json, verdict.json, …

A folder written by `harness gate … --out DIR` holds the decision alone: compare.json, verdict.json, policy.json,
evidence.json and report/.
"""

from dataclasses import dataclass
from pathlib import Path

RUN, CONFIG, CONTRACT = "run.json", "config.yaml", "prompt_contract.json"
COMPARISON, VERDICT, POLICY, EVIDENCE = "compare.json", "verdict.json", "policy.json", "evidence.json"
AUDIT = "audit.json"
EVALUATION = "evaluation.json"
TRAINING, CURVE = "training.json", "train.jsonl"
CHECKPOINT = "checkpoint"
EVALUATIONS = "eval"
BASE, CANDIDATE = "base", "candidate"  # labels of the two evaluations that every run makes


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run, or of one decision. None of them need exist."""

    path: Path

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder":
        """The run that a checkpoint/ folder belongs to."""
        return cls(checkpoint.parent)

    @classmethod
    def of_evaluation(cls, evaluation: Path) -> "RunFolder | None":
        """The run that an evaluation belongs to; None for a folder that is not an `eval/<label>`."""
        return cls(evaluation.parent.parent) if evaluation.parent.name == EVALUATIONS else None

    @classmethod
    def all_in(cls, runs: Path) -> "list[RunFolder]":
        """The folders in `runs` that hold a checkpoint or an evaluation, sorted by name."""
        found = [cls(path) for path in sorted(runs.glob("*"))]
        return [folder for folder in found if folder.is_run or folder.evaluations.is_dir()]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def is_run(self) -> bool:
        """Whether a model was trained here."""
        return self.checkpoint.is_dir()

    @property
    def record(self) -> Path:
        return self.path / RUN

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def contract(self) -> Path:
        return self.path / CONTRACT

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def audit(self) -> Path:
        return self.data / AUDIT

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def trained(self) -> Path:
        return self.path / "trained"

    @property
    def training(self) -> Path:
        """The output of training: `trained` with alpha below 1, else the checkpoint itself."""
        return self.trained if self.trained.is_dir() else self.checkpoint

    @property
    def unfinished(self) -> Path:
        return self.path / ".training"

    @property
    def training_record(self) -> Path:
        return self.checkpoint / TRAINING

    @property
    def curve(self) -> Path:
        return self.checkpoint / CURVE

    @property
    def evaluations(self) -> Path:
        return self.path / EVALUATIONS

    @property
    def base(self) -> Path:
        return self.evaluations / BASE

    @property
    def candidate(self) -> Path:
        return self.evaluations / CANDIDATE

    @property
    def comparison(self) -> Path:
        return self.path / COMPARISON

    @property
    def verdict(self) -> Path:
        return self.path / VERDICT

    @property
    def policy(self) -> Path:
        return self.path / POLICY

    @property
    def evidence(self) -> Path:
        return self.path / EVIDENCE

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def report_page(self) -> Path:
        return self.report / "index.html"

    @property
    def model_card(self) -> Path:
        return self.report / "MODEL_CARD.md"

    @property
    def log(self) -> Path:
        return self.path / "logs" / "vllm.log"

    def against(self, alias: str) -> "RunFolder":
        """The folder of the decision on this run's checkpoint against an alias."""
        return RunFolder(self.path / "against" / alias)

    @property
    def is_against_an_alias(self) -> bool:
        return self.path.resolve().parent.name == "against"
