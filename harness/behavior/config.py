"""What the configurations of all behaviours share: the base class, and patterns that are compiled on reading."""

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
    """A behavior.yaml: unknown keys are faults. `kind` names the check (see registry.py)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str


# Lists of wordings: what counts, and the contexts in which the same words mean something else.


class PhraseList(BaseModel):
    """Regular expressions on lower-case plain text; a match that ends inside one of `harmless` does not count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    any_of: list[Regex]
    harmless: list[Regex] = Field(default=[])

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Matches that do not overlap: of two that do, the one of the earlier expression."""
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
        """The first wording found, as it stands in the lower-case text."""
        found = min(self.matches(text), key=lambda match: match.start(), default=None)
        return found[0].strip() if found else None
