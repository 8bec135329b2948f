"""The locks in requirements/ hold what pyproject.toml asks for, each package with its hashes and from no named host."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def asked(extra: str) -> list[Requirement]:
    """The project's requirements with those of an extra, and of the extras that it includes."""
    found = []
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, [])]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            found += [one for inner in requirement.extras for one in asked(inner)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("name", ["core", "cpu", "gpu"])
def test_a_lock_holds_every_requirement_with_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert "://" not in text
    assert "file:" not in text
    locked = {}
    for entry in entries:
        line, *hashes = entry.strip().split("--hash=")
        assert hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*\\?\s*", one) for one in hashes), line
        requirement = Requirement(line.strip().rstrip("\\").strip())
        locked[plain(requirement.name)] = str(requirement.specifier).removeprefix("==")
    for requirement in asked("" if name == "core" else name):
        version = locked[plain(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: {version} is locked"
