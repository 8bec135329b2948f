"""The base class of configuration groups, and the types of numbers in them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Group(BaseModel):
    """A configuration group: unknown keys are errors, and values are frozen.

    The docstring of a field is its description in the reference pages (scripts/reference.py).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)
