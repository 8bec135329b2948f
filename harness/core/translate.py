"""Errors of other libraries as ours: one table, and a context manager that applies it around a call of a library."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.core.errors import DataError, DiskFull, EnvironmentFault, HarnessError, NetworkFault, OutOfMemory


@dataclass(frozen=True)
class ErrorRule:
    """What an error means: it is of one of the `classes` or below one, and has one of the `signs` where there are any.

    Classes are named, because importing them takes seconds; a name that ends with a dot stands for all classes that are
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
    # A library that was not imported raised nothing.
    kind = getattr(sys.modules.get(module), attribute, None)
    return isinstance(kind, type) and isinstance(error, kind)


_FULL = (errno.ENOSPC, errno.EDQUOT)
# The first rule that fits decides.
TABLE = (
    ErrorRule(DiskFull, ("builtins.OSError",), _FULL),
    ErrorRule(DiskFull, ("safetensors.SafetensorError",), tuple(f"(os error {number})" for number in _FULL)),
    ErrorRule(
        DiskFull,
        ("builtins.RuntimeError",),  # what torch.save raises
        ("no space left", "failed writing file", "file write failed", "unexpected pos"),
    ),
    ErrorRule(OutOfMemory, ("builtins.MemoryError", "torch.OutOfMemoryError")),
    ErrorRule(
        OutOfMemory,
        ("builtins.RuntimeError",),
        ("out of memory", "can't allocate memory", "alloc failed", "bad_alloc"),
    ),
    ErrorRule(DataError, ("huggingface_hub.errors.HFValidationError", "huggingface_hub.errors.HfUriError")),
    ErrorRule(NetworkFault, ("huggingface_hub.errors.", "datasets.exceptions.DatasetNotFoundError")),
    ErrorRule(NetworkFault, ("httpx.", "httpx2.", "httpcore.")),  # the hub's library brings a client of its own, httpx2
    ErrorRule(NetworkFault, ("builtins.ConnectionError", "builtins.TimeoutError", "socket.gaierror")),
    ErrorRule(DataError, ("safetensors.SafetensorError", "pyarrow.ArrowException", "zipfile.BadZipFile")),
    ErrorRule(EnvironmentFault, ("builtins.ImportError",)),
)
# What libraries raise for a file that they cannot read as well as for a defect: the caller says what it means.
AMBIGUOUS = (OSError, ValueError, RuntimeError, LookupError, AttributeError, TypeError)


def kind_of(error: BaseException) -> type[HarnessError] | None:
    """The class of ours that an error of another library belongs to; None for one that the table does not name."""
    return next((rule.kind for rule in TABLE if rule.fits(error)), None)


@contextmanager
def translated(what: str, otherwise: type[HarnessError], wrong: str, fix: str = "") -> Iterator[None]:
    """Raises the errors of other libraries as ours, with the first line of their message.

    `what` completes "cannot …". AMBIGUOUS errors that the table does not name become `otherwise`, and the message is
    then `wrong`. `fix` is added to either. Errors of ours, and errors of unknown kinds, pass as they are.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        kind = kind_of(error) or (otherwise if isinstance(error, AMBIGUOUS) else None)
        if kind is None:
            raise
        reason = first_line(error)
        told = f"{wrong} ({reason})" if kind is otherwise else f"cannot {what}: {reason}"
        raise kind(f"{told}. {fix}" if fix else told) from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters; its class where the message says too little."""
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return line if line and not isinstance(error, KeyError) else f"{type(error).__name__} {line}".strip()
