"""The base class of records, and reading them from JSON."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.core.errors import DataError
from harness.core.paths import write_text


class Record(BaseModel):
    """A frozen record. The docstring of a field is its description in the reference pages (scripts/reference.py)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True, use_attribute_docstrings=True
    )

    def save(self, path: Path) -> None:
        """Writes the record as JSON. A file that holds it already keeps its time, which reports show."""
        text = self.model_dump_json(indent=2, by_alias=True) + "\n"
        if path.is_symlink() or not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)


def version_refused(error: ValidationError) -> str:
    """Why a record's version cannot be read, with the mend; '' where its version is not what is wrong."""
    odd = [one for one in error.errors() if one["type"] == "literal_error" and one["loc"][0] in VERSION_KEYS]
    if not odd:
        return ""
    version, known = ascii(odd[0]["input"])[:40], odd[0]["ctx"]["expected"]
    return (
        f"is of version {version}, and this harness reads version {known}. Another release wrote it, or it was edited. "
        "Use that release (pip install -U tuning-harness), or make it again."
    )


VERSION_KEYS = ("schema", "schema_version")
RecordT = TypeVar("RecordT", bound=Record)


def load(kind: type[RecordT], path: Path) -> RecordT:
    """The record in a JSON file; raises DataError if the file is missing or holds no such record."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); make it again or restore it") from None
    except (IsADirectoryError, NotADirectoryError):
        raise DataError(f"{path} is not a file") from None
    except ValidationError as error:
        if reason := version_refused(error):
            raise DataError(f"{path} {reason}") from None
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is not a {kind.__name__} record: {where}: {first['msg']}") from None
