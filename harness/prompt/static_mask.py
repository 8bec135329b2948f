"""Static checks of the loss mask: where it starts and ends, and that it covers the answer alone."""

import re

from harness.prompt.check import around, first_difference
from harness.prompt.contract import Golden
from harness.prompt.static import Found, Subject

BEGUN = 8  # tokens at the end of a prompt that may belong to the answer
MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


def mask(subject: Subject) -> Found:
    """The loss is taken from right after the generation prompt to the end of turn, and never nowhere."""
    for golden in subject.accepted:
        supervised = [token for token, kept in zip(golden.ids, golden.mask, strict=True) if kept]
        if not supervised:
            yield "fault", f"{golden.name}: no token is supervised"
        elif not golden.mask[golden.prompt_length] or golden.mask[golden.prompt_length - 1]:
            yield "fault", f"{golden.name}: the mask does not start right after the generation prompt"
        elif supervised[-1] != subject.contract.end_of_turn_id:
            yield "fault", f"{golden.name}: the end of turn {subject.contract.end_of_turn!r} is not supervised"


def markers(subject: Subject) -> Found:
    """Where the template has generation markers, they enclose what the mask is derived from: the text from each
    prompt's end to the end of turn. (As text, because transformers' token mask is off by one on some tokenizers.)"""
    if not MARKERS.search(subject.contract.template):
        return
    for golden in subject.accepted:
        if not subject.contract.guarded and subject.has_special(golden):
            continue
        text, marked = _marked_spans(subject, golden)
        derived = _answer_spans(subject, golden, text)
        if not _same_spans(text, marked, derived):
            shown = [text[start:end][:60] for start, end in (marked or [(0, 0)])[:1]]
            yield "fault", f"{golden.name}: the generation markers enclose {shown}, not the answer and its end of turn"
            return


def answer(subject: Subject) -> Found:
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
            yield "fault", f"{golden.name}: the supervised text is {text[:80]!r}, the answer {expected[:80]!r}"
        elif text.strip() != expected and text.strip() not in expected:
            yield "note", f"{golden.name}: besides the answer, {text[:80]!r} is supervised"


def prefix(subject: Subject) -> Found:
    """Prompt ids begin the full ids; a rendering of the first turns begins the rendering of all."""
    for golden in subject.accepted:
        prompt = subject.renderer.prompt(golden.question, **golden.arguments)
        if golden.ids[: len(prompt)] != prompt:
            position = first_difference(golden.ids, prompt)
            shown = around(golden.ids, position, subject.renderer.decode)
            yield "fault", f"{golden.name}: the prompt is no prefix of the conversation, from token {position}: {shown}"
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
