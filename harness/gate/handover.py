"""Arrays handed from one process to another through a file, which copies them once (pickle protocol 5, PEP 574)."""

import mmap
import pickle
from pathlib import Path
from typing import Any

ALIGNED = 64  # bytes

Packed = tuple[bytes, list[int]]  # what is no array, and the bytes of each array


def packed(value: Any, path: Path) -> Packed:
    """Writes the arrays of a value to a file, each at a multiple of 64 bytes."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    with path.open("wb") as file:
        for raw in map(pickle.PickleBuffer.raw, buffers):
            file.write(raw)
            file.write(bytes(-raw.nbytes % ALIGNED))
    return pickled, [buffer.raw().nbytes for buffer in buffers]


def unpacked(found: Packed, path: Path) -> Any:
    """The value again; its arrays are pages of the file, which may be removed then."""
    pickled, sizes = found
    pages = memoryview(b"")
    if path.stat().st_size:
        with path.open("rb") as file:
            pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size + -size % ALIGNED)
    return pickle.loads(pickled, buffers=[pages[s : s + n] for s, n in zip(starts, sizes, strict=False)])  # noqa: S301 - of our own process
