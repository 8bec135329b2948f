"""Names that a file gives never lead out of its folder, whatever they are made of."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import EvidenceFault
from harness.core.paths import inside, relative_folder, require_no_link, write_text

PARTS = st.sampled_from(["..", ".", "", "a", "b.json", "~", "C:", "\\", "\x00", "\u202e", "etc", "passwd", "//"])
NAMES = st.one_of(
    st.lists(PARTS, max_size=6).map("/".join),
    st.text(max_size=40),
    st.text(string.ascii_letters + "./\\", max_size=30),
    st.none() | st.integers() | st.lists(st.text(), max_size=2),
)


@given(NAMES)
def test_a_name_from_a_file_stays_inside_or_is_refused(name: object) -> None:
    folder = Path("/somewhere/run")
    refusal = ""
    try:
        path = inside(folder, name, "evidence.json")
    except EvidenceFault as fault:
        refusal = str(fault)
    if refusal:
        assert "evidence.json" in refusal
        assert refusal.isprintable()
    else:
        assert path.is_relative_to(folder)
        assert path != folder
        assert ".." not in path.parts


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b.json",
        "samples_größe.jsonl",
        "checkpoint/model-00001-of-00002.safetensors",
        "eval/results_2024-05-21T10:12:15.json",
    ],
)
def test_plain_names_are_taken(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name, "x") == tmp_path / name


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "C:x", "a\\..\\b", "a\nb", ""])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EvidenceFault, match="edited"):
        inside(tmp_path, name, "x")


def test_links_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("k")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "way").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "file").symlink_to(tmp_path / "secret" / "key")
    with pytest.raises(EvidenceFault, match="symbolic link"):
        relative_folder(tmp_path / "run", "way/deeper", "x")
    for name in ("file", "way/key"):
        with pytest.raises(EvidenceFault, match="symbolic link"):
            inside(tmp_path / "run", name, "x")
    with pytest.raises(EvidenceFault, match="symbolic link"):
        relative_folder(tmp_path / "run", "way", "x")
    with pytest.raises(EvidenceFault, match="symbolic link"):
        require_no_link(tmp_path / "run" / "way" / "key", tmp_path / "run")


def test_a_folder_beside_the_evidence_is_taken_and_an_absolute_one_is_not(tmp_path: Path) -> None:
    assert relative_folder(tmp_path / "verdict", "../runs/x/eval", "x") == tmp_path / "runs" / "x" / "eval"
    with pytest.raises(EvidenceFault, match="not a relative path"):
        relative_folder(tmp_path, "/etc", "x")


def test_writing_replaces_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "index.html").symlink_to(tmp_path / "target")
    write_text(tmp_path / "index.html", "page – ü")
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "index.html").is_symlink()
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == "page – ü"
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []
