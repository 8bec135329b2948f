"""Which tokens have to stay text in messages: those that can change roles, turns or modes under a template.

Tokenizers add tokens for ordinary text, too: runs of spaces and line breaks (GPT-NeoX, Gemma), HTML tags (Gemma). A
message may hold those, byte for byte.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from harness.core.errors import ConfigError, TemplateRefusal, nearest
from harness.prompt.contract import Contract
from harness.prompt.golden import TOOL, turns
from harness.prompt.render import Renderer

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
# Names that models give to tokens of turns and modes, also where this template does not write them.
_CONTROL = re.compile(
    r"<\|.+\|>|<｜.+｜>|\[/?[A-Z][A-Z_]+\]|</?(?:think|reason|tool|function|start_of|end_of|begin_of)\w*>", re.DOTALL
)
_PLACEHOLDER = re.compile(r"unused|reserved|placeholder|extra_id|dummy", re.IGNORECASE)  # tokens that nobody trained


@dataclass(frozen=True)
class Guard:
    """Tokens that stay text: `everywhere` in every message, `outside_answers` in all but the assistant's.

    Answers may hold the latter: thoughts and tool calls are written with them.
    """

    everywhere: list[str]
    outside_answers: list[str]

    @property
    def tokens(self) -> list[str]:
        return [*self.everywhere, *self.outside_answers]


def added_tokens(tokenizer: Any) -> tuple[list[str], list[str]]:
    """The added tokens that text could be mistaken for: those marked as special, and the others."""
    tokens = tokenizer.added_tokens_decoder.values()
    special = sorted(str(token) for token in tokens if token.special)
    return special, sorted(str(token) for token in tokens if not token.special)


def guard_for(
    template: str,
    kwargs: dict[str, str | bool | int],
    tokenizer: Any,
    more: Sequence[str] = (),
    less: Sequence[str] = (),
) -> Guard:
    """The guard of `template` (its author's text) on a tokenizer; `more` and `less` add and remove tokens.

    A token is guarded if the template writes it around messages or names it, if it is special and not a placeholder,
    or if it has the form of a control token. A token of white space or of letters alone never is.
    """
    special, added = added_tokens(tokenizer)
    written = _written(template, kwargs, tokenizer) + _COMMENT.sub("", template)

    def changes_modes(token: str, is_special: bool) -> bool:
        if len(token) < 3 or not re.search(r"[^\w\s]", token):
            return False
        if token in written or (_CONTROL.fullmatch(token) and not _PLACEHOLDER.search(token)):
            return True
        return is_special and not _PLACEHOLDER.search(token)

    everywhere = [token for token in special if changes_modes(token, True)]
    outside = [token for token in added if changes_modes(token, False)]
    if unknown := [token for token in less if token not in (*everywhere, *outside)]:
        raise ConfigError(
            [f"template.unguard: {unknown[0]!r} is not guarded. {nearest(unknown[0], [*everywhere, *outside])}"]
        )
    everywhere += [token for token in dict.fromkeys(more) if token not in (*everywhere, *outside)]
    return Guard([one for one in everywhere if one not in less], [one for one in outside if one not in less])


def _written(template: str, kwargs: dict[str, str | bool | int], tokenizer: Any) -> str:
    """All that a template writes around the messages of some conversations, with and without tools and thinking."""
    draft: dict[str, Any] = {"template": template, "template_kwargs": kwargs}
    renderer = Renderer(Contract.model_construct(**draft), tokenizer)
    talk = turns("Q", "A", "Q", "A")
    system, call = {"role": "system", "content": "S"}, {"type": "function", "function": {"name": "f", "arguments": {}}}
    calls = [*turns("Q"), {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "R"}]
    switches: list[dict[str, Any]] = [{}, {"tools": [TOOL]}, {"enable_thinking": True}, {"enable_thinking": False}]
    found = []
    for messages in (talk, talk[:1], [system, *talk], [system, *talk[:1]], calls, [system, *calls]):
        for arguments in switches:
            with suppress(TemplateRefusal):
                asks = messages[-1]["role"] != "assistant"
                found.append(renderer.text(messages, add_generation_prompt=asks, **arguments))
    return "\n".join(found)


def forging(tokens: Sequence[str], control: Iterable[str], renderer: Renderer, system: str | None) -> list[str]:
    """Those of `tokens` whose text in a user's message adds one of the `control` tokens to the prompt.

    All are rendered in one message; only where that finds something is it halved. Empty for a template that refuses
    such a conversation.
    """
    control = set(control)
    ids = {number for number, token in renderer.tokenizer.added_tokens_decoder.items() if str(token) in control}

    def count(content: str) -> int:
        return sum(token in ids for token in renderer.prompt(turns(content, system=system)))

    def search(some: Sequence[str]) -> list[str]:
        if not some or count("a " + " b ".join(some) + " c") == plain:
            return []
        if len(some) == 1:
            return list(some)
        middle = len(some) // 2
        return search(some[:middle]) + search(some[middle:]) or list(some)

    try:
        plain = count("a b")
        return search(list(tokens))
    except TemplateRefusal:
        return []
