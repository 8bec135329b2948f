"""What the configurations of all behaviours share: the base class, checked regular expressions, lists of wordings."""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


Regex = Annotated[str, AfterValidator(_compiles)]


class BehaviorConfig(BaseModel):
    """The settings in a behavior.yaml. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """The check that the other settings belong to (see registry.py)."""


class PhraseList(BaseModel):
    """Wordings, and contexts in which the same words mean something else.

    Both are regular expressions on lower-case plain text. A match of `any_of` that ends inside a match of `harmless`
    does not count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    any_of: list[Regex]
    harmless: list[Regex] = Field(default=[])

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Matches in the order of the expressions; of two that overlap, the one of the earlier expression."""
        lowered = text.lower()
        safe = [match.span() for pattern in self.harmless for match in re.finditer(pattern, lowered)]
        taken: list[tuple[int, int]] = []
        for match in (match for pattern in self.any_of for match in re.finditer(pattern, lowered)):
            start, end = match.span()
            harmless = any(begin < end <= stop for begin, stop in safe)
            if not harmless and not any(start < stop and begin < end for begin, stop in taken):
                taken.append((start, end))
                yield match

    def first(self, text: str) -> str | None:
        """The first wording found, in lower case."""
        found = min(self.matches(text), key=lambda match: match.start(), default=None)
        return found[0].strip() if found else None
