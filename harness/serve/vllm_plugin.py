"""A vLLM plugin (entry point group `vllm.general_plugins`) for LoRA on the CPU; on other devices it does nothing.

vLLM's CPU kernels copy the adapter's matrices once for every token, and give requests for the base model (index
-1) the last adapter's weights when both are in one batch. These ones multiply once for every adapter in the
batch, and leave the base model's tokens alone.
"""

from collections.abc import Callable, Iterator
from typing import Any


def register() -> None:
    """Puts the kernels in place; vLLM calls this in each of its processes."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.lora.punica_wrapper import punica_cpu

    punica_cpu.bgmv_shrink = shrink
    punica_cpu.bgmv_expand = expand
    punica_cpu.sgmv_shrink = _of_sequences(shrink)
    punica_cpu.sgmv_expand = _of_sequences(expand)
    punica_cpu.sgmv_expand_slice = _of_sequences(expand_slice)


def shrink(inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0) -> None:
    """output[t, :r] = scaling · inputs[t] · Aᵀ of the token's adapter; 0 for tokens of the base model.

    inputs (tokens, in); weights (adapters, 1, r, in) or (adapters, r, in); output (tokens, ≥ r); indices (tokens,).
    """
    output.zero_()
    for index, tokens in _by_adapter(indices):
        matrix = _matrix(weights, index, output.dtype)
        output[tokens, : matrix.shape[0]] = scaling * (inputs[tokens].to(output.dtype) @ matrix.T)


def expand(inputs: Any, weights: Any, output: Any, indices: Any, add_inputs: bool = True) -> None:
    """output[t] (+)= inputs[t] · Bᵀ of the token's adapter. weights (adapters, 1, out, r) or (adapters, out, r)."""
    expand_slice(inputs, weights, output, indices, 0, min(weights.shape[-2], output.shape[1]), add_inputs)


def expand_slice(
    inputs: Any, weights: Any, output: Any, indices: Any, offset: int, size: int, add_inputs: bool = True
) -> None:
    """As `expand`, into columns [offset, offset + size) of the output."""
    columns = output[:, offset : offset + size]
    if not add_inputs:
        columns.zero_()
    for index, tokens in _by_adapter(indices):
        matrix = _matrix(weights, index, output.dtype)[:size]
        columns[tokens] += inputs[tokens].to(output.dtype) @ matrix.T


def _of_sequences(kernel: Callable[..., None]) -> Callable[..., None]:
    """A kernel for batches of sequences, out of one that takes an adapter index a token."""

    def sequences(
        inputs: Any,
        weights: Any,
        output: Any,
        _starts: Any,
        lengths: Any,
        indices: Any,
        _count: int,
        _longest: int,
        _tokens: int,
        *settings: Any,
    ) -> None:
        kernel(inputs, weights, output, indices.repeat_interleave(lengths), *settings)

    return sequences


def _by_adapter(indices: Any) -> Iterator[tuple[int, Any]]:
    """(adapter, its tokens), the base model's left out; one slice where all tokens have the same adapter."""
    distinct = indices.unique().tolist()
    for index in distinct:
        if index >= 0:
            same = len(distinct) == 1
            yield index, slice(0, len(indices)) if same else (indices == index).nonzero().squeeze(1)


def _matrix(weights: Any, index: int, dtype: Any) -> Any:
    matrix = weights[index].to(dtype)
    return matrix.squeeze(0) if matrix.dim() == 3 else matrix
