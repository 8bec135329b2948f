"""Are the harness's scores those of stock lm-eval? Item by item, with what the batches alone change beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation_peers import Setup, ours, stock

TASKS = ["arc_easy", "hellaswag", "openbookqa", "piqa", "gsm8k", "ifeval", "lambada_openai"]
TASKS += ["mmlu_abstract_algebra", "mmlu_anatomy", "mmlu_clinical_knowledge"]
SMALL_BATCHES = {"max_num_seqs": 8, "max_num_batched_tokens": 2048}
Rows = Mapping[str, Mapping[Any, Mapping[str, Any]]]
LIMIT = 1e-2


@dataclass(frozen=True)
class Difference:
    """Two evaluations of one task: items, equal generations, the largest difference of a likelihood (nats; None for
    a task without), pairs over the limit, and items with the same metrics."""

    items: int
    generated: int
    same_text: int
    nats: float | None
    over: int
    requests: int
    same_metrics: int


def table(setup: Setup, peers: Sequence[str]) -> str:
    """The comparison of the harness with each stock path, and of stock vLLM with itself in two batch settings."""
    _, folders = ours(setup, ("base",))
    own = _ours(folders["base"])
    parts = []
    for peer in peers:
        found = _stock(stock(setup, peer, "base")[1])
        parts.append(_section(f"harness and stock `{peer}`", own, found))
        if peer == "vllm":
            again = _stock(stock(setup, peer, "base", **SMALL_BATCHES)[1])
            parts.append(_section("stock `vllm` and itself with 8 sequences a batch", found, again))
    return "\n\n".join(parts)


def _ours(folder: Path) -> Rows:
    files = sorted(folder.glob("samples_*.jsonl"))
    return {f.stem.removeprefix("samples_"): _by_item(map(json.loads, f.read_text().splitlines())) for f in files}


def _stock(found: Mapping[str, Any]) -> Rows:
    return {task: _by_item(rows) for task, rows in found["samples"].items()}


def _by_item(rows: Any) -> dict[Any, dict[str, Any]]:
    """By content of the item and filter: lm-eval writes one row a filter."""
    return {(row["doc_hash"], row.get("filter")): row for row in rows}


def _section(title: str, left: Rows, right: Rows) -> str:
    lines = [
        f"### {title}",
        "| task | items | generations equal | max Δ nats | over 0.01 | scores equal |",
        "| --- " * 6 + "|",
    ]
    for task in sorted(left.keys() & right.keys()):
        d = compared(left[task], right[task])
        text = f"{d.same_text}/{d.generated}" if d.generated else ""
        nats = f"{d.nats:.4f} | {d.over}/{d.requests}" if d.nats is not None else " | "
        lines.append(f"| {task} | {d.items} | {text} | {nats} | {d.same_metrics}/{d.items} |")
    return "\n".join(lines)


def compared(left: Mapping[Any, Mapping[str, Any]], right: Mapping[Any, Mapping[str, Any]]) -> Difference:
    """Raises SystemExit when the two are not about the same items."""
    if left.keys() != right.keys():
        raise SystemExit(f"{len(left.keys() ^ right.keys())} items are in one evaluation only")
    generated = same_text = over = requests = same_metrics = 0
    largest: float | None = None
    for key in left:
        ours_, theirs = left[key], right[key]
        same_metrics += all(_equal(ours_.get(name), theirs.get(name)) for name in ours_["metrics"])
        for one, other in zip(_answers(ours_), _answers(theirs), strict=True):
            if isinstance(one, str) or isinstance(other, str):
                generated += 1
                same_text += one == other
            else:
                apart = abs(one - other)
                requests += 1
                over += apart > LIMIT
                largest = max(largest or 0.0, apart)
    return Difference(len(left), generated, same_text, largest, over, requests, same_metrics)


def _answers(row: Mapping[str, Any]) -> list[str | float]:
    """The text of each generation, or the nats of each continuation."""
    firsts = [resp[0] for resp in row["resps"]]
    return [first if isinstance(first, str) else float(first[0]) for first in firsts]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= LIMIT  # a perplexity's share is a likelihood itself
    return str(one) == str(other)
