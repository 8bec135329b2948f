"""Errors in the middle of a training: divergence, out of memory, full disk. Each names the step, its rows and a fix."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.config.train import TrainConfig
from harness.core.errors import DiskFull, HarnessError, OutOfMemory, TrainingFault
from harness.core.translate import kind_of
from harness.train.packing import TrainingBatches

_SHOWN = 10
EXPLODED = 3.0
PENALTIES = ("l2_to_start", "kl_to_base")


def check_step(
    values: Mapping[str, float],
    batches: TrainingBatches,
    config: TrainConfig,
    vocabulary: int,
    by_loss: Callable[[], list[int]] = list,
) -> None:
    """Raises TrainingFault for a NaN or infinite loss or gradient, or a loss above EXPLODED times that of guessing.

    The loss counts without penalties; guessing is weighted like the heaviest source. `by_loss` gives the numbers of
    the step's rows, highest loss first.
    """
    step, loss, norm = int(values["step"]), values["loss"], values.get("grad_norm", 0.0)
    guessing = math.log(vocabulary) * max([1.0, *config.source_weights.values()])
    plain = loss - sum(values.get(penalty, 0.0) for penalty in PENALTIES)
    if not math.isfinite(loss):
        what = f"the loss is {loss}"
    elif not math.isfinite(norm):
        what = f"the gradient norm is {norm}"
    elif plain > EXPLODED * guessing:
        what = f"the loss is {plain:.1f} (guessing gives {guessing:.1f})"
    else:
        return
    rows = [batches.row_ids[number] for number in by_loss()]
    order = " (highest loss first)" if rows else ""
    raise TrainingFault(
        f"training diverged: {what} at step {step} of {batches.steps}. Lower train.learning_rate (now "
        f"{config.learning_rate:g}), or check the rows of that step{order}: {_row_list(rows or batches.rows_of(step))}"
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
    except Exception as error:
        kind, step = kind_of(error), min(at(), batches.steps)
        if kind is OutOfMemory:
            raise TrainingFault(_out_of_memory(batches, config, step)) from None
        if kind is DiskFull:
            raise DiskFull(
                f"no space left at step {step} of {batches.steps}; the checkpoint before that step is complete. "
                "Free some space and run the same command again: training resumes from that checkpoint."
            ) from None
        raise


def _out_of_memory(batches: TrainingBatches, config: TrainConfig, step: int) -> str:
    longest = max((len(packed.input_ids) for packed in batches.members(step)), default=0)
    ways = ["a smaller train.sequence_length"]
    ways += [] if config.gradient_checkpointing else ["train.gradient_checkpointing=true"]
    ways += ["train.parts_at_once=1 (on a CPU)"] if config.method == "lora" and config.parts_at_once != 1 else []
    ways += ["train.method=lora or qlora"] if config.method == "full" else []
    return (
        f"out of memory at step {step} of {batches.steps} (a sequence of {longest} tokens). Try {', '.join(ways)}. "
        f"harness train … --dry-run estimates the memory. Rows: {_row_list(batches.rows_of(step))}"
    )
