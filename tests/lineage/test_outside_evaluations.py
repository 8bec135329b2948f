"""Evidence of evaluations made elsewhere: it lists the files that were read, and earlier records still hold."""

import json
from pathlib import Path

from test_gate_proposed import lm_eval_folder

from harness.cli import main
from harness.core.store import sha256_file


def test_only_what_was_read_is_evidence(tmp_path: Path) -> None:
    baseline, candidate = lm_eval_folder(tmp_path / "a", 20), lm_eval_folder(tmp_path / "b", 21)
    for name in ("notes.txt", "credentials.json", "all_my_keys.json", "model.safetensors"):
        (tmp_path / "b" / name).write_text("{}")
    out = tmp_path / "decided"
    assert main(["gate", baseline, candidate, "policy=any", "--out", str(out)]) == 0
    chain = json.loads((out / "evidence.json").read_text())
    listed = {step["stage"]: sorted(step["files"]) for step in chain["steps"]}
    assert all(name.startswith(("results_", "samples_")) for files in listed.values() for name in files if "20" in name)
    assert [len(files) for stage, files in listed.items() if stage.startswith("eval")] == [2, 2]
    assert main(["verify", str(out)]) == 0

    # An earlier release recorded every file beside the samples. A change of one still shows.
    step = next(step for step in chain["steps"] if "samples" in "".join(step["files"]))
    folder = (out / step["folder"]).resolve()
    (folder / "notes.txt").write_text("{}")
    step["files"]["notes.txt"] = sha256_file(folder / "notes.txt")
    (out / "evidence.json").write_text(json.dumps(chain))
    assert main(["verify", str(out)]) == 0
    (folder / "notes.txt").write_text("changed")
    assert main(["verify", str(out)]) == 12
