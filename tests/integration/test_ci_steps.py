"""Action, reusable workflow and GitLab template: their shell steps, exactly as written, with the CI's own files.

Steps that call another action (`uses:`) are GitHub's and are not run; which they are is asserted.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from story import Story, write_story
from tiny import ROOT

from harness.workflows.compose import config_for
from harness.workflows.run import Run

pytestmark = pytest.mark.integration

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "candidate.yml").read_text())
GITLAB = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())[".harness-candidate"]
LICENCE_RUN = "experiment=story\nname=better data.sources.rows.path=licence.jsonl\n"


class Runner:
    """A runner's machine: a program folder with `harness`, environment files, and a shell started as GitHub does."""

    def __init__(self, project: Path, folder: Path):
        self.project, self.folder = project, folder
        self.files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")}
        for path in self.files.values():
            path.touch()
        self.program("harness", f'exec {sys.executable} -m harness.cli "$@"')

    def program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        own = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": "owner/models",
            **{name: str(path) for name, path in self.files.items()},
        }
        own.pop("HARNESS_REGISTRY", None)
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(
            command, cwd=self.project, env=own | environment, capture_output=True, text=True, check=False
        )

    def step(self, step: dict[str, Any], inputs: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        """A `run:` step with `${{ … }}` in its environment filled in; scripts hold none."""
        assert "${{" not in step["run"], "an input pasted into a script can be a command"
        values = {
            "github.action_path": str(ROOT),
            "github.token": "token",
            "github.event.pull_request.number": "7",
            "steps.train.outputs.run": self.outputs().get("run", ""),
            **{f"inputs.{name}": value for name, value in inputs.items()},
        }
        filled = {
            name: re.sub(r"\$\{\{ (.+?) \}\}", lambda found: values[found[1]], str(text))
            for name, text in step.get("env", {}).items()
        }
        return self.run(step["run"], **filled)

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.files["GITHUB_OUTPUT"].read_text().splitlines())


@pytest.fixture
def runner(story: Story, tmp_path: Path) -> Runner:
    return Runner(story.project, tmp_path)


def steps(of: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in of["steps"] if "run" in step}


def inputs(**given: str) -> dict[str, str]:
    return {name: value.get("default", "") for name, value in ACTION["inputs"].items()} | given


def test_the_action_trains_decides_and_reports(runner: Runner, tmp_path: Path) -> None:
    """The run just made is judged though another's record is newer; all it needs is cached, so no server starts."""
    out = str(tmp_path / "report")
    given = inputs(candidate="latest", policy="story", train=LICENCE_RUN, out=out)
    action = steps(ACTION["runs"])
    installed = runner.step(action["Install"], given)
    assert installed.returncode == 0, installed.stderr
    assert runner.files["GITHUB_PATH"].read_text() == "", "a harness that is there is not installed again"
    trained = runner.step(action["Train"], given)
    assert trained.returncode == 0, trained.stderr
    os.utime(next(runner.project.glob("runs/forgetful-*/run.json")))
    decided = runner.step(action["Decide"], given)
    assert decided.returncode == 0, decided.stdout + decided.stderr
    assert "start vLLM" not in decided.stderr
    told = runner.outputs()
    assert (told["verdict"], told["exit_code"]) == ("PASS", "0")
    assert Path(told["report"]).is_file()
    assert runner.files["GITHUB_STEP_SUMMARY"].read_text().startswith("<!-- tuning-harness-verdict -->\n## PASS")
    for name in ("verdict.json", "compare.json", "policy.json", "evidence.json", "junit.xml", "comment.md"):
        assert (tmp_path / "report" / name).is_file()


def test_a_training_without_a_verdict_is_not_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken data limits exit with 10, as FAIL does; the same folder holds a PASS on earlier data, from the cache."""
    project = write_story(tmp_path / "project", tmp_path)
    monkeypatch.chdir(project)
    overrides = ["experiment=story", "audit.limits.max_rows.duplicate=0"]
    folder = Run.of(config_for(overrides)).folder.path
    (folder / "report").mkdir(parents=True)
    for name in ("run.json", "verdict.json", "report/index.html"):
        (folder / name).write_text('{"verdict": "PASS"}')
    with (project / "grant.jsonl").open("a") as rows:
        rows.write((project / "grant.jsonl").read_text().splitlines(keepends=True)[0])
    runner = Runner(project, tmp_path)
    given = inputs(candidate="latest", policy="story", train="\n".join(overrides), out=str(tmp_path / "report"))
    trained = runner.step(steps(ACTION["runs"])["Train"], given)
    assert trained.returncode == 10, trained.stdout + trained.stderr
    assert "audit.limits.max_rows.duplicate" in trained.stderr
    assert runner.outputs() == {"exit_code": "10"}


def test_latest_is_only_what_this_job_trained(tmp_path: Path) -> None:
    earlier = tmp_path / "runs" / "earlier" / "run.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    decided = Runner(tmp_path, tmp_path).step(steps(ACTION["runs"])["Decide"], inputs(candidate="latest"))
    assert decided.returncode == 2
    assert "set train, or name a candidate" in decided.stdout


@pytest.mark.parametrize("text", ["", "suite=few", "suite=few\n  serve.port=1 *=2\n", "\nsuite=few\n\n"])
def test_overrides_may_take_several_lines(text: str, tmp_path: Path) -> None:
    """`harness` is a stand-in that writes down how it was called."""
    runner = Runner(tmp_path, tmp_path)
    runner.program("harness", f'printf "%s\\n" "$@" > "{tmp_path}/called"')
    expected = ["ci", "some", "--against", "production", "--policy", "default", "--out", "ci-report", *text.split()]
    action = runner.step(steps(ACTION["runs"])["Decide"], inputs(candidate="some", overrides=text))
    assert (action.returncode, (tmp_path / "called").read_text().splitlines()) == (0, expected)
    (tmp_path / "called").unlink()
    variables = {**GITLAB["variables"], "CANDIDATE": "some", "OVERRIDES": text}
    gitlab = runner.run("\n".join(GITLAB["script"]), **variables)
    assert (gitlab.returncode, (tmp_path / "called").read_text().splitlines()) == (0, expected)


def test_a_candidate_that_forgets_fails_the_job(story: Story, runner: Runner, tmp_path: Path) -> None:
    """Against the better model by its run: production was rolled back at the end of the story."""
    given = inputs(
        candidate=str(story.run("forgetful")), against=str(story.run("better")), policy="story", out=str(tmp_path / "r")
    )
    decided = runner.step(steps(ACTION["runs"])["Decide"], given)
    assert decided.returncode == 10, decided.stdout + decided.stderr
    assert runner.outputs()["verdict"] == "FAIL"
    assert "::error" in decided.stdout
    assert "fell by 100.0 points" in decided.stdout


def test_what_cannot_be_decided_says_why(runner: Runner, tmp_path: Path) -> None:
    folder = str(tmp_path / "r")
    decided = runner.step(steps(ACTION["runs"])["Decide"], inputs(candidate="nowhere", out=folder))
    assert decided.returncode == 2
    assert runner.outputs() == {"verdict": "NONE", "exit_code": "2", "report": "", "folder": folder}
    assert "nowhere" in runner.files["GITHUB_STEP_SUMMARY"].read_text()


@pytest.mark.parametrize(("found", "expected"), [("", "-X POST repos/owner/models/issues/7/comments"), ("41", "41")])
def test_the_workflow_updates_one_comment(found: str, expected: str, tmp_path: Path) -> None:
    """`gh` is a stand-in that writes down how it was called."""
    (tmp_path / "ci-report").mkdir()
    (tmp_path / "ci-report" / "comment.md").write_text("<!-- tuning-harness-verdict -->\n")
    runner = Runner(tmp_path, tmp_path)
    runner.program("gh", f'echo "$@" >> "{tmp_path}/calls"; case "$*" in *--jq*) echo "{found}";; esac')
    done = runner.step(steps(WORKFLOW["jobs"]["decide"])["Comment"], {})
    assert done.returncode == 0, done.stderr
    listed, sent = (tmp_path / "calls").read_text().splitlines()
    assert "repos/owner/models/issues/7/comments" in listed
    assert expected in sent
    assert "body=@ci-report/comment.md" in sent


def test_the_gitlab_job(story: Story, runner: Runner) -> None:
    variables = {name: str(value) for name, value in GITLAB["variables"].items()} | {"POLICY": "story"}
    variables |= {"CANDIDATE": str(story.run("otherwise")), "HARNESS_CACHE": os.environ.get("HARNESS_CACHE", "")}
    done = runner.run("\n".join([*GITLAB["before_script"], *GITLAB["script"]]), **variables)
    assert done.returncode == 12, done.stdout + done.stderr
    report = story.project / "ci-report"
    assert json.loads((report / "verdict.json").read_text())["verdict"] == "INVALID"
    assert (story.project / GITLAB["artifacts"]["reports"]["junit"]).is_file()


def test_the_gitlab_job_installs_the_harness_as_make_does(tmp_path: Path) -> None:
    """An image without it; stand-ins write down how they were called, and `make setup` leaves a `.venv`."""
    runner = Runner(tmp_path, tmp_path)
    (tmp_path / "bin" / "harness").unlink()
    calls = tmp_path / "calls"
    for name in ("git", "make", "apt-get"):
        runner.program(name, f'echo {name} "$@" >> "{calls}"')
    installed = tmp_path / ".harness" / ".venv" / "bin" / "harness"
    installed.parent.mkdir(parents=True)
    installed.write_text(f'#!/bin/sh\necho harness "$@" >> "{calls}"\n')
    installed.chmod(0o755)
    variables = {**GITLAB["variables"], "CANDIDATE": "some", "HARNESS_SOURCE": "https://host/owner/harness.git"}
    script = "\n".join([*GITLAB["before_script"], *GITLAB["script"]])
    done = runner.run(script, **variables, PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert [line for line in calls.read_text().splitlines() if not line.startswith("apt-get")] == [
        "git clone --quiet --depth 1 https://host/owner/harness.git .harness",
        "make -C .harness setup",
        "harness ci some --against production --policy default --out ci-report",
    ]


def test_what_is_not_run_here_is_github_s_own() -> None:
    used = [step["uses"].partition("@")[0] for step in WORKFLOW["jobs"]["decide"]["steps"] if "uses" in step]
    cache = {"actions/cache/restore", "actions/cache/save"}
    assert set(used) == {"actions/checkout", *cache, "./.harness", "actions/upload-artifact"}


def test_evaluations_are_kept_whatever_the_verdict() -> None:
    """One path and key both ways: GitHub finds no cache that was saved under another list of paths."""
    order = [step.get("uses", step.get("name")) for step in WORKFLOW["jobs"]["decide"]["steps"]]
    restored, decided, kept = (
        order.index(name) for name in ("actions/cache/restore@v4", "./.harness", "actions/cache/save@v4")
    )
    assert restored < decided < kept
    restore, save = (WORKFLOW["jobs"]["decide"]["steps"][at] for at in (restored, kept))
    assert save["if"] == "always()"
    assert save["with"].items() <= restore["with"].items()
    assert "github.run_attempt" in save["with"]["key"], "a key is saved once: a repeated job would keep nothing"


def test_the_workflow_hands_on_what_the_action_takes() -> None:
    (call,) = (step for step in WORKFLOW["jobs"]["decide"]["steps"] if step.get("id") == "decide")
    assert set(call["with"]) <= set(ACTION["inputs"])
    declared = set(WORKFLOW[True]["workflow_call"]["inputs"])  # YAML 1.1 reads the key `on` as true
    assert set(re.findall(r"inputs\.(\w+)", json.dumps(WORKFLOW["jobs"]))) <= declared
