"""What the configurations of all behaviours share: the base class, and patterns that are compiled on reading."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


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
