"""The sources: where their files are, whether their licences permit the use, and their rows."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.data import DataConfig, SourceConfig
from harness.config.experiment import resolve_path
from harness.core import resources
from harness.core.console import plural
from harness.core.errors import DataError, MissingDependency, NetworkFault
from harness.core.store import sha256_file, sha256_json
from harness.data.files import SHOWN, SUFFIXES, SourceRecord, TableOptions, is_readable, read_records
from harness.data.formats import LeftOut, known_columns, rows_of
from harness.data.licences import LicencePolicy, judge_licences
from harness.data.llamafactory import REGISTRY, registered
from harness.data.row import DataRow


def read_hub(name: str, source: SourceConfig) -> Iterator[SourceRecord]:
    """The records of one split, streamed by `datasets` from the hub or from a local copy of the repository.

    Raises NetworkFault when the hub cannot be reached, and DataError for a wrong name.
    """
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise MissingDependency("datasets", f"the hub dataset {name}", "data") from None
    with _explained(name, source):
        rows: Any = load_dataset(name, source.hub_config, split=source.split, revision=source.revision, streaming=True)
        for number, values in enumerate(rows, 1):
            yield SourceRecord(f"row {number}", values)


def commit_of(name: str | None, source: SourceConfig) -> str:
    """The commit of a hub dataset; for a local copy, its files with sizes and times."""
    folder = Path(str(name))
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return str([(p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    from huggingface_hub import HfApi

    with _explained(str(name), source):
        return str(HfApi().dataset_info(str(name), revision=source.revision).sha)


@contextmanager
def _explained(name: str, source: SourceConfig) -> Iterator[None]:
    """Turns exceptions of the hub libraries into ours, which say what to do."""
    try:
        yield
    except Exception as error:
        message = " ".join(str(error).split())
        if _unreachable(error):
            raise NetworkFault(
                f"hub dataset {name} cannot be fetched ({message}). Give a local copy: "
                "data.sources.<name>.path=<file or folder>, or hub_dir=<folder with <owner>/<dataset>>."
            ) from None
        if isinstance(error, OSError | ValueError):
            raise DataError(f"dataset {name}, split {source.split}: {message}") from None
        raise


def _unreachable(error: Exception) -> bool:
    """Whether there is no network, or no such dataset: the hub gives the same error for a private and a missing one."""
    from datasets.exceptions import DatasetNotFoundError

    # The hub library has its own HTTP client, whose errors share no base class with those of other clients.
    of_http = type(error).__module__.split(".")[0].startswith("httpx")
    of_hub = type(error).__module__.startswith("huggingface_hub")
    return of_http or of_hub or isinstance(error, ConnectionError | DatasetNotFoundError)


UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class Origin:
    """A source with its files."""

    name: str
    config: SourceConfig

    files: tuple[Path, ...]
    """Empty for a dataset that `datasets` reads."""

    hub: str | None = None
    """Id of a dataset on the hub, or the folder of its local copy."""

    @property
    def shown(self) -> str:
        """The path or hub id, for a person to read."""
        return self.config.path or self.hub or ""

    @property
    def licence(self) -> str:
        return self.config.licence or UNKNOWN_LICENCE

    def digest(self) -> str:
        """SHA-256 (hex) of the file, of the digests of several files by name, or of the commit of a hub dataset."""
        if not self.files:
            return sha256_json([self.hub, self.config.hub_config, self.config.split, commit_of(self.hub, self.config)])
        if len(self.files) == 1:
            return sha256_file(self.files[0])
        root = os.path.commonpath(self.files)
        return sha256_json({os.path.relpath(path, root): sha256_file(path) for path in self.files})


@dataclass(frozen=True)
class Malformed:
    """A place in a file that cannot be read as a row, and why."""

    source: str
    file: str
    where: str
    reason: str
    text: str

    left_out: bool = False
    """It is read, and not trained on: it is marked so, or holds what a row cannot carry."""

    def __str__(self) -> str:
        return f"{self.file} {self.where}: {self.reason}"


def find_sources(config: DataConfig, hub_dir: Path | None = None) -> list[Origin]:
    """Every source with its files. Raises DataError that lists all that are missing or have no licence."""
    errors: list[str] = []
    origins: list[Origin] = []
    for name, source in config.sources.items():
        if not source.licence and name not in config.allow_unlicensed:
            errors.append(
                f"data.sources.{name}.licence: missing; name the licence, or allow the source without one: "
                f"data.allow_unlicensed=[{name}]"
            )
        try:
            origins.append(_origin(name, source, hub_dir))
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError("; ".join(errors))
    return origins


def require_usable(origins: Sequence[Origin], policy: LicencePolicy) -> None:
    """Raises DataError that lists every source whose licence forbids the intended use.

    Sources without a licence that data.allow_unlicensed names are accepted.
    """
    verdicts = judge_licences({o.name: o.config.licence for o in origins if o.config.licence}, policy)
    errors = [f"data.sources.{name}.licence: {v.reason}" for name, v in verdicts.items() if v.reason]
    if errors:
        raise DataError(
            "; ".join(errors)
            + ". Leave the source out, or, if the model is for research only, set audit.licences.intended_use=research"
        )


def _origin(name: str, source: SourceConfig, hub_dir: Path | None) -> Origin:
    if source.path is None:
        copy = hub_dir / str(source.hub) if hub_dir else None
        return Origin(name, source, (), str(copy.resolve()) if copy and copy.is_dir() else source.hub)
    path = resolve_path(source.path, resources.SHIPPED)
    if not path.exists():
        raise DataError(
            f"data.sources.{name}.path: {path} does not exist (relative paths start at the working directory)"
        )
    if not path.is_file() and not path.is_dir():
        raise DataError(
            f"data.sources.{name}.path: {path} is a pipe, a socket or a device; write the rows into a file, and name it"
        )
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and _is_data(p))
    if not files:
        raise DataError(
            f"data.sources.{name}.path: {path} has no files that end in {', '.join(SUFFIXES)}; name another folder"
        )
    if path.is_file() and not is_readable(path):
        raise DataError(
            f"data.sources.{name}.path: {path} does not end in {', '.join(SUFFIXES)}; save it as one of these"
        )
    return Origin(name, source, tuple(files))


# Files of `datasets` that describe the data beside them.
_LISTS = ("dataset_infos.json", "dataset_dict.json", "state.json")


def _is_data(path: Path) -> bool:
    return is_readable(path) and path.name not in (REGISTRY, *_LISTS)


def read_rows_of(origin: Origin, noted: Counter[str] | None = None) -> Iterator[DataRow | Malformed]:
    """The rows of a source in order, up to its limit, and between them the places that cannot be read as rows.

    `noted` counts what is not read of the records, such as unknown keys, and says how the files were read.
    """
    taken = 0
    for file, record in _records(origin, noted):
        for row in _rows(origin, file, record, noted):
            if taken == origin.config.limit:
                return
            taken += isinstance(row, dict)
            yield row


def _records(origin: Origin, noted: Counter[str] | None) -> Iterator[tuple[str, SourceRecord]]:
    if not origin.files:
        name = str(origin.hub)
        yield from ((name, record) for record in read_hub(name, origin.config))
    csv = origin.config.csv
    options = TableOptions(origin.config.fields, csv.delimiter, csv.encoding, csv.sheet)
    if noted is not None:
        noted.update(dict.fromkeys(_files_left_out(origin), 0))
    for path in origin.files:
        said: list[str] = []
        names = registered(path, said)
        for record in read_records(path, known_columns(origin.config) | set(names.columns), options, said):
            yield str(path), replace(record, values=names.applied(record.values)) if record.values else record
        if noted is not None:
            noted.update(dict.fromkeys(said, 0))


def _files_left_out(origin: Origin) -> Iterator[str]:
    """One sentence on files of the source's folder of no kind that is read. Documentation does not count."""
    path = resolve_path(origin.config.path, resources.SHIPPED) if origin.config.path else None
    if path is None or path.is_file():
        return
    left = [
        file.relative_to(path).as_posix()
        for file in sorted(path.rglob("*"))
        if not file.is_dir() and file not in origin.files and _may_hold_rows(file)
    ]
    if left:
        shown = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        yield f"{plural(len(left), 'file')} of the folder not read: {shown}"


def _may_hold_rows(path: Path) -> bool:
    listed = {REGISTRY, *_LISTS}
    return path.name not in listed and path.suffix.lower() not in (".md", ".py", ".lock") and path.name[0] != "."


def _rows(origin: Origin, file: str, record: SourceRecord, noted: Counter[str] | None) -> Sequence[DataRow | Malformed]:
    made = record.reason if record.values is None else rows_of(record.values, origin.config, noted)
    if isinstance(made, str | LeftOut):
        reason = (made if isinstance(made, str) else made.reason).encode(errors="replace").decode()
        text = record.text or _text(record.values)
        return [Malformed(origin.name, file, record.where, reason, text, isinstance(made, LeftOut))]
    number = record.where.split()[-1]
    place = number if len(origin.files) < 2 else f"{Path(file).stem}-{number}"
    ids = [row["id"] or f"{origin.name}-{place}" + (f".{i}" if len(made) > 1 else "") for i, row in enumerate(made)]
    return [{**row, "id": id_, "source": origin.name} for row, id_ in zip(made, ids, strict=True)]


def _text(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False, default=str)[:SHOWN].encode(errors="replace").decode()
