"""Where the files of a run and of a decision lie. Every name of a file stands here, and nowhere else.

    runs/<run_id>/
      run.json                  written last: what was asked, fingerprints and digests
      config.yaml               the resolved configuration
      prompt_contract.json
      data/                     train.parquet, quarantine.parquet, audit.json, data_card.md
      trained/                  with alpha below 1: what the checkpoint was scaled from
      .training/                an unfinished training
      checkpoint/               weights, tokenizer, template, training.json, train.jsonl
      eval/base/                evaluation.json, results.json, samples_<task>.jsonl
      eval/candidate/
      compare.json  verdict.json  policy.json  evidence.json
      report/                   index.html and the files for CI systems
      logs/vllm.log
      against/<alias>/          a later decision on the same checkpoint: compare.json, verdict.json, …

A folder that `harness gate … --out DIR` wrote holds the decision alone: the last five lines before `logs/`.
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
    """The paths of one run, or of one decision. Nothing says that any of them exists."""

    path: Path

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder":
        """The run that a checkpoint/ folder lies in."""
        return cls(checkpoint.parent)

    @classmethod
    def of_evaluation(cls, evaluation: Path) -> "RunFolder | None":
        """The run that an evaluation lies in; None for a folder that is not `eval/<label>` of anything."""
        return cls(evaluation.parent.parent) if evaluation.parent.name == EVALUATIONS else None

    @classmethod
    def all_in(cls, runs: Path) -> "list[RunFolder]":
        """The folders below `runs` that hold a checkpoint or an evaluation, by name."""
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
        """What training wrote: with alpha below 1 the checkpoint is made from it."""
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
    def log(self) -> Path:
        return self.path / "logs" / "vllm.log"

    def against(self, alias: str) -> "RunFolder":
        """Where the decision on this run's checkpoint against an alias lies."""
        return RunFolder(self.path / "against" / alias)

    @property
    def is_against_an_alias(self) -> bool:
        return self.path.resolve().parent.name == "against"
