"""The parity check: are the ids that a server fed the model those of the training renderer?"""

from collections.abc import Callable, Sequence
from typing import Any

from harness.core.errors import PromptMismatch

AROUND = 5


def require_equal(expected: Sequence[int], fed: Sequence[int], decode: Callable[[list[int]], str], where: str) -> None:
    """Raises PromptMismatch that shows the first differing position, 5 tokens either side, decoded."""
    if problem := mismatch(expected, fed, decode, where):
        raise PromptMismatch(problem)


def mismatch(expected: Sequence[int], fed: Sequence[int], decode: Callable[[list[int]], str], where: str) -> str | None:
    """The difference in words: position, 5 tokens either side, likely cause; None when the ids are equal."""
    if list(expected) == list(fed):
        return None
    position = first_difference(expected, fed)
    return (
        f"the server fed the model other tokens than training would ({where}).\n"
        f"First difference at token {position} (lengths: training {len(expected)}, server {len(fed)}):\n"
        f"  training: {around(expected, position, decode)}\n"
        f"  server:   {around(fed, position, decode)}\n"
        f"Likely cause: {likely_cause(expected, fed)}."
    )


def first_difference(left: Sequence[Any], right: Sequence[Any]) -> int:
    """The first index at which two sequences differ (the shorter one's length if it is a prefix)."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))


def likely_cause(expected: Sequence[int], fed: Sequence[int]) -> str:
    """The usual cause of such a difference, in words."""
    expected, fed = list(expected), list(fed)
    if fed[1:] == expected:
        return "the server adds a BOS token of its own"
    if expected[1:] == fed:
        return "the server drops the BOS token"
    if fed[: len(expected)] == expected:
        return "the server appends tokens after the prompt: another generation prompt, or a template switch"
    if expected[: len(fed)] == fed:
        return "the server's prompt ends early: generation prompt missing, or the prompt was truncated"
    if _ends_with(fed, expected):
        return "the server puts a default system message in front"
    if _ends_with(expected, fed):
        return "the server drops the start of the prompt: the system message, or a truncation from the left"
    return "another chat template, template switch or tokenizer is in use on the server"


def _ends_with(longer: list[int], shorter: list[int]) -> bool:
    """Whether `longer` ends with all of `shorter` but its first token (which may be a BOS)."""
    return len(longer) > len(shorter) > 1 and longer[-len(shorter) + 1 :] == shorter[1:]


def around(ids: Sequence[int], position: int, decode: Callable[[list[int]], str]) -> str:
    """The token at `position` in brackets with 5 either side, each with its id, decoded."""
    start = max(0, position - AROUND)
    shown = []
    for index in range(start, min(len(ids), position + AROUND + 1)):
        text = decode([ids[index]])
        shown.append(f"[{ids[index]} {text!r}]" if index == position else f"{ids[index]} {text!r}")
    return "  ".join(shown) or "(nothing)"
