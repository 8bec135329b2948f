"""One of several training processes: python -m harness.train.worker JOB.json, started by accelerate or torchrun."""

import json
import os
import sys
from pathlib import Path

from harness.config import Config, validate
from harness.console import silence_libraries
from harness.errors import INTERRUPTED, HarnessError
from harness.train.fit import fit
from harness.train.launch import ERROR, MATERIAL
from harness.train.material import Material
from harness.train.memory import keep_memory
from harness.train.progress import Progress


def main(path: Path) -> int:
    silence_libraries()
    keep_memory()
    first = os.environ.get("RANK", "0") == "0"
    if not first:
        os.environ["CI"] = "1"  # one progress bar is enough
    job = json.loads(path.read_text())
    saved = Progress(Path(job["progress"]))
    resume = Path(job["resume"]) if job["resume"] else None
    config = validate(Config, job["config"])
    try:
        what = Material.load(saved.folder / MATERIAL)
        fit(config, Path(job["base"]), what, saved, resume, Path(job["out"]))
    except HarnessError as error:
        if first:
            (saved.folder / ERROR).write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
