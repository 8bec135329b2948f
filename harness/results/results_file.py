"""Reads lm-eval's results file: the parts that the gate needs, checked once."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.core.errors import EvidenceFault

# Keys with an entry for each task; they also have entries for groups, which follow the schema less strictly.
BY_TASK = ("n-samples", "n-shot", "versions", "higher_is_better", "results")

# Old versions of lm-eval may lack one of these keys, but a key that is there has an entry for every task.
COMPLETE = ("n-samples", "results", "versions")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class SampleCounts(_Part):
    """How many documents of a task the model was to answer."""

    effective: int = Field(ge=0)


class ResponseFilter(_Part):
    name: str


class TaskSettings(_Part):
    """Settings of a task; `filter_list` names its filters in order."""

    generation_kwargs: dict[str, Any] | None = None
    filter_list: Annotated[list[ResponseFilter], BeforeValidator(lambda found: [] if found is None else found)] = []


class ResultsFile(_Part):
    """What results_*.json says about its tasks and groups; the keys of BY_TASK hold tasks only."""

    configs: dict[str, TaskSettings] = {}
    results: dict[str, dict[str, Any]] = {}
    samples: dict[str, SampleCounts] = Field(default={}, alias="n-samples")
    shots: dict[str, int | None] = Field(default={}, alias="n-shot")
    versions: dict[str, str | int | float | None] = {}
    higher_is_better: dict[str, dict[str, bool | None]] = {}
    group_subtasks: dict[str, list[str]] = {}
    group_results: dict[str, dict[str, Any]] = Field(default={}, alias="groups")
    model_name: str | None = None
    chat_template_sha: str | None = None
    system_instruction_sha: str | None = None

    @property
    def groups(self) -> set[str]:
        return {group for group, members in self.group_subtasks.items() if members}

    @property
    def tasks(self) -> list[str]:
        return [task for task in self.configs if task not in self.groups]

    @property
    def group_means(self) -> dict[str, dict[str, float]]:
        """The reported means of each group, by metric (`metric,filter` for any filter but none)."""
        return {
            group: {key.removesuffix(",none"): value for key, value in means.items() if isinstance(value, int | float)}
            for group, means in self.group_results.items()
        }

    def requested(self, task: str) -> int | None:
        """How many documents the model was to answer; None where the file does not say."""
        return self.samples[task].effective if task in self.samples else None

    def filters(self, task: str) -> list[str]:
        return [one.name for one in self.configs[task].filter_list]


def read_results(path: Path) -> ResultsFile:
    """The checked parts of a results file. Raises EvidenceFault that names the file and the damaged key."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise EvidenceFault(f"{path} is not JSON ({error}); it may have been cut off") from None
    if not isinstance(values, dict):
        raise EvidenceFault(f"{path} is not a results file of lm-eval")
    try:
        results = ResultsFile.model_validate(values | {key: _of_tasks(values, key) for key in BY_TASK if key in values})
    except ValidationError as error:
        damage = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise EvidenceFault(f"{path} is damaged: {damage}") from None
    if lacking := [
        f"{key}.{task}" for key in COMPLETE if key in values for task in results.tasks if task not in values[key]
    ]:
        raise EvidenceFault(f"{path} is damaged: it lacks {', '.join(lacking[:3])}")
    return results


def _of_tasks(values: dict[str, Any], key: str) -> Any:
    """The entries of tasks under a key; a value that is not a mapping is returned as it is."""
    configs, entries = values.get("configs"), values[key]
    if not isinstance(configs, dict) or not isinstance(entries, dict):
        return entries
    return {task: entry for task, entry in entries.items() if task in configs}
