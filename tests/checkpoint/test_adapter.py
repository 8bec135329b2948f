"""Adapters made elsewhere: every tensor belongs to a module of the base model, or nothing is served."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.checkpoint.resolve import locate, resolve_checkpoint
from harness.config.experiment import ModelConfig, TemplateConfig
from harness.core.errors import DataError, EvidenceFault
from harness.model.load import load_model, with_adapter

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers:UserWarning:peft"),
]
WEIGHTS = "adapter_model.safetensors"
ROOT = "base_model.model."
Tensors = dict[str, Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def whole(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tiny_base, tmp_path_factory.mktemp("adapters") / "whole")


def made(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter as peft saves it, with random numbers in place of a training."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    targets = {"target_modules": ["q_proj", "v_proj", "down_proj"], **settings}
    model = get_peft_model(load_model(base, "float32"), LoraConfig(r=4, lora_alpha=8, **targets))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += 0.05 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


def changed(source: Path, folder: Path, change: Callable[[Tensors], Mapping[str, Any]], **settings: Any) -> Path:
    """A copy of an adapter with other tensors, and other settings in adapter_config.json."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    save_file({name: t.clone() for name, t in change(load_file(folder / WEIGHTS)).items()}, folder / WEIGHTS)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    return folder


def find(name: Path, path: Path | None = None) -> tuple[Path, Path]:
    model = ModelConfig(path=str(path)) if path else ModelConfig(wheel="none==1", gguf_file="none.gguf")
    return locate(str(name), model, name.parent / "runs")


def refusal(name: Path, path: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        find(name, path)
    message = str(caught.value)
    assert len(message) < 1500
    return message


def test_an_adapter_as_peft_saves_it(whole: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find(whole) == (whole.resolve(), tiny_base)
    assert "changes nothing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["lm_head"]},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.[01]\.mlp\.up_proj"},
        {"layers_to_transform": [1]},
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"rank_pattern": {"down_proj": 8}, "alpha_pattern": {"q_proj": 2}},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"trainable_token_indices": [3, 4]},
        {"init_lora_weights": "pissa"},
    ],
    ids=str,
)
def test_every_form_that_peft_saves_fits(settings: Any, tiny_base: Path, tmp_path: Path) -> None:
    adapter = made(tiny_base, tmp_path / "adapter", **settings)
    assert find(adapter) == (adapter.resolve(), tiny_base)


def test_a_prefix_too_many(whole: Path, tmp_path: Path) -> None:
    adapter = changed(whole, tmp_path / "a", lambda tensors: {ROOT + name: t for name, t in tensors.items()})
    message = refusal(adapter)
    assert "12 of 12 tensors belong to no module of the base model: base_model.model.base_model.model" in message
    assert "Names of tensors that fit: base_model.model.model.layers.0" in message


def test_half_of_the_layers_are_missing(whole: Path, tmp_path: Path) -> None:
    adapter = changed(
        whole, tmp_path / "a", lambda tensors: {name: t for name, t in tensors.items() if ".layers.1." not in name}
    )
    assert "6 of 12 tensors that adapter_config.json calls for are missing" in refusal(adapter)


def test_an_adapter_of_a_model_of_another_width(whole: Path, tmp_path: Path) -> None:
    adapter = changed(
        whole, tmp_path / "a", lambda tensors: {n: t[:, : t.shape[1] // 2] for n, t in tensors.items() if "lora_A" in n}
    )
    message = refusal(adapter)
    assert "6 of 6 tensors have another shape" in message
    assert "lora_A.weight is [4, 32] and should be [4, 64]" in message


def test_numbers_that_are_not_finite(whole: Path, tmp_path: Path) -> None:
    adapter = changed(whole, tmp_path / "a", lambda tensors: {n: t * float("nan") for n, t in tensors.items()})
    assert "12 of 12 tensors hold NaN or infinity" in refusal(adapter)


def test_an_untrained_adapter_is_named_as_such(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zero = changed(whole, tmp_path / "z", lambda ts: {n: t * (0 if "lora_B" in n else 1) for n, t in ts.items()})
    find(zero)
    assert "z: this adapter changes nothing: all of its lora_B tensors are zero" in capsys.readouterr().err
    find(zero)  # the check is cached, its remark is not lost
    assert "this adapter changes nothing" in capsys.readouterr().err
    half = changed(whole, tmp_path / "h", lambda ts: {n: t * (0 if ".1." in n else 1) for n, t in ts.items()})
    find(half)
    assert "3 of its 6 modules change nothing" in capsys.readouterr().err
    find(changed(whole, tmp_path / "a", dict, lora_alpha=0))
    assert "its lora_alpha is 0" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["default", "my_adapter"])
def test_names_of_a_state_dict_are_read(name: str, whole: Path, tiny_base: Path, tmp_path: Path) -> None:
    import torch

    def named(tensors: Tensors) -> Tensors:
        return {key.replace(".weight", f".{name}.weight"): t for key, t in tensors.items()}

    folder, base = find(changed(whole, tmp_path / "a", named))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        read, own = (with_adapter(load_model(base, "float32"), f, base)(ids).logits for f in (folder, whole))
    assert torch.equal(read, own)


def test_pissa_is_merged_as_peft_computes_it(tiny_base: Path, tmp_path: Path) -> None:
    import torch

    adapter = made(tiny_base, tmp_path / "adapter", init_lora_weights="pissa")
    template = TemplateConfig(name="chatml", file="chatml.jinja")
    model = ModelConfig(path=str(tiny_base), dtype="float32")
    served = resolve_checkpoint(str(adapter), model, template, tmp_path / "runs")
    assert served.kind == "full"
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        merged = load_model(Path(served.path), "float32")(ids).logits
        trained = with_adapter(load_model(tiny_base, "float32"), adapter, tiny_base)(ids).logits
    assert torch.allclose(merged, trained, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"init_lora_weights": "pissa_niter_16"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "loftq"}, "path_initial_model_for_weight_conversion"),
        ({"alora_invocation_tokens": [3]}, "activated LoRA .* merge_and_unload"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer replication"),
        ({"peft_type": "LOHA"}, "peft_type LOHA cannot be served.* merge_and_unload"),
        ({"r": 0}, "between 1 and 4096"),
        ({"r": 10**9}, "between 1 and 4096"),
        ({"r": "many"}, "is damaged"),
        ({"rank_pattern": [1]}, "is damaged"),
        ({"target_modules": ["no_such_proj"]}, "does not fit the base model"),
        ({"target_modules": "(("}, "does not fit the base model"),
        ({"target_modules": 7}, "does not fit the base model"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_with_the_mend(settings: Any, says: str, whole: Path, tmp_path: Path) -> None:
    adapter = changed(whole, tmp_path / "a", dict, **settings)
    with pytest.raises(DataError, match=says):
        find(adapter)


@pytest.mark.parametrize("form", ["all experts in one", "single experts", "an expert too many"])
def test_adapters_of_experts(form: str, tmp_path: Path) -> None:
    import tiny
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    tokenizer = tiny.make_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 4}
    Qwen3MoeForCausalLM(Qwen3MoeConfig(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(tmp_path / "moe")
    tokenizer.save_pretrained(tmp_path / "moe")
    if form == "all experts in one":
        experts = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
        adapter = made(tmp_path / "moe", tmp_path / "adapter", **experts)
        assert find(adapter) == (adapter.resolve(), tmp_path / "moe")
        return
    adapter = made(tmp_path / "moe", tmp_path / "adapter", target_modules=["q_proj"])
    tensors: dict[str, Any] = {}
    for layer, expert in ((layer, expert) for layer in range(2) for expert in range(5 if "many" in form else 4)):
        for name, (rows, columns) in {"gate_proj": (16, 32), "up_proj": (16, 32), "down_proj": (32, 16)}.items():
            module = f"{ROOT}model.layers.{layer}.mlp.experts.{expert}.{name}"
            tensors |= {
                f"{module}.lora_A.weight": torch.ones(4, columns),
                f"{module}.lora_B.weight": torch.ones(rows, 4),
            }
    save_file(tensors, adapter / WEIGHTS)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_modules"] = ["gate_proj", "up_proj", "down_proj"]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    if "many" in form:
        assert "12 of 60 tensors belong to no module" in refusal(adapter)
    else:
        assert find(adapter) == (adapter.resolve(), tmp_path / "moe")


class TestBase:
    def test_a_quantised_hub_name_and_a_given_base(
        self, whole: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        adapter = changed(whole, tmp_path / "a", dict, base_model_name_or_path="unsloth/Llama-3-8B-bnb-4bit")
        assert find(adapter, tiny_base) == (adapter.resolve(), tiny_base)
        said = capsys.readouterr().err
        assert "although the adapter names unsloth/Llama-3-8B-bnb-4bit; their tensors are compared" in said

    def test_a_given_base_of_another_shape(self, whole: Path, tiny_base: Path, tmp_path: Path) -> None:
        shutil.copytree(tiny_base, other := tmp_path / "other")
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
        adapter = changed(whole, tmp_path / "a", dict, base_model_name_or_path="unsloth/Llama-3-8B-bnb-4bit")
        message = refusal(adapter, other)
        assert "6 of 12 tensors belong to no module of the base model" in message
        assert "model.path=FOLDER" in message

    def test_a_recorded_digest_of_another_base_of_the_same_shape(
        self, whole: Path, tiny_base: Path, tmp_path: Path
    ) -> None:
        adapter = changed(whole, tmp_path / "a", dict, base_model_name_or_path="owner/model")
        (adapter / "stage.json").write_text(json.dumps({"stage": "train", "inputs": {"base": "0" * 64}}))
        with pytest.raises(EvidenceFault, match="trained on other weights than those in"):
            find(adapter, tiny_base)


class TestFolders:
    def test_the_checkpoints_in_a_trainer_s_output_folder_are_named(self, whole: Path, tmp_path: Path) -> None:
        for step in (500, 1000):
            shutil.copytree(whole, tmp_path / "out" / f"checkpoint-{step}")
        message = refusal(tmp_path / "out")
        assert "its checkpoints lie inside: checkpoint-500, checkpoint-1000" in message
        assert str(tmp_path / "out" / "checkpoint-1000") in message

    @pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
    def test_pickles_are_refused_beside_safetensors_too(self, name: str, whole: Path, tmp_path: Path) -> None:
        (changed(whole, tmp_path / "a", dict) / name).write_bytes(b"\x80\x04N.")
        assert "as pickles, which can run code" in refusal(tmp_path / "a")

    def test_a_decoy_beside_no_weights(self, whole: Path, tmp_path: Path) -> None:
        adapter = changed(whole, tmp_path / "a", dict)
        (adapter / WEIGHTS).rename(adapter / "decoy.safetensors")
        assert "has no adapter_model.safetensors" in refusal(adapter) or "decoy.safetensors" in refusal(adapter)

    def test_a_pipe_in_place_of_a_file_is_not_read(self, whole: Path, tmp_path: Path) -> None:
        adapter = changed(whole, tmp_path / "a", dict)
        (adapter / WEIGHTS).unlink()
        os.mkfifo(adapter / WEIGHTS)
        assert "is a pipe, a socket or a device" in refusal(adapter)

    def test_a_device_in_place_of_a_setting(self, whole: Path, tmp_path: Path) -> None:
        adapter = changed(whole, tmp_path / "a", dict)
        (adapter / "adapter_config.json").unlink()
        (adapter / "adapter_config.json").symlink_to("/dev/zero")
        assert "is a pipe, a socket or a device" in refusal(adapter)
