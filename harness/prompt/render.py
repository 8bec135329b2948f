"""Renders messages as token ids, for training and evaluation; no other code does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import DataError, TemplateRefusal
from harness.prompt.contract import Contract
from harness.prompt.limits import limited, require_interruptible
from harness.prompt.messages import Message


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it: ids, and a mask of the same length that is True where the loss is taken.

    The first `prompt_length` ids are the prompt of the last answer. `unsupervised` counts earlier answers without loss:
    those whose own prompt is not a prefix of the ids, because the template rewrites earlier turns.
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

        The loss is taken on what follows each prompt that a server would get, up to and including the end of turn, but
        not on an answer with `train: false`.
        Raises DataError when prompt and answer cannot be separated.
        """
        # A contract records these messages (Golden.untrainable): rewording one changes the digests of contracts.
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers or answers[-1] != len(messages) - 1:
            raise DataError("no token of this conversation is supervised: it does not end with an assistant turn")
        if answers[0] == 0:
            raise DataError("the conversation begins with an assistant turn: there is no prompt for it")
        last = self.prompt(messages[: answers[-1]], **arguments)
        ids = self._whole(messages, last, **arguments)
        spans = [self._earlier(ids, messages, index, **arguments) for index in answers[:-1]]
        end = self.contract.end_of_turn_id
        if end not in ids[len(last) :]:
            raise DataError(f"the template does not close the assistant's turn with token {end}")
        spans.append((len(last), ids.index(end, len(last)) + 1))
        mask = [False] * len(ids)
        for index, span in zip(answers, spans, strict=True):
            if span is not None and messages[index].get("train") is not False:
                mask[span[0] : span[1]] = [True] * (span[1] - span[0])
        return Rendered(ids, mask, len(last), unsupervised=spans.count(None))

    def text(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, continued: bool = False, **arguments: Any
    ) -> str:
        """The rendered text; `continued` leaves the last turn open, to be continued.

        Raises TemplateRefusal, with the template's own message, for a conversation that it refuses.
        """
        try:
            require_interruptible(self.contract.template)
            with limited():
                rendered: str = self.tokenizer.apply_chat_template(
                    [{key: value for key, value in message.items() if key != "train"} for message in messages],
                    chat_template=self.contract.template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt and not continued,
                    continue_final_message=continued,
                    **{**self.contract.template_kwargs, **arguments},
                )
        except TemplateRefusal:
            raise
        except Exception as error:  # a template is a program of its own and may fail in any way
            raise TemplateRefusal(str(error) or type(error).__name__) from error
        return rendered

    def prompt(self, messages: Sequence[Message], **arguments: Any) -> list[int]:
        """The ids of the prompt for the next assistant turn."""
        return self.encode(self.text(messages, **arguments))

    def encode(self, text: str) -> list[int]:
        """The ids of rendered text: special tokens in it are parsed, and none are added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids, including special tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _earlier(
        self, ids: list[int], messages: Sequence[Message], index: int, **arguments: Any
    ) -> tuple[int, int] | None:
        """The span of an earlier answer in `ids`; None if the ids before it are not those of its own prompt."""
        prompt = self.prompt(messages[:index], **arguments)
        closed = self.encode(self.text(messages[: index + 1], add_generation_prompt=False, **arguments))
        end = self.contract.end_of_turn_id
        if ids[: len(prompt)] != prompt or ids[: len(closed)] != closed or end not in closed[len(prompt) :]:
            return None
        return len(prompt), closed.index(end, len(prompt)) + 1

    def _whole(self, messages: Sequence[Message], prompt: list[int], **arguments: Any) -> list[int]:
        """The ids of the conversation, which begin with the prompt's.

        If tokens would merge across the end of the prompt, the answer is encoded by itself: a model continues from the
        prompt's ids, never from merged ones.
        """
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
