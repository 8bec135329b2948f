"""Functions that the general_smoke tasks name: prompts, and rules for free-text answers."""

import json
import re

from harness.evaluate.domain import items, user_prompt

__all__ = ["items", "process_results", "question", "user_prompt"]


def question(doc):
    """A multiple-choice prompt: the passage, if any, before the question. Choices are not shown."""
    return f"{doc['passage']}\n\n{doc['question']}" if doc["passage"] else doc["question"]


def process_results(doc, results):
    return {"acc": float(passes(json.loads(doc["check"]), results[0]))}


def passes(check, answer):
    """Whether a free-text answer satisfies the item's rule."""
    return RULES[check["kind"]](check, answer.strip())


def _mentions(answer, phrase):
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", answer, re.IGNORECASE) is not None


def _contains_any(check, answer):
    return any(_mentions(answer, value) for value in check["values"])


def _contains_all(check, answer):
    return all(_mentions(answer, value) for value in check["values"])


def _yes_no(check, answer):
    said = re.search(r"\b(yes|no)\b", answer.lower())
    return said is not None and said.group(1) == check["value"]


def _number(check, answer):
    numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
    if numbers:
        return float(numbers[-1]) == check["value"]
    return "word" in check and _mentions(answer, check["word"])


def _max_words(check, answer):
    return 0 < len(answer.split()) <= check["value"]


def _one_of(check, answer):
    return _contains_any(check, answer) and not any(_mentions(answer, value) for value in check["against"])


RULES = {
    "contains_any": _contains_any,
    "contains_all": _contains_all,
    "yes_no": _yes_no,
    "number": _number,
    "max_words": _max_words,
    "one_of": _one_of,
}
