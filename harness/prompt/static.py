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
from harness.prompt.make import added_tokens
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
        """The golden conversations that can be trained on, as rendered now."""
        return [golden for golden in self.rendered if golden.refused is None and golden.untrainable is None]

    def text(self, golden: Golden) -> str:
        """The finished conversation as text."""
        return self.renderer.text(golden.messages, add_generation_prompt=False, **golden.arguments)

    def prompt_text(self, golden: Golden) -> str:
        """The prompt for its last answer as text."""
        return self.renderer.text(golden.question, **golden.arguments)

    @cached_property
    def special(self) -> tuple[list[str], list[str]]:
        """The tokenizer's special tokens, and its other added ones."""
        return added_tokens(self.tokenizer)

    def has_special(self, golden: Golden) -> bool:
        """Whether a message holds the text of an added token, which the preamble keeps from being one."""
        texts = [str(message["content"]) for message in golden.messages]
        return any(token in text for tokens in self.special for token in tokens for text in texts)


Severity = Literal["fault", "note"]
Found = Iterator[tuple[Severity, str]]
Check = Callable[[Subject], Found]


def check_contract(contract: Contract, tokenizer: Any) -> list[Problem]:
    """All problems of a contract on a tokenizer (a transformers fast tokenizer); an empty list is a sound contract."""
    from harness.prompt.static_checks import CHECKS

    subject = Subject(contract, tokenizer)
    return [problem for name, check in CHECKS.items() for problem in _problems(name, check(subject))]


def _problems(check: str, found: Found) -> Iterator[Problem]:
    """What a check found; the same thing about several conversations (`name: what`) is said once."""
    names: dict[tuple[Severity, str], list[str]] = {}
    for severity, message in found:
        name, colon, what = message.partition(": ")
        names.setdefault((severity, what if colon else message), []).append(name if colon else "")
    for (severity, what), of in names.items():
        shown = ", ".join(filter(None, of[:3])) + (f" and {len(of) - 3} more" if len(of) > 3 else "")
        yield Problem(check, severity, f"{shown}: {what}" if shown else what)


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
