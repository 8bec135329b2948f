"""Turns errors of other libraries into ours, by one table."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.core.errors import DataError, DiskFull, EnvironmentFault, HarnessError, NetworkFault, OutOfMemory


@dataclass(frozen=True)
class ErrorRule:
    """The class of ours for some errors: instances of one of `classes` that show one of `signs`, if signs are given.

    Classes are given by name, because importing them takes seconds. A name that ends with a dot stands for all classes
    defined in that module or below it. Signs are error numbers, or parts of the message in lower case.
    """

    kind: type[HarnessError]
    classes: tuple[str, ...]
    signs: tuple[int | str, ...] = ()

    def fits(self, error: BaseException) -> bool:
        number, text = getattr(error, "errno", None), str(error).lower()
        signs = (sign in text if isinstance(sign, str) else sign == number for sign in self.signs)
        return any(_is_a(error, name) for name in self.classes) and (not self.signs or any(signs))


def _is_a(error: BaseException, name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if not attribute:
        return any(f"{kind.__module__}.".startswith(name) for kind in type(error).__mro__)
    # a library that was not imported cannot have raised the error
    kind = getattr(sys.modules.get(module), attribute, None)
    return isinstance(kind, type) and isinstance(error, kind)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_INVALID = tuple(
    f"huggingface_hub.errors.{name}" for name in ("HFValidationError", "HfUriError", "StrictDataclassError")
)
# The first rule that fits applies.
TABLE = (
    ErrorRule(DiskFull, ("builtins.OSError",), _FULL),
    ErrorRule(DiskFull, ("safetensors.SafetensorError",), tuple(f"(os error {number})" for number in _FULL)),
    ErrorRule(
        DiskFull,
        ("builtins.RuntimeError",),  # what torch.save raises
        ("no space left", "failed writing file", "file write failed", "unexpected pos"),
    ),
    ErrorRule(DiskFull, ("builtins.Exception",), ("no space left on device", *(f"(os error {n})" for n in _FULL))),
    ErrorRule(DiskFull, ("sqlite3.OperationalError",), ("disk is full",)),
    ErrorRule(
        EnvironmentFault, ("sqlite3.OperationalError",), ("disk i/o error", "unable to open", "readonly", "locked")
    ),
    ErrorRule(OutOfMemory, ("builtins.MemoryError", "torch.OutOfMemoryError")),
    ErrorRule(
        OutOfMemory,
        ("builtins.RuntimeError",),
        ("out of memory", "can't allocate memory", "alloc failed", "bad_alloc"),
    ),
    ErrorRule(DataError, _INVALID),
    ErrorRule(NetworkFault, ("huggingface_hub.errors.", "datasets.exceptions.DatasetNotFoundError")),
    ErrorRule(NetworkFault, ("httpx.", "httpx2.", "httpcore.")),  # httpx2: the hub library's own client
    ErrorRule(NetworkFault, ("builtins.ConnectionError", "builtins.TimeoutError", "socket.gaierror")),
    ErrorRule(DataError, ("safetensors.SafetensorError", "pyarrow.ArrowException", "zipfile.BadZipFile")),
    ErrorRule(EnvironmentFault, ("builtins.ImportError",)),
)
# Libraries raise these for an unreadable file as well as for a defect: the caller decides which one it is.
AMBIGUOUS = (OSError, ValueError, RuntimeError, LookupError, AttributeError, TypeError)


def kind_of(error: BaseException) -> type[HarnessError] | None:
    """The class of ours for an error of another library; None if no rule fits."""
    return next((rule.kind for rule in TABLE if rule.fits(error)), None)


@contextmanager
def translated(
    what: str, otherwise: type[HarnessError], wrong: str, fix: str = "", any_class: bool = False
) -> Iterator[None]:
    """Raises errors of other libraries as ours, with the first line of their message.

    `what` completes "cannot …". AMBIGUOUS errors without a rule become `otherwise`, with the message `wrong`. `fix` is
    appended to either. Our own errors are not changed, and errors of unknown classes only with `any_class`: where the
    library reads a stranger's files, and what it trips over is theirs.
    """
    try:
        yield
    except HarnessError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # Rust's, of tokenizers
            raise
        kind = kind_of(error) or (otherwise if any_class or isinstance(error, AMBIGUOUS) else None)
        if kind is None:
            raise
        reason = first_line(error)
        message = f"{wrong} ({reason})" if kind is otherwise else f"cannot {what}: {reason}"
        raise kind(f"{message}. {fix}" if fix else message) from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters; with its class if the message alone says little."""
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return line if line and not isinstance(error, KeyError) else f"{type(error).__name__} {line}".strip()
