"""Hub datasets through `datasets`: streamed row by row, from the hub or from a local copy of the repository."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.config import SourceConfig
from harness.data.files import Record
from harness.errors import DataError, MissingDependency, NetworkFault


def read_hub(name: str, source: SourceConfig) -> Iterator[Record]:
    """The records of one split. Raises NetworkFault when the hub cannot be reached, DataError for a wrong name."""
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise MissingDependency("datasets", f"the hub dataset {name}", "data") from None
    with _explained(name, source):
        rows: Any = load_dataset(name, source.hub_config, split=source.split, revision=source.revision, streaming=True)
        for number, values in enumerate(rows, 1):
            yield Record(f"row {number}", values)


def commit_of(name: str | None, source: SourceConfig) -> str:
    """The commit a hub dataset is read at; for a local copy, its files with sizes and times."""
    folder = Path(str(name))
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return str([(p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    from huggingface_hub import HfApi

    with _explained(str(name), source):
        return str(HfApi().dataset_info(str(name), revision=source.revision).sha)


@contextmanager
def _explained(name: str, source: SourceConfig) -> Iterator[None]:
    """Turns the hub libraries' exceptions into ours, with what to do."""
    try:
        yield
    except Exception as error:
        told = " ".join(str(error).split())
        if _unreachable(error):
            raise NetworkFault(
                f"hub dataset {name} cannot be fetched ({told}). Give a local copy: "
                "data.sources.<name>.path=<file or folder>, or hub_dir=<folder with <owner>/<dataset>>."
            ) from None
        if isinstance(error, OSError | ValueError):
            raise DataError(f"dataset {name}, split {source.split}: {told}") from None
        raise


def _unreachable(error: Exception) -> bool:
    """No network, or nothing at that address: the hub does not tell a private dataset from none."""
    from datasets.exceptions import DatasetNotFoundError

    # The hub library brings an HTTP client of its own, whose errors have no common class with ours.
    of_http = type(error).__module__.split(".")[0].startswith("httpx")
    of_hub = type(error).__module__.startswith("huggingface_hub")
    return of_http or of_hub or isinstance(error, ConnectionError | DatasetNotFoundError)
