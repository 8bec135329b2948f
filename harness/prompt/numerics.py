"""The numerical check: the server computes the same as the trained model. It tells other weights from another prompt.

transformers scores a few golden prompts (right after training, or in `template verify`). The server has to give the
same log-probabilities, on average within TOLERANCE_NATS.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.core.errors import EvidenceFault
from harness.model.load import is_adapter, load_model, with_adapter
from harness.prompt.contract import Contract

REFERENCES_FILE = "numerics.json"
REFERENCE_PROMPTS = ("one_turn", "multi_turn", "unicode", "code")
TOP = 5
TOLERANCE_NATS = 0.2


class Reference(BaseModel):
    """Log-probabilities (nats) of the likeliest tokens after a prompt, by token id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    ids: list[int]
    logprobs: dict[int, float]


class References(BaseModel):
    """The references from transformers; `base` holds those of the base model without the adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: list[Reference]
    base: list[Reference] = []

    @property
    def of_base(self) -> "References":
        """The base model's own references."""
        return References(candidate=self.base)

    def save(self, folder: Path) -> None:
        (folder / REFERENCES_FILE).write_text(self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "References | None":
        """The references in a checkpoint folder; None if it has none. Raises EvidenceFault for a damaged file."""
        try:
            return cls.model_validate_json((folder / REFERENCES_FILE).read_text())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise EvidenceFault(f"{folder / REFERENCES_FILE} is damaged: {error.errors()[0]['msg']}") from None


def references(model: Any, contract: Contract) -> list[Reference]:
    """The model's (transformers, on its device) likeliest next tokens after the golden prompts."""
    import torch

    result = []
    for golden in contract.golden:
        if golden.name not in REFERENCE_PROMPTS or golden.refused is not None:
            continue
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([golden.prompt], device=model.device), logits_to_keep=1).logits
        top = torch.log_softmax(logits[0, -1].float(), dim=-1).topk(TOP)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        result.append(Reference(prompt=golden.name, ids=golden.prompt, logprobs={i: round(v, 4) for i, v in pairs}))
    return result


def compute(folder: Path, base: Path, contract: Contract, dtype: str) -> References:
    """References of a model or adapter folder, loaded with transformers (seconds for a small model).

    `base` is the base model's folder (the same as `folder` for a full model). Raises DataError for damaged weights.
    """
    model = load_model(base, dtype)
    if not is_adapter(folder):
        return References(candidate=references(model, contract))
    of_base = references(model, contract)
    return References(candidate=references(with_adapter(model, folder, base), contract), base=of_base)


def difference(references: Sequence[Reference], served: Sequence[Mapping[int, float]]) -> float:
    """The mean absolute difference (nats) between the server's log-probabilities and the references, over all tokens.

    It is a mean because a bf16 logit near 20 is rounded to 1/8, so single tokens differ by that much between kernels.
    """
    pairs = zip(references, served, strict=True)
    return mean(abs(value - found[token]) for reference, found in pairs for token, value in reference.logprobs.items())


def explain(
    name: str, expected: Sequence[Reference], served: Sequence[Mapping[int, float]], base: Sequence[Reference]
) -> str | None:
    """What is wrong with the server's log-probabilities; None if they are within the tolerance.

    `served` holds, for each reference, the server's log-probabilities of its tokens and of the base reference's.
    """
    apart = difference(expected, served)
    from_base = difference(base, served) if base else None
    if from_base is not None and from_base < apart / 2:
        return (
            f"{name}: the prompts are equal, but the numbers are the base model's ({from_base:.2f} nats apart on "
            f"average; {apart:.2f} from the trained model's): the adapter is not applied"
        )
    if apart <= TOLERANCE_NATS:
        return None
    return (
        f"{name}: the prompts are equal, but the numbers are not: {apart:.2f} nats apart on average "
        f"(tolerance: {TOLERANCE_NATS}). The server uses other weights, precision or kernels"
    )
