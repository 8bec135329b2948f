"""Marks by which a data set says that an answer is not to be learned: on a record, on a turn, or as a list of turns."""

from collections.abc import Mapping, Sequence
from typing import Any

# The answer is not to be learned where one of these is 0 or false, …
OFF_WHERE_FALSE = (
    "weight", "train", "training", "trainable", "train_on_turn", "loss", "loss_mask", "learn", "label", "kto_tag",
    "is_chosen",
)  # fmt: skip
# … and where one of these is true.
OFF_WHERE_TRUE = ("masked", "masking", "ignore", "rejected")
DETAILS = ("train_detail", "training_detail")  # Axolotl: stretches of an answer, each with its own mark
MARKS = (*OFF_WHERE_FALSE, *OFF_WHERE_TRUE, *DETAILS)
_FALSE = ("false", "0", "0.0")


def is_off(key: str, value: Any) -> bool:
    """Whether the mark `key` with this value says: do not learn."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if key in OFF_WHERE_TRUE:
        return value is True or word == "true"
    if key in DETAILS:
        return isinstance(value, list) and bool(value) and not any(map(_is_learned, value))
    if isinstance(value, int | float):
        return value <= 0
    return word in _FALSE or (word in ("no", "off") and key != "label")


def mark_of(values: Mapping[str, Any]) -> str:
    """The mark on a record that takes its answers out, as `key: value`; '' without one.

    `loss` as a number may be what a model scored, so only false counts there.
    """
    for key in MARKS:
        value = values.get(key)
        if is_off(key, value) and not (key == "loss" and type(value) in (int, float)):
            return f"{key}: {value}"
    return ""


def is_understood(key: str, value: Any) -> bool:
    """Whether the value of the mark `key` says anything that a reader knows."""
    if key in DETAILS or isinstance(value, bool | list):
        return True
    if isinstance(value, int | float):
        return value in (0, 1) or key == "weight"
    return isinstance(value, str) and (is_off(key, value) or value.strip().lower() in ("", "true", "1", "1.0", "yes"))


def is_partial(turn: Mapping[str, Any]) -> bool:
    """Whether a turn marks parts of its text: a row can only hold whole turns without loss."""
    details = [part for key in DETAILS for part in (turn[key] if isinstance(turn.get(key), list) else [])]
    return len(set(map(_is_learned, details))) > 1


def has_fraction(values: Mapping[str, Any]) -> bool:
    """Whether it has a weight between 0 and 1, or above 1, which training does not apply."""
    try:
        return float(values.get("weight") or 1) not in (0.0, 1.0)
    except (TypeError, ValueError):
        return False


def marked_turns(
    turns: Sequence[Mapping[str, Any]], answers: Sequence[int], values: Mapping[str, Any]
) -> set[int] | str:
    """The positions of turns that are not to be learned, by their own marks and by the record's `loss_mask`.

    A `loss_mask` has one entry for each turn or for each answer (`answers` holds their positions). Returns what is
    wrong with it otherwise.
    """
    found = {n for n, turn in enumerate(turns) if any(is_off(key, turn.get(key)) for key in MARKS)}
    mask = values.get("loss_mask")
    if isinstance(mask, list):
        places = range(len(turns)) if len(mask) == len(turns) else answers
        if len(mask) != len(places):
            return f"loss_mask has {len(mask)} entries for {len(turns)} turns with {len(answers)} answers"
        found |= {n for n, on in zip(places, mask, strict=True) if n in answers and not on}
    return found


def _is_learned(part: Any) -> bool:
    return not (isinstance(part, Mapping) and is_off("train", part.get("train")))
