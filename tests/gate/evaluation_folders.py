"""Evaluation folders for the gate tests, as `harness evaluate` and lm-eval write them, only smaller."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.gate import GateConfig, RuleConfig
from harness.core.store import sha256_file
from harness.gate.comparison import compare
from harness.records.gate import Comparison
from harness.records.stages import Evaluation, TaskIdentity, TaskScore
from harness.results.evidence import Evidence

Row = dict[str, Any]


def sample(number: int, value: Any, metric: str = "acc", **changes: Any) -> Row:
    """One line of samples_<task>.jsonl; `changes` replace fields."""
    row = {
        "doc_id": number,
        "doc": {"id": f"item-{number}"},
        "target": "yes",
        "arguments": [[f"Question {number}?", {"until": []}]],
        "resps": [[f"answer {number}"]],
        "filtered_resps": [f"answer {number}"],
        "filter": "none",
        "metrics": [metric],
        "doc_hash": f"doc{number:04}",
        "prompt_hash": f"prompt{number:04}",
        "target_hash": f"target{number:04}",
        metric: value,
    }
    return row | changes


def answers(right: int, of: int, first: int = 0) -> list[float]:
    """`of` marks of which `right` are 1, the wrong ones from index `first` on (going round)."""
    wrong = {(first + k) % of for k in range(of - right)}
    return [0.0 if index in wrong else 1.0 for index in range(of)]


def samples(values: Sequence[Any], metric: str = "acc") -> list[Row]:
    return [sample(number, value, metric) for number, value in enumerate(values)]


@dataclass
class Folder:
    """What an evaluation holds; change anything before `write`."""

    tasks: dict[str, list[Row]]
    label: str = "candidate"
    contract: str = "c" * 64
    groups: dict[str, list[str]] = field(default_factory=dict)
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """Our own format: evaluation.json, and samples_<task>.jsonl with the digests it names."""
        path.mkdir(parents=True)
        Evaluation(
            label=self.label,
            suite="smoke",
            weights_sha256="a" * 64,
            contract_sha256=self.contract,
            tasks={task: self._identity(path, task) for task in self.tasks},
            groups=self.groups,
            scores=[TaskScore(task=task, metric="acc", value=0.5, stderr=None, n=1) for task in self.tasks],
            prompts_checked=sum(map(len, self.tasks.values())),
            seconds=1.0,
        ).save(path / "evaluation.json")
        return path

    def _identity(self, path: Path, task: str) -> TaskIdentity:
        rows = self.tasks[task]
        file = path / f"samples_{task}.jsonl"
        file.write_text(lines(rows))
        asked = len({row.get("doc_id") for row in rows})
        same = {
            "version": "1.0",
            "num_fewshot": 0,
            "generation": "g" * 64,
            "asked": asked,
            "scored": asked,
            "failed": 0,
        }
        return TaskIdentity(**(same | self.identities.get(task, {})), samples_sha256=sha256_file(file))

    def write_lm_eval(self, path: Path, **changes: Any) -> Path:
        """lm-eval's own output folder; `changes` replace keys of results_*.json."""
        path.mkdir(parents=True)
        found = {
            "results": {task: {} for task in self.tasks},
            "group_subtasks": {**{task: [] for task in self.tasks}, **self.groups},
            "configs": {task: {"task": task, "generation_kwargs": {"until": []}} for task in self.tasks},
            "versions": dict.fromkeys(self.tasks, 1.0),
            "n-shot": dict.fromkeys(self.tasks, 0),
            "higher_is_better": {task: {"acc": True} for task in self.tasks},
            "n-samples": {task: {"original": len(rows), "effective": len(rows)} for task, rows in self.tasks.items()},
            "model_name": self.label,
            "chat_template_sha": self.contract,
        }
        (path / "results_2026-01-21T03-44-18.json").write_text(json.dumps(found | changes))
        for task, rows in self.tasks.items():
            (path / f"samples_{task}_2026-01-21T03-44-18.jsonl").write_text(lines(rows))
        return path


def lines(rows: Sequence[Row]) -> str:
    """As the harness writes them: text outside ASCII stays as it is."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def one_task(values: Sequence[Any], task: str = "quiz", metric: str = "acc", **changes: Any) -> Folder:
    return Folder({task: samples(values, metric)}, **changes)


def guard(metric: str = "*/quiz/acc", margin: str | list[str] = "5 points", **changes: Any) -> RuleConfig:
    return RuleConfig(metric=metric, role="guard", margin=margin, **changes)


def policy(*rules: RuleConfig, **changes: Any) -> GateConfig:
    return GateConfig(name="test", rules=list(rules) or [guard()], **({"require": ["guard"]} | changes))


def compare_both(sides: Iterable[Evidence], gate: GateConfig | None = None) -> Comparison:
    """The comparison of (baseline, candidate)."""
    baseline, candidate = sides
    return compare(baseline, candidate, gate)
