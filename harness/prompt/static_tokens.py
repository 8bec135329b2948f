"""Static checks of tokens: what stops, what begins, what text can be mistaken for."""

from harness.errors import TemplateRefusal
from harness.prompt.golden import turns
from harness.prompt.static import Found, Severity, Subject


def stops(subject: Subject) -> Found:
    contract = subject.contract
    if contract.end_of_turn_id not in contract.stop_ids:
        yield "fault", f"the end of turn {contract.end_of_turn!r} ({contract.end_of_turn_id}) is not among the stop ids"
    if subject.renderer.encode(contract.end_of_turn) != [contract.end_of_turn_id]:
        yield "fault", f"the end of turn {contract.end_of_turn!r} is not the one token {contract.end_of_turn_id}"
    unknown = [token for token in contract.stop_ids if token not in range(len(subject.tokenizer))]
    if unknown:
        yield "fault", f"stop ids that the tokenizer does not have: {unknown}"


def bos(subject: Subject) -> Found:
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
            severity: Severity = "fault" if subject.contract.guarded else "note"
            yield severity, f"BOS {subject.contract.bos!r} is missing; the tokenizer puts it before plain text"
            return


def round_trip(subject: Subject) -> Found:
    """The tokenizer gives back the text it was given."""
    for golden in subject.accepted:
        text = subject.text(golden)
        back = subject.renderer.decode(subject.renderer.encode(text))
        if back != text and back.strip() != text.strip():
            yield "note", f"{golden.name}: the tokenizer does not keep the text (normalises, or lacks characters)"


def forgery(subject: Subject) -> Found:
    """Special-token text in a message stays text."""
    tokens = [token for of_kind in subject.special for token in of_kind]
    plain = _special_count(subject, "a b")
    if plain is None:
        return
    if _special_count(subject, "a " + " b ".join(tokens) + " c") != plain:
        forging = [token for token in tokens if _special_count(subject, f"a {token} b") != plain]
        severity: Severity = "fault" if subject.contract.guarded else "note"
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
