"""The parity check: did the server feed the model the same ids as the training renderer?"""

from collections.abc import Callable, Sequence
from typing import Any

from harness.core.errors import PromptMismatch

AROUND = 5


def require_equal(expected: Sequence[int], fed: Sequence[int], decode: Callable[[list[int]], str], where: str) -> None:
    """Raises PromptMismatch if the ids differ; its message is that of `mismatch`."""
    if problem := mismatch(expected, fed, decode, where):
        raise PromptMismatch(problem)


def mismatch(expected: Sequence[int], fed: Sequence[int], decode: Callable[[list[int]], str], where: str) -> str | None:
    """A description of the difference: position, 5 decoded tokens on either side, likely cause; None for equal ids."""
    if list(expected) == list(fed):
        return None
    position = first_difference(expected, fed)
    return (
        f"the tokens that the server fed the model differ from those in training ({where}).\n"
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
    """The most likely cause of a difference, in words."""
    expected, fed = list(expected), list(fed)
    if fed[1:] == expected:
        return "the server adds a BOS token of its own"
    if expected[1:] == fed:
        return "the server drops the BOS token"
    if fed[: len(expected)] == expected:
        return "the server appends tokens to the prompt: another generation prompt, or a template switch"
    if expected[: len(fed)] == fed:
        return "the server's prompt ends early: the generation prompt is missing, or the prompt was truncated"
    if _ends_with(fed, expected):
        return "the server puts a default system message in front"
    if _ends_with(expected, fed):
        return "the server drops the start of the prompt: the system message, or a truncation from the left"
    return "the server uses another chat template, template switch or tokenizer"


def _ends_with(longer: list[int], shorter: list[int]) -> bool:
    """Whether `longer` ends with `shorter`, apart from the first token of `shorter` (which may be a BOS)."""
    return len(longer) > len(shorter) > 1 and longer[-len(shorter) + 1 :] == shorter[1:]


def around(ids: Sequence[int], position: int, decode: Callable[[list[int]], str]) -> str:
    """The token at `position` in brackets, with 5 tokens on either side; each as id and decoded text."""
    start = max(0, position - AROUND)
    shown = []
    for index in range(start, min(len(ids), position + AROUND + 1)):
        text = decode([ids[index]])
        shown.append(f"[{ids[index]} {text!r}]" if index == position else f"{ids[index]} {text!r}")
    return "  ".join(shown) or "(nothing)"
