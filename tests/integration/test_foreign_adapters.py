"""Adapters made elsewhere, by `harness evaluate` on a server of its own: bad ones are named, the others are scored."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main

pytestmark = pytest.mark.integration
WEIGHTS = "adapter_model.safetensors"


def changed(source: Path, folder: Path, factor: float = 1.0, prefix: str = "") -> Path:
    """A copy without the numbers that training left; lora_B is scaled, and names get a prefix."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("numerics.json"))
    tensors = load_file(source / WEIGHTS)
    made = {prefix + name: tensor * factor if "lora_B" in name else tensor for name, tensor in tensors.items()}
    save_file({name: tensor.clone() for name, tensor in made.items()}, folder / WEIGHTS)
    return folder


def evaluate(capsys: pytest.CaptureFixture[str], base: Path, runs: Path, *names: Path) -> tuple[int, str]:
    settings = ["model=pretrained", f"model.path={base}", "tracker=none", "serve.kv_cache_gib=1", f"runs_dir={runs}"]
    tasks = ["domain_tasks=[]", "suite.tasks=[{name: general_smoke_instructions, limit: 4, max_new_tokens: 8}]"]
    code = main(["evaluate", "base", *map(str, names), *settings, *tasks, "model.dtype=float32"])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_one_bad_adapter_does_not_end_the_others(
    tiny_base: Path,
    tiny_adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    good, zero = changed(tiny_adapter, tmp_path / "good"), changed(tiny_adapter, tmp_path / "untrained", factor=0)
    strange = changed(tiny_adapter, tmp_path / "strange", prefix="base_model.model.")
    code, said = evaluate(capsys, tiny_base, tmp_path / "runs", good, zero, strange)
    assert code == 2, said
    assert said.index("strange is not evaluated") < said.index("start vLLM")
    assert "tensors belong to no module of the base model" in said
    assert "untrained: this adapter changes nothing" in said
    assert "reference numbers of the adapter from transformers (once)" in said
    folders = {path.parent.name for path in tmp_path.glob("runs/*/eval/*/evaluation.json")}
    assert folders == {"base", "good", "untrained"}


def test_a_server_with_an_earlier_version_of_an_adapter(
    tiny_base: Path,
    tiny_adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its own reference numbers are those of the finished training; the weights in the folder are older."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    stale = changed(tiny_adapter, tmp_path / "stale", factor=0.9)
    numbers: Any = json.loads((tiny_adapter / "numerics.json").read_text())
    (stale / "numerics.json").write_text(json.dumps(numbers))
    code, said = evaluate(capsys, tiny_base, tmp_path / "runs", stale)
    assert code == 12, said
    assert "stale: the prompts are equal, but" in said
    assert "earlier version of the adapter" in said or "nats apart on average" in said
