"""Scales a checkpoint towards its base model: one training gives a curve of checkpoints with `alpha` from 0 to 1."""

import re
import shutil
from pathlib import Path

from harness.checkpoint.origin import ORIGIN, origins_are_here, write_origin
from harness.core.code_digest import code_digest
from harness.core.errors import DataError, UsageError
from harness.core.layout import CONTRACT
from harness.core.store import stage
from harness.model.load import adapter_config, cache_dir, is_adapter, weights_sha256
from harness.prompt.contract import Contract
from harness.prompt.numerics import compute

_NAME = re.compile(r"(?P<name>.+)@(?P<alpha>[01]|0?\.[0-9]+|1\.0+)")
_OTHER_FORMS = ("modules_to_save", "trainable_token_indices", "use_dora")


def split_alpha(name: str) -> tuple[str, float]:
    """('RUN', 0.5) for 'RUN@0.5'; alpha is 1 if the name has none. Raises UsageError for an alpha outside 0 to 1."""
    if "@" not in name or Path(name).exists():
        return name, 1.0
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(f"{name}: write CHECKPOINT@ALPHA with alpha from 0 to 1, such as {name.partition('@')[0]}@0.5")
    return found["name"], float(found["alpha"])


def scaled_copy(folder: Path, base: Path, alpha: float, dtype: str) -> Path:
    """The folder of the scaled checkpoint in the cache, where it is made once."""
    digest = weights_sha256(folder)
    inputs = {
        "weights": digest,
        "base": weights_sha256(base),
        "alpha": alpha,
        "dtype": dtype,
        "code": code_digest("harness.checkpoint.scaling:scale"),
    }
    home = cache_dir() / "scaled"
    target = home / f"{digest[:16]}-{alpha:g}" / "model"
    made, _ = stage(home, target, "scale", inputs, lambda out: scale(folder, base, alpha, dtype, out), origins_are_here)
    return made


def scale(folder: Path, base: Path, alpha: float, dtype: str, out: Path) -> None:
    """Writes base + alpha · (checkpoint − base) to `out`; an adapter stays an adapter, a full model a full model.

    `base` is the base model's folder, for a full model too. Raises DataError for a checkpoint whose change cannot be
    scaled, or that does not fit the base model.
    """
    skipped = ("numerics.json", "stage.json", ORIGIN)
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name not in skipped:
            shutil.copy(path, out / path.name)
    if is_adapter(folder):
        _scale_adapter(folder, alpha, out)
    else:
        _interpolate(folder, base, alpha, out)
    write_origin(out, folder, alpha=alpha)
    if (out / CONTRACT).is_file():
        compute(out, base if is_adapter(folder) else out, Contract.load(out), dtype).save(out)


def _scale_adapter(folder: Path, alpha: float, out: Path) -> None:
    """Multiplies B by alpha. The change of the weights is s·B·A, so every server applies the same scale."""
    from safetensors.torch import load_file, save_file

    config = adapter_config(folder)
    if other := [key for key in _OTHER_FORMS if config.get(key)]:
        raise DataError(f"{folder}: an adapter with {', '.join(other)} cannot be scaled")
    if config.get("bias", "none") != "none":
        raise DataError(f"{folder}: an adapter with trained biases cannot be scaled")
    name = "adapter_model.safetensors"
    weights = load_file(folder / name)
    for key, value in weights.items():
        if "lora_B" in key or "lora_embedding_B" in key:
            weights[key] = (value * alpha).to(value.dtype)
    save_file(weights, out / name, {"format": "pt"})


def _interpolate(folder: Path, base: Path, alpha: float, out: Path) -> None:
    """Interpolates every tensor between base model and checkpoint in fp32; stored in the checkpoint's dtype."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    of_base: dict[str, Path] = {}
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            of_base |= dict.fromkeys(file.keys(), path)
    for path in sorted(folder.glob("*.safetensors")):
        made = {}
        for key, tuned in load_file(path).items():
            if key not in of_base:
                raise DataError(f"{base} has no tensor {key}: it is not the base model of this checkpoint")
            with safe_open(of_base[key], "pt") as file:
                start = file.get_tensor(key)
            if start.shape != tuned.shape:
                raise DataError(f"{key} has a different shape in {base}: it is not the base model of this checkpoint")
            made[key] = start.float().lerp(tuned.float(), alpha).to(tuned.dtype)
        save_file(made, out / path.name, {"format": "pt"})
