"""Holds the scores of items as columns: numbers in arrays; texts stay in the file until a flip is shown."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.core.errors import EvidenceFault

NONE = -1
ARRAYS = ("items", "prompts", "targets", "values", "places", "choices", "docs", "samples")


@dataclass(frozen=True)
class Column:
    """One metric's scores, one per item, sorted by item; repeated samples of an item are averaged.

    All arrays have shape (n,): `items` is doc_hash as bytes; `prompts` and `targets` are digests of the file's hashes;
    `values` are scores as the task reports them; `places` are byte offsets of the item's (first) row; `choices` are
    numbers of answer choices (0: not multiple choice); `docs` is doc_id; `samples` says how many answers were scored.
    `fields` numbers the values of the document's fields, NONE where a document has none; `names` lists the values.
    `unscored` counts rows that name the metric but have no number for it, `lists` those of them that have a list.
    """

    path: Path
    items: npt.NDArray[np.bytes_]
    prompts: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    places: npt.NDArray[np.int64]
    choices: npt.NDArray[np.int32]
    docs: npt.NDArray[np.int64]
    samples: npt.NDArray[np.int32]
    fields: Mapping[str, npt.NDArray[np.int32]]
    names: Mapping[str, Sequence[str]]
    unscored: int
    lists: int = 0

    def __len__(self) -> int:
        return len(self.items)

    @property
    def aggregate(self) -> bool:
        """Whether lm-eval computes the metric over pairs or lists, so that items have no score of their own."""
        return not len(self) and self.lists == self.unscored

    def coded(self, field: str) -> npt.NDArray[np.str_]:
        """Each item's value of a document field as text, shape (n,); '' where the document has none."""
        codes = self.fields.get(field)
        if codes is None or (codes == NONE).all():
            return np.full(len(self), "")
        return np.array([*self.names[field], ""])[codes]

    def values_of(self, field: str) -> tuple[str, ...]:
        """The values of a document field that any item has."""
        return tuple(sorted(set(self.coded(field).tolist()) - {""}))

    def only(self, index: Any) -> "Column":
        """The items at these positions, or where a boolean mask is true."""
        return replace(
            self,
            **{name: getattr(self, name)[index] for name in ARRAYS},
            fields={name: codes[index] for name, codes in self.fields.items()},
        )


@dataclass
class ColumnBuilder:
    """Collects the columns of one filter while its file is read: every row once, metrics by name.

    New items are in `items`; `pack` moves them to `packed`, which takes less memory.
    """

    items: list[bytes] = field(default_factory=list)
    packed: list[npt.NDArray[np.bytes_]] = field(default_factory=list)
    prompts: "array[int]" = field(default_factory=lambda: array("q"))
    targets: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))
    choices: "array[int]" = field(default_factory=lambda: array("i"))
    docs: "array[int]" = field(default_factory=lambda: array("q"))
    samples: "array[int]" = field(default_factory=lambda: array("i"))
    repeats: "array[int]" = field(default_factory=lambda: array("q"))
    fields: dict[str, "array[int]"] = field(default_factory=dict)
    values: dict[str, tuple["array[int]", "array[float]"]] = field(default_factory=dict)
    unscored: dict[str, int] = field(default_factory=dict)
    lists: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.docs)

    def pack(self) -> None:
        if self.items:
            self.packed.append(np.array(self.items, dtype=np.bytes_))
            self.items.clear()

    def all_items(self) -> npt.NDArray[np.bytes_]:
        """The items of every row. They are released here, so that they exist in memory once."""
        packed, self.packed = self.packed, []
        return np.concatenate(packed or [np.empty(0, dtype=np.bytes_)])

    def take_array(self, name: str) -> npt.NDArray[Any]:
        """A column as an array. It is released here, so that a big file's columns exist in memory once."""
        column: array[int] = getattr(self, name)
        setattr(self, name, array(column.typecode))
        return np.frombuffer(column, dtype=column.typecode)


def columns_of(
    path: Path, filter_: str, rows: ColumnBuilder, names: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Column]]:
    """Every metric of a filter with its column: `metric`, or `metric,filter` for any filter but none.

    Raises EvidenceFault for an item that occurs twice, or whose repeated samples differ in prompt or target.
    """
    rows.pack()
    items = rows.all_items()
    order, ordered = _sorted(items)
    if len(again := _occurrences(order, ordered, np.array(rows.docs, dtype=np.int64))):
        items = np.char.add(items, np.where(again > 0, np.char.add(b"#", (again + 1).astype("S")), b""))
        order, ordered = _sorted(items)
    items = ordered
    repeats = np.array(rows.repeats, dtype=np.int64)[order]
    first = np.ones(len(items), dtype=bool)
    first[1:] = items[1:] != items[:-1]
    group = np.cumsum(first) - 1
    if not first.all():
        _require_distinct(path, items, group, repeats, np.array(rows.places, dtype=np.int64)[order])
        for name in ("prompts", "targets"):
            _require_same(path, items, group, first, np.array(getattr(rows, name), dtype=np.int64)[order], name)
    answered = rows.take_array("samples")
    kept: Any = slice(None) if first.all() else first
    table = {name: rows.take_array(name)[order][kept] for name in ("prompts", "targets", "places", "choices", "docs")}
    fields = {name: np.array(codes, dtype=np.int32)[order][kept] for name, codes in rows.fields.items()}
    items = items[kept]
    position = np.empty(len(order), dtype=np.int64)
    position[order] = group
    for metric in sorted({*rows.values, *rows.unscored}):
        indices, values = rows.values.get(metric, (array("q"), array("d")))
        of = np.array(indices, dtype=np.int64)
        at = position[of]
        counts = np.bincount(at, minlength=len(items))
        scored: Any = counts > 0
        scored = slice(None) if scored.all() else scored  # a slice makes no copy
        sums = np.bincount(at, weights=np.array(values), minlength=len(items))
        samples = np.bincount(at, weights=answered[of], minlength=len(items)).astype(np.int32)
        key = metric if filter_ == "none" else f"{metric},{filter_}"
        yield (
            key,
            Column(
                path=path,
                items=items[scored],
                values=sums[scored] / counts[scored],
                samples=samples[scored],
                fields={name: codes[scored] for name, codes in fields.items()},
                names=names,
                unscored=rows.unscored.get(metric, 0),
                lists=rows.lists.get(metric, 0),
                **{name: column[scored] for name, column in table.items()},
            ),
        )


def _occurrences(order: Any, items: Any, docs: Any) -> npt.NDArray[np.int64]:
    """How many other documents of a row's content come before it in the dataset, shape (n,); empty if there are none.

    `order` and `items` are sorted by item, `docs` is doc_id by row. Datasets hold some documents twice; each is an item
    of its own, paired by document and occurrence.
    """
    same = items[1:] == items[:-1]
    if not same.any():
        return np.empty(0, dtype=np.int64)
    group = np.concatenate([[0], np.cumsum(~same)])
    number = docs[order]
    by_doc = np.lexsort((number, group))
    new_group = np.concatenate([[True], group[by_doc][1:] != group[by_doc][:-1]])
    new_doc = new_group | np.concatenate([[True], number[by_doc][1:] != number[by_doc][:-1]])
    count = np.cumsum(new_doc)
    rank = count - np.maximum.accumulate(np.where(new_group, count, 0))
    again = np.empty(len(order), dtype=np.int64)
    again[order[by_doc]] = rank
    return again if again.any() else np.empty(0, dtype=np.int64)


def _sorted(items: npt.NDArray[np.bytes_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bytes_]]:
    """The stable order of the items, and the items in it. Sorting by the first eight bytes is most often enough."""
    if not len(items) or items.itemsize % 8:
        order = np.argsort(items, kind="stable")
        return order, items[order]
    order = np.argsort(items.view(">u8")[:: items.itemsize // 8].astype(np.uint64), kind="stable")
    items = items[order]
    if not (items[1:] >= items[:-1]).all():
        rest = np.argsort(items, kind="stable")
        order, items = order[rest], items[rest]
    return order, items


def _require_distinct(path: Path, items: Any, group: Any, repeats: Any, places: Any) -> None:
    """Raises EvidenceFault for an item that occurs twice and is not numbered as a repeated sample.

    Rows are sorted by item; `group` numbers the items.
    """
    order = np.lexsort((places, repeats, group))
    same = group[order][1:] == group[order][:-1]
    number, before = repeats[order][1:], repeats[order][:-1]
    twice = np.flatnonzero(same & ((number == before) | (before == NONE)))
    if len(twice):
        index = order[twice[0] + 1]
        line = path.read_bytes()[: int(places[index])].count(b"\n") + 1
        item = items[index].decode(errors="replace")
        raise EvidenceFault(f"{path} line {line}: item {item[:12]} occurs twice, with the same doc_id; evaluate again")


def _require_same(path: Path, items: Any, group: Any, first: Any, digests: Any, what: str) -> None:
    """Raises EvidenceFault for an item whose repeated samples differ in their prompts or targets."""
    odd = np.flatnonzero(digests != digests[first][group])
    if len(odd):
        item = items[odd[0]].decode(errors="replace")
        raise EvidenceFault(f"{path}: the {what} of item {item[:12]} differ between its repeated samples")
