"""`harness mirror`: copies the datasets that tasks read, with digests, for machines without a network.

Tasks are loaded through the copy while it is made: whatever their code reads is fetched, so the copy is complete.
"""

import glob
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.experiment import TaskConfig
from harness.core import store
from harness.core.console import say
from harness.core.errors import DataError
from harness.evaluate.tasks.hub import ALL_FILES, MIRROR, NLTK, Hub, MissingData, explained, recorded_files, unreachable
from harness.evaluate.tasks.load import load_tasks
from harness.workflows.compose import choices, config_for

DESCRIPTIONS = ["README.md", ".huggingface.yaml", "dataset_infos.json"]


@dataclass
class Mirror:
    """A folder of copies: the commit, licence and configurations of each dataset, and the digest of each file.

    mirror.json is written after each dataset, so that the next call continues an interrupted one.
    """

    folder: Path
    datasets: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]

    @classmethod
    def at(cls, folder: Path) -> "Mirror":
        files = recorded_files(folder)
        datasets = json.loads((folder / MIRROR).read_text())["datasets"] if files else {}
        return cls(folder, datasets, files)

    def fetch(self, dataset: str, name: str | None) -> None:
        """Copies the files of one configuration of a dataset, unless they are here. Raises MissingData."""
        known = self.datasets.get(dataset)
        if known is not None and {name or "", ALL_FILES} & set(known["configs"]):
            return
        if why := unreachable():
            raise MissingData(f"its dataset {dataset} cannot be fetched from the hub ({why})")
        say(f"· mirror {dataset}{f' ({name})' if name and name != ALL_FILES else ''}")
        with explained(dataset, name, None):
            commit = known["revision"] if known else _commit(dataset)
            licence = download(dataset, name, commit, self.folder / dataset)
        configs = sorted({*(known["configs"] if known else []), name or ""})
        self.datasets[dataset] = {"revision": commit, "licence": licence, "configs": configs}
        self.note(dataset)

    def note(self, part: str) -> None:
        """Records the files of a dataset, or of nltk's data, in mirror.json."""
        files = sorted(p for p in (self.folder / part).rglob("*") if p.is_file() and ".cache" not in p.parts)
        for path in files:
            record = {"sha256": store.sha256_file(path), "bytes": path.stat().st_size}
            self.files[path.relative_to(self.folder).as_posix()] = record
        store.write_json(self.folder / MIRROR, {"schema": 1, "datasets": self.datasets, "files": self.files})

    def damaged(self) -> list[str]:
        """The files that are missing or do not match their digests."""
        return [
            name
            for name, record in self.files.items()
            if not (self.folder / name).is_file() or store.sha256_file(self.folder / name) != record["sha256"]
        ]

    def repair(self) -> None:
        """Removes damaged files, and fetches their datasets again at the same commit."""
        damaged = self.damaged()
        for name in damaged:
            (self.folder / name).unlink(missing_ok=True)
            del self.files[name]
        if any(name.startswith(f"{NLTK}/") for name in damaged):  # fetched again with the task that needs it
            shutil.rmtree(self.folder / NLTK)
            self.files = {name: file for name, file in self.files.items() if not name.startswith(f"{NLTK}/")}
        for dataset, record in self.datasets.items():
            if any(name.startswith(f"{dataset}/") for name in damaged):
                say(f"· {dataset}: files are missing or damaged; fetching them again")
                configs, record["configs"] = record["configs"], []
                for config in configs:
                    self.fetch(dataset, config or None)


def mirror(names: Sequence[str], folder: Path) -> Mirror:
    """Copies the datasets of suites and tasks into `folder`, and loads the tasks from there.

    Raises ConfigError for unknown names, NetworkFault that lists every dataset that cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with store.locked(folder), store.disk_full_translated(folder):
        made = Mirror.at(folder)
        made.repair()
        load_tasks(named_tasks(names), folder, Hub(folder, made.fetch))
        if (folder / NLTK).is_dir():
            made.note(NLTK)
    return made


def verified(folder: Path) -> Mirror:
    """The mirror in a folder, with every digest checked. Raises DataError that lists the damaged files."""
    made = Mirror.at(folder)
    if not made.files:
        raise DataError(
            f"{folder} has no {MIRROR}, so there is nothing to verify. Make it with: harness mirror NAME… --to {folder}"
        )
    if damaged := made.damaged():
        lines = "\n".join(f"  - {name}" for name in damaged)
        count = f"{_file_count(damaged)} {'is' if len(damaged) == 1 else 'are'}"
        fix = f"Fetch the data again: harness mirror NAME… --to {folder}"
        raise DataError(f"{folder}: {count} missing or changed:\n{lines}\n{fix}")
    return made


def named_tasks(names: Sequence[str]) -> list[TaskConfig]:
    """The tasks of suites (names under conf/suite) and single tasks, each once, with all items."""
    suites = choices("suite")
    found = [
        task.name
        for name in names
        for task in (config_for([f"suite={name}"]).suite.tasks if name in suites else [TaskConfig(name=name)])
    ]
    return [TaskConfig(name=name) for name in dict.fromkeys(found)]


def _commit(dataset: str) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(dataset).sha)


def download(dataset: str, name: str | None, commit: str, folder: Path) -> str:
    """Fetches the files of one configuration at a commit into `folder`; returns the licence that the card states.

    Raises MissingData when a file is missing afterwards: the hub's library does not raise when the network fails.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    offered = HfApi().list_repo_files(dataset, repo_type="dataset", revision=commit)
    described = [file for file in offered if file in DESCRIPTIONS]
    try:
        _fetch_files(dataset, commit, described, folder)
        card = _card(folder / "README.md")
        globs = None if name == ALL_FILES else patterns(card.get("configs") or [], name)
        _fetch_files(dataset, commit, [*described, *filter_repo_objects(offered, allow_patterns=globs)], folder)
    finally:
        shutil.rmtree(folder / ".cache", ignore_errors=True)
    licence = card.get("license") or "unknown"
    return licence if isinstance(licence, str) else ", ".join(map(str, licence))


def _fetch_files(dataset: str, commit: str, files: list[str], folder: Path) -> None:
    from huggingface_hub import snapshot_download

    exact = [glob.escape(file) for file in files]
    if exact:
        snapshot_download(dataset, repo_type="dataset", revision=commit, local_dir=folder, allow_patterns=exact)
    if absent := [file for file in files if not (folder / file).is_file()]:
        raise MissingData(f"files of {dataset} could not be fetched: {', '.join(absent[:3])}")


def _card(path: Path) -> dict[str, Any]:
    from huggingface_hub import DatasetCard

    if not path.is_file():
        return {}
    return dict(DatasetCard(path.read_text(), ignore_metadata_errors=True).data.to_dict())


def patterns(configs: list[dict[str, Any]], name: str | None) -> list[str] | None:
    """Globs of the files that one configuration needs, from the `configs` of a dataset's card; None means all files.

    `datasets` reads all splits of a configuration, and the first configuration's files to detect the format.
    """
    chosen = [config for config in configs if config.get("config_name") == (name or _default(configs))]
    if not chosen:
        return None
    found = [_globs(config) for config in (*chosen, configs[0])]
    return None if any(not globs for globs in found) else sorted({glob for globs in found for glob in globs})


def _default(configs: list[dict[str, Any]]) -> str | None:
    named = [config for config in configs if config.get("default") or config.get("config_name") == "default"]
    found = named or (configs if len(configs) == 1 else [])
    return found[0].get("config_name") if found else None


def _globs(config: dict[str, Any]) -> list[str]:
    """The globs of a configuration's data files, from a glob, a list of globs, or a list of {split, path}."""
    files = config.get("data_files")
    folder = str(config.get("data_dir") or "").strip("/")
    parts = [files] if isinstance(files, str) else [
        path
        for part in files or ["**"] * bool(folder)
        for path in _as_list(part["path"] if isinstance(part, dict) else part)
    ]  # fmt: skip
    return [f"{folder}/{part}" if folder else str(part) for part in parts]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _file_count(files: Collection[object]) -> str:
    return f"{len(files)} file{'' if len(files) == 1 else 's'}"


def summary(made: Mirror) -> str:
    """One line per dataset (files, size, commit, licence), and a total."""
    lines = []
    for dataset, record in sorted(made.datasets.items()):
        sizes = [one["bytes"] for name, one in made.files.items() if name.startswith(f"{dataset}/")]
        size = f"{_file_count(sizes)}, {sum(sizes) / 2**20:.1f} MiB"
        lines.append(f"{dataset}: {size}, commit {record['revision'][:12]}, licence {record['licence']}")
    nltk = [one["bytes"] for name, one in made.files.items() if name.startswith(f"{NLTK}/")]
    lines += [f"{NLTK}: {_file_count(nltk)}"] if nltk else []
    total = sum(one["bytes"] for one in made.files.values()) / 2**20
    return "\n".join(
        [*lines, f"{made.folder}: {_file_count(made.files)}, {total:.1f} MiB; use it with hub_dir={made.folder}"]
    )
