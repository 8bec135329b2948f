"""The exception tree and the exit codes. Every class has its exit code; messages are written for the user.

harness/core/translate.py turns errors of other libraries into these.

HarnessError                   1   never raised directly
├── UsageError                 2   the command cannot be carried out as given
│   ├── ConfigError            2   all configuration errors at once
│   └── DataError              2   a file, a row or a dataset that cannot be used
│       ├── TemplateRefusal    2   the chat template does not accept a conversation
│       └── CodeNotRun         2   in evaluate/tasks/load.py: a task's own code, where a suite is only looked at
├── EnvironmentFault           3   this machine lacks something
│   ├── MissingDependency      3   a package is not installed
│   ├── ServerFault            3   the server did not start, or died
│   │   ├── RequestRefused     3   the server answers, but refuses this request
│   │   └── ServerStalled      3   the server runs, but answers nothing and computes nothing
│   ├── ServerGone             3   in evaluate/dispatch.py, which restarts the server
│   ├── DiskFull               3   the disk is full
│   ├── OutOfMemory            3   the machine or the GPU has too little memory
│   ├── NetworkFault           3   a host cannot be reached, or refuses a download
│   │   └── MissingData        3   in evaluate/tasks/hub.py: a dataset is not here and cannot be downloaded
│   └── TrainingFault          3   training cannot continue, for example because the loss is NaN
├── LimitsBroken              10   the training data exceed the audit's limits
├── PromotionRefused           1   each one carries the code of its most serious reason, mostly 10, 11 or 12
└── EvidenceFault             12   the evidence cannot be compared or trusted
    └── PromptMismatch        12   the server's prompts differ from those of the training renderer
"""

import difflib
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from harness.core.console import plural


class ExitCode(IntEnum):
    """The exit codes of all commands. CI jobs rely on the numbers."""

    DONE = 0  # for `gate` and `run`: the verdict is PASS
    DEFECT = 1  # a defect of the harness; the traceback is shown
    USAGE = 2
    ENVIRONMENT = 3
    FAIL = 10
    INCONCLUSIVE = 11
    INVALID = 12
    INTERRUPTED = 130

    @classmethod
    def gravest(cls, codes: Iterable[int]) -> "ExitCode":
        """The most serious of several codes: DONE if there are none, DEFECT for a number that is not an exit code."""
        known = [cls(code) if code in set(cls) else cls.DEFECT for code in codes]
        return max(known, key=_SEVERITY.index, default=cls.DONE)

    @property
    def severity(self) -> int:
        """Rank of the code: larger is more serious."""
        return _SEVERITY.index(self)


_SEVERITY = (  # last: what hides all other results
    ExitCode.DONE,
    ExitCode.INCONCLUSIVE,
    ExitCode.FAIL,
    ExitCode.INVALID,
    ExitCode.ENVIRONMENT,
    ExitCode.USAGE,
    ExitCode.DEFECT,
    ExitCode.INTERRUPTED,
)


class HarnessError(Exception):
    """An error with a message for the user: what is wrong, where, and how to fix it."""

    exit_code: int = ExitCode.DEFECT

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the message and the attributes, so that errors of worker processes keep both."""
        return _restored, (type(self), str(self), vars(self))


def _restored(kind: type[HarnessError], message: str, state: dict[str, Any]) -> HarnessError:
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class UsageError(HarnessError):
    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """All configuration errors, one line each."""

    def __init__(self, errors: Iterable[str]):
        self.errors = list(errors)
        title = f"{plural(len(self.errors), 'configuration error')}:"
        super().__init__("\n".join([title, *(f"  - {error}" for error in self.errors)]))


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


class ServerStalled(ServerFault):
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
    """All limits of the audit that the data exceed, one line each."""

    exit_code = ExitCode.FAIL

    def __init__(self, broken: Iterable[str]):
        super().__init__("\n".join(["the data exceed the audit's limits:", *(f"  - {limit}" for limit in broken)]))


class PromotionRefused(HarnessError):
    """All reasons against a promotion, one line each; the exit code is that of the most serious one."""

    def __init__(self, reasons: Iterable[str], exit_code: int):
        self.exit_code = exit_code
        super().__init__("\n".join(["not promoted:", *(f"  - {reason}" for reason in reasons)]))


class EvidenceFault(HarnessError):
    exit_code = ExitCode.INVALID


class PromptMismatch(EvidenceFault):
    pass


_LISTED = 40  # valid names in a message


# What other trainers and the field call some keys.
ALIASES = {
    "lr": "learning_rate", "learningrate": "learning_rate", "max_lr": "learning_rate",
    "bs": "sequences_per_step", "batch_size": "sequences_per_step", "batch": "sequences_per_step",
    "per_device_train_batch_size": "sequences_per_step", "train_batch_size": "sequences_per_step",
    "gradient_accumulation_steps": "sequences_per_step", "global_batch_size": "sequences_per_step",
    "max_length": "sequence_length", "max_seq_length": "sequence_length", "max_seq_len": "sequence_length",
    "seq_len": "sequence_length", "seq_length": "sequence_length", "cutoff_len": "sequence_length",
    "model_max_length": "sequence_length", "block_size": "sequence_length",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs",
    "wd": "weight_decay", "warmup": "warmup_ratio", "warmup_steps": "warmup_ratio",
    "lora_rank": "lora", "lora_r": "lora", "lora_alpha": "lora", "lora_dropout": "lora", "lora_target": "lora",
    "rank": "r", "lora_dim": "r", "targets": "target_modules", "grad_clip": "max_grad_norm",
    "name": "path", "model_name_or_path": "path", "model_id": "path", "pretrained": "path", "repo": "hub",
    "limit_samples": "limit", "max_samples": "limit", "fewshot": "num_fewshot", "n_shot": "num_fewshot",
    "torch_dtype": "dtype", "precision": "dtype", "max_tokens": "max_new_tokens", "file": "path",
}  # fmt: skip


def nearest(name: str, valid: Iterable[str]) -> str:
    """'Did you mean …?' for a misspelt or abbreviated name, or the list of valid names if none is similar."""
    names = sorted(valid)
    if (usual := ALIASES.get(name.lower())) in names:
        return f"Did you mean '{usual}'?"
    initials = [full for full in names if "_" in full and "".join(part[:1] for part in full.split("_")) == name]
    close = initials or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"Valid: {', '.join(names[:_LISTED])}{more}." if names else "There is none."
