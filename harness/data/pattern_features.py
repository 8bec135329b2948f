"""What the pattern report looks at in one answer."""

import json
import re
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_KEPT = 3000  # characters of an answer that phrases are looked for in
FORMATS = {
    "a bulleted list": re.compile(r"^[ \t]*[-*•]\s+\S.*\n[ \t]*[-*•]\s+\S", re.M),
    "a numbered list": re.compile(r"^[ \t]*1[.)]\s+\S.*\n(?:.*\n){0,20}?[ \t]*2[.)]\s+\S", re.M),
    "a heading": re.compile(r"^#{1,6}\s+\S", re.M),
    "bold text": re.compile(r"\*\*[^*\n]+\*\*"),
    "a code block": re.compile(r"```"),
    "a table": re.compile(r"^\s*\|.*\|\s*\n\s*\|[\s:|-]+\|\s*$", re.M),
    "an exclamation mark": re.compile(r"!"),
    "an emoji": re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]"),
    "a question at the end": re.compile(r"\?\W*\Z"),
}


@dataclass(frozen=True, order=True)
class Features:
    """Openings and closings are lower-case words; `text` is the beginning of the answer, for phrases."""

    opening: str
    closing: str
    words: int
    formats: tuple[str, ...]
    text: str


def features_of(answer: str, opening_words: int, closing_words: int) -> Features:
    start = _WORD.findall(answer[: 40 * opening_words].lower())[:opening_words]
    end = _WORD.findall(answer[-40 * closing_words :].lower())[-closing_words:]
    formats = [name for name, pattern in FORMATS.items() if pattern.search(answer)]
    if _is_json(answer):
        formats.append("JSON and nothing else")
    return Features(" ".join(start), " ".join(end), len(answer.split()), tuple(formats), answer[:_KEPT])


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _is_json(answer: str) -> bool:
    text = answer.strip()
    if not (text.startswith(("{", "[")) and text.endswith(("}", "]"))):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
