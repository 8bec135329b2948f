"""Plugins that cannot be used: one message with name, package, cause and fix, and never a traceback."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cli import main
from harness.config.data import AuditConfig, DataConfig, SourceConfig
from harness.core.errors import ConfigError, EnvironmentFault
from harness.core.plugins import load, names, plugin_digest
from harness.data.filtering import judge_conversations
from harness.data.filters.behavior import behavior
from harness.data.filters.protocol import Filter
from harness.data.settings import FILTERS, filters_of, make_filter
from harness.track.open import TRACKERS

Install = Callable[..., None]
BEHAVIOR = """
from harness.behavior.config import BehaviorConfig
from harness.behavior.registry import Behavior
class Config(BehaviorConfig):
    pass
class Made(Behavior):
    def __init__(self, config: Config): pass
    def check(self, exchange): ...
"""
FILTER = """
from typing import Literal
from harness.config.group import Group
class Config(Group):
    action: Literal["drop", "flag"] = "drop"
class Made:
    code = "mine"
    def __init__(self, config: Config): pass
    def judge(self, rows): return []
"""
TRACKER = "from harness.track.tracker import Tracker as Made\n"
REGISTRY = "from harness.registry.files import FileRegistry as Made\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package `<name>-plugin` with one entry point where this process finds it."""
    monkeypatch.chdir(tmp_path)
    behavior.cache_clear()  # other tests of this process may have loaded one
    modules: list[str] = []

    def call(group: str, entry: str, code: str, package: str = "mine") -> None:
        site = tmp_path / package
        metadata = site / f"{package}_plugin-2.5.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}-plugin\nVersion: 2.5\n")
        (metadata / "entry_points.txt").write_text(f"[tuning_harness.{group}]\n{entry} = {package}_module:Made\n")
        (site / f"{package}_module.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        modules.append(f"{package}_module")

    yield call
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """`harness score` on a task of the kind `mine`."""
    task = tmp_path / "tasks" / "verse"
    task.mkdir(parents=True)
    (task / "behavior.yaml").write_text("kind: mine\n")
    (task / "items.jsonl").write_text('{"id": "1", "instruction": "Go.", "input": "", "topic": "t", "slice": ""}\n')
    (tmp_path / "answers.jsonl").write_text('{"id": "1", "prompt": "Go.", "response": "Gone."}\n')

    def call() -> tuple[int, str]:
        code = main(["score", "verse", "answers.jsonl"])
        return code, capsys.readouterr().err

    return call


UNUSABLE = {
    "no such module": ("import nowhere_to_be_found\n", "cannot be imported: ModuleNotFoundError: No module named"),
    "no Python": ("def def\n", "cannot be imported: SyntaxError"),
    "ends the process": ("import sys\nsys.exit('bye')\n", "cannot be imported: SystemExit: bye"),
    "no such attribute": ("x = 1\n", "cannot be imported: AttributeError"),
    "a module": ("import json as Made\n", "it is a module, not a class"),
    "no check": (BEHAVIOR.replace("def check", "def test"), "it has no method 'check'"),
    "check of nothing": (BEHAVIOR.replace("(self, exchange)", "(self)"), "its method 'check' must take (self, exch"),
    "no settings": (BEHAVIOR.replace("config: Config", "config"), "a parameter 'config' annotated with a subclass of"),
    "odd settings": (BEHAVIOR.replace("config: Config", "config: 'Nowhere'"), "annotations of its __init__ cannot be"),
    "fails": (
        BEHAVIOR.replace("config: Config): pass", "config: Config): 1 / 0"),
        "cannot be built: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize(("code", "cause"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_behaviour_that_cannot_be_used(
    install: Install, graded: Callable[[], tuple[int, str]], code: str, cause: str
) -> None:
    install("behaviors", "mine", code)
    exit_code, printed = graded()
    assert exit_code == 3
    assert "behaviour 'mine' of the package mine-plugin 2.5 (entry point mine = mine_module:Made)" in printed
    assert cause in printed
    assert "pip uninstall mine-plugin" in printed
    assert "Traceback" not in printed


def test_what_is_not_named_is_not_imported(install: Install, graded: Callable[[], tuple[int, str]]) -> None:
    install("behaviors", "broken", "import nowhere_to_be_found\n")
    code, printed = graded()
    assert code == 2
    assert "kind: there is no kind 'mine'." in printed
    assert "broken" in printed.split("Valid: ")[1]
    assert "mine_module" not in sys.modules


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (("action: Literal", "act: Literal"), "Config needs the field action: Literal[…] of drop, redact, flag"),
        (('"flag"] = "drop"', '"burn"] = "drop"'), "Config needs the field action"),
        (
            ("class Config(Group)", "from pydantic import BaseModel\nclass Config(BaseModel)"),
            "harness.config.group.Gro",
        ),
        (('code = "mine"', 'code = "other"'), "its attribute 'code' is 'other'; it must be 'mine'"),
        (('code = "mine"', ""), "its attribute 'code' is 'None'"),
        (("def judge", "def judged"), "it has no method 'judge'"),
    ],
)
def test_a_filter_that_cannot_be_used(install: Install, change: tuple[str, str], cause: str) -> None:
    install("filters", "mine", FILTER.replace(*change))
    with pytest.raises(EnvironmentFault) as caught:
        make_filter("mine", {})
    assert cause in str(caught.value)
    assert "filter 'mine' of the package mine-plugin 2.5" in str(caught.value)


def test_a_filter_that_loses_rows_is_named(install: Install) -> None:
    install("filters", "mine", FILTER)
    row = {"id": "1", "source": "s", "topic": "", "instruction": "q", "input": "", "output": "a"}
    with pytest.raises(EnvironmentFault, match=r"'mine' of mine_module .*1 row given.* audit.filters.mine=null"):
        judge_conversations(make_filter("mine", {}), [row])


def test_a_filter_set_to_null_is_off(install: Install) -> None:
    install("filters", "mine", FILTER)
    data = DataConfig(sources={"s": SourceConfig(path="rows.jsonl")})
    assert [made.code for made in filters_of(AuditConfig(filters={"mine": {}, "quality": {}}), data)] == [
        "quality",
        "mine",
    ]
    assert filters_of(AuditConfig(filters={"mine": None}), data) == []


def test_a_reason_code_of_the_audit_is_no_filter_s_name(install: Install) -> None:
    install("filters", "duplicate", FILTER.replace('"mine"', '"duplicate"'))
    with pytest.raises(EnvironmentFault, match="'duplicate' is a reason code of the audit itself"):
        make_filter("duplicate", {})


@pytest.mark.parametrize(
    ("group", "name", "code", "arguments"),
    [
        ("filters", "quality", FILTER, ("audit", "--input", "rows.jsonl", "audit.filters.quality.action=flag")),
        ("behaviors", "disclaimer", BEHAVIOR, ("audit", "--input", "rows.jsonl", "audit.behaviors=[disclaimer]")),
        ("registries", "files", REGISTRY, ("registry", "list")),
    ],
)
def test_a_shipped_name_cannot_be_taken(
    install: Install,
    capsys: pytest.CaptureFixture[str],
    group: str,
    name: str,
    code: str,
    arguments: tuple[str, ...],
) -> None:
    Path("rows.jsonl").write_text('{"instruction": "q", "input": "", "output": "a", "topic": "t"}\n')
    install(group, name, code)
    assert main(list(arguments)) == 3
    printed = capsys.readouterr().err
    assert f"{name!r}: both the harness and the package mine-plugin 2.5" in printed
    assert "pip uninstall mine-plugin" in printed


def test_the_tracker_is_checked_before_a_run_starts(install: Install) -> None:
    from harness.config.experiment import TrackerConfig
    from harness.track.open import check_tracker

    install("trackers", "none", TRACKER)
    install("trackers", "other", "import nowhere_to_be_found\n", package="other")
    with pytest.raises(EnvironmentFault, match=r"'none': both the harness and .*mine-plugin .* define this name"):
        check_tracker(TrackerConfig())
    with pytest.raises(EnvironmentFault, match=r"tracker 'other' of the package other-plugin 2.5"):
        check_tracker(TrackerConfig(kind="other"))


def test_two_packages_with_one_name(install: Install) -> None:
    install("filters", "mine", FILTER)
    install("filters", "mine", FILTER, package="yours")
    with pytest.raises(EnvironmentFault) as caught:
        load("filters", "mine", FILTERS, Filter)
    told = str(caught.value)
    assert "2 packages define this name" in told
    assert "mine-plugin 2.5" in told
    assert "yours-plugin 2.5" in told
    assert "Remove all but one: pip uninstall" in told


def test_an_unknown_name_lists_the_installed_ones(install: Install) -> None:
    install("filters", "mine", FILTER)
    assert set(names("filters", FILTERS)) == {*FILTERS, "mine"}
    with pytest.raises(ConfigError, match="Valid: behavior, legal, mine, personal_data, quality, toxicity"):
        load("filters", "zzz", FILTERS, Filter)


def test_the_digest_of_a_plugin(install: Install, tmp_path: Path) -> None:
    assert plugin_digest("filters", ["mine", "quality"]) == {}
    install("filters", "mine", "import nowhere_to_be_found\n")
    found = plugin_digest("filters", ["mine", "quality"])
    assert list(found) == ["filters/mine"]
    assert found["filters/mine"].startswith("mine-plugin 2.5 ")
    assert plugin_digest("filters", ["quality"]) == {}
    (tmp_path / "mine" / "mine_module.py").write_text("import nowhere\n")
    assert plugin_digest("filters", ["mine"]) != found
    assert "mine_module" not in sys.modules


def test_the_whole_package_counts_below_a_shared_namespace(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("filters", "deep", "")
    metadata = next((tmp_path / "mine").glob("*.dist-info"))
    (metadata / "entry_points.txt").write_text("[tuning_harness.filters]\ndeep = shared_space.part.inner:Made\n")
    package = tmp_path / "mine" / "shared_space" / "part"
    package.mkdir(parents=True)
    for name in ("__init__.py", "inner.py", "words.txt"):
        (package / name).write_text("")
    (package.parent / "other.py").write_text("")
    before = plugin_digest("filters", ["deep"])
    (package.parent / "other.py").write_text("x = 1\n")
    assert plugin_digest("filters", ["deep"]) == before
    (package / "words.txt").write_text("loud\n")
    assert plugin_digest("filters", ["deep"]) != before
    assert "shared_space.part" not in sys.modules


def test_the_configuration_knows_the_shipped_trackers() -> None:
    from harness.config.experiment import SHIPPED_TRACKERS

    assert set(SHIPPED_TRACKERS) == set(TRACKERS)
