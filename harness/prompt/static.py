"""Static checks of a contract: what can be proven with the template and the tokenizer alone, before training.

Every check is a small function that yields problems. A fault makes the contract unusable (exit 12); a note is
something a person should know: what the template silently ignores or changes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from harness.errors import EvidenceFault
from harness.prompt.contract import Contract, Golden, sha256_text, tokenizer_sha256
from harness.prompt.golden import render_golden
from harness.prompt.render import Renderer


@dataclass(frozen=True)
class Problem:
    """What is wrong, found by which check; a fault ends with exit 12, a note is only shown."""

    check: str
    severity: Literal["fault", "note"]
    message: str


class Subject:
    """A contract with the tokenizer it is tried on, and its golden conversations rendered anew."""

    def __init__(self, contract: Contract, tokenizer: Any):
        self.contract = contract
        self.tokenizer = tokenizer
        self.renderer = Renderer(contract, tokenizer)

    @cached_property
    def rendered(self) -> list[Golden]:
        return [render_golden(self.renderer, g.name, g.messages, g.tools, g.kwargs) for g in self.contract.golden]

    @property
    def accepted(self) -> list[Golden]:
        """The golden conversations that the template takes, as rendered now."""
        return [golden for golden in self.rendered if golden.refused is None]

    def text(self, golden: Golden) -> str:
        """The finished conversation as text."""
        return self.renderer.text(golden.messages, add_generation_prompt=False, **golden.arguments)

    def prompt_text(self, golden: Golden) -> str:
        """The prompt for its last answer as text."""
        return self.renderer.text(golden.question, **golden.arguments)


Check = Callable[[Subject], Iterator[tuple[Literal["fault", "note"], str]]]


def check_contract(contract: Contract, tokenizer: Any) -> list[Problem]:
    """All problems of a contract on a tokenizer (a transformers fast tokenizer); an empty list is a sound contract."""
    from harness.prompt.static_checks import CHECKS

    subject = Subject(contract, tokenizer)
    return [Problem(name, severity, message) for name, check in CHECKS.items() for severity, message in check(subject)]


def require_sound(problems: Sequence[Problem], what: str) -> list[Problem]:
    """The notes among `problems`; raises EvidenceFault that lists every fault."""
    faults = [problem for problem in problems if problem.severity == "fault"]
    if faults:
        lines = "\n".join(f"  - {fault.check}: {fault.message}" for fault in faults)
        raise EvidenceFault(f"{len(faults)} fault{'s' if len(faults) > 1 else ''} of {what}:\n{lines}")
    return [problem for problem in problems if problem.severity == "note"]


def same_tokenizer(subject: Subject) -> bool:
    return tokenizer_sha256(subject.tokenizer) == subject.contract.tokenizer_sha256


def same_template(subject: Subject) -> bool:
    return sha256_text(subject.contract.template) == subject.contract.template_sha256
