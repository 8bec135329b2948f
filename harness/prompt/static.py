"""Static checks of a contract: what the template and the tokenizer alone prove, before training.

Every check is a small function that yields problems. An error makes the contract unusable (exit 12). A note is
something a person should know: what the template silently ignores or changes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from harness.core.console import plural
from harness.core.errors import EvidenceFault, TemplateRefusal
from harness.prompt.check import around, first_difference
from harness.prompt.contract import Contract, Golden, sha256_text, tokenizer_sha256
from harness.prompt.golden import TOOL, further_conversations, render_golden, turns
from harness.prompt.guard import added_tokens, forging, guard_for
from harness.prompt.limits import limited
from harness.prompt.make import variables
from harness.prompt.preamble import without_preamble
from harness.prompt.render import Renderer


@dataclass(frozen=True)
class Problem:
    """A problem and the check that reports it. An error ends with exit 12; a note is only shown."""

    check: str
    severity: Literal["error", "note"]
    message: str


class Subject:
    """A contract and the tokenizer to check it on, with the golden conversations as they render now."""

    def __init__(self, contract: Contract, tokenizer: Any):
        self.contract = contract
        self.tokenizer = tokenizer
        self.renderer = Renderer(contract, tokenizer)

    @cached_property
    def rendered(self) -> list[Golden]:
        """The contract's golden conversations, as rendered now."""
        return [render_golden(self.renderer, g.name, g.messages, g.tools, g.kwargs) for g in self.contract.golden]

    @cached_property
    def further(self) -> list[Golden]:
        """Conversations that the contract does not record, as rendered now."""
        system = "You answer briefly." if self.contract.system_policy == "required" else None
        return further_conversations(self.renderer, system)

    @property
    def accepted(self) -> list[Golden]:
        """The conversations that can be trained on, as rendered now."""
        found = [*self.rendered, *self.further]
        return [golden for golden in found if golden.refused is None and golden.untrainable is None]

    def text(self, golden: Golden) -> str:
        """The finished conversation as text."""
        return self.renderer.text(golden.messages, add_generation_prompt=False, **golden.arguments)

    def prompt_text(self, golden: Golden) -> str:
        """The prompt for its last answer as text."""
        return self.renderer.text(golden.question, **golden.arguments)

    @cached_property
    def control(self) -> list[str]:
        """The tokens that can change roles, turns or modes; the preamble keeps them as plain text."""
        bare, kwargs = without_preamble(self.contract.template), self.contract.template_kwargs
        return [*self.contract.guarded, *self.contract.unguarded] or guard_for(bare, kwargs, self.tokenizer).tokens

    def has_control(self, golden: Golden, guarded: bool = True) -> bool:
        """Whether a message contains the text of a control token; without `guarded`, of one that it may write."""
        texts = [str(message["content"]) for message in golden.messages]
        tokens = [token for token in self.control if guarded or token not in self.contract.guarded]
        return any(token in text for token in tokens for text in texts)


Severity = Literal["error", "note"]
Findings = Iterator[tuple[Severity, str]]
StaticCheck = Callable[[Subject], Findings]


def check_contract(contract: Contract, tokenizer: Any) -> list[Problem]:
    """All problems of a contract on a tokenizer (a transformers fast tokenizer); empty for a sound contract."""
    subject = Subject(contract, tokenizer)
    problems = []
    for title, check in STATIC_CHECKS.items():
        # The same problem of several conversations (`name: problem`) appears once.
        names: dict[tuple[Severity, str], list[str]] = {}
        for severity, message in check(subject):
            name, colon, what = message.partition(": ")
            names.setdefault((severity, what if colon else message), []).append(name if colon else "")
        for (severity, what), of in names.items():
            shown = ", ".join(filter(None, of[:3])) + (f" and {len(of) - 3} more" if len(of) > 3 else "")
            problems.append(Problem(title, severity, f"{shown}: {what}" if shown else what))
    return problems


def require_sound(problems: Sequence[Problem], what: str) -> list[Problem]:
    """The notes among `problems`. Raises EvidenceFault, listing all errors, if there are any; `what` was checked."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        lines = "\n".join(f"  - {error.check}: {error.message}" for error in errors)
        raise EvidenceFault(f"{plural(len(errors), 'error')} in {what}:\n{lines}")
    return [problem for problem in problems if problem.severity == "note"]


def same_tokenizer(subject: Subject) -> bool:
    return tokenizer_sha256(subject.tokenizer) == subject.contract.tokenizer_sha256


def same_template(subject: Subject) -> bool:
    return sha256_text(subject.contract.template) == subject.contract.template_sha256


# The loss mask: where it starts and ends, and that it covers nothing but the answer.

BEGUN = 8  # tokens at the end of a prompt that may belong to the answer
GENERATION_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


def loss_mask(subject: Subject) -> Findings:
    """The loss is taken from right after the generation prompt up to and including the end of turn."""
    for golden in subject.accepted:
        supervised = [token for token, kept in zip(golden.ids, golden.mask, strict=True) if kept]
        if not supervised:
            yield "error", f"{golden.name}: no token is supervised"
        elif not golden.mask[golden.prompt_length] or golden.mask[golden.prompt_length - 1]:
            yield "error", f"{golden.name}: the mask does not start right after the generation prompt"
        elif supervised[-1] != subject.contract.end_of_turn_id:
            yield "error", f"{golden.name}: the end of turn {subject.contract.end_of_turn!r} is not supervised"


def markers(subject: Subject) -> Findings:
    """Generation markers in the template enclose what the mask covers: from each prompt's end to the end of turn.

    Compared as text, because transformers' token mask is off by one on some tokenizers.
    """
    if not GENERATION_MARKERS.search(subject.contract.template):
        return
    for golden in subject.accepted:
        if subject.has_control(golden, guarded=False):
            continue
        text, marked = _marked_spans(subject, golden)
        derived = _answer_spans(subject, golden, text)
        # A marker may also include the line break after the end of turn.
        trimmed = [(start, start + len(text[start:end].rstrip())) for start, end in marked]
        if derived not in (marked, trimmed):
            shown = [text[start:end][:60] for start, end in (marked or [(0, 0)])[:1]]
            yield "error", f"{golden.name}: the generation markers enclose {shown}, not the answer and its end of turn"
            return


def answer(subject: Subject) -> Findings:
    """The supervised text is the answer itself, also where no marker states the mask.

    The end of the prompt is included, since some templates begin an answer there (an open think tag).
    """
    for golden in subject.accepted:
        expected = golden.messages[-1]["content"].strip()
        if subject.has_control(golden):
            continue
        start = golden.prompt_length
        supervised = [t for t, kept in zip(golden.ids[start:], golden.mask[start:], strict=True) if kept]
        text = subject.renderer.decode(supervised).removesuffix(subject.contract.end_of_turn)
        begun = subject.renderer.decode(golden.ids[max(0, start - BEGUN) : start])
        if expected not in begun + text:
            yield "error", f"{golden.name}: the supervised text is {text[:80]!r}, but the answer is {expected[:80]!r}"
        elif text.strip() != expected and text.strip() not in expected:
            yield "note", f"{golden.name}: text beyond the answer is supervised: {text[:80]!r}"


def prefix(subject: Subject) -> Findings:
    """The full ids begin with the prompt's ids, and the rendering of all turns with that of the first ones."""
    for golden in subject.accepted:
        prompt = subject.renderer.prompt(golden.question, **golden.arguments)
        if golden.ids[: len(prompt)] != prompt:
            position = first_difference(golden.ids, prompt)
            shown = around(golden.ids, position, subject.renderer.decode)
            yield (
                "error",
                f"{golden.name}: the prompt is not a prefix of the conversation, from token {position} on: {shown}",
            )
        if subject.renderer.training(golden.messages, **golden.arguments).unsupervised:
            yield "note", f"{golden.name}: the template rewrites earlier turns; the loss is taken on later answers only"


def _marked_spans(subject: Subject, golden: Golden) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text, and the spans of its generation blocks (characters)."""
    from transformers.utils.chat_template_utils import render_jinja_template

    arguments = {**subject.contract.template_kwargs, **golden.arguments}
    with limited():
        texts, spans = render_jinja_template(
            conversations=[golden.messages],
            chat_template=subject.contract.template,
            return_assistant_tokens_mask=True,
            **{**subject.tokenizer.special_tokens_map, **arguments},
        )
    return texts[0], [(start, end) for start, end in spans[0]]


def _answer_spans(subject: Subject, golden: Golden, text: str) -> list[tuple[int, int]]:
    """The spans from the end of each answer's prompt to the end of its turn (characters)."""
    spans = []
    for index, message in enumerate(golden.messages):
        if message["role"] == "assistant":
            start = len(subject.renderer.text(golden.messages[:index], **golden.arguments))
            end = text.find(subject.contract.end_of_turn, start) + len(subject.contract.end_of_turn)
            spans.append((start, end))
    return spans


# The rendering: as recorded, reproducible, complete; what it ignores, and what it adds.


def as_recorded(subject: Subject) -> Findings:
    """The golden conversations render as recorded in the contract: same template, tokenizer and libraries."""
    if not same_template(subject):
        yield "error", "the template text does not match its sha256"
    if not same_tokenizer(subject):
        yield "error", "the tokenizer is not the one that the contract was made with"
    for golden, now in zip(subject.contract.golden, subject.rendered, strict=True):
        if golden.refused != now.refused:
            yield "error", f"{golden.name}: now: {now.refused or 'rendered'}; recorded: {golden.refused or 'rendered'}"
        elif (golden.ids, golden.prompt_length) != (now.ids, now.prompt_length):
            position = first_difference(golden.ids, now.ids)
            recorded = around(golden.ids, position, subject.renderer.decode)
            found = around(now.ids, position, subject.renderer.decode)
            yield (
                "error",
                f"{golden.name}: token {position} differs\n      recorded: {recorded}\n      now:      {found}",
            )
        elif golden.mask != now.mask:
            yield "error", f"{golden.name}: the loss mask differs from the recorded one"


def renders(subject: Subject) -> Findings:
    """The template accepts the golden conversations. A refused list of tools is no problem: training sends none."""
    if not subject.accepted:
        reasons = {golden.refused or golden.untrainable for golden in subject.rendered}
        yield "error", f"the template accepts none of the golden conversations ({'; '.join(map(str, reasons))[:300]})"
    for golden in subject.rendered:
        if golden.refused is not None and golden.name in ("one_turn", "multi_turn"):
            yield "error", f"{golden.name} cannot be rendered: {golden.refused}"
        elif golden.refused is not None and not golden.tools:
            yield "note", f"{golden.name}: the template refuses such conversations: {golden.refused}"
        elif golden.untrainable is not None:
            severity: Severity = "error" if golden.name in ("one_turn", "multi_turn") else "note"
            yield severity, f"{golden.name}: such conversations cannot be trained on: {golden.untrainable}"


def reproducible(subject: Subject) -> Findings:
    """The rendering is the same on every call and on another day."""
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
            yield "error", f"{golden.name}: two calls render different texts"
            return


def whitespace(subject: Subject) -> Findings:
    """Messages are rendered byte for byte; none is left out."""
    for golden in subject.further:
        if not golden.name.startswith("many_turns"):
            continue
        text = subject.text(golden)
        if gone := [m for m in golden.messages if m["role"] != "system" and m["content"].strip() not in text]:
            roles = ", ".join(sorted({str(message["role"]) for message in gone}))
            yield (
                "error",
                f"{golden.name}: {len(gone)} of {len(golden.messages)} messages are missing from the rendering "
                f"({roles}), the first {gone[0]['content']!r}: the model never sees them. Choose another template",
            )
    for golden in subject.accepted:
        text = subject.text(golden)
        changed = [m for m in golden.messages if m["content"] not in text]
        if changed and not subject.has_control(golden):
            how = "trimmed" if changed[0]["content"].strip() in text else "cut or rewritten"
            yield "note", f"{golden.name}: the {changed[0]['role']} message is not rendered byte for byte ({how})"


def ignored(subject: Subject) -> Findings:
    """What the template ignores or adds: arguments, roles, default messages."""
    known = variables(subject.contract.template)
    for name in subject.contract.template_kwargs:
        if name not in known:
            yield "error", f"the template knows no argument {name!r} (it uses {', '.join(known)})"
    named = {golden.name: golden for golden in subject.accepted}
    if "system" in named and "You answer briefly." not in subject.text(named["system"]):
        yield "note", "system messages are silently dropped"
    if "multi_turn" in named and (added := _added_default(subject, named["multi_turn"])):
        yield "note", f"the template adds its own system message where none is given ({added!r})"
    if "tools" not in known or ("tools" in named and TOOL["function"]["name"] not in subject.text(named["tools"])):
        yield "note", "the list of tools is silently ignored"
    with suppress(TemplateRefusal):
        if "RESULT-77" not in subject.renderer.text([*turns("Q", "A"), {"role": "tool", "content": "RESULT-77"}]):
            yield "note", "tool messages are silently dropped"


def preamble(subject: Subject) -> Findings:
    """Without a system policy, the preamble does not change conversations that hold no control tokens."""
    bare = without_preamble(subject.contract.template)
    if bare == subject.contract.template or subject.contract.system_policy != "none":
        return
    renderer = Renderer(subject.contract.model_copy(update={"template": bare}), subject.tokenizer)
    for golden in subject.accepted:
        if subject.has_control(golden):
            continue
        original = renderer.text(golden.messages, add_generation_prompt=False, **golden.arguments)
        if original != subject.text(golden):
            yield "error", f"{golden.name}: the contract's preamble changes the rendering"
            return


def _added_default(subject: Subject, golden: Golden) -> str:
    """Text before the first user message, without the BOS and what precedes any user message."""
    if subject.contract.system_policy != "none":
        return ""
    text = subject.text(golden)
    before = text[: text.index(golden.messages[0]["content"])]
    opening = subject.contract.turns["user"][0]
    return before.removesuffix(opening).removeprefix(subject.contract.bos or "").strip()


@contextmanager
def _another_clock() -> Iterator[None]:
    """Within the context, transformers' `strftime_now` sees another day."""
    from datetime import datetime
    from unittest.mock import patch

    class AnotherDay(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "AnotherDay":
            return cls(2001, 2, 3, 4, 5, 6, tzinfo=tz)

    with patch("transformers.utils.chat_template_utils.datetime", AnotherDay):
        yield


# Tokens: stop ids, BOS, and text that can be mistaken for special tokens.


def stops(subject: Subject) -> Findings:
    """The end of turn is one token of the tokenizer, and among the stop ids."""
    contract = subject.contract
    if contract.end_of_turn_id not in contract.stop_ids:
        yield "error", f"the end of turn {contract.end_of_turn!r} ({contract.end_of_turn_id}) is not among the stop ids"
    if subject.renderer.encode(contract.end_of_turn) != [contract.end_of_turn_id]:
        yield "error", f"the end of turn {contract.end_of_turn!r} is not the one token {contract.end_of_turn_id}"
    unknown = [token for token in contract.stop_ids if token not in range(len(subject.tokenizer))]
    if unknown:
        yield "error", f"stop ids that the tokenizer does not have: {unknown}"


def bos(subject: Subject) -> Findings:
    """A prompt begins with one BOS if the tokenizer has a BOS of its own: not none, and never two.

    A tokenizer may lack the rule that puts it before plain text (as conversions from GGUF leave it), so the rule is not
    asked alone. A BOS that is also the EOS, or that the tokenizer's settings switch off, is not missed.
    """
    tokenizer, contract = subject.tokenizer, subject.contract
    bos = tokenizer.bos_token_id
    if bos is None:
        return
    written = list(tokenizer.encode("a")[:1]) == [bos]
    of_its_own = bos not in (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
    switched_off = tokenizer.init_kwargs.get("add_bos_token") is False
    expected = contract.bos_policy != "never" and (written or (of_its_own and not switched_off))
    for golden in subject.accepted:
        if golden.ids[:2] == [bos, bos]:
            yield "error", f"{golden.name}: starts with two BOS tokens {subject.contract.bos!r}"
            return
        if expected and golden.ids[:1] != [bos]:
            why = "the tokenizer puts it before plain text" if written else "the tokenizer has no rule to add it"
            yield (
                "error",
                f"BOS {contract.bos!r} is missing; {why}. Choose a template that writes bos_token; or set "
                "template.bos=never if the model was trained without it",
            )
            return


def round_trip(subject: Subject) -> Findings:
    """Decoding the ids of a text gives the text."""
    for golden in subject.accepted:
        text = subject.text(golden)
        back = subject.renderer.decode(subject.renderer.encode(text))
        if back != text and back.strip() != text.strip():
            yield (
                "note",
                f"{golden.name}: decoded ids differ from the text (the tokenizer normalises it, or lacks characters)",
            )


def forgery(subject: Subject) -> Findings:
    """The text of a control token in a message remains text."""
    contract = subject.contract
    system = "S" if contract.system_policy == "required" else None
    tokens = [token for of_kind in added_tokens(subject.tokenizer) for token in of_kind]
    if found := forging(tokens, subject.control, subject.renderer, system):
        chosen = not contract.guarded or set(found) <= set(contract.unguarded)
        severity: Severity = "note" if chosen else "error"
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        yield severity, f"text in a message can forge a turn with {', '.join(found[:8])}{more}"
    asks = contract.generation_prompt
    if asks.strip() and not any(token in asks for token in (*tokens, *contract.guarded) if token.strip()):
        yield "note", f"turn markers such as {asks.strip()!r} are ordinary text; a message can imitate them"


# Each yields (severity, message) for every problem, and nothing for a sound contract.
STATIC_CHECKS: dict[str, StaticCheck] = {
    "as recorded": as_recorded,
    "rendering": renders,
    "mask": loss_mask,
    "generation markers": markers,
    "supervised text": answer,
    "prompt is a prefix": prefix,
    "reproducible": reproducible,
    "stop ids": stops,
    "bos": bos,
    "whitespace": whitespace,
    "tokenizer round trip": round_trip,
    "forgery": forgery,
    "ignored": ignored,
    "preamble": preamble,
}
