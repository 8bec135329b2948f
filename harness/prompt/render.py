"""Rendering: the only place that turns messages into token ids, for training and for evaluation."""

from dataclasses import dataclass
from typing import Any

from harness.errors import DataError
from harness.prompt.contract import Contract
from harness.prompt.messages import Message, with_system


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it: ids, and True where the loss is taken (same length)."""

    ids: list[int]
    mask: list[bool]


class Renderer:
    """Renders messages under one contract with its tokenizer (a transformers fast tokenizer)."""

    def __init__(self, contract: Contract, tokenizer: Any):
        self.contract = contract
        self.tokenizer = tokenizer

    def training(self, messages: list[Message]) -> Rendered:
        """Ids and loss mask of a finished conversation.

        Raises DataError when nothing is supervised or the last supervised token does not end the turn.
        """
        encoded = self.tokenizer.apply_chat_template(
            with_system(messages, self.contract.system),
            chat_template=self.contract.template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            **self.contract.template_kwargs,
        )
        rendered = Rendered(list(encoded["input_ids"]), [bool(m) for m in encoded["assistant_masks"]])
        supervised = [i for i, m in zip(rendered.ids, rendered.mask, strict=True) if m]
        if not supervised:
            raise DataError("no token of this conversation is supervised: it has no assistant turn")
        if supervised[-1] != self.contract.end_of_turn_id:
            raise DataError(f"the template does not supervise the end of turn {self.contract.end_of_turn!r}")
        return rendered

    def text(self, messages: list[Message], add_generation_prompt: bool = True) -> str:
        """The prompt as text; `add_generation_prompt=False` leaves the last turn open to go on with."""
        rendered: str = self.tokenizer.apply_chat_template(
            with_system(messages, self.contract.system),
            chat_template=self.contract.template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self.contract.template_kwargs,
        )
        return rendered

    def prompt(self, messages: list[Message]) -> list[int]:
        """Ids of the prompt that asks for the next assistant turn."""
        return self.encode(self.text(messages))

    def encode(self, text: str) -> list[int]:
        """Ids of rendered text: special tokens are parsed, none is added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text
