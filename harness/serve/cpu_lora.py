"""vLLM's LoRA kernels on the CPU.

The stock ones copy the adapter's matrices once for every token, and give requests for the base model (index -1) the
last adapter's weights when both are in one batch. These ones multiply once for every adapter in the batch, and leave
the base model's tokens alone.
"""

from collections.abc import Iterator, Sequence
from typing import Any

Group = tuple[int, Any]


def install() -> None:
    """Puts the methods below in the place of vLLM's own, in this process."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    PunicaWrapperCPU.update_metadata = update_metadata
    PunicaWrapperCPU.add_lora_linear = add_lora_linear
    PunicaWrapperCPU.add_lora_logits = add_lora_logits
    PunicaWrapperCPU._shrink_prefill = PunicaWrapperCPU._shrink_decode = shrink
    PunicaWrapperCPU._expand_prefill = PunicaWrapperCPU._expand_decode = expand
    PunicaWrapperCPU._expand_slice_prefill = PunicaWrapperCPU._expand_slice_decode = expand_slice


def update_metadata(
    wrapper: Any, mapping: Any, lora_index_to_id: Any, max_loras: int, vocab_size: int, **_: Any
) -> None:
    """`PunicaWrapperBase.update_metadata`: which adapter each token of the step belongs to, sorted once a step."""
    wrapper._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
    wrapper.is_prefill = mapping.is_prefill
    wrapper.groups = list(groups(wrapper.token_lora_indices))


def groups(indices: Any) -> Iterator[Group]:
    """(adapter, its tokens), the base model's left out; a slice where the tokens lie side by side."""
    for index in indices.unique().tolist():
        if index >= 0:
            tokens = (indices == index).nonzero().squeeze(1)
            first, last = int(tokens[0]), int(tokens[-1]) + 1
            yield index, slice(first, last) if last - first == len(tokens) else tokens


def add_lora_linear(
    wrapper: Any,
    y: Any,
    x: Any,
    lora_a_stacked: Sequence[Any],
    lora_b_stacked: Sequence[Any],
    scale: float,
    output_slices: Sequence[int],
    **_: Any,
) -> None:
    """y[t] += scale · x[t] · Aᵀ · Bᵀ of the token's adapter, slice by slice of y's columns.

    x (tokens, in); y (tokens, out); A (adapters, 1, r, in) and B (adapters, 1, size of the slice, r), one a slice.
    """
    x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
    for index, tokens in wrapper.groups:
        rows, offset = x[tokens], 0
        for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            low = rows @ matrix(a, index).T
            _add(y, tokens, offset, size, low * scale if scale != 1.0 else low, matrix(b, index))
            offset += size


def add_lora_logits(
    wrapper: Any, y: Any, x: Any, lora_a_stacked: Any, lora_b_stacked: Any, scale: float, **_: Any
) -> None:
    """As `add_lora_linear`, for the sampled rows; adapters that leave the vocabulary alone (A is 0) cost nothing."""
    for index, rows in groups(wrapper.sampler_indices):
        a = matrix(lora_a_stacked, index)
        if a.any():
            _add(y, rows, 0, y.shape[-1], scale * (x[rows] @ a.T), matrix(lora_b_stacked, index))


def shrink(wrapper: Any, y: Any, x: Any, w_t_all: Any, scale: float) -> None:
    """y[t, :r] = scale · x[t] · Aᵀ of the token's adapter; 0 for tokens of the base model. y (tokens, ≥ r)."""
    y.zero_()
    for index, tokens in wrapper.groups:
        a = matrix(w_t_all, index)
        y[tokens, : a.shape[0]] = (scale * (x[tokens].to(a.dtype) @ a.T)).to(y.dtype)


def expand(wrapper: Any, y: Any, x: Any, w_t_all: Any, add_inputs: bool) -> None:
    """y[t] (+)= x[t] · Bᵀ of the token's adapter."""
    expand_slice(wrapper, y, x, w_t_all, 0, min(w_t_all.shape[-2], y.shape[-1]), add_inputs)


def expand_slice(
    wrapper: Any, y: Any, x: Any, w_t_all: Any, y_offset: int, y_slice_size: int, add_inputs: bool
) -> None:
    """As `expand`, into columns [y_offset, y_offset + y_slice_size) of y."""
    if not add_inputs:
        y[:, y_offset : y_offset + y_slice_size] = 0
    for index, tokens in wrapper.groups:
        b = matrix(w_t_all, index)
        _add(y, tokens, y_offset, y_slice_size, x[tokens].to(b.dtype), b)


def matrix(stacked: Any, index: int) -> Any:
    """An adapter's matrix out of (adapters, 1, rows, columns) or (adapters, rows, columns)."""
    return stacked[index, 0] if stacked.dim() == 4 else stacked[index]


def _add(y: Any, tokens: Any, offset: int, size: int, low: Any, b: Any) -> None:
    """y[tokens, offset : offset + size] += low · bᵀ."""
    columns = y[:, offset : offset + size]
    if isinstance(tokens, slice):
        columns[tokens] += low @ b[:size].T
    else:
        columns.index_add_(0, tokens, low @ b[:size].T)
