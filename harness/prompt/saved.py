"""Writes the contract into a checkpoint folder, and checks every place where a reader may find prompt settings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.core.errors import DataError
from harness.core.files import read_json, read_text
from harness.core.layout import CONTRACT
from harness.model.load import is_adapter, load_tokenizer, tokenizer_folder
from harness.prompt import card
from harness.prompt.contract import Contract, tokenizer_sha256
from harness.prompt.static import Problem

TEMPLATE_FILE = "chat_template.jinja"
SAMPLING_KEYS: dict[str, float | None] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "max_new_tokens": None,
}
NEUTRAL_SAMPLING = {**SAMPLING_KEYS, "top_k": 0}


def write_prompt_side(contract: Contract, tokenizer: Any, out: Path) -> None:
    """Writes template, tokenizer, generation configuration, contract and card; all places agree.

    Some readers use `chat_template.jinja`, others the entry in `tokenizer_config.json`: both are written.
    """
    from transformers import GenerationConfig

    tokenizer.chat_template = contract.template
    tokenizer.save_pretrained(out)
    path = out / "tokenizer_config.json"
    path.write_text(json.dumps({**_read(path), "chat_template": contract.template}, indent=2, ensure_ascii=False))
    GenerationConfig(
        eos_token_id=contract.stop_ids,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        do_sample=False,
    ).save_pretrained(out)
    contract.save(out)
    (out / card.CARD_FILE).write_text(card.contract_card(contract))


def check_saved(folder: Path, base: Path, contract: Contract) -> list[Problem]:
    """The problems of a model or adapter folder; for a full model, `base` is the folder itself.

    A folder with a contract must agree with it; a folder that was made elsewhere must agree with itself.
    """
    problems = [*_templates(folder, contract), *_tokenizers(folder, base, contract), *_generation(folder, contract)]
    return [Problem("checkpoint", *problem) for problem in problems]


def templates_in(folder: Path) -> dict[str, str]:
    """All chat templates in a folder, by the place where a reader finds them."""
    found = {}
    if (folder / TEMPLATE_FILE).is_file():
        found[TEMPLATE_FILE] = read_text(folder / TEMPLATE_FILE)
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        entry = _read(folder / name).get("chat_template")
        if isinstance(entry, list):
            found |= {f"{name} [{part.get('name')}]": str(part.get("template")) for part in entry}
        elif entry:
            found[name] = str(entry)
    return found


def _templates(folder: Path, contract: Contract) -> Iterator[tuple[Any, str]]:
    found = templates_in(folder)
    made_here = (folder / CONTRACT).is_file()
    if not found and (made_here or not is_adapter(folder)):
        yield "error", f"{folder} holds no chat template: a server would use a template of its own"
    for place, text in found.items():
        if "[" in place and not place.endswith("[default]"):
            yield "note", f"{place} is an additional template, used if a client requests it by name"
        elif text != contract.template:
            yield (
                "error",
                f"{place} has a different template from {'the contract' if made_here else 'the one read first'}",
            )
    for extra in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        yield "note", f"additional_chat_templates/{extra.name} is used if a client requests it by name"


def _tokenizers(folder: Path, base: Path, contract: Contract) -> Iterator[tuple[Any, str]]:
    """An adapter is served with its base model's tokenizer, unless it brings its own and is merged for that."""
    own = tokenizer_folder(folder, base)
    try:
        tokenizer = load_tokenizer(own)
        of_base = tokenizer if own == base else load_tokenizer(base)
    except DataError as error:
        yield "error", str(error)
        return
    if tokenizer_sha256(tokenizer) != contract.tokenizer_sha256:
        yield "error", f"the tokenizer in {own} is not the one the contract was made with"
    elif tokenizer_sha256(of_base) != contract.tokenizer_sha256:
        yield "note", f"the base model's tokenizer in {base} differs; a server of adapters would use it"
    for name, recorded in (("bos_token", contract.bos), ("eos_token", contract.eos)):
        if getattr(tokenizer, name) != recorded:
            yield "error", f"{own}: {name} is {getattr(tokenizer, name)!r}, but {recorded!r} in the contract"


def _generation(folder: Path, contract: Contract) -> Iterator[tuple[Any, str]]:
    path = folder / "generation_config.json"
    made_here = (folder / CONTRACT).is_file()
    severity = "error" if made_here else "note"
    if not path.is_file() and (made_here or contract.end_of_turn != contract.eos):
        yield "error", f"{path.name} is missing: a server would not know that {contract.end_of_turn!r} ends an answer"
    if not path.is_file():
        return
    values = _read(path)
    eos = values.get("eos_token_id")
    stops = {token for token in (eos if isinstance(eos, list) else [eos]) if isinstance(token, int)}
    named = sorted(map(str, stops))
    if contract.end_of_turn_id not in stops and (made_here or contract.end_of_turn != contract.eos):
        yield "error", f"{path.name}: the end of turn {contract.end_of_turn!r} is not among its stop ids {named}"
    if made_here and stops != set(contract.stop_ids):
        yield severity, f"{path.name}: the stop ids are {named}, but {contract.stop_ids} in the contract"
    sampling = [
        f"{key}={values[key]}"
        for key, default in SAMPLING_KEYS.items()
        if values.get(key) not in (None, default, NEUTRAL_SAMPLING[key])
    ]
    if sampling:
        yield severity, f"{path.name}: a server that reads it answers with {', '.join(sampling)} unless told otherwise"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except FileNotFoundError:
        return {}
    return values if isinstance(values, dict) else {}
