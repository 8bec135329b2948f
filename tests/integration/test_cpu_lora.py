"""The LoRA kernels of the CPU build, against one multiplication a token."""

from types import SimpleNamespace
from typing import Any

import pytest

from harness.serve.vllm_cpu import lora

pytestmark = pytest.mark.integration

BASE = -1
BATCHES = {
    "one adapter": [0] * 6,
    "the base model alone": [BASE] * 6,
    "side by side": [BASE, BASE, 0, 0, 0, 1],
    "mixed": [0, BASE, 1, 0, BASE, 1, 0, 1],
    "few of one": [0, *[BASE] * 9, 0, *[1] * 4],
}
SIZES = (5, 3)


def adapters(kind: Any) -> tuple[list[Any], list[Any]]:
    """A and B of two adapters, as vLLM stacks them; one pair a slice of the output."""
    import torch

    torch.manual_seed(0)
    a = [torch.randn(2, 1, 4, 7, dtype=kind) for _ in SIZES]
    return a, [torch.randn(2, 1, size, 4, dtype=kind) for size in SIZES]


def expected(y: Any, x: Any, batch: list[int]) -> Any:
    import torch

    a, b = adapters(x.dtype)
    result = y.clone()
    for token, adapter in enumerate(batch):
        if adapter != BASE:
            result[token] += torch.cat(
                [x[token] @ p[adapter, 0].T @ q[adapter, 0].T for p, q in zip(a, b, strict=True)]
            )
    return result


@pytest.mark.parametrize("name", list(BATCHES))
class TestKernels:
    def wrapper(self, batch: list[int]) -> Any:
        import torch

        indices = torch.tensor(batch)
        return SimpleNamespace(groups=list(lora.groups(indices)), sampler_indices=indices)

    def inputs(self, batch: list[int]) -> tuple[Any, Any]:
        import torch

        torch.manual_seed(1)
        return torch.randn(len(batch), sum(SIZES)), torch.randn(len(batch), 7)

    def test_each_token_gets_its_own_adapter(self, name: str) -> None:
        import torch

        y, x = self.inputs(BATCHES[name])
        wanted = expected(y, x, BATCHES[name])
        a, b = adapters(x.dtype)
        lora.add_lora_linear(self.wrapper(BATCHES[name]), y, x, a, b, 1.0, SIZES)
        torch.testing.assert_close(y, wanted)

    def test_shrink_and_expand_are_the_same_in_two_steps(self, name: str) -> None:
        import torch

        y, x = self.inputs(BATCHES[name])
        wanted = expected(y, x, BATCHES[name])
        wrapper, offset = self.wrapper(BATCHES[name]), 0
        for a, b, size in zip(*adapters(x.dtype), SIZES, strict=True):
            low = torch.full((len(x), 4), 9.0)
            lora.shrink(wrapper, low, x, a, 1.0)
            lora.expand_slice(wrapper, y, low, b, offset, size, True)
            offset += size
        torch.testing.assert_close(y, wanted)

    def test_logits_of_the_base_model_and_of_untouched_vocabularies_stay(self, name: str) -> None:
        import torch

        y, x = self.inputs(BATCHES[name])
        a, b = (stacked[0] for stacked in adapters(x.dtype))
        a[1] = 0
        logits = y[:, : SIZES[0]].contiguous()
        wanted = logits.clone()
        for token, adapter in enumerate(BATCHES[name]):
            if adapter == 0:
                wanted[token] += x[token] @ a[0, 0].T @ b[0, 0].T
        lora.add_lora_logits(self.wrapper(BATCHES[name]), logits, x, a, b, 1.0)
        torch.testing.assert_close(logits, wanted)
