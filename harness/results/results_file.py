"""Reads lm-eval's results file: the parts that the gate needs, checked once."""

import glob
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.core.errors import EvidenceFault
from harness.core.paths import inside

# Keys with an entry for each task; they also have entries for groups, which follow the schema less strictly.
BY_TASK = ("n-samples", "n-shot", "versions", "higher_is_better", "results")

# Old versions of lm-eval may lack one of these keys, but a key that is there has an entry for every task.
COMPLETE = ("n-samples", "results", "versions")


MOST_BYTES = 64 * 2**20  # of a file that might be results under another name
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d(?:\.\d+)?")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class SampleCounts(_Part):
    """How many documents of a task the model was to answer."""

    effective: int = Field(ge=0)
    original: int | None = None


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

    def limited(self, task: str) -> bool:
        """Whether a `--limit` kept documents from being asked."""
        counts = self.samples.get(task)
        return counts is not None and counts.original is not None and counts.effective < counts.original

    def requested(self, task: str) -> int | None:
        """How many documents the model was to answer; None where the file does not say."""
        return self.samples[task].effective if task in self.samples else None

    def filters(self, task: str) -> list[str]:
        return [one.name for one in self.configs[task].filter_list]


def results_files(place: Path) -> list[Path]:
    """The results files of lm-eval in a folder and its subfolders, oldest first; of a file, itself.

    lm-eval names them `results_<time>.json`, or `<name>_<time>.json` after `--output_path <name>.json`. The time in the
    name orders them, where there is one, else the file's.
    """
    if place.is_file():
        return [place]
    found = [
        path for path in sorted(place.rglob("*.json"), key=Path.is_symlink) if path.is_file() and _is_results(path)
    ]
    paths: dict[Path, Path] = {}  # a download by the hub's cache is made of links; a link to a file that is here is not
    for path in found:
        paths.setdefault(path.resolve(), path)
    return sorted(paths.values(), key=lambda path: (moment_of(path) or _written(path), str(path)))


def _is_results(path: Path) -> bool:
    if path.name.startswith("samples_"):
        return False
    if path.name.startswith("results"):
        return True
    if path.stat().st_size > MOST_BYTES:
        return False
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and {"results", "configs"} <= set(values)


def moment_of(path: Path) -> str:
    """The time in a file's name as lm-eval writes it; '' without one."""
    found = _MOMENT.search(path.stem)
    return found[0] if found else ""


def _written(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")


def sample_file(results: Path, task: str) -> Path | None:
    """The samples that were written with these results: those with their time, else those without any; None: none.

    Also as a list in a `.json` file, and under the names of lm-eval before 0.4.3 (`<model>_<task>.jsonl`).
    """
    moment = moment_of(results)
    timed = [f"samples_{task}_{moment}.jsonl", f"samples_{task}_{moment}.json"] if moment else []
    for name in [*timed, f"samples_{task}.jsonl", f"samples_{task}.json"]:
        if (path := inside(results.parent, name, results, links=True)).is_file():
            return path
    old = [path for path in results.parent.glob(f"*_{glob.escape(task)}.json*") if not path.name.startswith("results")]
    return min(old, key=lambda path: len(path.name)) if old else None


def read_results(path: Path) -> ResultsFile:
    """The checked parts of a results file. Raises EvidenceFault that names the file and the damaged key."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise EvidenceFault(
            f"{path} is not JSON ({error}); it may have been cut off. Copy it again, or evaluate again."
        ) from None
    if not isinstance(values, dict):
        raise EvidenceFault(f"{path} is not a results file of lm-eval; name the folder that lm-eval wrote")
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise EvidenceFault(f"{path} is damaged: it holds what is no text ({error}). Evaluate again.") from None
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
