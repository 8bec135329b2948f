"""Architectures that need another attention or one part at once train, instead of ending in a traceback."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.train.finetune import finetune

pytestmark = pytest.mark.integration
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 512}
GROUPED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {**GROUPED, "num_local_experts": 2},
    "qwen3_moe": {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "gemma2": {**GROUPED, "sliding_window": 256},
    "gpt_neox": {**SMALL, "intermediate_size": 64},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
}


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning")  # of peft, for experts
@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains(family: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny.make_tokenizer()
    shape = AutoConfig.for_model(family, vocab_size=len(tokenizer), pad_token_id=3, eos_token_id=0, **FAMILIES[family])
    torch.manual_seed(0)
    base, out = tmp_path / "base", tmp_path / "out"
    AutoModelForCausalLM.from_config(shape).save_pretrained(base)
    tokenizer.save_pretrained(base)
    out.mkdir()
    settings = ("model.dtype=float32", "train.parts_at_once=2", "train.epochs=1", "template=alpaca")
    summary = finetune(tiny.config(base, *settings).training, base, tiny.rows(8), out)
    assert summary.steps > 0
    assert (out / "adapter_model.safetensors").is_file()


def test_rows_that_would_see_each_other_are_computed_alone() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from harness.train.packing import packed_logits, rows_are_independent

    shape = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "dropout": 0.0}
    torch.manual_seed(0)
    opt = AutoModelForCausalLM.from_config(AutoConfig.for_model("opt", vocab_size=300, init_std=0.5, **shape)).eval()
    assert not rows_are_independent(opt)
    ids = torch.randint(5, 300, (1, 20))
    inputs = {"input_ids": ids, "position_ids": torch.cat((torch.arange(8), torch.arange(12)))[None]}
    found = packed_logits(opt, inputs, torch.tensor([2, 10, 15]), apart=True)
    alone = opt(input_ids=ids[:, 8:]).logits[0, [2, 7]]
    torch.testing.assert_close(found[1:], alone)
