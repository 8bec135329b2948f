"""The numerical check: the server computes the same as the trained model. It tells other weights from another prompt.

transformers scores the golden prompts (right after training, or when a server is checked). A server has to give the
same log-probabilities, on average within TOLERANCE_NATS. An adapter is compared on its own effect, candidate minus
base: what precision and kernels do to both cancels, so that a stale adapter shows that is closer than the tolerance.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from psutil import virtual_memory
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from harness.core.code_digest import code_digest
from harness.core.console import say, timed
from harness.core.errors import DataError, EvidenceFault
from harness.core.files import read_text
from harness.core.installed import version_of
from harness.core.store import sha256_json, stage
from harness.core.translate import first_line
from harness.model.load import cache_dir, is_adapter, load_model, weights_sha256, with_adapter
from harness.prompt.contract import Contract

REFERENCES_FILE = "numerics.json"
TOP = 5
TOLERANCE_NATS = 0.2
MEMORY_SHARE = 0.6  # of the free memory that loading the model here may take
EFFECT_FLOOR_NATS = 0.02  # differences of an adapter's effect below this are rounding, even in fp32
EFFECT_NOISE = 2.0  # times the base model's own difference between transformers and the server
SCALE_FLOOR = 0.05  # relative; a scale nearer to 1 is rounding
SCALE_NOISE = 4.0  # standard errors of the scale


class Reference(BaseModel):
    """Log-probabilities (nats) of the likeliest tokens after a prompt, by token id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    ids: list[int]
    logprobs: dict[int, float]


class References(BaseModel):
    """The references from transformers; `base` holds those of the base model without the adapter, for the same tokens.

    Files of earlier versions hold other tokens for the base model: only common ones are compared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: list[Reference]
    base: list[Reference] = []

    @model_validator(mode="after")
    def _same_prompts(self) -> "References":
        if self.base and [one.prompt for one in self.base] != [one.prompt for one in self.candidate]:
            raise ValueError("base and candidate have other prompts")
        return self

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
            return cls.model_validate_json(read_text(folder / REFERENCES_FILE))
        except FileNotFoundError:
            return None
        except (ValidationError, DataError) as error:
            raise EvidenceFault(f"{folder / REFERENCES_FILE} is damaged: {first_line(error)}") from None


def references(model: Any, contract: Contract) -> list[Reference]:
    """The model's (transformers, on its device) likeliest next tokens after the golden prompts."""
    return [_reference(name, ids, row, row.topk(TOP).indices) for name, ids, row in _next_tokens(model, contract)]


def compute(folder: Path, base: Path, contract: Contract, dtype: str) -> References:
    """References of a model or adapter folder, loaded with transformers (seconds for a small model).

    `base` is the base model's folder (the same as `folder` for a full model). Raises DataError for damaged weights.
    """
    import torch

    model = load_model(base, dtype)
    if not is_adapter(folder):
        return References(candidate=references(model, contract))
    before = _next_tokens(model, contract)
    after = _next_tokens(with_adapter(model, folder, base), contract)
    pairs = []
    for (name, ids, old), (_, _, new) in zip(before, after, strict=True):
        tokens = torch.unique(torch.cat([old.topk(TOP).indices, new.topk(TOP).indices]))
        tokens = tokens[tokens < len(old)]  # an adapter may add some
        pairs.append((_reference(name, ids, new, tokens), _reference(name, ids, old, tokens)))
    return References(candidate=[new for new, _ in pairs], base=[old for _, old in pairs])


def known_or_computed(folder: Path, base: Path, contract: Contract, dtype: str) -> References | None:
    """The references that training left in an adapter's folder, else those computed here once and cached.

    None where this machine has too little memory for the model a second time, beside the server. Raises EvidenceFault
    for a damaged file, DataError for damaged weights.
    """
    if (found := References.load(folder)) is not None:
        return found
    size, free = sum(path.stat().st_size for path in base.glob("*.safetensors")), virtual_memory().available
    if size > MEMORY_SHARE * free:
        say(
            f"· {folder.name}: its numbers are not compared with transformers, which needs {size / 2**30:.0f} GiB of "
            f"memory here ({free / 2**30:.0f} GiB free). Put numerics.json of its training beside the weights."
        )
        return None
    inputs = {
        "adapter": weights_sha256(folder),
        "base": weights_sha256(base),
        "contract": contract.digest,
        "dtype": dtype,
        "versions": {name: version_of(name) for name in ("torch", "transformers", "peft")},
        "code": code_digest("harness.prompt.numerics:compute"),
    }

    def work(target: Path) -> None:
        with timed("reference numbers of the adapter from transformers (once)"):
            compute(folder, base, contract, dtype).save(target)

    home = cache_dir() / "references"
    cached, _ = stage(home, home / sha256_json(inputs)[:16] / "numbers", "references", inputs, work)
    return References.load(cached)


def _next_tokens(model: Any, contract: Contract) -> list[tuple[str, list[int], Any]]:
    """Name and ids of each reference prompt, and the log-probabilities of all next tokens (fp32 tensor, on the CPU)."""
    import torch

    found = []
    for golden in contract.golden:
        if golden.name != "long" and golden.refused is None:  # the long one would take as long as all others
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([golden.prompt], device=model.device), logits_to_keep=1).logits
            row = torch.log_softmax(logits[0, -1].float(), dim=-1)
            found.append((golden.name, golden.prompt, row.cpu()))
    return found


def _reference(prompt: str, ids: list[int], row: Any, tokens: Any) -> Reference:
    logprobs = {int(token): round(float(row[token]), 4) for token in tokens}
    return Reference(prompt=prompt, ids=ids, logprobs=logprobs)


Numbers = Sequence[Mapping[int, float]]  # for each prompt, log-probabilities by token id


def difference(one: Numbers, other: Numbers) -> float:
    """The mean absolute difference (nats) of log-probabilities, over all prompts and tokens of both (0 without any).

    It is a mean because a bf16 logit near 20 is rounded to 1/8, so single tokens differ by that much between kernels.
    """
    pairs = zip(one, other, strict=True)
    found = [abs(left[token] - right[token]) for left, right in pairs for token in left.keys() & right.keys()]
    return mean(found) if found else 0.0


def explain(name: str, expected: References, served: Numbers, served_base: Numbers | None = None) -> str | None:
    """What is wrong with the server's log-probabilities of a model; None if they are those of the references.

    `served` and `served_base` hold the server's own, of the model and of its base model, for each reference prompt.
    Without `served_base` the model is compared by itself, within TOLERANCE_NATS.
    """
    own = [reference.logprobs for reference in expected.candidate]
    base = [reference.logprobs for reference in expected.base]
    apart = difference(own, served)
    from_base = difference(base, served) if base else None
    if from_base is not None and from_base < apart / 2:
        return (
            f"{name}: the prompts are equal, but the numbers are the base model's ({from_base:.2f} nats apart on "
            f"average; {apart:.2f} from the trained model's): the adapter is not applied"
        )
    if apart > TOLERANCE_NATS:
        return (
            f"{name}: the prompts are equal, but the numbers are not: {apart:.2f} nats apart on average "
            f"(tolerance: {TOLERANCE_NATS}). The server uses other weights, precision or kernels"
        )
    if not base or served_base is None:
        return None
    noise = difference(base, served_base)
    if noise > TOLERANCE_NATS:
        return (
            f"{name}: the prompts are equal, but its base model's numbers are not: {noise:.2f} nats apart on average "
            f"(tolerance: {TOLERANCE_NATS}). The server has another base model"
        )
    tolerance = max(EFFECT_FLOOR_NATS, EFFECT_NOISE * noise)
    effect, served_effect = _effect(own, base), _effect(served, served_base)
    apart = difference(effect, served_effect)
    scale, error = _scale(effect, served_effect, noise)
    if apart <= tolerance and abs(scale - 1) <= max(SCALE_FLOOR, SCALE_NOISE * error):
        return None
    size, served_size = (difference(one, [dict.fromkeys(of, 0.0) for of in one]) for one in (effect, served_effect))
    return (
        f"{name}: the prompts are equal, but the adapter does something else: it changes the base model's numbers by "
        f"{served_size:.3f} nats on average, where training's does by {size:.3f}; the changes are {apart:.3f} nats "
        f"apart (tolerance: {tolerance:.3f}, from {noise:.3f} of the base model itself), {scale:.2f} times as large. "
        "The server uses an earlier version of the adapter, another scale, or another base model"
    )


def _scale(effect: Numbers, served: Numbers, noise: float) -> tuple[float, float]:
    """How many times the effect the served one is (least squares), and the standard error of that.

    The numbers of one prompt are taken to err together, so that prompts count and not tokens.
    """
    pairs = [(one[token], other[token]) for one, other in zip(effect, served, strict=True) for token in one]
    square = sum(own * own for own, _ in pairs)
    if square == 0:
        return 1.0, 0.0
    each = len(pairs) / len(effect)
    return sum(own * other for own, other in pairs) / square, noise * (2 * each / square) ** 0.5


def _effect(candidate: Numbers, base: Numbers) -> list[dict[int, float]]:
    """Candidate minus base, for the tokens that both have."""
    pairs = zip(candidate, base, strict=True)
    return [{token: new[token] - old[token] for token in new.keys() & old.keys()} for new, old in pairs]
