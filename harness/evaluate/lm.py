"""lm-eval's view of a served model: prompts are rendered by the contract, answers were got in flight before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM

from harness.errors import EvidenceFault
from harness.evaluate.questions import Conversation, instance_keys
from harness.prompt.render import Message, Renderer

Value = str | tuple[float, bool]


class ServedModel(TemplateLM):
    """What lm-eval builds its requests with, and reads their answers from.

    `conversations` holds the messages of every rendered prompt: generations are asked for as messages. `values` are
    the answers by request key, as lm-eval takes them; they are put in before it scores.
    """

    def __init__(self, renderer: Renderer):
        super().__init__()
        self._renderer = renderer
        self.conversations: dict[str, Conversation] = {}
        self.values: Mapping[bytes, Value] = {}

    @property
    def eot_token_id(self) -> int:
        return self._renderer.contract.end_of_turn_id

    @property
    def tokenizer_name(self) -> str:
        return self._renderer.contract.digest

    def chat_template(self, chat_template: bool | str = False) -> str:
        return self._renderer.contract.template

    def apply_chat_template(self, chat_history: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The rendered prompt; its messages are remembered, because that is what the server is asked with."""
        text = self._renderer.text(chat_history, continued=not add_generation_prompt)
        self.conversations[text] = (chat_history, add_generation_prompt)
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self._renderer.encode(string)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return [str(value) for value in self._answers(requests)]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return [(float(nats), bool(greedy)) for nats, greedy in self._answers(requests)]

    def _answers(self, requests: Sequence[Any]) -> list[Any]:
        """lm-eval hands over an instance once a repeat."""
        repeats: Counter[int] = Counter()
        answers = []
        for instance in requests:
            answers.append(self.values[instance_keys(self._renderer, instance)[repeats[id(instance)]]])
            repeats[id(instance)] += 1
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        raise EvidenceFault("likelihoods are read by request, not by tokens")

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        raise EvidenceFault("whole documents have no likelihood under a chat template")
