"""A run that is killed, terminated, starved of disk or run in a worse world ends as one that nobody disturbed.

Real processes, the real trainer and the real vLLM server; `benchmarks/reliability.py` tries the same more often.
"""

import json
import os
import random
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import disturbed
import pytest
from disturbed import CLOCK_BACK, NO_LINKS, STORY, World
from run_folders import write_run
from story import write_story

ALLOWED = {0: "PASS", 10: "FAIL", 11: "INCONCLUSIVE"}


@pytest.fixture(scope="module")
def calm(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which the run `calm` was made without a disturbance."""
    world = World(write_story(tmp_path_factory.mktemp("calm"), tiny_base))
    assert disturbed.told(world.run("run", *STORY, "name=r"), ALLOWED) == ""
    return world


@pytest.fixture
def world(tiny_base: Path, tmp_path: Path) -> World:
    (tmp_path / "project").mkdir()
    return World(write_story(tmp_path / "project", tiny_base))


@pytest.mark.integration
def test_a_run_that_is_disturbed_in_every_stage_ends_like_one_that_was_not(world: World, calm: World) -> None:
    command = ["run", *STORY, "name=r"]
    rng = random.Random(1)
    for moment in ("audit", "training"):
        started = world.start(*command)
        assert started.wait_for(disturbed.MOMENTS[moment])
        disturbed.pause(rng, 2)
        assert started.kill().code in (-signal.SIGKILL, *ALLOWED)

    started = world.start(*command)
    assert started.wait_for(disturbed.MOMENTS["evaluation"])
    servers = started.servers()
    assert servers
    started.process.send_signal(signal.SIGTERM)
    ended = started.ended(60)
    assert disturbed.told(ended, {130: "interrupted", **ALLOWED}) == ""
    assert disturbed.gone(servers), "a vLLM process outlives the run that started it"

    for limit in (0, 4_000, 200_000):
        assert disturbed.told(world.run(*command, limit=limit), {3: "environment", **ALLOWED}) == ""

    ended = world.worse(NO_LINKS).run(*command)
    assert disturbed.told(ended, ALLOWED) == ""
    assert world.outcome("r") == calm.outcome("r")
    assert world.temporary() == [], "left-over working folders of the killed processes"


@pytest.mark.integration
def test_vllm_is_killed_and_hangs_in_the_middle_of_an_evaluation(world: World, calm: World) -> None:
    command = ["run", *STORY, "name=r", "serve.concurrency=1", "suite=half", "serve.stall_timeout_s=15"]
    started = world.start(*command)
    assert started.wait_for(disturbed.MOMENTS["evaluation"])
    assert disturbed.eventually(lambda: world.answered() >= 4, 120)
    for pid in started.servers():
        os.kill(pid, signal.SIGKILL)
    assert disturbed.eventually(lambda: started.said().count("server ready") >= 2, 240), started.said()
    answered = world.answered()
    assert disturbed.eventually(lambda: world.answered() >= answered + 4, 120)
    for pid in started.servers():
        os.kill(pid, signal.SIGSTOP)
    ended = started.ended(400)
    assert disturbed.told(ended, ALLOWED) == ""
    assert "restarting" in ended.said
    assert world.outcome("r")["weights"] == calm.outcome("r")["weights"]


def test_two_machines_promote_into_one_registry_at_once(tmp_path: Path) -> None:
    elsewhere = disturbed.other_machine()
    if not elsewhere:
        pytest.skip("this user may not start a process under another host name (unshare)")
    world = World(tmp_path)
    for name, right in (("one", 300), ("two", 300)):
        write_run(tmp_path / "runs" / name, right)
    for n in range(6):
        assert world.run("registry", "init", "--alias", f"alias-{n}").code == 0
    with ThreadPoolExecutor(4) as threads:
        ends = list(
            threads.map(
                lambda n: world.run(
                    "promote",
                    f"runs/{('one', 'two')[n % 2]}",
                    "--alias",
                    f"alias-{n}",
                    "--who",
                    "ada",
                    "--why",
                    "try",
                    before=elsewhere if n % 2 else (),
                ),
                range(6),
            )
        )
    assert [disturbed.told(end, {0: "promoted"}) for end in ends] == [""] * 6
    assert world.run("registry", "verify").code == 0


def test_a_clock_that_was_set_back_is_flagged_in_the_history(tmp_path: Path) -> None:
    world = World(tmp_path)
    write_run(tmp_path / "runs" / "one", 300)
    who = ("--who", "ada", "--why", "try")
    assert world.run("registry", "init").code == 0
    assert world.run("promote", "runs/one", *who).code == 0
    earlier = world.worse(CLOCK_BACK)
    back = earlier.run("registry", "policy", "policy=strict", *who)
    assert back.code == 0
    verified = world.run("registry", "verify")
    assert verified.code == 0
    assert "clock" in (back.said + verified.said)


@pytest.mark.parametrize("limit", [0, 100, 3_000])
def test_a_full_disk_while_promoting_leaves_the_registry_as_it_was(tmp_path: Path, limit: int) -> None:
    world = World(tmp_path)
    write_run(tmp_path / "runs" / "one", 300)
    assert world.run("registry", "init").code == 0
    who = ("--who", "ada", "--why", "try")
    ended = world.run("promote", "runs/one", *who, limit=limit)
    assert disturbed.told(ended, {3: "environment"}) == ""
    assert world.run("registry", "verify").code == 0
    assert world.run("promote", "runs/one", *who).code == 0
    assert world.run("verify", "production").code == 0


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """ENOSPC in place of a file size limit, where a file system may be mounted."""
    with disturbed.small_disk(tmp_path / "small", 1) as mounted:
        if not mounted:
            pytest.skip("this user may not mount a file system")
        rows = [{"instruction": f"Which bus goes to stop {n}?", "output": f"Line {n} does. " * 40} for n in range(3000)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        world = World(tmp_path)
        ended = world.run("audit", "--input", "rows.jsonl", "--out", "small/out")
        assert disturbed.told(ended, {3: "environment"}) == ""
        assert "disk" in ended.said.lower() or "space" in ended.said.lower()
        assert subprocess.run(["ls", "-A", "small"], cwd=tmp_path, capture_output=True, text=True).stdout.split() in (
            [],
            ["out"],
        )
