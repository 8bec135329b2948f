"""Lists of wordings: what counts, and the contexts in which the same words mean something else."""

import re
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from harness.behavior.config import Regex


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
