"""One of several training processes, started by accelerate or torchrun: python -m harness.train.worker JOB.json."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from harness.config.experiment import TrainingConfig, validate
from harness.core.console import say, silence_libraries
from harness.core.errors import ExitCode, HarnessError
from harness.core.processes import dies_with_parent
from harness.train.fit import fit
from harness.train.launch import BATCHES, ERROR
from harness.train.packing import TrainingBatches
from harness.train.progress import SavedProgress


def main(path: Path) -> int:
    silence_libraries()
    if end_with_parent := dies_with_parent():
        end_with_parent()
    first = os.environ.get("RANK", "0") == "0"
    if not first:
        os.environ["CI"] = "1"  # one progress bar is enough
    job = json.loads(path.read_text())
    saved = SavedProgress(Path(job["progress"]))
    resume = Path(job["resume"]) if job["resume"] else None
    config = validate(TrainingConfig, job["config"])
    try:
        batches = TrainingBatches.load(saved.folder / BATCHES)
        with saved.in_use() if first else nullcontext():
            fit(config, Path(job["base"]), batches, saved, resume, Path(job["out"]))
    except HarnessError as error:
        _write_error(error, saved.folder / ERROR)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return 0


def _write_error(error: HarnessError, path: Path) -> None:
    """Writes the error to `path` unless another process did so first; prints it if the disk is full."""
    try:
        with path.open("x") as file:
            file.write(json.dumps({"kind": type(error).__name__, "message": str(error)}))
    except FileExistsError:
        pass
    except OSError:
        say(f"harness: {error}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
