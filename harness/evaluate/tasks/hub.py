"""The offline hub: whatever code of a task loads a dataset gets the local copy in `hub_dir`.

`hub_dir` holds copies of dataset repositories as <owner>/<name>, and `nltk_data` for the tasks that need it.
"""

import io
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from harness.core.errors import DataError, NetworkFault
from harness.core.store import sha256_file, sha256_json

MIRROR = "mirror.json"
NLTK = "nltk_data"
PUNKT = "punkt_tab"
ALL_FILES = "*"
CONNECT_TIMEOUT_S = 10
_REMOTE = re.compile(r"^(?:hf://datasets/|https?://[^/]+/datasets/)([^/]+/[^/@]+)(?:@[^/]+|/resolve/[^/]+)?/(.+)$")


class MissingData(NetworkFault):
    """A dataset, or a configuration of it, is not in `hub_dir` and cannot be fetched from the hub."""


@dataclass
class Hub:
    """Where tasks' datasets come from: copies in `folder`, or the hub.

    `fetch` is called with id and configuration (ALL_FILES: everything) before a dataset is opened; `harness mirror`
    copies the dataset at that moment.
    """

    folder: Path | None
    fetch: Callable[[str, str | None], None] | None = None
    _unavailable: dict[str, MissingData] = field(default_factory=dict)

    def open(self, builder: Callable[..., Any], path: str, name: str | None, **settings: Any) -> Any:
        """The result of `datasets.load_dataset_builder`, of the local copy if any. Raises as `explained` does."""
        if path in self._unavailable:
            raise self._unavailable[path]
        by_file = bool(settings.get("data_files") or settings.get("data_dir"))
        try:
            self._fetch(path, ALL_FILES if by_file else name)
            settings["data_files"] = self._local_files(settings.get("data_files"))
            copy = self._checked_copy(path)
            if copy is None and is_hub_id(path) and (why := unreachable()):
                return _from_cache(builder, path, name, settings, why)
            with explained(path, name, copy):
                return builder(str(copy) if copy else path, name, **settings)
        except MissingData as error:
            if self.copy_of(path) is None:
                self._unavailable[path] = error  # so that the tasks of a group ask the hub only once
            raise

    def _checked_copy(self, dataset: str) -> Path | None:
        copy = self.copy_of(dataset)
        if copy is not None and self.folder is not None and (changed := incomplete_files(self.folder, dataset)):
            raise MissingData(f"the copy of {dataset} in {self.folder} is incomplete: {', '.join(changed[:3])}")
        return copy

    def copy_of(self, dataset: str) -> Path | None:
        """The folder of a dataset's copy, if there is one."""
        copy = self.folder / dataset if self.folder is not None and is_hub_id(dataset) else None
        return copy.resolve() if copy is not None and copy.is_dir() else None

    def require_nltk(self) -> None:
        """Finds or downloads nltk's sentence splitter, without which a task fails only after the model has answered."""
        import nltk

        use_nltk_data(self.folder)
        try:
            nltk.data.find(f"tokenizers/{PUNKT}")
        except LookupError:
            into = str(self.folder / NLTK) if self.folder is not None and self.fetch is not None else None
            if not nltk.download(PUNKT, download_dir=into, quiet=True, print_error_to=io.StringIO()):
                raise MissingData(f"it needs nltk's {PUNKT}, which is not installed and cannot be downloaded") from None
            use_nltk_data(self.folder)

    def _fetch(self, dataset: str, name: str | None) -> None:
        if self.fetch is not None and is_hub_id(dataset):
            self.fetch(dataset, name)

    def _local_files(self, files: Any) -> Any:
        """Data files by address; those of a dataset with a local copy by their path in it."""
        if isinstance(files, dict):
            return {split: self._local_files(part) for split, part in files.items()}
        if isinstance(files, list | tuple):
            return [self._local_files(part) for part in files]
        match = _REMOTE.match(str(files)) if files is not None else None
        if match is None:
            return files
        self._fetch(match[1], ALL_FILES)
        copy = self._checked_copy(match[1])
        return files if copy is None else str(copy / match[2])


@cache
def unreachable() -> str:
    """Why the hub is out of reach, or ''. Checked once, because its library waits half a minute for each dataset."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if getproxies():
        return ""
    try:
        host = (str(address.hostname), address.port or {"http": 80}.get(address.scheme, 443))
        socket.create_connection(host, timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"{constants.ENDPOINT} cannot be reached: {error.strerror or error}"
    return ""


def _from_cache(builder: Callable[..., Any], path: str, name: str | None, settings: dict[str, Any], why: str) -> Any:
    """A dataset that was downloaded earlier, without contacting the hub. Raises MissingData."""
    from datasets import config

    online, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        with explained(path, name, None):
            return builder(path, name, **settings)
    except MissingData:
        raise MissingData(f"its dataset {_dataset_title(path, name)} cannot be fetched from the hub ({why})") from None
    finally:
        config.HF_HUB_OFFLINE = online


def _dataset_title(dataset: str, name: str | None) -> str:
    return f"{dataset} ({name})" if name and name != ALL_FILES else dataset


def is_hub_id(path: str) -> bool:
    """Whether `load_dataset` would look for this on the hub: owner/name or a bare name, not a file format or path."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return path.count("/") <= 1 and not path.startswith((".", "/", "~")) and path not in _PACKAGED_DATASETS_MODULES


@contextmanager
def installed(hub: Hub) -> Iterator[None]:
    """Within the context, every `load_dataset` goes through `hub`, however the task's code imported it.

    `load_dataset` looks up its builder in its own module at each call: every call passes this place.
    """
    from datasets import load

    stock = load.load_dataset_builder

    def load_dataset_builder(path: str, name: str | None = None, *rest: Any, **settings: Any) -> Any:
        names = ("data_dir", "data_files", "cache_dir", "features", "download_config", "download_mode", "revision")
        return hub.open(stock, str(path), name, **dict(zip(names, rest, strict=False)), **settings)

    load.load_dataset_builder = load_dataset_builder
    try:
        use_nltk_data(hub.folder)
        yield
    finally:
        load.load_dataset_builder = stock


def use_nltk_data(hub_dir: Path | None) -> None:
    """Puts the nltk data in the hub folder, or beside it, first on nltk's search path."""
    data = nltk_data(hub_dir)
    if data is None:
        return
    known = os.environ.get("NLTK_DATA", "")
    if str(data) not in known.split(os.pathsep):
        os.environ["NLTK_DATA"] = os.pathsep.join(filter(None, [str(data), known]))
    if "nltk" in sys.modules and str(data) not in sys.modules["nltk"].data.path:
        sys.modules["nltk"].data.path.insert(0, str(data))


def splits_sentences(task_file: Path | None) -> bool:
    """Whether the code beside a task's YAML uses nltk's sentence splitter."""
    return task_file is not None and any(PUNKT in path.read_text() for path in task_file.parent.glob("*.py"))


def nltk_data(hub_dir: Path | None) -> Path | None:
    """The nltk data in the hub folder or beside it; None where there are none."""
    places = (hub_dir / NLTK, hub_dir.resolve().parent / NLTK) if hub_dir is not None else ()
    return next((place.resolve() for place in places if place.is_dir()), None)


@contextmanager
def explained(dataset: str, name: str | None, copy: Path | None) -> Iterator[None]:
    """Turns an error about a dataset into one sentence. Raises MissingData, or DataError for an unreadable dataset."""
    which = _dataset_title(dataset, name)
    try:
        yield
    except Exception as error:
        if _is_hub_error(error):
            raise MissingData(f"its dataset {which} cannot be fetched from the hub ({reason(error)})") from None
        if isinstance(error, FileNotFoundError):
            place = (
                f"files are missing from the copy of {which} in {copy}" if copy else f"its dataset {which} is missing"
            )
            raise MissingData(f"{place} ({reason(error)})") from None
        if copy is not None and "BuilderConfig" in str(error) and "not found" in str(error):
            raise MissingData(f"the copy of {dataset} in {copy} has no configuration {name!r}") from None
        if isinstance(error, ValueError | RuntimeError | OSError):
            raise DataError(f"its dataset {which} cannot be read: {reason(error)}") from None
        raise


def _is_hub_error(error: Exception) -> bool:
    """Whether there is no network or no such dataset. The library's HTTP errors have no base class in common."""
    from datasets.exceptions import DatasetNotFoundError

    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    of_http = any(module.startswith("httpx") or module == "huggingface_hub" for module in modules)
    return of_http or isinstance(error, ConnectionError | DatasetNotFoundError)


def reason(error: BaseException) -> str:
    """An exception of the hub's libraries as one line for people, with the meaning of an HTTP status."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    gated = "gated" in type(error).__name__.lower() or "gated" in str(error).lower()
    if gated or status == 403:
        return "it is gated: accept the conditions on its page, then log in with `hf auth login`"
    if status in (401, 404) or "doesn't exist on the Hub" in str(error):
        return "the hub has no such dataset, or it is private: check the name, or log in with `hf auth login`"
    return " ".join(str(error).split())[:300] or type(error).__name__


def content_digest(hub_dir: Path, datasets: set[str] | None) -> str:
    """Digest of the copies of these datasets (ids); of everything in `hub_dir` for None.

    It depends on contents, not on times. A file that mirror.json lists with its present size counts by the digest
    there.
    """
    known = recorded_files(hub_dir)
    folders = [hub_dir] if datasets is None else [hub_dir / dataset for dataset in sorted(datasets)]
    digests = {}
    for path in (path for folder in folders for path in sorted(folder.rglob("*"))):
        name = path.relative_to(hub_dir)
        if not path.is_file() or path.name == MIRROR or any(part.startswith(".") for part in name.parts):
            continue
        recorded = known.get(name.as_posix())
        if recorded is not None and recorded["bytes"] == path.stat().st_size:
            digests[name.as_posix()] = str(recorded["sha256"])
        else:
            digests[name.as_posix()] = sha256_file(path)
    return sha256_json(digests)


def recorded_files(hub_dir: Path) -> dict[str, Any]:
    """sha256 and bytes by file, as in mirror.json; empty for a folder that `harness mirror` did not make.

    Raises DataError when mirror.json is damaged.
    """
    try:
        return dict(json.loads((hub_dir / MIRROR).read_text())["files"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{hub_dir / MIRROR} is damaged ({reason(error)}). "
            f"Copy the datasets again: harness mirror SUITE --to {hub_dir}"
        ) from None


def incomplete_files(hub_dir: Path, dataset: str) -> list[str]:
    """Files of a mirrored dataset that are missing, or whose size differs from the one in mirror.json."""
    files = recorded_files(hub_dir).items()
    wanted = {name: entry["bytes"] for name, entry in files if name.startswith(f"{dataset}/")}
    return [n for n, size in wanted.items() if not (hub_dir / n).is_file() or (hub_dir / n).stat().st_size != size]
