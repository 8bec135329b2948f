"""The static checks by name. Each yields (severity, message) for what it finds, and nothing on a sound contract."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from harness.prompt.check import around, first_difference
from harness.prompt.contract import Golden
from harness.prompt.golden import turns
from harness.prompt.preamble import without_preamble
from harness.prompt.static import Check, Subject, same_template, same_tokenizer

Found = Iterator[tuple[Literal["fault", "note"], str]]
MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


def _as_recorded(subject: Subject) -> Found:
    """The golden conversations come out as the contract has them: same template, tokenizer, libraries."""
    if not same_template(subject):
        yield "fault", "the template text does not match its sha256"
    if not same_tokenizer(subject):
        yield "fault", "the tokenizer is not the one that the contract was made with"
    for golden, now in zip(subject.contract.golden, subject.rendered, strict=True):
        if golden.refused != now.refused:
            yield "fault", f"{golden.name}: {now.refused or 'rendered now'}; recorded: {golden.refused or 'rendered'}"
        elif (golden.ids, golden.prompt_length) != (now.ids, now.prompt_length):
            position = first_difference(golden.ids, now.ids)
            recorded = around(golden.ids, position, subject.renderer.decode)
            found = around(now.ids, position, subject.renderer.decode)
            yield (
                "fault",
                f"{golden.name}: token {position} differs\n      recorded: {recorded}\n      now:      {found}",
            )
        elif golden.mask != now.mask:
            yield "fault", f"{golden.name}: the loss mask is not the recorded one"


def _usable(subject: Subject) -> Found:
    if not subject.accepted:
        reasons = {golden.refused for golden in subject.rendered}
        yield "fault", f"the template takes none of the golden conversations: {'; '.join(map(str, reasons))[:300]}"
    for golden in subject.rendered:
        if golden.refused is not None and golden.name in ("one_turn", "multi_turn"):
            yield "fault", f"{golden.name} cannot be rendered: {golden.refused}"
        elif golden.refused is not None:
            yield "note", f"refuses the conversation '{golden.name}': {golden.refused}"


def _mask(subject: Subject) -> Found:
    """The loss is taken from right after the generation prompt to the end of turn, and never nowhere."""
    for golden in subject.accepted:
        supervised = [token for token, kept in zip(golden.ids, golden.mask, strict=True) if kept]
        if not supervised:
            yield "fault", f"{golden.name}: no token is supervised"
        elif not golden.mask[golden.prompt_length] or golden.mask[golden.prompt_length - 1]:
            yield "fault", f"{golden.name}: the mask does not start right after the generation prompt"
        elif supervised[-1] != subject.contract.end_of_turn_id:
            yield "fault", f"{golden.name}: the end of turn {subject.contract.end_of_turn!r} is not supervised"


def _markers(subject: Subject) -> Found:
    """Where the template has generation markers, they enclose what the mask is derived from: the text from each
    prompt's end to the end of turn. (As text, because transformers' token mask is off by one on some tokenizers.)"""
    if not MARKERS.search(subject.contract.template):
        return
    for golden in subject.accepted:
        if not subject.contract.guarded and _has_special(subject, golden):
            continue
        text, marked = _marked_spans(subject, golden)
        derived = _answer_spans(subject, golden, text)
        if marked != derived:
            shown = [text[start:end][:60] for start, end in (marked or [(0, 0)])[:1]]
            yield "fault", f"{golden.name}: the generation markers enclose {shown}, not the answer and its end of turn"
            return


def _answer(subject: Subject) -> Found:
    """What is supervised is the answer itself: this proves a mask that no marker states."""
    for golden in subject.accepted:
        answer = golden.messages[-1]["content"]
        if _has_special(subject, golden):
            continue
        supervised = [
            t
            for t, kept in zip(golden.ids[golden.prompt_length :], golden.mask[golden.prompt_length :], strict=True)
            if kept
        ]
        text = subject.renderer.decode(supervised).removesuffix(subject.contract.end_of_turn)
        if answer.strip() not in text:
            yield "fault", f"{golden.name}: the supervised text is {text[:80]!r}, the answer {answer[:80]!r}"
        elif text.strip() != answer.strip():
            yield "note", f"{golden.name}: besides the answer, {text[:80]!r} is supervised"


def _prefix(subject: Subject) -> Found:
    """Prompt ids begin the full ids; a rendering of the first turns begins the rendering of all."""
    for golden in subject.accepted:
        prompt = subject.renderer.prompt(golden.question, **golden.arguments)
        if golden.ids[: len(prompt)] != prompt:
            position = first_difference(golden.ids, prompt)
            shown = around(golden.ids, position, subject.renderer.decode)
            yield "fault", f"{golden.name}: the prompt is no prefix of the conversation, from token {position}: {shown}"
        whole = subject.text(golden)
        for end, message in enumerate(golden.messages[:-1], start=1):
            earlier = {"add_generation_prompt": False, **golden.arguments}
            if message["role"] == "assistant" and not whole.startswith(
                subject.renderer.text(golden.messages[:end], **earlier)
            ):
                yield "note", f"{golden.name}: the template rewrites earlier turns; only later answers are trained on"


def _steady(subject: Subject) -> Found:
    """Same bytes on every call and under another clock."""
    for golden in subject.accepted:
        first = subject.prompt_text(golden)
        with _another_clock():
            later = subject.prompt_text(golden)
        if first != later:
            position = first_difference(first.encode(), later.encode())
            yield (
                "fault",
                f"{golden.name}: the rendering depends on the date: …{first[max(0, position - 20) : position + 20]!r}…",
            )
            return
        if any(subject.prompt_text(golden) != first for _ in range(2)):
            yield "fault", f"{golden.name}: two calls render different text"
            return


def _stops(subject: Subject) -> Found:
    contract = subject.contract
    if contract.end_of_turn_id not in contract.stop_ids:
        yield "fault", f"the end of turn {contract.end_of_turn!r} ({contract.end_of_turn_id}) is not among the stop ids"
    if subject.renderer.encode(contract.end_of_turn) != [contract.end_of_turn_id]:
        yield "fault", f"the end of turn {contract.end_of_turn!r} is not the one token {contract.end_of_turn_id}"
    unknown = [token for token in contract.stop_ids if token not in range(len(subject.tokenizer))]
    if unknown:
        yield "fault", f"stop ids that the tokenizer does not have: {unknown}"


def _bos(subject: Subject) -> Found:
    """As many BOS tokens as the tokenizer puts in front of plain text: one or none, and none twice."""
    bos = subject.tokenizer.bos_token_id
    if bos is None:
        return
    expected = list(subject.tokenizer.encode("a")[:1]) == [bos]
    for golden in subject.accepted:
        if golden.ids[:2] == [bos, bos]:
            yield "fault", f"{golden.name}: begins with two BOS tokens {subject.contract.bos!r}"
            return
        if expected and golden.ids[:1] != [bos]:
            yield (
                "fault",
                f"{golden.name}: BOS {subject.contract.bos!r} is missing; the tokenizer puts it before plain text",
            )
            return


def _whitespace(subject: Subject) -> Found:
    for golden in subject.accepted:
        text = subject.text(golden)
        changed = [m["role"] for m in golden.messages if m["content"] not in text]
        if changed and not _has_special(subject, golden):
            yield "note", f"{golden.name}: the {changed[0]} message is not rendered byte for byte (trimmed?)"


def _round_trip(subject: Subject) -> Found:
    """The tokenizer gives back the text it was given."""
    for golden in subject.accepted:
        text = subject.text(golden)
        back = subject.renderer.decode(subject.renderer.encode(text))
        if back != text and back.strip() != text.strip():
            yield "note", f"{golden.name}: the tokenizer does not keep the text (normalises, or lacks characters)"


def _forgery(subject: Subject) -> Found:
    """Special-token text in a message stays text."""
    special = set(subject.tokenizer.all_special_ids) | _marked_special(subject)
    plain = _special_count(subject, "a b", special)
    if plain is None:
        return
    tokens = [str(token) for token in subject.tokenizer.added_tokens_decoder.values() if token.special]
    if _special_count(subject, "a " + " b ".join(tokens) + " c", special) != plain:
        forging = [token for token in tokens if _special_count(subject, f"a {token} b", special) != plain]
        severity: Literal["fault", "note"] = "fault" if subject.contract.guarded else "note"
        yield (
            severity,
            f"text in a message can forge a turn with: {', '.join(forging[:8]) or 'several tokens together'}",
        )
    asks = subject.contract.generation_prompt
    if asks.strip() and not any(token in asks for token in tokens):
        yield "note", f"turn markers such as {asks.strip()!r} are ordinary text: a message can imitate them"


def _ignored(subject: Subject) -> Found:
    """What the template takes no notice of, or adds of its own: arguments, roles, defaults."""
    from harness.prompt.make import variables

    known = variables(subject.contract.template)
    for name in subject.contract.template_kwargs:
        if name not in known:
            yield "fault", f"the template knows no argument {name!r} (it refers to: {', '.join(known)})"
    named = {golden.name: golden for golden in subject.accepted}
    if "system" in named and "You answer briefly." not in subject.text(named["system"]):
        yield "note", "system messages are silently dropped"
    if "multi_turn" in named and (added := _added_default(subject, named["multi_turn"])):
        yield "note", f"a system message of the template's own is put in front where none is given: {added!r}"
    if tool := _dropped_tool(subject):
        yield "note", tool


def _preamble(subject: Subject) -> Found:
    """The preamble changes nothing about innocent conversations without a system policy."""
    bare = without_preamble(subject.contract.template)
    if bare == subject.contract.template or subject.contract.system_policy != "none":
        return
    for golden in subject.accepted:
        if _has_special(subject, golden):
            continue
        original = subject.tokenizer.apply_chat_template(
            golden.messages,
            chat_template=bare,
            tokenize=False,
            **{**subject.contract.template_kwargs, **golden.arguments},
        )
        if original != subject.text(golden):
            yield "fault", f"{golden.name}: the contract's preamble changes the rendering"
            return


CHECKS: dict[str, Check] = {
    "as recorded": _as_recorded,
    "renders": _usable,
    "mask": _mask,
    "generation markers": _markers,
    "supervised text": _answer,
    "prompt is a prefix": _prefix,
    "steady": _steady,
    "stop ids": _stops,
    "bos": _bos,
    "whitespace": _whitespace,
    "tokenizer round trip": _round_trip,
    "forgery": _forgery,
    "ignored": _ignored,
    "preamble": _preamble,
}


def _marked_spans(subject: Subject, golden: Golden) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text, and where its generation blocks are (characters)."""
    from transformers.utils.chat_template_utils import render_jinja_template

    arguments = {**subject.contract.template_kwargs, **golden.arguments}
    texts, spans = render_jinja_template(
        conversations=[golden.messages],
        chat_template=subject.contract.template,
        return_assistant_tokens_mask=True,
        **{**subject.tokenizer.special_tokens_map, **arguments},
    )
    return texts[0], [(start, end) for start, end in spans[0]]


def _answer_spans(subject: Subject, golden: Golden, text: str) -> list[tuple[int, int]]:
    """From the end of each answer's prompt to the end of its turn (characters)."""
    spans = []
    for index, message in enumerate(golden.messages):
        if message["role"] == "assistant":
            start = len(subject.renderer.text(golden.messages[:index], **golden.arguments))
            end = text.find(subject.contract.end_of_turn, start) + len(subject.contract.end_of_turn)
            spans.append((start, end))
    return spans


def _has_special(subject: Subject, golden: Golden) -> bool:
    """Whether a message holds special-token text, which the preamble keeps from being one."""
    from harness.prompt.make import guarded_tokens

    tokens = guarded_tokens(subject.tokenizer)
    return any(token in str(message["content"]) for message in golden.messages for token in tokens)


def _marked_special(subject: Subject) -> set[int]:
    return {number for number, token in subject.tokenizer.added_tokens_decoder.items() if token.special}


def _special_count(subject: Subject, content: str, special: set[int]) -> int | None:
    """How many special tokens a one-turn prompt has; None where the template refuses such a conversation."""
    from jinja2.exceptions import TemplateError

    system = "S" if subject.contract.system_policy == "required" else None
    try:
        ids = subject.renderer.prompt(turns(content, system=system))
    except TemplateError:
        return None
    return sum(token in special for token in ids)


def _added_default(subject: Subject, golden: Golden) -> str:
    """Text before the first user message beyond BOS and what precedes a later user message."""
    if subject.contract.system_policy != "none":
        return ""
    text = subject.text(golden)
    before = text[: text.index(golden.messages[0]["content"])]
    opening = subject.contract.turns["user"][0]
    return before.removesuffix(opening).removeprefix(subject.contract.bos or "").strip()


def _dropped_tool(subject: Subject) -> str:
    from jinja2.exceptions import TemplateError

    messages = [*turns("Q", "A"), {"role": "tool", "content": "RESULT-77"}]
    try:
        return "" if "RESULT-77" in subject.renderer.text(messages) else "tool messages are silently dropped"
    except TemplateError:
        return ""


@contextmanager
def _another_clock() -> Iterator[None]:
    """transformers' `strftime_now` sees another day inside."""
    from datetime import datetime
    from unittest.mock import patch

    class AnotherDay(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "AnotherDay":
            return cls(2001, 2, 3, 4, 5, 6, tzinfo=tz)

    with patch("transformers.utils.chat_template_utils.datetime", AnotherDay):
        yield
