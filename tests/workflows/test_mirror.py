"""`harness mirror` against a hub on this machine: what is fetched, what is recorded, what a second call does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from harness.core.errors import NetworkFault
from harness.workflows import mirror as room
from harness.workflows.mirror import mirror, named_tasks, patterns

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ITEM = {"question": "Is it?", "choices": ["a", "b", "c", "d"], "answer": 1, "subject": "x"}
SUBJECTS = ("anatomy", "astronomy", "virology")


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub for the download of a dataset."""

    repositories: dict[str, dict[str, bytes]]
    refused: dict[str, tuple[int, str]]
    asked: list[str]

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, whole: bool) -> None:
        path = unquote(urlparse(self.path).path)
        self.asked.append(path)
        parts = path.removeprefix("/api").strip("/").split("/")
        dataset, rest = "/".join(parts[1:3]), parts[3:]
        if dataset in self.refused:
            status, code = self.refused[dataset]
            return self._send(status, b"{}", {"X-Error-Code": code}, whole)
        files = self.repositories.get(dataset)
        if files is None:
            return self._send(401, b"{}", {"X-Error-Message": "Invalid username or password."}, whole)
        if path.startswith("/api/") and rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": n, "size": len(b), "oid": _sha1(b)} for n, b in files.items()]
            return self._send(200, json.dumps(tree).encode(), {}, whole)
        if path.startswith("/api/"):
            told = {"id": dataset, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return self._send(200, json.dumps(told).encode(), {}, whole)
        name = "/".join(rest[2:])
        if name not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, whole)
        return self._send(200, files[name], {"ETag": f'"{_sha1(files[name])}"', "X-Repo-Commit": COMMIT}, whole)

    def _send(self, status: int, body: bytes, headers: dict[str, str], whole: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if whole:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # with the default of 5 the kernel may drop connections, and clients wait seconds


@contextmanager
def hub(
    repositories: dict[str, dict[str, bytes]], refused: dict[str, tuple[int, str]]
) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Hub,), {"repositories": repositories, "refused": refused, "asked": asked})
    with Server(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join()


def mmlu() -> dict[str, bytes]:
    """A repository with several configurations, and a large file that nobody needs."""
    card = ["---", "license: mit", "configs:"]
    files = {"auxiliary/train.jsonl": b"never needed", "figure.png": b"nor this"}
    for subject in SUBJECTS:
        card += [f"- config_name: {subject}", "  data_files:"]
        for split in ("dev", "test"):
            card += [f"  - {{split: {split}, path: {subject}/{split}-*}}"]
            files[f"{subject}/{split}-0.jsonl"] = "".join(json.dumps(ITEM) + "\n" for _ in range(6)).encode()
    return {"README.md": "\n".join([*card, "---", ""]).encode(), **files}


def run(address: str, folder: Path, *arguments: str, offline: bool = False) -> tuple[int, str]:
    """`harness …` as a user runs it, against the hub at `address`, with no cache of earlier runs."""
    home = {"HF_HOME": str(folder / f"hf{len(list(folder.iterdir()))}"), "HF_ENDPOINT": address, "HF_TOKEN": ""}
    settings = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1" if offline else "0", "HF_HUB_DISABLE_XET": "1"}
    patience = {"HF_HUB_ETAG_TIMEOUT": "600", "HF_HUB_DOWNLOAD_TIMEOUT": "600"}  # this machine may be slow
    command = [sys.executable, "-m", "harness.cli", *arguments]
    environment = os.environ | home | settings | patience
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def recorded(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "mirror.json").read_text())
    return found


def test_a_mirror_holds_what_the_tasks_read_and_is_used_offline(tmp_path: Path) -> None:
    copy = tmp_path / "hub"
    with hub({"cais/mmlu": mmlu()}, {}) as (address, asked):
        code, told = run(address, tmp_path, "mirror", "mmlu_virology", "--to", "hub")
        assert code == 0, told
        assert "cais/mmlu: 5 files" in told
        assert f"commit {COMMIT[:12]}, licence mit" in told
        assert "Traceback" not in told
        first = recorded(copy)
        assert first["datasets"] == {"cais/mmlu": {"configs": ["virology"], "licence": "mit", "revision": COMMIT}}
        wanted = {
            "README.md",
            *(f"{part}/{split}-0.jsonl" for part in ("anatomy", "virology") for split in ("dev", "test")),
        }
        assert set(first["files"]) == {f"cais/mmlu/{name}" for name in wanted}
        assert {p.relative_to(copy / "cais/mmlu").as_posix() for p in (copy / "cais/mmlu").rglob("*.*")} == wanted

        asked.clear()
        (copy / "cais/mmlu/virology/test-0.jsonl").write_text("broken")
        code, told = run(address, tmp_path, "mirror", "--to", "hub", "--verify")
        assert (code, "cais/mmlu/virology/test-0.jsonl" in told, asked) == (2, True, [])
        code, told = run(
            address, tmp_path, "evaluate", "--describe", "suite.tasks=[{name: mmlu_virology}]", "hub_dir=hub"
        )
        assert "mmlu_virology" in told
        assert "its data are missing" in told

        code, told = run(address, tmp_path, "mirror", "mmlu_virology", "mmlu_astronomy", "--to", "hub")
        assert code == 0, told
        assert recorded(copy)["datasets"]["cais/mmlu"]["configs"] == ["astronomy", "virology"]
        assert set(recorded(copy)["files"]) > set(first["files"])
        asked.clear()
        assert run(address, tmp_path, "mirror", "mmlu_virology", "mmlu_astronomy", "--to", "hub")[0] == 0
        assert asked == [], "a whole mirror needs no network"
    code, told = run("http://127.0.0.1:9", tmp_path, "mirror", "--to", "hub", "--verify", offline=True)
    assert code == 0, told
    suite = "suite.tasks=[{name: mmlu_virology}, {name: mmlu_astronomy, limit: 2}]"
    code, told = run("http://127.0.0.1:9", tmp_path, "evaluate", "--describe", suite, "hub_dir=hub", offline=True)
    assert code == 0, told
    assert [line.split()[:2] for line in told.splitlines() if line.startswith("mmlu")] == [
        ["mmlu_virology", "6"],
        ["mmlu_astronomy", "2"],
    ]


def test_what_cannot_be_fetched_is_told_with_the_reason(tmp_path: Path) -> None:
    refused = {"cais/mmlu": (403, "GatedRepo")}
    with hub({}, refused) as (address, _):
        code, told = run(address, tmp_path, "mirror", "mmlu_virology", "piqa", "gsm8k", "--to", "hub")
    assert code == 3, told
    assert "task mmlu_virology: its dataset cais/mmlu (virology) cannot be fetched from the hub (it is gated" in told
    assert "task piqa: its dataset baber/piqa cannot be fetched from the hub (the hub has no such dataset" in told
    assert "task gsm8k: its dataset openai/gsm8k (main)" in told
    assert "Traceback" not in told
    assert not (tmp_path / "hub" / "mirror.json").exists()


def test_without_a_network_the_command_for_elsewhere_is_named(tmp_path: Path) -> None:
    """At once, in one message: the hub's own library would try each dataset for half a minute."""
    code, told = run("http://127.0.0.1:9", tmp_path, "mirror", "piqa", "--to", "hub")
    assert (code, told.count("\n")) == (3, 2)
    why = "http://127.0.0.1:9 cannot be reached: Connection refused"
    assert f"task piqa: its dataset baber/piqa cannot be fetched from the hub ({why})" in told


class Fetched:
    """In place of the hub and of nltk's server: writes small files, or fails for the datasets in `lost`."""

    def __init__(self, lost: tuple[str, ...] = ()):
        self.lost = lost
        self.asked: list[str] = []

    def download(self, dataset: str, name: str | None, commit: str, folder: Path) -> str:
        self.asked.append(dataset)
        if dataset in self.lost:
            raise ConnectionError("no route to the hub")
        folder.mkdir(parents=True, exist_ok=True)
        row = {"prompt": "Say it.", "key": 1, "instruction_id_list": [], "kwargs": [], "goal": "g", "label": 0}
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text(json.dumps({**row, "sol1": "a", "sol2": "b"}) + "\n")
        return "apache-2.0"

    def nltk(self, package: str, download_dir: str | None = None, **_: Any) -> bool:
        assert download_dir is not None
        folder = Path(download_dir) / "tokenizers" / package / "english"
        folder.mkdir(parents=True)
        (folder / "abbrev_types.txt").write_text("dr\n")
        return True


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fetched:
    import datasets.config
    import nltk

    made = Fetched()
    monkeypatch.setattr(room, "download", made.download)
    monkeypatch.setattr(room, "_commit", lambda dataset: COMMIT)
    monkeypatch.setattr(room, "unreachable", lambda: "")
    monkeypatch.setattr(nltk, "download", made.nltk)
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    monkeypatch.setenv("NLTK_DATA", "")
    return made


def test_nltks_data_come_along_where_a_task_splits_sentences(tmp_path: Path, fetched: Fetched) -> None:
    mirror(["ifeval"], tmp_path / "hub")
    told = recorded(tmp_path / "hub")
    assert list(told["datasets"]) == ["google/IFEval"]
    assert "nltk_data/tokenizers/punkt_tab/english/abbrev_types.txt" in told["files"]


def test_what_was_copied_before_a_failure_is_kept(tmp_path: Path, fetched: Fetched) -> None:
    fetched.lost = ("google/IFEval",)
    with pytest.raises(NetworkFault, match=r"task ifeval: its dataset google/IFEval .*no route to the hub"):
        mirror(["piqa", "ifeval"], tmp_path / "hub")
    assert list(recorded(tmp_path / "hub")["datasets"]) == ["baber/piqa"]
    fetched.lost, fetched.asked = (), []
    mirror(["piqa", "ifeval"], tmp_path / "hub")
    assert fetched.asked == ["google/IFEval"]


def test_whatever_is_damaged_is_fetched_again(tmp_path: Path, fetched: Fetched) -> None:
    """Also what this call does not name: the record promises it."""
    mirror(["piqa", "ifeval"], tmp_path / "hub")
    before = recorded(tmp_path / "hub")
    words = tmp_path / "hub" / "nltk_data" / "tokenizers" / "punkt_tab" / "english" / "abbrev_types.txt"
    for path in (words, tmp_path / "hub" / "baber/piqa/train.jsonl"):
        path.write_text("other")
    fetched.asked = []
    mirror(["ifeval"], tmp_path / "hub")
    assert recorded(tmp_path / "hub") == before
    assert fetched.asked == ["baber/piqa"]
    assert words.read_text() == "dr\n"


def test_suites_and_tasks_by_name_each_task_once_and_whole() -> None:
    names = [task.name for task in named_tasks(["general", "arc_easy", "winogrande"])]
    assert len(names) == len(set(names))
    assert {"gsm8k", "truthfulqa_mc2", "winogrande"} <= set(names)
    assert all(task.limit is None for task in named_tasks(["general"]))


A = {"config_name": "a", "data_files": "x"}
B = {"config_name": "b", "data_files": "z"}


@pytest.mark.parametrize(
    ("configs", "name", "wanted"),
    [
        ([], None, None),
        ([{**A, "data_files": "a/*.csv"}], None, ["a/*.csv"]),
        ([{**A, "data_files": ["x", "y"]}, B], "b", ["x", "y", "z"]),
        ([{"config_name": "a", "data_dir": "in"}, {"config_name": "b", "data_dir": "of"}], "b", ["in/**", "of/**"]),
        ([{"config_name": "a"}, B], "b", None),
        ([{**A, "data_files": [{"split": "test", "path": ["p", "q"]}]}], "a", ["p", "q"]),
        ([A, {**B, "default": True}], None, ["x", "z"]),
        ([A], "absent", None),
    ],
)
def test_files_of_a_configuration(configs: list[dict[str, Any]], name: str | None, wanted: list[str] | None) -> None:
    assert patterns(configs, name) == wanted
