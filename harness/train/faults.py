"""What can go wrong in the middle of training: every error names the step, its rows and a way out."""

import errno
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.config.train import TrainConfig
from harness.core.errors import DiskFull, HarnessError, TrainingFault
from harness.train.packing import TrainingBatches

_SHOWN = 10
_NO_MEMORY = ("out of memory", "can't allocate memory", "alloc failed", "bad_alloc")
_NO_SPACE = ("no space left", "failed writing file", "file write failed", "unexpected pos")
EXPLODED = 3.0
PENALTIES = ("l2_to_start", "kl_to_base")


def check_step(
    values: Mapping[str, float],
    batches: TrainingBatches,
    config: TrainConfig,
    vocabulary: int,
    by_loss: Callable[[], list[int]] = list,
) -> None:
    """Raises TrainingFault for a loss or gradient that is not a number, or a loss EXPLODED times that of guessing.

    The loss without penalties; guessing counts as the heaviest source does. `by_loss` gives the numbers of the step's
    rows, the highest loss first.
    """
    step, loss, norm = int(values["step"]), values["loss"], values.get("grad_norm", 0.0)
    guessing = math.log(vocabulary) * max([1.0, *config.source_weights.values()])
    plain = loss - sum(values.get(penalty, 0.0) for penalty in PENALTIES)
    if not math.isfinite(loss):
        what = f"the loss is {loss}"
    elif not math.isfinite(norm):
        what = f"the gradient norm is {norm}"
    elif plain > EXPLODED * guessing:
        what = f"the loss is {plain:.1f}, where guessing gives {guessing:.1f},"
    else:
        return
    rows = [batches.row_ids[number] for number in by_loss()]
    which = "the rows of that step, the highest loss first" if rows else "the rows of that step"
    raise TrainingFault(
        f"{what} at step {step} of {batches.steps}: training diverged. Lower train.learning_rate (now "
        f"{config.learning_rate:g}) or look at {which}: "
        f"{_row_list(rows or batches.rows_of(step))}"
    )


def _row_list(rows: Sequence[str]) -> str:
    return ", ".join(rows[:_SHOWN]) + (f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else "")


@contextmanager
def translated_errors(batches: TrainingBatches, config: TrainConfig, at: Callable[[], int]) -> Iterator[None]:
    """Turns out-of-memory into TrainingFault and a full disk into DiskFull; `at` gives the running step."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:  # safetensors, torch and Python each have their own for one thing
        text = str(error).lower()
        step = min(at(), batches.steps)
        if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
            raise TrainingFault(_out_of_memory(batches, config, step)) from None
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or any(sign in text for sign in _NO_SPACE):
            raise DiskFull(
                f"no space left at step {step} of {batches.steps}; the checkpoint before it is complete. "
                "Make room and start the same command again: it goes on from there."
            ) from None
        raise


def _out_of_memory(batches: TrainingBatches, config: TrainConfig, step: int) -> str:
    longest = max((len(packed.input_ids) for packed in batches.members(step)), default=0)
    ways = ["a smaller train.sequence_length"]
    ways += [] if config.gradient_checkpointing else ["train.gradient_checkpointing=true"]
    ways += ["train.parts_at_once=1 (on a CPU)"] if config.method == "lora" and config.parts_at_once != 1 else []
    ways += ["train.method=lora or qlora"] if config.method == "full" else []
    return (
        f"out of memory at step {step} of {batches.steps} (a sequence of {longest} tokens). Try "
        f"{', '.join(ways)}; harness train --dry-run says what is expected. Rows: {_row_list(batches.rows_of(step))}"
    )
