"""The record of a sweep: sweep.json."""

from typing import Literal

from pydantic import Field

from harness.records.base import Record
from harness.records.gate import VerdictName

MemberState = Literal["planned", "trained", "evaluated", "decided", "failed"]


class SweepMember(Record):
    """One member of a sweep, and how far it came."""

    overrides: list[str]
    """Overrides of this member, as one would type them for a single run."""

    run: str
    """Name of the member's run folder, beside the sweep's."""

    state: MemberState = "planned"
    """The last step that is done; failed: the member ended with `reason`."""

    exit_code: int | None = None
    """Exit code, as of a single run; null: not ended."""

    verdict: VerdictName | None = None
    """The verdict; null: none was reached."""

    reason: str = ""
    """Why the member failed, or the verdict's first reason; empty: neither."""

    gain: float | None = None
    """Mean change of the target metrics against the base model, in shares of 1; null: none was measured."""

    general: float | None = None
    """Mean change of the guard metrics against the base model, in shares of 1; null: none was measured."""

    attempts: int = 0
    """How often its training was started."""


class Sweep(Record):
    """A sweep: its members, the front of the best ones, and the one to promote."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of the file's format."""

    command: str
    """What was typed, without secrets."""

    members: list[SweepMember]
    """All members, in the order of the grid."""

    front: list[str] = []
    """Runs that no other run beats in both gain and general ability (Pareto front), best gain first."""

    recommended: str | None = None
    """The passing run with the largest gain; null: none passed."""

    why: str = ""
    """Why that run, or why none, in one sentence."""
