"""Rendering: the only place that turns messages into token ids, for training and for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import DataError, TemplateRefusal
from harness.prompt.contract import Contract
from harness.prompt.messages import Message


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it: ids, and True where the loss is taken (same length).

    `prompt_length` ids ask for the last answer. `unsupervised` counts earlier answers whose own prompt is no
    prefix of these ids (a template that rewrites earlier turns): no loss is taken on them.
    """

    ids: list[int]
    mask: list[bool]
    prompt_length: int = 0
    unsupervised: int = 0


class Renderer:
    """Renders messages under one contract with its tokenizer (a transformers fast tokenizer)."""

    def __init__(self, contract: Contract, tokenizer: Any):
        self.contract = contract
        self.tokenizer = tokenizer

    def training(self, messages: Sequence[Message], **arguments: Any) -> Rendered:
        """Ids and loss mask of a conversation that ends with an answer.

        The loss is taken on what follows each prompt a server would be fed, up to and with the end of turn.
        Raises DataError when that cannot be told from the prompt.
        """
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers or answers[-1] != len(messages) - 1:
            raise DataError("no token of this conversation is supervised: it does not end with an assistant turn")
        if answers[0] == 0:
            raise DataError("the conversation begins with an assistant turn: there is no prompt for it")
        last = self.prompt(messages[: answers[-1]], **arguments)
        ids = self._whole(messages, last, **arguments)
        spans = [self._earlier(ids, messages, index, **arguments) for index in answers[:-1]]
        spans.append((len(last), self._end_of_turn(ids, len(last)) + 1))
        mask = [False] * len(ids)
        for start, end in filter(None, spans):
            mask[start:end] = [True] * (end - start)
        return Rendered(ids, mask, len(last), unsupervised=spans.count(None))

    def text(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, continued: bool = False, **arguments: Any
    ) -> str:
        """The rendered text; `continued` leaves the last turn open to go on with.

        Raises TemplateRefusal, in the template's own words, for a conversation that it does not take.
        """
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self.contract.template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt and not continued,
                continue_final_message=continued,
                **{**self.contract.template_kwargs, **arguments},
            )
        except Exception as error:  # a template is a program of its own and may fail in any way
            raise TemplateRefusal(str(error) or type(error).__name__) from error
        return rendered

    def prompt(self, messages: Sequence[Message], **arguments: Any) -> list[int]:
        """Ids of the prompt that asks for the next assistant turn."""
        return self.encode(self.text(messages, **arguments))

    def encode(self, text: str) -> list[int]:
        """Ids of rendered text: special tokens are parsed, none is added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _earlier(
        self, ids: list[int], messages: Sequence[Message], index: int, **arguments: Any
    ) -> tuple[int, int] | None:
        """Where an earlier answer stands in `ids`; None unless it stands there as its own prompt would ask for it."""
        prompt = self.prompt(messages[:index], **arguments)
        closed = self.encode(self.text(messages[: index + 1], add_generation_prompt=False, **arguments))
        end = self.contract.end_of_turn_id
        if ids[: len(prompt)] != prompt or ids[: len(closed)] != closed or end not in closed[len(prompt) :]:
            return None
        return len(prompt), closed.index(end, len(prompt)) + 1

    def _whole(self, messages: Sequence[Message], prompt: list[int], **arguments: Any) -> list[int]:
        """Ids that begin with the prompt's. Where a merge across the seam would change those, the answer is
        encoded by itself: a model goes on from the prompt's ids, never from merged ones."""
        text = self.text(messages, add_generation_prompt=False, **arguments)
        ids = self.encode(text)
        if ids[: len(prompt)] == prompt:
            return ids
        start = self.text(messages[:-1], **arguments)
        if not text.startswith(start):
            raise DataError("the template renders a finished conversation otherwise than the prompt of its last turn")
        joined = prompt + self.encode(text[len(start) :])
        if self.decode(joined) != self.decode(ids):
            raise DataError("the tokenizer merges the end of the prompt with the answer; they cannot be told apart")
        return joined

    def _end_of_turn(self, ids: list[int], start: int) -> int:
        try:
            return ids.index(self.contract.end_of_turn_id, start)
        except ValueError:
            raise DataError(
                f"the template does not close the assistant's turn with token {self.contract.end_of_turn_id}"
            ) from None
