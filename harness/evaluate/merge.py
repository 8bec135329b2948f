"""Adapters that an adapter server cannot take: merged into their base model, once, with the reason said."""

import json
from pathlib import Path
from typing import Any

from harness.base_model import cache_dir, load_tokenizer, quiet_transformers, weights_sha256
from harness.console import say, timed
from harness.errors import DataError
from harness.prompt.contract import CONTRACT_FILE, tokenizer_sha256
from harness.store import stage

SERVABLE_MODULES = {"classifier", "score"}


def reasons_to_merge(adapter: Path, base: Path) -> list[str]:
    """Why vLLM would refuse this adapter, or silently serve something else; empty when it can be served as it is."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    reasons = []
    if full := sorted(set(config.get("modules_to_save") or []) - SERVABLE_MODULES):
        reasons.append(f"modules trained in full: {', '.join(full)}")
    if config.get("trainable_token_indices"):
        reasons.append("embeddings of single tokens were trained")
    if config.get("use_dora"):
        reasons.append("DoRA")
    if config.get("bias", "none") != "none":
        reasons.append("trained biases")
    if (adapter / "tokenizer.json").is_file() and tokenizer_sha256(load_tokenizer(adapter)) != tokenizer_sha256(
        load_tokenizer(base)
    ):
        reasons.append("a tokenizer of its own (added tokens?), where an adapter server uses the base model's")
    return reasons


def merged(adapter: Path, base: Path, dtype: str, reasons: list[str]) -> Path:
    """A full model folder of base and adapter, with the adapter's tokenizer and contract; kept in the cache.

    Raises DataError when peft cannot merge them.
    """
    inputs = {"adapter": weights_sha256(adapter), "base": weights_sha256(base), "dtype": dtype}
    contract = (adapter / CONTRACT_FILE).read_text() if (adapter / CONTRACT_FILE).is_file() else None
    say(f"· {adapter.name} cannot be served as an adapter ({'; '.join(reasons)}): it is merged into its base model")

    def work(target: Path) -> None:
        with timed("merge adapter and base model (once)"):
            _merge(adapter, base, target, dtype)
        if contract is not None:
            (target / CONTRACT_FILE).write_text(contract)

    home = cache_dir() / "merged"
    folder, _ = stage(home, home / inputs["adapter"][:16] / "model", "merge", {**inputs, "contract": contract}, work)
    return folder


def _merge(adapter: Path, base: Path, target: Path, dtype: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(adapter if (adapter / "tokenizer.json").is_file() else base)
    try:
        with quiet_transformers():
            model: Any = AutoModelForCausalLM.from_pretrained(
                base, dtype=getattr(torch, dtype), trust_remote_code=False
            )
            if len(tokenizer) > model.get_input_embeddings().num_embeddings:
                model.resize_token_embeddings(len(tokenizer))
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
            model.save_pretrained(target, safe_serialization=True)
            tokenizer.save_pretrained(target)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{adapter} cannot be merged into {base}: {reason}") from None
