"""vLLM's prompt log-probabilities on the CPU, computed for the requested tokens only.

A request with `prompt_logprobs` and the extra argument `score_from` gets rows for the prompt's tokens from that index
on, and no others. Without this, vLLM computes the whole vocabulary at every position of the prompt, reads nothing from
the prefix cache, and on the CPU fails while adapters are loaded. Requests without `score_from` still get a row for
every token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.serve.cpu_plugin import SCORE_FROM

ROWS = 256


def install() -> None:
    """Replaces vLLM's functions by those below, in this process."""
    from vllm.v1.core.kv_cache_manager import KVCacheManager
    from vllm.v1.request import Request
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    if hasattr(KVCacheManager, "_stock_get_computed_blocks"):
        return
    KVCacheManager._stock_get_computed_blocks = KVCacheManager.get_computed_blocks
    KVCacheManager.get_computed_blocks = cached_blocks
    Request._stock_get_skip_reading_prefix_cache = Request.get_skip_reading_prefix_cache
    Request.get_skip_reading_prefix_cache = skips_prefix_cache
    GPUModelRunner._stock_get_prompt_logprobs_dict = GPUModelRunner._get_prompt_logprobs_dict
    GPUModelRunner._get_prompt_logprobs_dict = prompt_logprobs


def score_from(sampling: Any) -> int | None:
    """Index of the first prompt token to score. None if none is requested, or if more than the token's own and the
    greedy one's log-probability is requested: vLLM's own code then answers."""
    if sampling is None or sampling.prompt_logprobs not in (0, 1):
        return None
    start = (sampling.extra_args or {}).get(SCORE_FROM, 1)
    return max(start, 1) if isinstance(start, int) else 1


def skips_prefix_cache(request: Any) -> bool:
    """`Request.get_skip_reading_prefix_cache`: tokens that are not scored may come from the cache."""
    stock: bool = request._stock_get_skip_reading_prefix_cache()
    return stock and score_from(request.sampling_params) is None


def cached_blocks(manager: Any, request: Any) -> Any:
    """`KVCacheManager.get_computed_blocks`, without blocks of positions whose logits are needed."""
    start = score_from(request.sampling_params)
    return manager._stock_get_computed_blocks(request if start is None else _UpTo(request, start))


class _UpTo:
    """A request cut off at token `end`, for the search in the prefix cache."""

    def __init__(self, request: Any, end: int):
        self._request = request
        self.num_tokens = min(end, request.num_tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def prompt_logprobs(runner: Any, hidden_states: Any, scheduled: dict[str, int]) -> dict[str, Any]:
    """`GPUModelRunner._get_prompt_logprobs_dict`: the rows of requests whose prompt ends in this step."""
    pending = runner.num_prompt_logprobs
    if not pending:
        return {}
    starts = {name: score_from(runner.requests[name].sampling_params) for name in pending}
    scored = {name: start for name, start in starts.items() if start is not None}
    runner.num_prompt_logprobs = {name: count for name, count in pending.items() if name not in scored}
    found: dict[str, Any] = runner._stock_get_prompt_logprobs_dict(hidden_states, scheduled)
    rest = runner.num_prompt_logprobs
    runner.num_prompt_logprobs = pending
    for name in [name for name in pending if name not in scored and name not in rest]:
        del pending[name]
    return found | _scored(runner, hidden_states, scheduled, scored)


def _scored(runner: Any, hidden_states: Any, scheduled: dict[str, int], starts: dict[str, int]) -> dict[str, Any]:
    from vllm.v1.outputs import LogprobsTensors

    spans = {name: _span(runner, name, scheduled[name], start) for name, start in starts.items() if name in scheduled}
    rows = [row for offset, first, last, _ in spans.values() for row in range(offset + first, offset + last)]
    targets = [
        token
        for name, (_, first, last, computed) in spans.items()
        for token in runner.requests[name].prompt_token_ids[computed + first + 1 : computed + last + 1]
    ]
    values = list(_rows(runner, hidden_states, rows, targets))
    finished, at = {}, 0
    for name, (_, first, last, computed) in spans.items():
        request = runner.requests[name]
        kept = (request.in_progress_prompt_logprobs_cpu or [])[: computed + first + 1 - starts[name]]
        collected = kept + values[at : at + last - first]  # a preempted request starts over
        at += last - first
        request.in_progress_prompt_logprobs_cpu = collected
        if computed + scheduled[name] >= len(request.prompt_token_ids):
            finished[name] = _tensors(collected, runner.num_prompt_logprobs.pop(name), LogprobsTensors)
            request.in_progress_prompt_logprobs_cpu = None
    return finished


def _span(runner: Any, name: str, scheduled: int, start: int) -> tuple[int, int, int, int]:
    """(the request's first row in the step, the first wanted row and one past the last, both relative to it, tokens
    computed before the step). The row of a position predicts the token after it."""
    request = runner.requests[name]
    computed: int = request.num_computed_tokens
    offset: int = runner.query_start_loc.np[runner.input_batch.req_id_to_index[name]].item()
    first = max(start - 1 - computed, 0)
    last = min(len(request.prompt_token_ids) - 1 - computed, scheduled)
    return offset, min(first, max(last, 0)), max(last, 0), computed


def _rows(runner: Any, hidden_states: Any, rows: list[int], targets: list[int]) -> Iterator[tuple[Any, ...]]:
    """(target id, its log-probability, greedy id, its log-probability, the target's rank from 1) of each row; ROWS rows
    at a time, because each is as wide as the vocabulary."""
    import torch

    for begin in range(0, len(rows), ROWS):
        part = torch.tensor(rows[begin : begin + ROWS])
        wanted = torch.tensor(targets[begin : begin + ROWS])
        with _adapters_of(runner, part):
            scores = runner.model.compute_logits(hidden_states[part]).float()
        total = scores.logsumexp(-1)
        best, greedy = scores.max(-1)
        own = scores.gather(-1, wanted[:, None]).squeeze(-1)
        ranks = (scores > own[:, None]).sum(-1) + 1
        found = (wanted, own - total, greedy, best - total, ranks)
        yield from zip(*(column.tolist() for column in found), strict=True)


@contextmanager
def _adapters_of(runner: Any, rows: Any) -> Iterator[None]:
    """Gives the LoRA kernels the adapter of each of `rows`; by default they know it for the sampled rows only."""
    wrapper = _lora_of_logits(runner)
    if wrapper is None:
        yield
        return
    sampled, count = wrapper._sampler_indices.clone(), wrapper.indices_len[1]
    try:
        wrapper._sampler_indices[: len(rows)] = wrapper.token_lora_indices[rows]
        wrapper.indices_len[1] = len(rows)
        yield
    finally:
        wrapper._sampler_indices.copy_(sampled)
        wrapper.indices_len[1] = count


def _lora_of_logits(runner: Any) -> Any:
    """The LoRA state of the model's logits, looked up once; None if no adapters are served."""
    from vllm.lora.layers import LogitsProcessorWithLoRA

    if "_lora_of_logits" not in vars(runner):
        layers = (layer for layer in runner.model.modules() if isinstance(layer, LogitsProcessorWithLoRA))
        runner._lora_of_logits = next((layer.punica_wrapper for layer in layers), None)
    return runner._lora_of_logits


def _tensors(rows: list[tuple[Any, ...]], count: int, kind: Any) -> Any:
    """vLLM's own container: for each row the target and, if requested, the greedy token; and the target's rank."""
    import torch

    width = count + 1
    ids = torch.tensor([[target, greedy][:width] for target, _, greedy, _, _ in rows], dtype=torch.int32)
    logprobs = torch.tensor([[own, best][:width] for _, own, _, best, _ in rows], dtype=torch.float32)
    ranks = torch.tensor([rank for *_, rank in rows], dtype=torch.int32)
    return kind(ids.reshape(len(rows), width), logprobs.reshape(len(rows), width), ranks)
