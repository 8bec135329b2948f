"""Merges an adapter that vLLM cannot serve as an adapter into its base model, once, and says why."""

import json
from pathlib import Path

from harness.checkpoint.origin import origins_are_here, write_origin
from harness.core.code_digest import code_digest
from harness.core.console import say, timed
from harness.core.errors import DataError
from harness.core.layout import CONTRACT
from harness.core.store import stage
from harness.model.load import (
    adapter_config,
    cache_dir,
    load_model,
    load_tokenizer,
    read_settings,
    tensor_shapes,
    tokenizer_folder,
    weights_sha256,
    with_adapter,
)
from harness.prompt.contract import Contract, tokenizer_sha256
from harness.prompt.numerics import References, references
from harness.prompt.saved import write_prompt_side

TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "added_tokens.json", "special_tokens_map.json")
SERVABLE_MODULES = {"classifier", "score"}


def reasons_to_merge(adapter: Path, base: Path) -> list[str]:
    """Why vLLM would refuse this adapter, or silently serve something else; empty if it can be served as an adapter."""
    config = adapter_config(adapter)
    reasons = []
    if full := sorted(set(config.get("modules_to_save") or []) - SERVABLE_MODULES):
        reasons.append(f"fully trained modules: {', '.join(full)}")
    if config.get("trainable_token_indices"):
        reasons.append("trained embeddings of single tokens")
    if config.get("use_dora"):
        reasons.append("DoRA")
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        reasons.append("trained biases")
    if config.get("use_qalora"):
        reasons.append("QALoRA")
    if str(config.get("init_lora_weights")).lower() in ("pissa", "olora"):
        reasons.append(f"{config['init_lora_weights']} changes the base model's weights, too")
    own = tokenizer_folder(adapter, base)
    whole = all((folder / "tokenizer.json").is_file() for folder in (own, base))
    same_files = own == base or (whole and _tokenizer_files(own) == _tokenizer_files(base))
    if not same_files and tokenizer_sha256(load_tokenizer(own)) != tokenizer_sha256(load_tokenizer(base)):
        reasons.append("its own tokenizer (added tokens?); a server would use the base model's")
    others = [name for name in tensor_shapes(adapter) if ".lora_" not in name and ".base_layer." not in name]
    if others and not reasons:
        reasons.append(f"whole tensors beside its low-rank ones: {', '.join(others[:3])}")
    return reasons


def merged(adapter: Path, base: Path, dtype: str, reasons: list[str]) -> Path:
    """The folder, in the cache, of the adapter merged into its base model, with the adapter's tokenizer and contract.

    Raises DataError when peft cannot merge them.
    """
    contract = Contract.load(adapter) if (adapter / CONTRACT).is_file() else None
    inputs = {"adapter": weights_sha256(adapter), "base": weights_sha256(base), "dtype": dtype}
    inputs |= {"contract": contract.digest if contract else "", "code": code_digest("harness.checkpoint.merge:merged")}
    say(f"· {adapter.name} cannot be served as an adapter ({'; '.join(reasons)}); merging it into its base model")

    def work(target: Path) -> None:
        with timed("merge adapter and base model (once)"):
            tokenizer = load_tokenizer(tokenizer_folder(adapter, base))
            whole = with_adapter(load_model(base, dtype), adapter, base)
            try:
                model = whole.merge_and_unload()
                model.save_pretrained(target, safe_serialization=True)
            except (ValueError, RuntimeError, KeyError) as error:
                reason = " ".join(str(error).split())[:300]
                raise DataError(f"{adapter} cannot be merged into {base}: {reason}") from None
            if contract is None:
                tokenizer.save_pretrained(target)
            else:
                write_prompt_side(contract, tokenizer, target)
                References(candidate=references(model, contract)).save(target)
            write_origin(target, adapter)

    home = cache_dir() / "merged"
    folder, _ = stage(home, home / inputs["adapter"][:16] / "model", "merge", inputs, work, origins_are_here)
    return folder


def _tokenizer_files(folder: Path) -> list[str]:
    """What a tokenizer is loaded from, without its chat template. If it is equal, the tokenizers need no loading."""
    settings, *rest = (read_settings(path) if (path := folder / name).exists() else {} for name in TOKENIZER_FILES)
    settings.pop("chat_template", None)
    return [json.dumps(part, sort_keys=True) for part in (settings, *rest)]
