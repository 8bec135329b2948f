"""The exception tree, and the exit codes. Every class knows its code; the message is for the user.

Errors of other libraries become these in harness/core/translate.py.

HarnessError                   1   never raised itself
├── UsageError                 2   what was asked cannot be done as asked
│   ├── ConfigError            2   every configuration fault at once
│   └── DataError              2   a file, a row or a dataset that cannot be used
│       └── TemplateRefusal    2   the chat template does not take such a conversation
├── EnvironmentFault           3   this machine lacks something
│   ├── MissingDependency      3   a package is not installed
│   ├── ServerFault            3   the server did not come up, or went away
│   │   └── RequestRefused     3   it answers, and refuses this request
│   ├── ServerGone             3   in evaluate/dispatch.py, which starts the server again
│   ├── DiskFull               3   no space left
│   ├── OutOfMemory            3   of the machine or of the GPU
│   ├── NetworkFault           3   a host cannot be reached, or does not hand out what was asked for
│   │   └── MissingData        3   in evaluate/tasks/hub.py: a dataset is neither here nor to be had
│   └── TrainingFault          3   training cannot go on, for example because the loss is not a number
├── LimitsBroken              10   the training data break the audit's limits
├── PromotionRefused           1   each error carries the code of its gravest reason, mostly 10, 11 or 12
└── EvidenceFault             12   the evidence cannot be compared or trusted
    └── PromptMismatch        12   the server was fed other ids than the training renderer makes
"""

import difflib
from collections.abc import Iterable
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a command ends with. CI jobs rely on the numbers."""

    DONE = 0  # for `gate` and `run`: the verdict is PASS
    DEFECT = 1  # of the harness itself; the traceback is shown
    USAGE = 2
    ENVIRONMENT = 3
    FAIL = 10
    INCONCLUSIVE = 11
    INVALID = 12
    INTERRUPTED = 130

    @classmethod
    def gravest(cls, codes: Iterable[int]) -> "ExitCode":
        """The code that many jobs end with together; DONE without any, and DEFECT for a number that is not a code."""
        known = [cls(code) if code in set(cls) else cls.DEFECT for code in codes]
        return max(known, key=_SEVERITY.index, default=cls.DONE)

    @property
    def severity(self) -> int:
        """Larger is graver."""
        return _SEVERITY.index(self)


_SEVERITY = (  # what hides everything else comes last
    ExitCode.DONE,
    ExitCode.INCONCLUSIVE,
    ExitCode.FAIL,
    ExitCode.INVALID,
    ExitCode.ENVIRONMENT,
    ExitCode.USAGE,
    ExitCode.DEFECT,
    ExitCode.INTERRUPTED,
)
INTERRUPTED = ExitCode.INTERRUPTED  # to be replaced by ExitCode.INTERRUPTED where it is imported


class HarnessError(Exception):
    """A failure with a message for the user: what, where, and how to mend it."""

    exit_code: int = ExitCode.DEFECT

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel from worker processes with their message and exit code, whatever made them."""
        return _restored, (type(self), str(self), vars(self))


def _restored(kind: type[HarnessError], message: str, state: dict[str, Any]) -> HarnessError:
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class UsageError(HarnessError):
    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """All configuration faults found, one line each."""

    def __init__(self, faults: Iterable[str]):
        self.faults = list(faults)
        count = len(self.faults)
        title = f"{count} configuration fault{'s' if count != 1 else ''}:"
        super().__init__("\n".join([title, *(f"  - {fault}" for fault in self.faults)]))


class DataError(UsageError):
    pass


class TemplateRefusal(DataError):
    pass


class EnvironmentFault(HarnessError):
    exit_code = ExitCode.ENVIRONMENT


class MissingDependency(EnvironmentFault):
    """An optional package is not installed."""

    def __init__(self, package: str, needed_for: str, extra: str):
        super().__init__(
            f"{needed_for} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'tuning-harness[{extra}]'"
        )


class ServerFault(EnvironmentFault):
    pass


class RequestRefused(ServerFault):
    pass


class DiskFull(EnvironmentFault):
    pass


class OutOfMemory(EnvironmentFault):
    pass


class NetworkFault(EnvironmentFault):
    pass


class TrainingFault(EnvironmentFault):
    pass


class LimitsBroken(HarnessError):
    """Every broken limit of the audit, one line each."""

    exit_code = ExitCode.FAIL

    def __init__(self, broken: Iterable[str]):
        lines = [f"  - {told}" for told in broken]
        super().__init__("\n".join(["the data break the audit's limits:", *lines]))


class PromotionRefused(HarnessError):
    """Every reason why a candidate may not be promoted, one line each; the exit code is that of the gravest."""

    def __init__(self, reasons: Iterable[str], exit_code: int):
        self.exit_code = exit_code
        super().__init__("\n".join(["not promoted:", *(f"  - {reason}" for reason in reasons)]))


class EvidenceFault(HarnessError):
    exit_code = ExitCode.INVALID


class PromptMismatch(EvidenceFault):
    pass


def nearest(name: str, valid: Iterable[str]) -> str:
    """' Did you mean …?' for a misspelt name, or the list of valid ones when none is near."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Valid: {', '.join(names)}." if names else "There is none."
