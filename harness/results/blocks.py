"""Rows of a samples file that are like the one before them, a block of lines at a time: what makes big files quick.

The decoder's types say what such a row is: the same filter and metrics with a number for each, as many requests, each
answered once. A block with any other row is left to the reader that takes rows one by one.
"""

from array import array
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np

from harness.results.columns import NONE, ColumnBuilder

Codes = dict[str, dict[str, int]]
OPEN, CLOSE, NEWLINE = b"{}\n"
HASH = 64  # characters of a sha256
PRIME = 2**61 - 1


class BlockReader:
    """Takes blocks of rows that are like `row` into `rows`; `codes` number the values of the document's fields."""

    def __init__(self, row: Any, rows: ColumnBuilder, document: Any, codes: Codes):
        self._rows = rows
        self._metrics = [(name, f"metric{i}") for i, name in enumerate(row.metrics)]
        self._fields = [(name, f"field{i}") for i, name in enumerate(codes)]
        self._codes = codes
        self._choices = choices(row.arguments)
        wanted: list[Any] = [
            *((name, str) for name in ("doc_hash", "prompt_hash", "target_hash")),
            ("metrics", tuple[tuple(Literal[name] for name in row.metrics)]),  # type: ignore[misc]
            ("filter", Literal[row.filter], *(["none"] if row.filter == "none" else [])),
            ("doc_id", int),
            ("repeat", int | None, None),
            ("doc", document, document()),
            _requests(row.arguments),
            ("resps", _listed([_listed([msgspec.Raw])] * max(1, len(row.arguments or ())))),
            *((attribute, float) for _, attribute in self._metrics),
        ]
        rename = {attribute: name for name, attribute in self._metrics}
        alike: Any = msgspec.defstruct("Alike", wanted, rename=rename, kw_only=True, gc=False)
        self._decode = msgspec.json.Decoder(alike).decode_lines

    def take(self, block: bytes, place: int) -> int:
        """How many rows the block, at byte `place`, held: 0 when not all were like the first, and nothing was taken."""
        starts = _starts(block)
        try:
            found: list[Any] = self._decode(block) if starts is not None else []
            items = _packed([row.doc_hash for row in found])
            documents = array("q", [row.doc_id for row in found])
            repeats = _repeats([row.repeat for row in found])
            prompts, targets = (_digests(list(map(attrgetter(name), found))) for name in ("prompt_hash", "target_hash"))
        except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
            return 0
        if starts is None or len(found) != len(starts):
            return 0
        rows, first = self._rows, len(self._rows)
        rows.pack()
        rows.packed.append(items)
        rows.docs.extend(documents)
        rows.repeats.extend(repeats)
        rows.prompts.frombytes(prompts.tobytes())
        rows.targets.frombytes(targets.tobytes())
        rows.places.frombytes((starts + place).tobytes())
        rows.choices.extend(array("i", [self._choices]) * len(found))
        rows.samples.extend(array("i", [1]) * len(found))
        for name, attribute in self._metrics:
            indices, scores = rows.values[name]
            indices.frombytes(np.arange(first, first + len(found), dtype=np.int64).tobytes())
            scores.frombytes(np.array(list(map(attrgetter(attribute), found)), dtype=np.float64).tobytes())
        for name, attribute in self._fields:
            named = list(map(attrgetter(f"doc.{attribute}"), found))
            if named.count(None) == len(named):
                rows.fields[name].extend(array("i", [NONE]) * len(named))
            else:
                rows.fields[name].extend([code(self._codes[name], value) for value in named])
        return len(found)


def _starts(block: bytes) -> Any:
    """Where each line begins; None unless each begins and ends with a brace.

    No value can then reach over a line's end, as nothing but a new value opens a brace after a closed one: as many
    values as lines are one a line.
    """
    found = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(found == NEWLINE)
    ends = ends if block.endswith(b"\n") else np.append(ends, len(block))
    starts = np.concatenate([[0], ends[:-1] + 1])
    whole = (ends > starts).all() and (found[starts] == OPEN).all() and (found[ends - 1] == CLOSE).all()
    return starts.astype(np.int64) if whole else None


def _listed(parts: Sequence[Any]) -> Any:
    """The type of a list with exactly these parts."""
    fields = [(f"part{i}", part) for i, part in enumerate(parts)]
    return msgspec.defstruct("Listed", fields, array_like=True, forbid_unknown_fields=True, gc=False)


def _requests(arguments: Any) -> tuple[Any, ...]:
    """The field `arguments` with exactly as many requests, and of the same names where they have names."""
    if not arguments:
        return ("arguments", None, None)
    if not isinstance(arguments, Mapping):
        return ("arguments", _listed([msgspec.Raw] * len(arguments)))
    fields = [(f"part{i}", msgspec.Raw) for i in range(len(arguments))]
    rename = {f"part{i}": name for i, name in enumerate(arguments)}
    return ("arguments", msgspec.defstruct("Named", fields, rename=rename, forbid_unknown_fields=True, gc=False))


def digest(text: str) -> int:
    """61 bits that are the same in every process, as hash() of a text is not: the text as a number, modulo a prime."""
    return int.from_bytes(text.encode("utf-8", "surrogatepass")) % PRIME


def _digests(texts: Sequence[str]) -> Any:
    """`digest` of each, shape (n,); raises UnicodeEncodeError where one would not encode plainly.

    Of hashes, eight words at once: 2⁶¹ leaves 1, so a word's 2^(64k) only moves its bits by 3k places.
    """
    if (joined := _hashes(texts)) is None:
        return np.array([int.from_bytes(text.encode()) % PRIME for text in texts], dtype=np.int64)
    words = np.frombuffer(joined, dtype=">u8").reshape(-1, HASH // 8).astype(np.uint64)
    moved = np.arange(HASH // 8, dtype=np.uint64)[::-1] * np.uint64(3)
    kept = np.uint64(61) - moved
    terms = ((words & ((np.uint64(1) << kept) - np.uint64(1))) << moved) + (words >> kept)
    halves = terms.reshape(-1, 2, HASH // 16).sum(axis=2)  # four terms of 61 bits and a little do not overflow
    return (((halves & np.uint64(PRIME)) + (halves >> np.uint64(61))).sum(axis=1) % np.uint64(PRIME)).astype(np.int64)


def _packed(texts: Sequence[str]) -> Any:
    """The texts as bytes in one array; raises as `_digests`."""
    joined = _hashes(texts)
    plain = np.array([text.encode() for text in texts], dtype=np.bytes_) if joined is None else None
    return np.frombuffer(joined or b"", dtype=f"S{HASH}") if plain is None else plain


def _hashes(texts: Sequence[str]) -> bytes | None:
    """The texts end to end, if each is as long as a hash and plain ASCII."""
    joined = "".join(texts).encode()
    return joined if set(map(len, texts)) == {HASH} and len(joined) == HASH * len(texts) else None


def _repeats(found: Sequence[int | None]) -> "array[int]":
    if found.count(None) == len(found):
        return array("q", [NONE]) * len(found)
    return array("q", [NONE if one is None else one for one in found])


def choices(arguments: Any) -> int:
    """How many answers were scored by likelihood: one request each; a generation is one request."""
    count = len(arguments) if arguments else 0
    return count if count > 1 else 0


def code(codes: dict[str, int], value: Any) -> int:
    """The number of a document field's value; NONE where it has none."""
    return NONE if value is None else codes.setdefault(str(value), len(codes))
