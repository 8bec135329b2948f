"""vLLM's LoRA kernels on the CPU.

vLLM's own kernels copy the adapter's matrices once per token, and apply the last adapter's weights to requests for the
base model (index -1) in the same batch. These multiply once per adapter in the batch, and leave the base model's tokens
unchanged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_MASKED_SHARE = 4  # an adapter with over 1/4 of a step's tokens multiplies all rows, and masks the others


@dataclass(frozen=True)
class AdapterGroup:
    """The tokens of one adapter in a step: a slice, or many indices with a `mask` (1 for its tokens), or few indices.

    Unless they are few, copying rows out and back costs more than multiplying all rows and masking.
    """

    adapter: int
    tokens: Any
    mask: Any = None

    def rows(self, x: Any) -> Any:
        if self.mask is not None:
            return x[: len(self.mask)]
        return x[self.tokens] if isinstance(self.tokens, slice) else x.index_select(0, self.tokens)

    def add(self, y: Any, low: Any, b: Any) -> None:
        """y[tokens] += low · bᵀ, for `low` of the group's `rows`."""
        low, b = low.to(y.dtype), b.to(y.dtype)
        if self.mask is not None:
            y[: len(self.mask)].addmm_(low * self.mask.to(y.dtype), b.T)
        elif isinstance(self.tokens, slice):
            y[self.tokens].addmm_(low, b.T)
        else:
            y.index_add_(0, self.tokens, low @ b.T)


def install() -> None:
    """Replaces vLLM's methods by those below, in this process."""
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
    """`PunicaWrapperBase.update_metadata`: groups the tokens by adapter, once per step."""
    wrapper._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
    wrapper.is_prefill = mapping.is_prefill
    wrapper.groups = list(groups(wrapper.token_lora_indices))


def groups(indices: Any) -> Iterator[AdapterGroup]:
    """The groups of a step; tokens of the base model (index -1) are in none."""
    for index in indices.unique().tolist():
        if index >= 0:
            mask = indices == index
            tokens = mask.nonzero().squeeze(1)
            first, last = int(tokens[0]), int(tokens[-1]) + 1
            if last - first == len(tokens):
                yield AdapterGroup(index, slice(first, last))
            else:
                yield AdapterGroup(index, tokens, mask[:, None] if len(tokens) * _MASKED_SHARE > len(indices) else None)


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
    for group in wrapper.groups:
        rows, offset = group.rows(x), 0
        for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            low = rows @ matrix(a, group.adapter).T
            columns = y[:, offset : offset + size]
            group.add(columns, low * scale if scale != 1.0 else low, matrix(b, group.adapter)[:size])
            offset += size


def add_lora_logits(
    wrapper: Any, y: Any, x: Any, lora_a_stacked: Any, lora_b_stacked: Any, scale: float, **_: Any
) -> None:
    """Like `add_lora_linear`, for the sampled rows; adapters without logit weights (A = 0) cost nothing."""
    for group in groups(wrapper.sampler_indices):
        a = matrix(lora_a_stacked, group.adapter)
        if a.any():
            group.add(y, scale * (group.rows(x) @ a.T), matrix(lora_b_stacked, group.adapter)[: y.shape[-1]])


def shrink(wrapper: Any, y: Any, x: Any, w_t_all: Any, scale: float) -> None:
    """y[t, :r] = scale · x[t] · Aᵀ of the token's adapter; 0 for tokens of the base model. y (tokens, ≥ r)."""
    y.zero_()
    for group in wrapper.groups:
        a = matrix(w_t_all, group.adapter)
        y[group.tokens, : a.shape[0]] = (scale * (x[group.tokens].to(a.dtype) @ a.T)).to(y.dtype)


def expand(wrapper: Any, y: Any, x: Any, w_t_all: Any, add_inputs: bool) -> None:
    """y[t] (+)= x[t] · Bᵀ of the token's adapter."""
    expand_slice(wrapper, y, x, w_t_all, 0, min(w_t_all.shape[-2], y.shape[-1]), add_inputs)


def expand_slice(
    wrapper: Any, y: Any, x: Any, w_t_all: Any, y_offset: int, y_slice_size: int, add_inputs: bool
) -> None:
    """Like `expand`, into columns [y_offset, y_offset + y_slice_size) of y."""
    columns = y[:, y_offset : y_offset + y_slice_size]
    if not add_inputs:
        columns.zero_()
    for group in wrapper.groups:
        b = matrix(w_t_all, group.adapter)[:y_slice_size]
        group.add(columns, group.rows(x), b)


def matrix(stacked: Any, index: int) -> Any:
    """An adapter's matrix out of (adapters, 1, rows, columns) or (adapters, rows, columns)."""
    return stacked[index, 0] if stacked.dim() == 4 else stacked[index]
