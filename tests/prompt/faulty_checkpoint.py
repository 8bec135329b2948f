"""Faults in what a checkpoint folder says about its prompt or weights, each under its name in `faults`."""

import json
import shutil
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from faulty_contract import Bench, Check, contract_for

from harness.evaluate.write import renderer_for
from harness.model.load import quiet_transformers
from harness.prompt.make import read_template
from harness.prompt.numerics import References, references
from harness.prompt.saved import check_saved
from harness.prompt.static import require_sound

STOCK = "{% for message in messages %}{{ message.content }}{% endfor %}"


def saved(bench: Bench, edit: Callable[[Path], object]) -> Check:
    """The session's adapter folder, edited."""
    folder = bench.folder / "checkpoint"
    shutil.copytree(bench.served.adapter, folder)
    edit(folder)
    return lambda: require_sound(check_saved(folder, bench.served.base, bench.contract), "the checkpoint")


def edited(path: Path, changes: Mapping[str, Any]) -> None:
    """A JSON file with other values; None removes a key."""
    values = json.loads(path.read_text()) if path.is_file() else {}
    kept = {key: value for key, value in {**values, **changes}.items() if value is not None}
    path.write_text(json.dumps(kept))


def two_templates(bench: Bench) -> Check:
    return saved(bench, lambda folder: edited(folder / "tokenizer_config.json", {"chat_template": STOCK}))


def base_template_saved(bench: Bench) -> Check:
    def edit(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(STOCK)
        edited(folder / "tokenizer_config.json", {"chat_template": STOCK})

    return saved(bench, edit)


def processor_template(bench: Bench) -> Check:
    return saved(bench, lambda folder: edited(folder / "chat_template.json", {"chat_template": STOCK}))


def default_of_several_templates(bench: Bench) -> Check:
    named = [{"name": "default", "template": STOCK}, {"name": "rag", "template": bench.contract.template}]
    return saved(bench, lambda folder: edited(folder / "tokenizer_config.json", {"chat_template": named}))


def no_template_saved(bench: Bench) -> Check:
    def edit(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        edited(folder / "tokenizer_config.json", {"chat_template": None})

    return saved(bench, edit)


def generation_config_missing(bench: Bench) -> Check:
    return saved(bench, lambda folder: (folder / "generation_config.json").unlink())


def turn_end_not_saved(bench: Bench) -> Check:
    eos = bench.tokenizer.eos_token_id
    return saved(bench, lambda folder: edited(folder / "generation_config.json", {"eos_token_id": eos}))


def repetition_penalty_saved(bench: Bench) -> Check:
    return saved(bench, lambda folder: edited(folder / "generation_config.json", {"repetition_penalty": 1.1}))


def sampling_saved(bench: Bench) -> Check:
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    return saved(bench, lambda folder: edited(folder / "generation_config.json", sampling))


def eos_token_renamed(bench: Bench) -> Check:
    return saved(bench, lambda folder: edited(folder / "tokenizer_config.json", {"eos_token": "<|pad|>"}))


def tokenizer_damaged(bench: Bench) -> Check:
    def edit(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(path.read_text()[:5000])

    return saved(bench, edit)


def tokenizer_of_the_base(bench: Bench) -> Check:
    """Training added a token; the adapter is served over the base model, whose tokenizer lacks it."""
    tokenizer = deepcopy(bench.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|disclaimer|>"]})
    contract = contract_for(read_template("chatml.jinja"), tokenizer, bench.folder)
    return lambda: renderer_for(contract, bench.served.base)


def numerical(bench: Bench, train_more: Callable[[Any], object]) -> Check:
    """The live check where training's numbers are those of the session's adapter, changed in a way that the server
    knows nothing of."""
    from faulty_server import live

    return live(
        bench, bench.served.renderer, numbers=References(candidate=references(tuned(bench, train_more), bench.contract))
    )


def tuned(bench: Bench, train_more: Callable[[Any], object], settings: Mapping[str, Any] | None = None) -> Any:
    """The session's base and adapter in transformers, with other settings and weights."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = bench.folder / "adapter"
    shutil.copytree(bench.served.adapter, folder)
    edited(folder / "adapter_config.json", settings or {})
    with quiet_transformers(), torch.no_grad():
        model: Any = AutoModelForCausalLM.from_pretrained(bench.served.base, dtype=torch.bfloat16)
        model = PeftModel.from_pretrained(model, folder).eval()
        train_more(model)
    return model


def module_dropped(bench: Bench) -> Check:
    """As if the output embeddings were among the modules trained in full."""
    return numerical(bench, lambda model: model.get_output_embeddings().weight.mul_(1.5))


def magnitudes_dropped(bench: Bench) -> Check:
    """DoRA scales every adapted matrix to a trained magnitude, here half as large again; plain LoRA does not."""
    from peft.tuners.lora import LoraLayer

    def train_more(model: Any) -> None:
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                layer.get_base_layer().weight.mul_(1.5)
                layer.lora_B["default"].weight.mul_(1.5)

    return numerical(bench, train_more)
