"""What the training stage depends on, and the stage after it that scales the trained change."""

from pathlib import Path
from typing import Any

from harness import store
from harness.base_model import weights_sha256
from harness.config import Config
from harness.prompt.make import read_template
from harness.records import Dataset
from harness.scaling import scale
from harness.train.launch import accelerate_file


def training_inputs(config: Config, base: Path, dataset: Dataset) -> dict[str, Any]:
    """Everything the weights depend on; an unfinished training goes on only where nothing of it changed."""
    installed = store.versions()
    inputs: dict[str, Any] = {
        "base": weights_sha256(base),
        "data": dataset.sha256,
        "template": [config.template.model_dump(), config.template.file and read_template(config.template.file)],
        "train": config.train.model_dump(),
        "launch": [config.launcher, config.num_processes, _accelerate_file(config)],
        "dtype": config.model.dtype,
        "versions": {name: installed.get(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "code": store.code_version("train", "prompt"),
    }
    if config.train.kl_to_base:
        inputs["roles"] = {name: source.role for name, source in config.data.sources.items()}
    if config.train.eval_every:
        inputs["examination"] = [config.gate.model_dump(mode="json"), [task.model_dump() for task in config.tasks]]
    return inputs


def _accelerate_file(config: Config) -> str | None:
    return store.sha256_file(accelerate_file(config.accelerate_config)) if config.accelerate_config else None


def scale_stage(config: Config, runs: Path, trained: Path, base: Path) -> Path:
    """checkpoint/ beside trained/, as base + alpha · (trained − base)."""
    alpha, dtype = config.alpha, config.model.dtype
    fingerprint = (store.read_manifest(trained) or {})["fingerprint"]
    inputs = {"trained": fingerprint, "alpha": alpha, "dtype": dtype, "code": store.code_version("scaling")}
    folder, _ = store.stage(
        runs, trained.parent / "checkpoint", "scale", inputs, lambda out: scale(trained, base, alpha, dtype, out)
    )
    return folder
