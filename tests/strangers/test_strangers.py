"""What strangers bring is read rightly, or refused with the fix: one folder of `cases/` is one situation.

`case.yaml` says what is typed and what must come of it; the files beside it are what the stranger brought. A case runs
through the command line in a copy of its folder. Its keys:

    situation   one sentence: what the stranger did
    run         the line that is typed, after `harness`; a list of lines where several are
    exit        the exit code of the last line (default 0)
    says        phrases that the output must hold, in any case and with any line breaks
    never_says  phrases that it must not hold
    figures     written JSON file -> {path of a value: the value}, such as `sources.0.kept: 3`
    rows        written JSON Lines file -> the conversations in it, in order: a list of {role: text}
    lines       written JSON Lines file -> the number of lines in it
    no_file     files that must not have been written
"""

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import main

CASES = Path(__file__).parent / "cases"
FOLDERS = sorted(folder.name for folder in CASES.iterdir() if (folder / "case.yaml").is_file())
KEYS = {"situation", "run", "exit", "says", "never_says", "figures", "rows", "lines", "no_file"}

JARGON = (
    "Traceback",
    "Extra inputs are not permitted",
    "NoneType",
    "KeyError",
    "object has no attribute",
    "pydantic",
    "errors.pydantic.dev",
    "value_error",
    "type=",
    "not in struct",
    "ValidationError",
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
# A message names a place: a file, a folder, a key, an option, or the thing that was typed, in quotes.
PLACE = re.compile(r"[\w./-]+\.\w{2,}|[\w-]+/[\w./-]*|--\w+|\w+[.:=]\w*|'[^']+'|`[^`]+`|\"[^\"]+\"")
FIX = re.compile(
    r"\b(use|set|add|give|type|save|write|name|rename|remove|delete|install|choose|check|did you mean|try|say|export"
    r"|run|say which|pass|put|convert|split|move|make|quote|available|expected|known|nearest|mirror|keep|replace"
    r"|correct|must|evaluate|repeat|point|drop|map|ask|read|close|start|open|fetch|download|raise|lower|leave)\b"
    r"|harness \w+|\w+=\S",
    re.IGNORECASE,
)
LIMIT = 1500


def value_at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def turns(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The conversation of a kept row, whichever of the two kept shapes it has."""
    if row.get("messages"):
        messages = json.loads(row["messages"])
        return [{turn["role"]: turn["content"]} for turn in messages]
    asked = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
    return [{"user": asked}, {"assistant": row["output"]}]


def plain(text: str) -> str:
    return " ".join(text.split()).lower()


@pytest.mark.parametrize("name", FOLDERS)
def test_case(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    case = yaml.safe_load((CASES / name / "case.yaml").read_text("utf-8"))
    assert not set(case) - KEYS, f"unknown keys {set(case) - KEYS} in {name}/case.yaml"
    folder = tmp_path / "work"
    shutil.copytree(CASES / name, folder)
    (folder / "case.yaml").unlink()
    monkeypatch.chdir(folder)

    code = 0
    errors = ""
    said = ""
    for line in case["run"] if isinstance(case["run"], list) else [case["run"]]:
        try:
            code = main(shlex.split(line))
        except SystemExit as stop:  # what argparse refuses
            code = int(stop.code or 0)
        out, errors = capfd.readouterr()
        said += out + errors

    assert code == case.get("exit", 0), f"exit {code}\n{said}"
    for phrase in case.get("says", []):
        assert plain(phrase) in plain(said), f"{phrase!r} is not in:\n{said}"
    for phrase in case.get("never_says", []):
        assert plain(phrase) not in plain(said), f"{phrase!r} is in:\n{said}"
    for file, figures in case.get("figures", {}).items():
        document = json.loads(Path(file).read_text("utf-8"))
        for path, value in figures.items():
            assert value_at(document, path) == value, f"{file}: {path} is {value_at(document, path)!r}"
    for file, conversations in case.get("rows", {}).items():
        written = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]
        assert [turns(row) for row in written] == conversations
    for file, count in case.get("lines", {}).items():
        assert len(Path(file).read_text("utf-8").splitlines()) == count, file
    for file in case.get("no_file", []):
        assert not Path(file).exists(), f"{file} was written"
    if code in (2, 3, 12):
        assert_message_for_people(errors or said)


def assert_message_for_people(message: str) -> None:
    """What, where and the fix, in at most 1,500 characters, without a traceback, jargon or control characters."""
    assert 0 < len(message) < LIMIT, f"{len(message)} characters: {message[:300]}"
    assert not [word for word in JARGON if word in message], message
    assert not CONTROL.search(message), repr(message)
    assert PLACE.search(message), f"names no file or key: {message}"
    assert FIX.search(message), f"names no fix: {message}"


def test_every_folder_is_a_case() -> None:
    """A folder without `case.yaml`, or two cases that type the same on the same files, test nothing."""
    assert [folder.name for folder in CASES.iterdir() if folder.name not in FOLDERS] == []
    seen: dict[Any, str] = {}
    for name in FOLDERS:
        case = yaml.safe_load((CASES / name / "case.yaml").read_text("utf-8"))
        files = tuple(
            (path.relative_to(CASES / name).as_posix(), path.read_bytes())
            for path in sorted((CASES / name).rglob("*"))
            if path.is_file() and path.name != "case.yaml"
        )
        key = (str(case["run"]), files)
        assert key not in seen, f"{name} repeats {seen[key]}"
        seen[key] = name
