"""Reads rows of a samples file that are alike, a block of lines at a time, so that big files are read quickly.

The decoder's types define such rows: the same filter, the same metrics with a number for each, the same number of
requests, each answered once. A block with any other row is left to the reader that takes rows one by one.
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
    """Reads blocks of rows that are like `row` into `rows`; `codes` numbers the values of the document's fields."""

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

    def read(self, block: bytes, place: int) -> int:
        """Reads the block at byte `place`; returns its number of rows, or 0 when they differ and none was read."""
        starts = _starts(block)
        try:
            decoded: list[Any] = self._decode(block) if starts is not None else []
            items = _as_bytes([row.doc_hash for row in decoded])
            documents = array("q", [row.doc_id for row in decoded])
            repeats = _repeats([row.repeat for row in decoded])
            prompts, targets = (
                _digests(list(map(attrgetter(name), decoded))) for name in ("prompt_hash", "target_hash")
            )
        except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
            return 0
        if starts is None or len(decoded) != len(starts):
            return 0
        rows, first = self._rows, len(self._rows)
        rows.pack()
        rows.packed.append(items)
        rows.docs.extend(documents)
        rows.repeats.extend(repeats)
        rows.prompts.frombytes(prompts.tobytes())
        rows.targets.frombytes(targets.tobytes())
        rows.places.frombytes((starts + place).tobytes())
        rows.choices.extend(array("i", [self._choices]) * len(decoded))
        rows.samples.extend(array("i", [1]) * len(decoded))
        for name, attribute in self._metrics:
            indices, scores = rows.values[name]
            indices.frombytes(np.arange(first, first + len(decoded), dtype=np.int64).tobytes())
            scores.frombytes(np.array(list(map(attrgetter(attribute), decoded)), dtype=np.float64).tobytes())
        for name, attribute in self._fields:
            named = list(map(attrgetter(f"doc.{attribute}"), decoded))
            if named.count(None) == len(named):
                rows.fields[name].extend(array("i", [NONE]) * len(named))
            else:
                rows.fields[name].extend([code(self._codes[name], value) for value in named])
        return len(decoded)


def _starts(block: bytes) -> Any:
    """Where each line begins; None unless each line begins and ends with a brace.

    A value then cannot reach over the end of a line, as only a new value opens a brace after a closed one. With as many
    values as lines, there is one in each line.
    """
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == NEWLINE)
    ends = ends if block.endswith(b"\n") else np.append(ends, len(block))
    starts = np.concatenate([[0], ends[:-1] + 1])
    braced = (ends > starts).all() and (data[starts] == OPEN).all() and (data[ends - 1] == CLOSE).all()
    return starts.astype(np.int64) if braced else None


def _listed(parts: Sequence[Any]) -> Any:
    """The type of a list with exactly these parts."""
    fields = [(f"part{i}", part) for i, part in enumerate(parts)]
    return msgspec.defstruct("Listed", fields, array_like=True, forbid_unknown_fields=True, gc=False)


def _requests(arguments: Any) -> tuple[Any, ...]:
    """The field `arguments` with exactly as many requests, by the same names where they have names."""
    if not arguments:
        return ("arguments", None, None)
    if not isinstance(arguments, Mapping):
        return ("arguments", _listed([msgspec.Raw] * len(arguments)))
    fields = [(f"part{i}", msgspec.Raw) for i in range(len(arguments))]
    rename = {f"part{i}": name for i, name in enumerate(arguments)}
    return ("arguments", msgspec.defstruct("Named", fields, rename=rename, forbid_unknown_fields=True, gc=False))


def digest(text: str) -> int:
    """The text as a number modulo a prime, 61 bits. Unlike hash(), it is the same in every process."""
    return int.from_bytes(text.encode("utf-8", "surrogatepass")) % PRIME


def _digests(texts: Sequence[str]) -> Any:
    """`digest` of each text, shape (n,); raises UnicodeEncodeError for half of a surrogate pair.

    Hashes are computed as eight words each: 2⁶¹ modulo the prime is 1, so the factor 2^(64k) of a word only moves its
    bits by 3k places.
    """
    if (joined := _hashes(texts)) is None:
        return np.array([int.from_bytes(text.encode()) % PRIME for text in texts], dtype=np.int64)
    words = np.frombuffer(joined, dtype=">u8").reshape(-1, HASH // 8).astype(np.uint64)
    moved = np.arange(HASH // 8, dtype=np.uint64)[::-1] * np.uint64(3)
    kept = np.uint64(61) - moved
    terms = ((words & ((np.uint64(1) << kept) - np.uint64(1))) << moved) + (words >> kept)
    halves = terms.reshape(-1, 2, HASH // 16).sum(axis=2)  # four terms of just over 61 bits do not overflow
    return (((halves & np.uint64(PRIME)) + (halves >> np.uint64(61))).sum(axis=1) % np.uint64(PRIME)).astype(np.int64)


def _as_bytes(texts: Sequence[str]) -> Any:
    """The texts as bytes in one array; raises as `_digests`."""
    joined = _hashes(texts)
    plain = np.array([text.encode() for text in texts], dtype=np.bytes_) if joined is None else None
    return np.frombuffer(joined or b"", dtype=f"S{HASH}") if plain is None else plain


def _hashes(texts: Sequence[str]) -> bytes | None:
    """The texts joined, if each is as long as a hash and plain ASCII; else None."""
    joined = "".join(texts).encode()
    return joined if set(map(len, texts)) == {HASH} and len(joined) == HASH * len(texts) else None


def _repeats(numbers: Sequence[int | None]) -> "array[int]":
    if numbers.count(None) == len(numbers):
        return array("q", [NONE]) * len(numbers)
    return array("q", [NONE if number is None else number for number in numbers])


def choices(arguments: Any) -> int:
    """The number of answer choices, each scored by a request of its own; 0 for a generation, which is one request."""
    count = len(arguments) if arguments else 0
    return count if count > 1 else 0


def code(codes: dict[str, int], value: Any) -> int:
    """The number of a document field's value; NONE where the field is empty."""
    return NONE if value is None else codes.setdefault(str(value), len(codes))
