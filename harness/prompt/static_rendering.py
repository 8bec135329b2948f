"""Static checks of the rendering itself: recorded, steady, complete, and what it ignores or adds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.errors import TemplateRefusal
from harness.prompt.check import around, first_difference
from harness.prompt.contract import Golden
from harness.prompt.golden import TOOL, turns
from harness.prompt.make import variables
from harness.prompt.preamble import without_preamble
from harness.prompt.static import Found, Severity, Subject, same_template, same_tokenizer


def as_recorded(subject: Subject) -> Found:
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


def usable(subject: Subject) -> Found:
    if not subject.accepted:
        reasons = {golden.refused or golden.untrainable for golden in subject.rendered}
        yield "fault", f"the template takes none of the golden conversations ({'; '.join(map(str, reasons))[:300]})"
    for golden in subject.rendered:
        if golden.refused is not None and golden.name in ("one_turn", "multi_turn"):
            yield "fault", f"{golden.name} cannot be rendered: {golden.refused}"
        elif golden.refused is not None:
            yield "note", f"{golden.name}: refused by the template: {golden.refused}"
        elif golden.untrainable is not None:
            severity: Severity = "fault" if golden.name in ("one_turn", "multi_turn") else "note"
            yield severity, f"{golden.name}: cannot be trained on: {golden.untrainable}"


def steady(subject: Subject) -> Found:
    """Same bytes on every call and under another clock."""
    for golden in subject.accepted:
        first = subject.prompt_text(golden)
        with _another_clock():
            later = subject.prompt_text(golden)
        if first != later:
            position = first_difference(first.encode(), later.encode())
            shown = first.encode()[max(0, position - 20) : position + 20].decode(errors="replace")
            yield "fault", f"{golden.name}: the rendering depends on the date (…{shown!r}…)"
            return
        if any(subject.prompt_text(golden) != first for _ in range(2)):
            yield "fault", f"{golden.name}: two calls render different text"
            return


def whitespace(subject: Subject) -> Found:
    for golden in subject.accepted:
        text = subject.text(golden)
        changed = [m for m in golden.messages if m["content"] not in text]
        if changed and not subject.has_special(golden):
            how = "trimmed" if changed[0]["content"].strip() in text else "cut or rewritten"
            yield "note", f"{golden.name}: the {changed[0]['role']} message is not rendered byte for byte ({how})"


def ignored(subject: Subject) -> Found:
    """What the template takes no notice of, or adds of its own: arguments, roles, defaults."""
    known = variables(subject.contract.template)
    for name in subject.contract.template_kwargs:
        if name not in known:
            yield "fault", f"the template knows no argument {name!r} (it refers to {', '.join(known)})"
    named = {golden.name: golden for golden in subject.accepted}
    if "system" in named and "You answer briefly." not in subject.text(named["system"]):
        yield "note", "system messages are silently dropped"
    if "multi_turn" in named and (added := _added_default(subject, named["multi_turn"])):
        yield "note", f"a system message of the template's own is put in front where none is given ({added!r})"
    if "tools" not in known or ("tools" in named and TOOL["function"]["name"] not in subject.text(named["tools"])):
        yield "note", "the list of tools is silently ignored"
    if tool := _dropped_tool(subject):
        yield "note", tool


def preamble(subject: Subject) -> Found:
    """The preamble changes nothing about innocent conversations without a system policy."""
    bare = without_preamble(subject.contract.template)
    if bare == subject.contract.template or subject.contract.system_policy != "none":
        return
    for golden in subject.accepted:
        if subject.has_special(golden):
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


def _added_default(subject: Subject, golden: Golden) -> str:
    """Text before the first user message beyond BOS and what precedes a later user message."""
    if subject.contract.system_policy != "none":
        return ""
    text = subject.text(golden)
    before = text[: text.index(golden.messages[0]["content"])]
    opening = subject.contract.turns["user"][0]
    return before.removesuffix(opening).removeprefix(subject.contract.bos or "").strip()


def _dropped_tool(subject: Subject) -> str:
    messages = [*turns("Q", "A"), {"role": "tool", "content": "RESULT-77"}]
    try:
        return "" if "RESULT-77" in subject.renderer.text(messages) else "tool messages are silently dropped"
    except TemplateRefusal:
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
