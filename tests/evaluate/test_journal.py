"""The journal keeps its answers, whatever happens to the process or the file."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import DiskFull, EnvironmentFault
from harness.evaluate.journal import Journal, journal_path, request_key

SCOPE = {"weights": "a" * 64}
ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from pathlib import Path
from harness.evaluate.journal import Journal, request_key

journal = Journal(Path(sys.argv[1]), {})
for number in range(int(sys.argv[2]), 10**9):
    journal.add({request_key(number): {"text": str(number)}})
    print(number, flush=True)
"""


def writer(path: Path, first: int = 0) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(path), str(first)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def told(process: "subprocess.Popen[str]", count: int) -> int:
    """The last of `count` numbers that a writer said it had written."""
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)][-1]


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_answers_are_found_by_request_and_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", SCOPE)
    journal.add({b"one": {"text": "Zürich \u2028 🙂", "ids": [1, 2]}, b"two": {"nats": -0.1, "greedy": False}})
    journal.close()
    again = Journal(tmp_path / "j.sqlite", SCOPE)
    assert dict(again.lookup([b"two", b"three", b"one"])) == {
        b"one": {"text": "Zürich \u2028 🙂", "ids": [1, 2]},
        b"two": {"nats": -0.1, "greedy": False},
    }
    again.close()


def test_the_first_answer_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", SCOPE)
    for text in ("first", "second"):
        journal.add({b"key": {"text": text}})
    assert dict(journal.lookup([b"key"])) == {b"key": {"text": "first"}}
    journal.close()


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    process = writer(tmp_path / "j.sqlite")
    last = told(process, 40)
    kill(process)
    journal = Journal(tmp_path / "j.sqlite", {})
    assert dict(journal.lookup(request_key(number) for number in range(last + 1))) == {
        request_key(number): {"text": str(number)} for number in range(last + 1)
    }
    journal.close()


def test_two_processes_may_write(tmp_path: Path) -> None:
    both = [writer(tmp_path / "j.sqlite", first) for first in (0, 10**6)]
    try:
        counts = [told(process, 40) for process in both]
    finally:
        for process in both:
            kill(process)
    journal = Journal(tmp_path / "j.sqlite", {})
    wanted = [*range(counts[0] + 1), *range(10**6, counts[1] + 1)]
    assert len(dict(journal.lookup(map(request_key, wanted)))) == len(wanted)
    journal.close()


def test_several_may_begin_one_file_at_once(tmp_path: Path) -> None:
    def begin(path: Path) -> int:
        barrier.wait()
        journal = Journal(path, {})
        entries = len(journal)
        journal.close()
        return entries

    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for number in range(100):
            assert list(pool.map(begin, [tmp_path / f"{number}.sqlite"] * 8)) == [0] * 8


@pytest.mark.parametrize("keep", [0, 1, 100, 4096 + 17])
def test_a_torn_file_loses_answers_and_nothing_more(
    tmp_path: Path, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j.sqlite"
    journal = Journal(path, SCOPE)
    journal.add({request_key(number): {"text": "x" * 100} for number in range(200)})
    journal.close()
    path.write_bytes(path.read_bytes()[:keep])
    again = Journal(path, SCOPE)
    again.add({b"key": {"text": "new"}})
    assert dict(again.lookup([b"key", request_key(1)])) == {b"key": {"text": "new"}}
    again.close()


def test_several_may_find_one_damaged_file_at_once(tmp_path: Path) -> None:
    """One process sets it aside; none sets aside the new file of another."""

    def begin(number: int) -> None:
        barrier.wait()
        journal = Journal(path, SCOPE)
        journal.add({request_key(number): {"text": "new"}})
        journal.close()

    barrier = threading.Barrier(8)
    for number in range(25):
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(b"no database at all" * 100)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(begin, range(8)))
        assert len(list(tmp_path.glob(f"{number}.damaged-*"))) == 1
        journal = Journal(path, SCOPE)
        assert len(journal) == 8
        journal.close()


def test_a_torn_log_loses_the_last_answers_only(tmp_path: Path) -> None:
    process = writer(tmp_path / "j.sqlite")
    told(process, 60)
    kill(process)
    log = tmp_path / "j.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-1000])
    journal = Journal(tmp_path / "j.sqlite", {})
    assert dict(journal.lookup([request_key(0)])) == {request_key(0): {"text": "0"}}
    journal.close()


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", SCOPE)
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull, match="nothing is lost"):
        journal.add({request_key(number): {"text": "x" * 1000} for number in range(100)})
    journal.close()


def test_a_journal_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    (tmp_path / "j.sqlite").mkdir()
    with pytest.raises(EnvironmentFault, match=r"j\.sqlite cannot be used \(unable to open"):
        Journal(tmp_path / "j.sqlite", SCOPE)


def test_a_damaged_answer_is_requested_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", SCOPE)
    journal.add({request_key(1): {"text": "a"}, request_key(2): {"text": "b"}})
    journal._db.execute("UPDATE answers SET answer = '{' WHERE key = ?", (request_key(1),))
    assert dict(journal.lookup([request_key(1), request_key(2)])) == {request_key(2): {"text": "b"}}
    journal.close()


def test_its_place_depends_on_what_decides_the_answers(tmp_path: Path) -> None:
    one = journal_path(tmp_path, {"weights": "a", "contract": "b"})
    assert one == journal_path(tmp_path, {"contract": "b", "weights": "a"})
    assert one != journal_path(tmp_path, {"weights": "a", "contract": "c"})


@given(st.text(), st.text(), st.text(), st.text())
def test_keys_do_not_run_into_each_other(a: str, b: str, c: str, d: str) -> None:
    assert (request_key(a, b) == request_key(c, d)) == ((a, b) == (c, d))


def test_the_file_says_what_it_is_for(tmp_path: Path) -> None:
    Journal(tmp_path / "j.sqlite", SCOPE).close()
    with sqlite3.connect(tmp_path / "j.sqlite") as database:
        assert database.execute("SELECT text FROM scope").fetchall() == [('{"weights": "' + "a" * 64 + '"}',)]
    database.close()
