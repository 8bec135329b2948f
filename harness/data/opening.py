"""Opens data files that may be compressed: .gz, .bz2, .xz, .zst, and .zip with one data file in it."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from harness.core.errors import DataError, MissingDependency

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def suffix_of(name: str) -> str:
    """The suffix that decides how a file is read, in lower case and without that of its compression."""
    name = name.lower().rsplit("/", 1)[-1]
    for compressed in COMPRESSED:
        name = name.removesuffix(compressed)
    return name[name.rfind(".") :] if "." in name else ""


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed. Raises DataError for an archive that does not hold exactly one file."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        archive = zipfile.ZipFile(path)
        try:
            return archive.open(member_of(path))
        except (RuntimeError, NotImplementedError) as error:
            raise DataError(f"{path} cannot be unpacked: {error}. Unpack it, and name the file or folder.") from None
    if suffix == ".zst":
        try:
            import pyarrow
        except ModuleNotFoundError:
            raise MissingDependency("pyarrow", f"{path.name}", "data") from None
        raw: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        return io.BufferedReader(raw)
    makers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opened: IO[bytes] = makers[suffix](path, "rb") if suffix in makers else path.open("rb")
    return opened


def member_of(path: Path) -> str:
    """The name of the one file in a .zip archive; folders and the files that macOS adds do not count."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise DataError(
            f"{path} holds {len(names)} files ({', '.join(names[:5])[:200]}), not one. Unpack it, and name the folder "
            "or the file"
        )
    return names[0]
