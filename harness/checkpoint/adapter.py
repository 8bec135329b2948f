"""What an adapter folder has to be before a server gets it: every tensor belongs to a module of its base model.

vLLM leaves out tensors whose names it does not know, and peft only warns: such an adapter answers as the base model.
"""

import json
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.checkpoint.origin import origin_of, origins_are_here, write_origin
from harness.core.code_digest import code_digest
from harness.core.console import plural, say
from harness.core.errors import DataError, EvidenceFault
from harness.core.store import read_manifest, sha256_json, stage, write_json
from harness.core.translate import translated
from harness.model.load import (
    ADAPTER_WEIGHTS,
    adapter_config,
    cache_dir,
    load_tokenizer,
    quiet_transformers,
    tensor_shapes,
    tokenizer_folder,
    weights_sha256,
)

Shapes = Mapping[str, tuple[int, ...]]
ROOT = "base_model.model."  # peft's prefix of every name
# peft's name of an adapter (`default` unless it was given one) is in a training's state dict, but not in a saved file
_NAMED = re.compile(r"\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|modules_to_save)\.(\w+)")
REFUSED_INITS = ("pissa_niter", "corda", "loftq")
REFUSED = {
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
_SHOWN = 3


def ready_adapter(folder: Path, base: Path) -> Path:
    """The adapter folder to serve: `folder`, or a copy in the cache whose tensors have the names that peft saves.

    Says what a person should know of it, such as that it changes nothing. Raises DataError for an adapter that does not
    fit `base` or is of a kind that nothing here can serve, EvidenceFault where it was trained on other weights.
    """
    config = adapter_config(folder)
    _require_known_kind(folder, config)
    _require_recorded_base(folder, base)
    folder = _with_plain_names(folder)
    inputs = {
        "adapter": weights_sha256(folder),
        "base": weights_sha256(base),
        "code": code_digest("harness.checkpoint.adapter:check_adapter"),
    }

    def work(target: Path) -> None:
        write_json(target / "remarks.json", check_adapter(folder, base))

    home = cache_dir() / "fitting"
    checked, _ = stage(home, home / sha256_json(inputs)[:16] / "adapter", "fit", inputs, work)
    for remark in json.loads((checked / "remarks.json").read_text()):
        say(f"· {folder.name}: {remark}")
    return folder


def _require_known_kind(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises DataError for a variant of LoRA that neither vLLM can serve nor peft can merge faithfully."""
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(REFUSED_INITS):
        raise DataError(
            f"{folder}/adapter_config.json: an adapter with init_lora_weights={init!r} belongs to changed weights of "
            "its base model, which cannot be computed again from the base model. Save it as plain LoRA where it was "
            f"trained: save_pretrained(..., path_initial_model_for_weight_conversion=...). If {folder.name} names the "
            'changed base model, set "init_lora_weights": true in the file.'
        )
    if kinds := [f"{what} ({key})" for key, what in REFUSED.items() if config.get(key)]:
        raise DataError(
            f"{folder}/adapter_config.json: {', '.join(kinds)} cannot be served. Merge the adapter into its base model "
            "where it was trained (peft: merge_and_unload, then save_pretrained) and give that folder instead."
        )


def _require_recorded_base(folder: Path, base: Path) -> None:
    """Raises EvidenceFault where the training's record names the digest of another base model."""
    manifest = read_manifest(origin_of(folder)) or {}
    inputs = manifest.get("inputs")
    recorded = inputs.get("base") if isinstance(inputs, dict) and manifest.get("stage") == "train" else None
    if isinstance(recorded, str) and recorded != weights_sha256(base):
        raise EvidenceFault(
            f"{folder} was trained on other weights than those in {base}: the training recorded {recorded[:12]}, "
            f"this base model is {weights_sha256(base)[:12]}. Name its own base model: model.path=FOLDER."
        )


def _with_plain_names(folder: Path) -> Path:
    """The folder itself, or a copy in the cache whose tensors are named without the adapter's name (`.default`)."""
    names = {name: _NAMED.sub(_plain, name) for name in tensor_shapes(folder)}
    changed = sum(old != new for old, new in names.items())
    if not changed:
        return folder
    if len(set(names.values())) < len(names):
        raise DataError(f"{folder}/{ADAPTER_WEIGHTS} holds several adapters; save the one to serve by itself")
    inputs = {"adapter": weights_sha256(folder), "code": code_digest("harness.checkpoint.adapter:ready_adapter")}

    def work(target: Path) -> None:
        from safetensors.torch import load_file, save_file

        for path in folder.iterdir():
            if path.is_file() and path.name not in (ADAPTER_WEIGHTS, "stage.json"):
                shutil.copy(path, target / path.name)
        tensors = {names[name]: tensor for name, tensor in load_file(folder / ADAPTER_WEIGHTS).items()}
        save_file(tensors, target / ADAPTER_WEIGHTS, {"format": "pt"})
        write_origin(target, folder)

    home = cache_dir() / "renamed"
    copy, _ = stage(home, home / sha256_json(inputs)[:16] / folder.name, "rename", inputs, work, origins_are_here)
    old = next(old for old, new in names.items() if old != new)
    say(f"· {folder.name}: {plural(changed, 'tensor')} renamed in a copy, as peft saves them (such as {old})")
    return copy


def _plain(found: re.Match[str]) -> str:
    """`.lora_A.default` becomes `.lora_A`; `.lora_A.weight` stays; `.modules_to_save.default` goes."""
    kind, name = found.groups()
    if kind == "modules_to_save":
        return ""
    return found[0] if name in ("weight", "bias") else f".{kind}"


def check_adapter(folder: Path, base: Path) -> list[str]:
    """Remarks on an adapter whose every tensor has its place in the base model. Raises DataError where one has none."""
    found = tensor_shapes(folder)
    expected = _expected(folder, base)
    saved = tensor_shapes(base)
    strange = [name for name in found if name not in expected and not _lands(name, found, saved)]
    misshapen = [
        f"{name} is {list(shape)} and should be {list(expected[name])}"
        for name, shape in found.items()
        if name in expected and shape != expected[name]
    ]
    # tensors of single experts stand for one of all experts, in which this version of transformers keeps them
    whole = any(name not in expected for name in found)
    missing = [] if whole and not strange else [name for name in expected if name not in found]
    problems = [
        _listed(strange, len(found), "tensors belong to no module of the base model"),
        _listed(misshapen, len(found), "tensors have another shape"),
        _listed(missing, len(expected), "tensors that adapter_config.json calls for are missing"),
    ]
    if any(problems):
        example = next(iter(expected), "")
        raise DataError(
            "\n".join(
                [
                    f"the adapter {folder} does not fit the base model {base}; a server would leave tensors out:",
                    *(f"  - {problem}" for problem in problems if problem),
                    *([f"  Names of tensors that fit: {example}"] if strange and example else []),
                    "Save it again with peft's save_pretrained, or name the base model that it was trained on: "
                    "model.path=FOLDER.",
                ]
            )
        )
    return _effect(folder)


def _listed(names: Sequence[str], of: int, what: str) -> str:
    """'8 of 28 tensors …: a, b, c and 5 more'; empty without names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} of {of} {what}: {', '.join(name[:160] for name in names[:_SHOWN])}{more}" if names else ""


def _expected(folder: Path, base: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that peft would save for this configuration on the base model (without weights).

    Embeddings and output layer are included only where the adapter brings them.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    wrong = f"the adapter {folder} does not fit the base model {base}"
    fix = "Name the base model that it was trained on: model.path=FOLDER."
    damaged = f"{base}/config.json is damaged"
    with translated(f"read {base}/config.json", DataError, damaged, any_class=True), quiet_transformers():
        settings = AutoConfig.from_pretrained(base, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    with (
        translated(f"apply the adapter {folder}", DataError, wrong, fix, any_class=True),
        torch.device("meta"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of settings that do not matter to names and shapes
        config = LoraConfig.from_pretrained(str(folder))
        config.init_lora_weights = True  # others read the weights, which are not here
        own = tokenizer_folder(folder, base)
        tokens = 0 if own == base else len(load_tokenizer(own))
        if tokens > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(tokens)
        whole = PeftModel(model, config)
        needed, allowed = (get_peft_model_state_dict(whole, save_embedding_layers=all_) for all_ in (False, True))
    brought = tensor_shapes(folder)
    return {name: tuple(t.shape) for name, t in allowed.items() if name in needed or name in brought}


def _lands(name: str, found: Shapes, saved: Shapes) -> bool:
    """Whether a tensor fits one expert in the base model's files; transformers keeps all experts of a layer in one."""
    module, _, kind = name.removeprefix(ROOT).partition(".lora_")
    weight, own = saved.get(f"{module}.weight", ()), found[name]
    if ".experts." not in module or len(weight) != 2 or len(own) != 2:
        return False
    return (kind, own[1]) == ("A.weight", weight[1]) or (kind, own[0]) == ("B.weight", weight[0])


def _effect(folder: Path) -> list[str]:
    """Says where an adapter changes nothing. Raises DataError for numbers that are not finite."""
    import torch
    from safetensors.torch import load_file

    with translated(f"read {folder / ADAPTER_WEIGHTS}", DataError, f"{folder / ADAPTER_WEIGHTS} is damaged"):
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor.float()).all()]:
        raise DataError(
            f"{folder / ADAPTER_WEIGHTS}: {len(broken)} of {len(tensors)} tensors hold NaN or infinity, such as "
            f"{broken[0]}. The training diverged, or the file is damaged; use an earlier checkpoint."
        )
    pairs = {name: name.replace("_B", "_A") for name in tensors if ".lora_B" in name or ".lora_embedding_B" in name}
    zero = [name for name, other in pairs.items() if not tensors[name].any() or not tensors[other].any()]
    scaled_off = adapter_config(folder).get("lora_alpha") == 0
    if zero and len(pairs) * 2 == len(tensors) and len(zero) == len(pairs):
        return ["this adapter changes nothing: all of its lora_B tensors are zero (not trained, or scaled to 0)"]
    if scaled_off and len(pairs) * 2 == len(tensors):
        return ["this adapter changes nothing: its lora_alpha is 0"]
    if zero:
        return [f"{len(zero)} of its {len(pairs)} modules change nothing: their lora_B is zero (such as {zero[0]})"]
    return []
