"""Static checks of a contract: what can be proven with the template and the tokenizer alone, before training.

Every check is a small function that yields problems. A fault makes the contract unusable (exit 12); a note is
something a person should know: what the template silently ignores or changes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from harness.core.errors import EvidenceFault, TemplateRefusal
from harness.prompt.check import around, first_difference
from harness.prompt.contract import Contract, Golden, sha256_text, tokenizer_sha256
from harness.prompt.golden import TOOL, render_golden, turns
from harness.prompt.make import added_tokens, variables
from harness.prompt.preamble import without_preamble
from harness.prompt.render import Renderer


@dataclass(frozen=True)
class Problem:
    """What is wrong, found by which check; a fault ends with exit 12, a note is only shown."""

    check: str
    severity: Literal["error", "note"]
    message: str


class Subject:
    """A contract with the tokenizer it is tried on, and its golden conversations rendered anew."""

    def __init__(self, contract: Contract, tokenizer: Any):
        self.contract = contract
        self.tokenizer = tokenizer
        self.renderer = Renderer(contract, tokenizer)

    @cached_property
    def rendered(self) -> list[Golden]:
        return [render_golden(self.renderer, g.name, g.messages, g.tools, g.kwargs) for g in self.contract.golden]

    @property
    def accepted(self) -> list[Golden]:
        """The golden conversations that can be trained on, as rendered now."""
        return [golden for golden in self.rendered if golden.refused is None and golden.untrainable is None]

    def text(self, golden: Golden) -> str:
        """The finished conversation as text."""
        return self.renderer.text(golden.messages, add_generation_prompt=False, **golden.arguments)

    def prompt_text(self, golden: Golden) -> str:
        """The prompt for its last answer as text."""
        return self.renderer.text(golden.question, **golden.arguments)

    @cached_property
    def special(self) -> tuple[list[str], list[str]]:
        """The tokenizer's special tokens, and its other added ones."""
        return added_tokens(self.tokenizer)

    def has_special(self, golden: Golden) -> bool:
        """Whether a message holds the text of an added token, which the preamble keeps from being one."""
        texts = [str(message["content"]) for message in golden.messages]
        return any(token in text for tokens in self.special for token in tokens for text in texts)


Severity = Literal["error", "note"]
Findings = Iterator[tuple[Severity, str]]
StaticCheck = Callable[[Subject], Findings]


def check_contract(contract: Contract, tokenizer: Any) -> list[Problem]:
    """All problems of a contract on a tokenizer (a transformers fast tokenizer); an empty list is a sound contract."""

    subject = Subject(contract, tokenizer)
    return [problem for name, check in STATIC_CHECKS.items() for problem in _problems(name, check(subject))]


def _problems(check: str, found: Findings) -> Iterator[Problem]:
    """What a check found; the same thing about several conversations (`name: what`) is said once."""
    names: dict[tuple[Severity, str], list[str]] = {}
    for severity, message in found:
        name, colon, what = message.partition(": ")
        names.setdefault((severity, what if colon else message), []).append(name if colon else "")
    for (severity, what), of in names.items():
        shown = ", ".join(filter(None, of[:3])) + (f" and {len(of) - 3} more" if len(of) > 3 else "")
        yield Problem(check, severity, f"{shown}: {what}" if shown else what)


def require_sound(problems: Sequence[Problem], what: str) -> list[Problem]:
    """The notes among `problems`; raises EvidenceFault that lists every fault."""
    faults = [problem for problem in problems if problem.severity == "error"]
    if faults:
        lines = "\n".join(f"  - {fault.check}: {fault.message}" for fault in faults)
        raise EvidenceFault(f"{len(faults)} fault{'s' if len(faults) > 1 else ''} of {what}:\n{lines}")
    return [problem for problem in problems if problem.severity == "note"]


def same_tokenizer(subject: Subject) -> bool:
    return tokenizer_sha256(subject.tokenizer) == subject.contract.tokenizer_sha256


def same_template(subject: Subject) -> bool:
    return sha256_text(subject.contract.template) == subject.contract.template_sha256


# Static checks of the loss mask: where it starts and ends, and that it covers the answer alone.


BEGUN = 8  # tokens at the end of a prompt that may belong to the answer
GENERATION_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


def mask(subject: Subject) -> Findings:
    """The loss is taken from right after the generation prompt to the end of turn, and never nowhere."""
    for golden in subject.accepted:
        supervised = [token for token, kept in zip(golden.ids, golden.mask, strict=True) if kept]
        if not supervised:
            yield "error", f"{golden.name}: no token is supervised"
        elif not golden.mask[golden.prompt_length] or golden.mask[golden.prompt_length - 1]:
            yield "error", f"{golden.name}: the mask does not start right after the generation prompt"
        elif supervised[-1] != subject.contract.end_of_turn_id:
            yield "error", f"{golden.name}: the end of turn {subject.contract.end_of_turn!r} is not supervised"


def markers(subject: Subject) -> Findings:
    """Where the template has generation markers, they enclose what the mask is derived from: the text from each
    prompt's end to the end of turn. (As text, because transformers' token mask is off by one on some tokenizers.)"""
    if not GENERATION_MARKERS.search(subject.contract.template):
        return
    for golden in subject.accepted:
        if not subject.contract.guarded and subject.has_special(golden):
            continue
        text, marked = _marked_spans(subject, golden)
        derived = _answer_spans(subject, golden, text)
        if not _same_spans(text, marked, derived):
            shown = [text[start:end][:60] for start, end in (marked or [(0, 0)])[:1]]
            yield "error", f"{golden.name}: the generation markers enclose {shown}, not the answer and its end of turn"
            return


def answer(subject: Subject) -> Findings:
    """What is supervised is the answer itself: this proves a mask that no marker states.

    The end of the prompt is looked at too: some templates begin an answer there (an open think tag).
    """
    for golden in subject.accepted:
        expected = golden.messages[-1]["content"].strip()
        if subject.has_special(golden):
            continue
        start = golden.prompt_length
        supervised = [t for t, kept in zip(golden.ids[start:], golden.mask[start:], strict=True) if kept]
        text = subject.renderer.decode(supervised).removesuffix(subject.contract.end_of_turn)
        begun = subject.renderer.decode(golden.ids[max(0, start - BEGUN) : start])
        if expected not in begun + text:
            yield "error", f"{golden.name}: the supervised text is {text[:80]!r}, the answer {expected[:80]!r}"
        elif text.strip() != expected and text.strip() not in expected:
            yield "note", f"{golden.name}: besides the answer, {text[:80]!r} is supervised"


def prefix(subject: Subject) -> Findings:
    """Prompt ids begin the full ids; a rendering of the first turns begins the rendering of all."""
    for golden in subject.accepted:
        prompt = subject.renderer.prompt(golden.question, **golden.arguments)
        if golden.ids[: len(prompt)] != prompt:
            position = first_difference(golden.ids, prompt)
            shown = around(golden.ids, position, subject.renderer.decode)
            yield "error", f"{golden.name}: the prompt is no prefix of the conversation, from token {position}: {shown}"
        if subject.renderer.training(golden.messages, **golden.arguments).unsupervised:
            yield "note", f"{golden.name}: the template rewrites earlier turns; only later answers are trained on"


def _same_spans(text: str, marked: list[tuple[int, int]], derived: list[tuple[int, int]]) -> bool:
    """Whether they enclose the same; a marker may also hold the line break after the end of turn."""
    trimmed = [(start, start + len(text[start:end].rstrip())) for start, end in marked]
    return marked == derived or trimmed == derived


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


# Static checks of the rendering itself: recorded, steady, complete, and what it ignores or adds.


def as_recorded(subject: Subject) -> Findings:
    """The golden conversations come out as the contract has them: same template, tokenizer, libraries."""
    if not same_template(subject):
        yield "error", "the template text does not match its sha256"
    if not same_tokenizer(subject):
        yield "error", "the tokenizer is not the one that the contract was made with"
    for golden, now in zip(subject.contract.golden, subject.rendered, strict=True):
        if golden.refused != now.refused:
            yield "error", f"{golden.name}: {now.refused or 'rendered now'}; recorded: {golden.refused or 'rendered'}"
        elif (golden.ids, golden.prompt_length) != (now.ids, now.prompt_length):
            position = first_difference(golden.ids, now.ids)
            recorded = around(golden.ids, position, subject.renderer.decode)
            found = around(now.ids, position, subject.renderer.decode)
            yield (
                "error",
                f"{golden.name}: token {position} differs\n      recorded: {recorded}\n      now:      {found}",
            )
        elif golden.mask != now.mask:
            yield "error", f"{golden.name}: the loss mask is not the recorded one"


def usable(subject: Subject) -> Findings:
    if not subject.accepted:
        reasons = {golden.refused or golden.untrainable for golden in subject.rendered}
        yield "error", f"the template takes none of the golden conversations ({'; '.join(map(str, reasons))[:300]})"
    for golden in subject.rendered:
        if golden.refused is not None and golden.name in ("one_turn", "multi_turn"):
            yield "error", f"{golden.name} cannot be rendered: {golden.refused}"
        elif golden.refused is not None:
            yield "note", f"{golden.name}: refused by the template: {golden.refused}"
        elif golden.untrainable is not None:
            severity: Severity = "error" if golden.name in ("one_turn", "multi_turn") else "note"
            yield severity, f"{golden.name}: cannot be trained on: {golden.untrainable}"


def steady(subject: Subject) -> Findings:
    """Same bytes on every call and under another clock."""
    for golden in subject.accepted:
        first = subject.prompt_text(golden)
        with _another_clock():
            later = subject.prompt_text(golden)
        if first != later:
            position = first_difference(first.encode(), later.encode())
            shown = first.encode()[max(0, position - 20) : position + 20].decode(errors="replace")
            yield "error", f"{golden.name}: the rendering depends on the date (…{shown!r}…)"
            return
        if any(subject.prompt_text(golden) != first for _ in range(2)):
            yield "error", f"{golden.name}: two calls render different text"
            return


def whitespace(subject: Subject) -> Findings:
    for golden in subject.accepted:
        text = subject.text(golden)
        changed = [m for m in golden.messages if m["content"] not in text]
        if changed and not subject.has_special(golden):
            how = "trimmed" if changed[0]["content"].strip() in text else "cut or rewritten"
            yield "note", f"{golden.name}: the {changed[0]['role']} message is not rendered byte for byte ({how})"


def ignored(subject: Subject) -> Findings:
    """What the template takes no notice of, or adds of its own: arguments, roles, defaults."""
    known = variables(subject.contract.template)
    for name in subject.contract.template_kwargs:
        if name not in known:
            yield "error", f"the template knows no argument {name!r} (it refers to {', '.join(known)})"
    named = {golden.name: golden for golden in subject.accepted}
    if "system" in named and "You answer briefly." not in subject.text(named["system"]):
        yield "note", "system messages are silently dropped"
    if "multi_turn" in named and (added := _added_default(subject, named["multi_turn"])):
        yield "note", f"a system message of the template's own is put in front where none is given ({added!r})"
    if "tools" not in known or ("tools" in named and TOOL["function"]["name"] not in subject.text(named["tools"])):
        yield "note", "the list of tools is silently ignored"
    if tool := _dropped_tool(subject):
        yield "note", tool


def preamble(subject: Subject) -> Findings:
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
            yield "error", f"{golden.name}: the contract's preamble changes the rendering"
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


# Static checks of tokens: what stops, what begins, what text can be mistaken for.


def stops(subject: Subject) -> Findings:
    contract = subject.contract
    if contract.end_of_turn_id not in contract.stop_ids:
        yield "error", f"the end of turn {contract.end_of_turn!r} ({contract.end_of_turn_id}) is not among the stop ids"
    if subject.renderer.encode(contract.end_of_turn) != [contract.end_of_turn_id]:
        yield "error", f"the end of turn {contract.end_of_turn!r} is not the one token {contract.end_of_turn_id}"
    unknown = [token for token in contract.stop_ids if token not in range(len(subject.tokenizer))]
    if unknown:
        yield "error", f"stop ids that the tokenizer does not have: {unknown}"


def bos(subject: Subject) -> Findings:
    """As many BOS tokens as the tokenizer puts in front of plain text: one or none, and none twice."""
    bos = subject.tokenizer.bos_token_id
    if bos is None:
        return
    expected = list(subject.tokenizer.encode("a")[:1]) == [bos]
    for golden in subject.accepted:
        if golden.ids[:2] == [bos, bos]:
            yield "error", f"{golden.name}: begins with two BOS tokens {subject.contract.bos!r}"
            return
        if expected and golden.ids[:1] != [bos]:
            severity: Severity = "error" if subject.contract.guarded else "note"
            yield severity, f"BOS {subject.contract.bos!r} is missing; the tokenizer puts it before plain text"
            return


def round_trip(subject: Subject) -> Findings:
    """The tokenizer gives back the text it was given."""
    for golden in subject.accepted:
        text = subject.text(golden)
        back = subject.renderer.decode(subject.renderer.encode(text))
        if back != text and back.strip() != text.strip():
            yield "note", f"{golden.name}: the tokenizer does not keep the text (normalises, or lacks characters)"


def forgery(subject: Subject) -> Findings:
    """Special-token text in a message stays text."""
    tokens = [token for of_kind in subject.special for token in of_kind]
    plain = _special_count(subject, "a b")
    if plain is None:
        return
    if _special_count(subject, "a " + " b ".join(tokens) + " c") != plain:
        forging = [token for token in tokens if _special_count(subject, f"a {token} b") != plain]
        severity: Severity = "error" if subject.contract.guarded else "note"
        named = ", ".join(forging[:8]) or "several tokens together"
        yield severity, f"text in a message can forge a turn with {named}"
    asks = subject.contract.generation_prompt
    if asks.strip() and not any(token in asks for token in tokens):
        yield "note", f"turn markers such as {asks.strip()!r} are ordinary text; a message can imitate them"


def _special_count(subject: Subject, content: str) -> int | None:
    """How many added tokens a one-turn prompt has; None where the template refuses such a conversation."""
    system = "S" if subject.contract.system_policy == "required" else None
    try:
        ids = subject.renderer.prompt(turns(content, system=system))
    except TemplateRefusal:
        return None
    return sum(token in subject.tokenizer.added_tokens_decoder for token in ids)


# The static checks by name. Each yields (severity, message) for what it finds, and nothing on a sound contract.


STATIC_CHECKS: dict[str, StaticCheck] = {
    "as recorded": as_recorded,
    "renders": usable,
    "mask": mask,
    "generation markers": markers,
    "supervised text": answer,
    "prompt is a prefix": prefix,
    "steady": steady,
    "stop ids": stops,
    "bos": bos,
    "whitespace": whitespace,
    "tokenizer round trip": round_trip,
    "forgery": forgery,
    "ignored": ignored,
    "preamble": preamble,
}
