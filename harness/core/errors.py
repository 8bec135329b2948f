"""The exception tree. Each leaf knows the exit code of INTERFACE; the message is for the user.

HarnessError
├── UsageError                 2   what was asked cannot be done as asked
│   ├── ConfigError            2   every configuration fault at once
│   └── DataError              2   a file, a row or a dataset that cannot be used
│       └── TemplateRefusal    2   the chat template does not take such a conversation
├── EnvironmentFault           3   this machine lacks something
│   ├── MissingDependency      3
│   ├── ServerFault            3   the server did not come up, or went away
│   │   └── RequestRefused     3   it answers, and refuses this request
│   ├── DiskFull               3
│   └── NetworkFault           3
├── LimitsBroken              10   the training data break the audit's limits
├── TrainingFault              3   training cannot go on (loss is not a number)
└── EvidenceFault             12   the evidence cannot be compared or trusted
    └── PromptMismatch        12   the server was fed other ids than the training renderer makes
"""

import difflib
from collections.abc import Iterable
from typing import Any

INTERRUPTED = 130


class HarnessError(Exception):
    """A failure with a message for the user: what, where, and how to mend it."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel from worker processes with their message and exit code, whatever made them."""
        return _restored, (type(self), str(self), vars(self))


def _restored(kind: type[HarnessError], message: str, state: dict[str, Any]) -> HarnessError:
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class UsageError(HarnessError):
    exit_code = 2


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
    exit_code = 3


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


class NetworkFault(EnvironmentFault):
    pass


class TrainingFault(EnvironmentFault):
    pass


class LimitsBroken(HarnessError):
    """Every broken limit of the audit, one line each."""

    exit_code = 10

    def __init__(self, broken: Iterable[str]):
        lines = [f"  - {told}" for told in broken]
        super().__init__("\n".join(["the data break the audit's limits:", *lines]))


class PromotionRefused(HarnessError):
    """Every reason why a candidate may not be promoted, one line each; the exit code is that of the gravest."""

    def __init__(self, reasons: Iterable[str], exit_code: int):
        self.exit_code = exit_code
        super().__init__("\n".join(["not promoted:", *(f"  - {reason}" for reason in reasons)]))


class EvidenceFault(HarnessError):
    exit_code = 12


class PromptMismatch(EvidenceFault):
    pass


def nearest(name: str, valid: Iterable[str]) -> str:
    """' Did you mean …?' for a misspelt name, or the list of valid ones when none is near."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Valid: {', '.join(names)}." if names else "There is none."
