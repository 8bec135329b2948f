"""Lists of wordings: what counts, and the contexts in which the same words mean something else."""

import re
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from harness.behavior.config import Regex


class PhraseList(BaseModel):
    """Regular expressions on lower-case plain text; a match inside a match of `harmless` does not count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    any_of: list[Regex]
    harmless: list[Regex] = []

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Matches in the text's order within each expression, none twice at one place."""
        lowered = text.lower()
        safe = [match.span() for pattern in self.harmless for match in re.finditer(pattern, lowered)]
        taken: set[int] = set()
        for pattern in self.any_of:
            for match in re.finditer(pattern, lowered):
                inside = any(start <= match.start() and match.end() <= end for start, end in safe)
                if not inside and match.start() not in taken:
                    taken.add(match.start())
                    yield match

    def first(self, text: str) -> str | None:
        """The first wording found, as it stands in the lower-case text."""
        found = min(self.matches(text), key=lambda match: match.start(), default=None)
        return found[0].strip() if found else None
