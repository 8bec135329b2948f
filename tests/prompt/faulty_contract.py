"""Faults on the training side: templates, collators and contracts that are wrong, each under its name in `faults`.

Every function sets its fault up and returns the check that has to raise EvidenceFault.
"""

import json
import unicodedata
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import stock_templates
import tiny

from harness.prompt.contract import Contract
from harness.prompt.make import make_contract, read_template
from harness.prompt.messages import Message
from harness.prompt.preamble import without_preamble
from harness.prompt.render import Rendered, Renderer
from harness.prompt.static import check_contract, require_sound
from harness.workflows.compose import config_for

Check = Callable[[], Any]
Training = Callable[..., Rendered]
SOUND_TRAINING, SOUND_ENCODE, SOUND_TEXT = Renderer.training, Renderer.encode, Renderer.text


@dataclass(frozen=True)
class Bench:
    """What a fault is set up with: the session's server and a folder of its own."""

    served: Any
    folder: Path

    @property
    def tokenizer(self) -> Any:
        return self.served.renderer.tokenizer

    @property
    def contract(self) -> Contract:
        contract: Contract = self.served.contract
        return contract


def changed(text: str, *replacements: tuple[str, str]) -> str:
    """`text` with every replacement made; each of them must be possible."""
    for before, after in replacements:
        assert before in text, f"nothing to replace: {before!r}"
        text = text.replace(before, after)
    return text


@cache
def settings_of(name: str) -> Any:
    return config_for([f"template={name}"]).template


def contract_for(template: str, tokenizer: Any, folder: Path, base: str = "chatml", **settings: Any) -> Contract:
    """The contract of a template's text; `base` is the shipped template whose configuration it is given."""
    path = folder / "changed.jinja"
    path.write_text(template)
    return make_contract(settings_of(base).model_copy(update={"file": str(path), **settings}), tokenizer)


def static(contract: Contract, tokenizer: Any) -> Check:
    return lambda: require_sound(check_contract(contract, tokenizer), "the prompt contract")


def of_template(bench: Bench, *replacements: tuple[str, str], **settings: Any) -> Check:
    """ChatML with changes."""
    template = changed(read_template("chatml.jinja"), *replacements)
    return static(contract_for(template, bench.tokenizer, bench.folder, **settings), bench.tokenizer)


def of_collator(bench: Bench, training: Training, tokenizer: Any = None, name: str = "chatml") -> Check:
    """A trainer that renders with `training`: its contract is made with it too, so the record shows no difference."""
    tokenizer = tokenizer or bench.tokenizer
    with patch.object(Renderer, "training", training):
        contract = contract_for(read_template(f"{name}.jinja"), tokenizer, bench.folder, name)

    def check() -> None:
        with patch.object(Renderer, "training", training):
            static(contract, tokenizer)()

    return check


def masked(mask_of: Callable[[Renderer, Rendered], list[bool]]) -> Training:
    """The sound rendering with another mask."""

    def training(self: Renderer, messages: Sequence[Message], **arguments: Any) -> Rendered:
        rendered = SOUND_TRAINING(self, messages, **arguments)
        return replace(rendered, mask=mask_of(self, rendered))

    return training


def no_generation_markers(bench: Bench) -> Check:
    def training(self: Renderer, messages: Sequence[Message], **arguments: Any) -> Rendered:
        encoded = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=changed(self.contract.template, ("generation -%}", "if true -%}"), ("endif true", "endif")),
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        rendered = SOUND_TRAINING(self, messages, **arguments)
        return replace(rendered, mask=[bool(supervised) for supervised in encoded["assistant_masks"]])

    return of_collator(bench, training)


def header_in_markers(bench: Bench) -> Check:
    header = "{{- '<|im_start|>assistant\\n' -}}\n"
    marker = "{%- generation -%}"
    return of_template(bench, (header + marker, marker + header))


def header_supervised(bench: Bench) -> Check:
    def mask(renderer: Renderer, rendered: Rendered) -> list[bool]:
        start = rendered.mask.index(True)
        return [supervised or start - 3 <= index < start for index, supervised in enumerate(rendered.mask)]

    return of_collator(bench, masked(mask))


def end_outside_markers(bench: Bench) -> Check:
    inside = "message.content + '<|im_end|>' -}}{%- endgeneration -%}"
    return of_template(bench, (inside, "message.content -}}{%- endgeneration -%}{{- '<|im_end|>' -}}"))


def pad_is_eos(bench: Bench) -> Check:
    def mask(renderer: Renderer, rendered: Rendered) -> list[bool]:
        pad = renderer.tokenizer.eos_token_id
        return [kept and token != pad for token, kept in zip(rendered.ids, rendered.mask, strict=True)]

    return of_collator(bench, masked(mask), name="alpaca")


def mask_shifted(bench: Bench) -> Check:
    return of_collator(bench, masked(lambda _, rendered: [*rendered.mask[1:], False]))


def prompts_supervised(bench: Bench) -> Check:
    return of_collator(bench, masked(lambda _, rendered: [True] * len(rendered.ids)))


def seam_merged(bench: Bench) -> Check:
    """The whole conversation encoded at once; answers that begin with a newline then swallow the prompt's last one."""

    def training(self: Renderer, messages: Sequence[Message], **arguments: Any) -> Rendered:
        rendered = SOUND_TRAINING(self, messages, **arguments)
        ids = self.encode(self.text(messages, add_generation_prompt=False, **arguments))
        mask = [rendered.prompt_length <= index for index in range(len(ids))]
        end = len(ids) - 1 - ids[::-1].index(self.contract.end_of_turn_id)
        return replace(rendered, ids=ids, mask=[kept and index <= end for index, kept in enumerate(mask)])

    return of_collator(bench, training, stock_templates.tokenizer("qwen"))


def row_cut(bench: Bench) -> Check:
    def training(self: Renderer, messages: Sequence[Message], **arguments: Any) -> Rendered:
        rendered = SOUND_TRAINING(self, messages, **arguments)
        return replace(rendered, ids=rendered.ids[:512], mask=rendered.mask[:512])

    return of_collator(bench, training)


def turn_end_is_no_stop_id(bench: Bench) -> Check:
    stops = [bench.tokenizer.eos_token_id]
    return static(bench.contract.model_copy(update={"stop_ids": stops}), bench.tokenizer)


def stop_id_unknown(bench: Bench) -> Check:
    stops = [*bench.contract.stop_ids, 128009]
    return static(bench.contract.model_copy(update={"stop_ids": stops}), bench.tokenizer)


def turn_end_in_pieces(bench: Bench) -> Check:
    return static(bench.contract.model_copy(update={"end_of_turn": "</s>"}), bench.tokenizer)


def bos_missing(bench: Bench) -> Check:
    template = changed(read_template("alpaca.jinja"), ("{{- bos_token or '' -}}", ""))
    return static(contract_for(template, bench.tokenizer, bench.folder, "alpaca"), bench.tokenizer)


def bos_without_a_rule(bench: Bench) -> Check:
    """As tokenizers are that were converted from GGUF."""
    from tokenizers import processors

    tokenizer = deepcopy(bench.tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    template = changed(read_template("alpaca.jinja"), ("{{- bos_token or '' -}}", ""))
    return static(contract_for(template, tokenizer, bench.folder, "alpaca"), tokenizer)


def answers_dropped(bench: Bench) -> Check:
    role = "{%- if message.role == 'assistant' -%}"
    older = "{%- if message.role == 'assistant' and loop.index0 < messages | length - 4 -%}"
    return of_template(bench, (role, older + role.replace("if", "elif")))


def bos_twice(bench: Bench) -> Check:
    template = "{{- bos_token -}}" + read_template("alpaca.jinja")
    return static(contract_for(template, bench.tokenizer, bench.folder, "alpaca"), bench.tokenizer)


def date_in_template(bench: Bench) -> Check:
    turn = "'<|im_start|>' + message.role + '\\n' + "
    return of_template(bench, (turn, turn + "strftime_now('%d %b %Y ') + "))


def template_not_steady(bench: Bench) -> Check:
    return of_template(bench, ("{%- for message", "{{- range(100000) | random -}}{%- for message"))


def switch_unknown(bench: Bench) -> Check:
    return of_template(bench, kwargs={"enable_thinking": False})


def turn_forged(bench: Bench) -> Check:
    template = changed(bench.contract.template, ('"<|im_start|>", ', ""))
    with patch("harness.prompt.make.with_preamble", lambda *_: template):
        return static(contract_for(template, bench.tokenizer, bench.folder), bench.tokenizer)


def preamble_rewrites(bench: Bench) -> Check:
    template = changed(
        bench.contract.template, ("guarded.content = message.content", "guarded.content = message.content | trim")
    )
    with patch("harness.prompt.make.with_preamble", lambda *_: template):
        return static(contract_for(template, bench.tokenizer, bench.folder), bench.tokenizer)


def answer_rewritten(bench: Bench) -> Check:
    return of_template(bench, ("{{- message.content + '<|im_end|>' -}}",
                               "{{- message.content.split('</think>')[-1] + '<|im_end|>' -}}"))  # fmt: skip


def finished_otherwise(bench: Bench) -> Check:
    asks = "{%- if add_generation_prompt -%}\n{{- '<|im_start|>assistant\\n"
    return of_template(bench, (asks, asks + "<think>\\n\\n</think>\\n\\n"))


def contract_edited(bench: Bench) -> Check:
    bench.contract.save(bench.folder)
    path = bench.folder / "prompt_contract.json"
    path.write_text(changed(path.read_text(), ("takes plain text only", "takes text only")))
    return lambda: Contract.load(bench.folder)


def stop_ids_edited(bench: Bench) -> Check:
    bench.contract.save(bench.folder)
    path = bench.folder / "prompt_contract.json"
    stops = json.dumps(bench.contract.stop_ids)
    path.write_text(changed(path.read_text(), (f'"stop_ids": {stops}', '"stop_ids": [0]')))
    return lambda: Contract.load(bench.folder)


def tokenizer_settings_changed(bench: Bench) -> Check:
    from tokenizers import processors

    tokenizer = deepcopy(bench.tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    return static(bench.contract, tokenizer)


def library_tokenises_otherwise(bench: Bench) -> Check:
    def check() -> None:
        with patch.object(
            Renderer, "encode", lambda self, text: SOUND_ENCODE(self, unicodedata.normalize("NFC", text))
        ):
            static(bench.contract, bench.tokenizer)()

    return check


def library_renders_otherwise(bench: Bench) -> Check:
    def check() -> None:
        with patch.object(Renderer, "text", lambda *a, **k: SOUND_TEXT(*a, **k).replace("<|im_end|>\n", "<|im_end|>")):
            static(bench.contract, bench.tokenizer)()

    return check


def trained_otherwise(bench: Bench, contract: Contract, tokenizer: Any = None) -> Check:
    """The live check of the sound server against another contract."""
    from faulty_server import live

    return live(bench, Renderer(contract, tokenizer or bench.tokenizer))


def trained_with_another_template(bench: Bench) -> Check:
    template = changed(
        read_template("chatml.jinja"), ("<|im_start|>' + message.role", "<|im_start|>' + message.role | upper")
    )
    return trained_otherwise(bench, contract_for(template, bench.tokenizer, bench.folder))


def trained_with_another_tokenizer(bench: Bench) -> Check:
    from tokenizers import pre_tokenizers

    tokenizer = tiny.make_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return trained_otherwise(bench, contract_for(read_template("chatml.jinja"), tokenizer, bench.folder), tokenizer)


def trained_with_a_system_message(bench: Bench) -> Check:
    template = without_preamble(bench.contract.template)
    settings = {"system_policy": "fixed", "system": "You are a careful adviser."}
    return trained_otherwise(bench, contract_for(template, bench.tokenizer, bench.folder, **settings))
