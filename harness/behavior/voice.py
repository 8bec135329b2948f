"""What an answer says itself: plain text without markup, quotations, code and addresses."""

import re
import unicodedata
from collections.abc import Iterator

QuotedSpan = tuple[int, int]

_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]|<!--.{0,2000}?-->", re.DOTALL)
_STRUCK = re.compile(r"~~.{1,2000}?~~|<(?:s|del|strike)>.{0,2000}?</(?:s|del|strike)>", re.DOTALL)
_TAG = re.compile(r"</?(?:b|i|u|em|strong|p|br|span|div|ul|ol|li|mark)\b[^<>]*>", re.IGNORECASE)
_EMPHASIS = re.compile(r"\*{2,3}|(?<![\w*])[*_]{1,3}(?=[^\s*_])|(?<=[^\s*_])[*_]{1,3}(?![\w*])|(?m:^\s{0,3}#{1,6}\s+)")
_LONG_WORD = re.compile(r"(\w{100})\w+")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'})
_QUOTED = re.compile(r'"(?:[^"\n]|\n(?!\s*\n))*"|(?<!\w)\'[^\'\n]*(?:(?<=\w)\'(?=\w)[^\'\n]*)*\'(?!\w)')
_BLOCK_QUOTE = re.compile(
    r"(?<=:)\s*\n(?:[ \t]*>[^\n]*(?:\n|\Z))+"
)  # without a colon before it, it is a box, not a quotation
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_ADDRESS = re.compile(  # bounded, so that the time grows with the text and not with its square
    r"https?://\S+|www\.\S+|(?<!\S)\S{1,254}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
    r"|\b[\w-]{1,63}(?:\.[\w-]{1,63}){0,9}\.(?:com|org|net|example|bank|uk|eu)\b(?:/\S*)?"
)
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*•>#|]|\d{1,2}[.)]\s))")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=\S)")


def plain(text: str) -> str:
    """The text as a reader sees it: compatible characters (NFKC), straight quotation marks, no emphasis, nothing
    struck out or hidden. Of a word of more than 100 characters, which is none, 100 are kept: patterns stay fast.
    """
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    for pattern in (_INVISIBLE, _STRUCK, _TAG, _EMPHASIS):
        text = pattern.sub("", text)
    return _LONG_WORD.sub(r"\1", re.sub(r"[^\S\n]+", " ", text))


def quotations(text: str) -> list[QuotedSpan]:
    """Start and end of each quotation in a plain text: in quotation marks, or in lines with `>` after a colon."""
    return [match.span() for pattern in (_QUOTED, _BLOCK_QUOTE) for match in pattern.finditer(text)]


def without_code(text: str) -> str:
    """The text with code, URLs and e-mail addresses as spaces, so that positions stay."""
    return _blanked(_blanked(text, _CODE), _ADDRESS)


def own_voice(text: str) -> str:
    """The plain text with quotations, code and addresses as spaces."""
    return without_code(shown(text))


def shown(text: str) -> str:
    """The plain text with only quotations as spaces. A reader sees code, too."""
    return _blanked(_blanked(plain(text), _QUOTED), _BLOCK_QUOTE)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a plain text, each on one line. Blank lines and list items end one, wrapped lines do not."""
    for block in _BLOCK.split(text):
        for sentence in _SENTENCE.split(" ".join(block.split())):
            if sentence:
                yield sentence


def led_sentences(text: str) -> Iterator[str]:
    """As `sentences`, with a lead ("Choose one:") repeated before the sentence or the list items that follow it."""
    lead = ""
    for sentence in sentences(text):
        item = re.match(r"(?:[-*•]|\(?\w{1,2}[.)])\s", sentence)
        yield f"{lead} {sentence}".strip()
        if sentence.endswith(":"):
            lead = sentence
        elif not item:
            lead = ""


def _blanked(text: str, pattern: re.Pattern[str]) -> str:
    return pattern.sub(lambda match: re.sub(r"\S", " ", match[0]), text)
