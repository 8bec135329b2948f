"""Paths that come from files: joined to a folder so that nothing outside it is ever read, written or copied."""

import os
import re
from pathlib import Path, PurePosixPath

from harness.core.errors import EvidenceFault
from harness.core.leftovers import temporary_name

# Control and format characters, backslashes and drive letters: names that another system reads as a path, or a terminal
# as something else. A colon elsewhere is plain: lm-eval before 0.4.3 wrote the time with colons.
_ODD = re.compile(
    r"(?:^|/)[A-Za-z]:|[\x00-\x1f\x7f-\x9f\\\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
MOST_CHARACTERS = 1024


def inside(folder: Path, name: object, source: object, *, links: bool = False) -> Path:
    """`folder / name` for a name that a file gives; `source` is that file, for the message.

    Raises EvidenceFault for anything but a relative path of plain names: an absolute path, `..`, an empty part, a
    backslash, a drive letter, a control character, or (unless `links`) a way through a symbolic link.
    """
    shown = ascii(name)[:80]
    if not isinstance(name, str) or not name or len(name) > MOST_CHARACTERS or _ODD.search(name):
        raise EvidenceFault(f"{source} names the file {shown}, which is not a plain relative path; it was edited")
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or any(part in ("", ".", "..") for part in parts):
        raise EvidenceFault(f"{source} names the file {shown}, which lies outside {folder}; it was edited")
    path = folder
    for part in parts:
        path /= part
        if not links and path.is_symlink():
            raise EvidenceFault(f"{path} is a symbolic link, so it proves nothing; put the file itself there")
    return path


def relative_folder(origin: Path, name: object, source: object) -> Path:
    """`origin / name` for the folder of a stage, which may lie beside `origin` (`..`); links of `origin` are resolved.

    Raises EvidenceFault for an absolute path, an odd character, or a way through a symbolic link.
    """
    shown = ascii(name)[:80]
    if not isinstance(name, str) or len(name) > MOST_CHARACTERS or _ODD.search(name) or name.startswith(("/", "~")):
        raise EvidenceFault(f"{source} names the folder {shown}, which is not a relative path; it was edited")
    path = origin.resolve()
    for part in PurePosixPath(name).parts:
        path = path.parent if part == ".." else path / part
        if path.is_symlink():
            raise EvidenceFault(f"{path} is a symbolic link, so it proves nothing; put the folder itself there")
    return path


def require_no_link(path: Path, folder: Path) -> None:
    """Raises EvidenceFault where `path`, or a folder on the way to it from `folder`, is a symbolic link."""
    for part in [path, *path.parents]:
        if part == folder:
            return
        if part.is_symlink():
            raise EvidenceFault(f"{part} is a symbolic link; nothing is read or written through it. Remove the link.")


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8 in place of whatever has its name; a symbolic link is replaced, never followed."""
    temporary = path.with_name(temporary_name(path.name))
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
