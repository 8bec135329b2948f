"""Damage to any file of a model folder gives a message, never a traceback; drawn with a seed, so always the same."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.checkpoint.resolve import resolve_checkpoint
from harness.config.experiment import ModelConfig, TemplateConfig
from harness.core.errors import HarnessError
from harness.model.load import load_model, load_tokenizer, tokenizer_folder, with_adapter
from harness.prompt.contract import Contract
from harness.prompt.numerics import References
from harness.prompt.saved import check_saved
from harness.prompt.static import check_contract

VALUES: list[Any] = [None, True, -1, 0, 10**12, float("nan"), "", "x" * 1000, [], {}, [[]], {"a": 1}, [None], "10"]
OTHERS = [b"", b"null", b"[]", b"7", b'"x"', b"{}", b"\xff\xfe", b"[" * 10**5]
Damage = Callable[[bytes, random.Random], bytes]


def flipped(content: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(dice.choice([1, 20])):
        damaged[dice.randrange(min(len(damaged), dice.choice([16, 4000])))] = dice.randrange(256)
    return bytes(damaged)


def other_value(content: bytes, dice: random.Random) -> bytes:
    """One value of a JSON object, near its top, becomes another or is removed."""
    try:
        whole = json.loads(content)
    except ValueError:
        return content[1:]
    node = whole
    while isinstance(node, dict) and (inner := [v for v in node.values() if isinstance(v, dict) and v]):
        if dice.random() < 0.5:
            break
        node = dice.choice(inner)
    if isinstance(node, dict) and node:
        node[dice.choice(list(node))] = dice.choice(VALUES)
    return json.dumps(whole).encode()


DAMAGES: dict[str, Damage] = {
    "cut": lambda content, dice: content[: dice.randrange(len(content))],
    "bytes flipped": flipped,
    "another value": other_value,
    "another kind": lambda content, dice: dice.choice(OTHERS),
}


def use(folder: Path, base: Path, runs: Path) -> None:
    """All that is read of a checkpoint before it is served."""
    template = TemplateConfig(name="chatml", file="chatml.jinja")
    found = resolve_checkpoint(str(folder), ModelConfig(path=str(base), dtype="float32"), template, runs)
    path, base = Path(found.path), Path(found.base_path)
    contract = Contract.load(path)
    check_contract(contract, load_tokenizer(tokenizer_folder(path, base)))
    check_saved(path, base, contract)
    References.load(path)
    model = load_model(base, "float32")
    if found.kind == "adapter":
        with_adapter(model, path, base)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damage_gives_a_message(
    damage: str, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    dice = random.Random(damage)
    messages = []
    files = sorted(path.name for path in tiny_adapter.iterdir() if path.is_file() and path.suffix != ".md")
    for name in files:
        shutil.copytree(tiny_adapter, folder := tmp_path / "case")
        (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes(), dice))
        try:
            use(folder, tiny_base, tmp_path / "runs")
        except HarnessError as error:
            messages.append(str(error))
        shutil.rmtree(folder)
    assert len(messages) >= 2
    assert max(map(len, messages)) < 1500
