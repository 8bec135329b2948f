"""The parity check: are the ids that a server fed the model those of the training renderer?"""

from collections.abc import Callable, Sequence

from harness.errors import PromptMismatch

AROUND = 5


def require_equal(expected: Sequence[int], fed: Sequence[int], decode: Callable[[list[int]], str], where: str) -> None:
    """Raises PromptMismatch that shows the first differing position, 5 tokens either side, decoded."""
    if list(expected) == list(fed):
        return
    position = first_difference(expected, fed)
    raise PromptMismatch(
        f"the server fed the model other tokens than training would ({where}).\n"
        f"First difference at token {position} (lengths: training {len(expected)}, server {len(fed)}):\n"
        f"  training: {_window(expected, position, decode)}\n"
        f"  server:   {_window(fed, position, decode)}\n"
        f"Likely cause: {likely_cause(expected, fed)}."
    )


def first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """The first index at which two sequences differ (the shorter one's length if it is a prefix)."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))


def likely_cause(expected: Sequence[int], fed: Sequence[int]) -> str:
    """The usual cause of such a difference, in words."""
    if len(fed) == len(expected) + 1 and list(fed[1:]) == list(expected):
        return "the server adds a BOS token of its own"
    if len(expected) == len(fed) + 1 and list(expected[1:]) == list(fed):
        return "the server drops the BOS token"
    if list(fed[: len(expected)]) == list(expected):
        return "the server appends tokens after the prompt"
    if list(expected[: len(fed)]) == list(fed):
        return "the server's prompt ends early: generation prompt missing, or the prompt was truncated"
    if len(fed) > len(expected) and list(fed[-len(expected) + 1 :]) == list(expected[1:]):
        return "the server puts a default system message in front"
    return "another chat template, template switch or tokenizer is in use on the server"


def _window(ids: Sequence[int], position: int, decode: Callable[[list[int]], str]) -> str:
    start = max(0, position - AROUND)
    shown = []
    for index in range(start, min(len(ids), position + AROUND + 1)):
        text = decode([ids[index]])
        shown.append(f"[{ids[index]} {text!r}]" if index == position else f"{ids[index]} {text!r}")
    return "  ".join(shown) or "(nothing)"
