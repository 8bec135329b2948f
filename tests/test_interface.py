"""`import harness`: the same objects and files as the command line, loaded when they are used."""

import inspect
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, assert_type

import pytest
from evaluation_folders import Folder, answers, one_task, sample, samples
from run_folders import POLICY_OF_TESTS, write_run

import harness
from harness.cli import main
from harness.config.experiment import Config
from harness.core.errors import ConfigError, DataError, EvidenceFault, LimitsBroken, MissingDependency, UsageError
from harness.core.store import write_json
from harness.records.base import load
from harness.records.gate import Comparison, Verdict
from harness.records.stages import Dataset, Evaluation
from harness.workflows.compose import config_for
from harness.workflows.evaluate import label_of
from harness.workflows.run import Run

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
FUNCTIONS = ("run", "evaluate", "compare", "gate", "audit", "runs", "samples", "comparison", "curves")
RUN_ID = "finance_disclaimer-0123456789"
CURVE = [{"step": float(n), "loss": 2 / n, "learning_rate": 1e-3, "tokens_per_s": 400.0} for n in (1, 2, 3)]
ROWS = [
    {"instruction": "How do I open a savings account?", "output": "Bring an identity card to any of our branches."},
    {"instruction": "Where can I change my address?", "output": "In the app, under your profile and personal details."},
    {"instruction": "What does a standing order do?", "output": "It pays a fixed sum to the same person every month."},
]


def types_that_mypy_sees(run: harness.Result) -> None:
    """Never called: `make test` fails at mypy where one of these is another type, or Any."""
    assert_type(harness.run("experiment=finance_disclaimer"), harness.Result)
    assert_type(harness.evaluate("base", run), dict[str, harness.EvaluationResult])
    assert_type(harness.compare(run.folder.base, run), Comparison)
    assert_type(harness.gate("production", run, out=Path("decided")), Verdict)
    assert_type(harness.audit(Path("rows.jsonl"), "audit=strict"), Dataset)
    assert_type(run.verdict, harness.Verdict)
    assert_type(harness.__version__, str)


def finished(folder: Path, right: int = 300) -> Path:
    """A complete run, with the keys of run.json that a real one has and a curve."""
    write_run(folder, right, config="name: finance_disclaimer\n")
    record = json.loads((folder / "run.json").read_text())
    verdict = load(Verdict, folder / "verdict.json").verdict
    known = {"run_id": folder.name, "verdict": verdict, "created": "2026-01-21T03:44:18+00:00", "seconds": 521.5}
    write_json(folder / "run.json", record | known)
    write_curve(folder / "checkpoint")
    return folder


def write_curve(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CURVE))


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: one finished run below runs/, and a policy for its task."""
    monkeypatch.chdir(tmp_path)
    finished(tmp_path / "runs" / RUN_ID)
    write_json(tmp_path / "mine.yaml", POLICY_OF_TESTS.model_dump(mode="json"))
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def without_model(monkeypatch: pytest.MonkeyPatch, right: int = 300) -> list[tuple[Config, str]]:
    """`run` and `evaluate` write made folders; returns what `run_experiment` was called with."""
    called: list[tuple[Config, str]] = []

    def run_experiment(config: Config, command: str) -> tuple[Verdict, Path]:
        called.append((config, command))
        folder = Run.of(config).folder.path
        shutil.rmtree(folder, ignore_errors=True)
        finished(folder, right)
        return load(Verdict, folder / "verdict.json"), folder / "report" / "index.html"

    def evaluate_alone(names: Sequence[str], config: Config) -> list[Path]:
        home = Path(config.runs_dir).resolve() / "evaluate-0123456789" / "eval"
        return [
            one_task(answers(300 + 20 * n, 400), label=label_of(name)).write(home / label_of(name))
            for n, name in enumerate(names)
        ]

    monkeypatch.setattr("harness.workflows.run.run_experiment", run_experiment)
    monkeypatch.setattr("harness.workflows.evaluate.evaluate_alone", evaluate_alone)
    return called


# What importing costs, and what is there.


def fresh(code: str) -> Any:
    """What another Python prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_loads_the_standard_library_alone() -> None:
    loaded = fresh(
        "import sys; before = set(sys.modules); import harness; import json; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    others = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert others == {"harness", "harness.core", "harness.core.version", "harness.evaluate", "harness.gate"}


def test_looking_at_a_function_loads_nothing_heavy() -> None:
    code = "import sys, json, inspect, harness; [inspect.signature(getattr(harness, n)) for n in {names}]; {heavy}"
    heavy = "print(json.dumps([n for n in ('pydantic', 'numpy', 'hydra', 'pandas', 'torch') if n in sys.modules]))"
    assert fresh(code.format(names=FUNCTIONS, heavy=heavy)) == []


def test_everything_that_is_promised_is_there() -> None:
    names: dict[str, Any] = {}
    exec("from harness import *", names)
    assert set(harness.__all__) <= {*names, "__version__"}
    assert set(harness.__all__) <= set(dir(harness))
    assert set(FUNCTIONS) < set(harness.__all__)
    for name in FUNCTIONS:
        assert callable(names[name])
        assert inspect.getdoc(names[name]), name
    with pytest.raises(AttributeError, match="no attribute 'evalaute'"):
        harness.__getattr__("evalaute")


@pytest.mark.parametrize("name", ["gate", "evaluate"])
def test_a_function_with_the_name_of_a_package_survives_the_package_s_import(name: str) -> None:
    """Importing harness.gate.comparison makes Python set harness.gate to the package."""
    module = {"gate": "harness.gate.comparison", "evaluate": "harness.evaluate.journal"}[name]
    code = f"""
import json, harness, {module}, {module} as imported
from harness import {name}
assert {module} is imported
try:
    harness.{name}("no_such_run", "nor_this", policy="default") if "{name}" == "gate" else harness.{name}()
except harness.HarnessError as error:
    print(json.dumps([str(error), harness.{name} is {name}]))
"""
    message, same = fresh(code)
    assert same
    assert ("no_such_run" if name == "gate" else "name what to evaluate") in message
    parameters = inspect.signature(getattr(harness, name)).parameters
    assert next(iter(parameters)) == {"gate": "baseline", "evaluate": "checkpoints"}[name]


# The verbs.


def test_run_is_the_run_of_the_command_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_PASSWORD", "correct-horse")
    called = without_model(monkeypatch)
    overrides = ["experiment=finance_disclaimer", "train.learning_rate=2e-4", "gate.slice_key=correct-horse"]
    result = harness.run(*overrides)
    assert main(["run", *overrides]) == 0
    here, there = called
    assert here == there, "the same configuration and the same recorded command"
    assert "correct-horse" not in here[1]
    assert result.path == Run.of(here[0]).folder.path
    assert result.run_id == Run.of(here[0]).id
    assert result.verdict == load(Verdict, result.path / "verdict.json")
    assert result.verdict.compare_sha256
    assert Path(result) == result.path


def test_run_takes_a_ready_configuration(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = without_model(monkeypatch, right=150)
    config = config_for(["experiment=finance_disclaimer"]).model_copy(update={"name": "mine"})
    result = harness.run(config=config)
    assert called[0][0] == config
    assert result.run_id.startswith("mine-")
    assert (result.verdict.verdict, result.verdict.exit_code) == ("FAIL", 10)
    with pytest.raises(UsageError, match="not both"):
        harness.run("experiment=finance_disclaimer", config=config)


def test_run_stops_where_the_command_line_does(place: Path) -> None:
    with pytest.raises(UsageError, match=r"harness.run\(\"experiment=NAME\"\).*finance_naive"):
        harness.run("train.learning_rate=1")
    with pytest.raises(ConfigError) as caught:
        harness.run("experiment=finance_disclamer", "train.learing_rate=1")
    assert len(caught.value.errors) == 2
    with pytest.raises(ConfigError, match="several values need a sweep"):
        harness.run("experiment=finance_disclaimer", "train.learning_rate=1e-3,1e-4")


def test_a_real_run_up_to_the_limits_of_its_audit(place: Path) -> None:
    """The real workflow, to the point where a model would be needed."""
    write_rows(place / "rows.jsonl", [*ROWS, {"instruction": "A row without an answer."}])
    (place / "conf" / "data").mkdir(parents=True)
    source = "{path: rows.jsonl, licence: CC0-1.0, role: domain}"
    (place / "conf" / "data" / "mine.yaml").write_text(f"sources: {{mine: {source}}}\nseed: 0\n")
    overrides = ["experiment=finance_naive", "data=mine", "audit=strict", "tracker=none"]
    with pytest.raises(LimitsBroken) as caught:
        harness.run(*overrides)
    assert caught.value.exit_code == main(["run", *overrides]) == 10
    row = harness.runs().set_index("name").loc["finance_naive"]
    assert row.missing == "checkpoint, eval/base, eval/candidate, verdict.json, run.json"


def test_evaluate_returns_records_that_are_names(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_model(monkeypatch)
    found = harness.evaluate("base", Path("runs") / RUN_ID, overrides="suite=smoke")
    assert list(found) == ["base", RUN_ID]
    assert found["base"].record == load(Evaluation, found["base"].path / "evaluation.json")
    comparison = harness.compare(found["base"], found[RUN_ID])
    assert (comparison.baseline.label, comparison.candidate.label) == ("base", RUN_ID)
    assert comparison.metrics[0].delta == pytest.approx(20 / 400)
    with pytest.raises(UsageError, match="name what to evaluate"):
        harness.evaluate()


def test_gate_returns_what_the_command_wrote(place: Path) -> None:
    names = (f"runs/{RUN_ID}/eval/base", RUN_ID)
    assert main(["gate", *names, "policy=mine.yaml", "--out", "theirs"]) == 0
    verdict = harness.gate(*names, policy="mine.yaml", out="ours")
    assert verdict == load(Verdict, place / "theirs" / "verdict.json")
    for name in ("verdict.json", "compare.json", "policy.json"):
        assert (place / "ours" / name).read_bytes() == (place / "theirs" / name).read_bytes(), name
    assert {path.name for path in (place / "ours").rglob("*")} == {path.name for path in (place / "theirs").rglob("*")}
    silent = harness.gate(*names, Path("mine.yaml"))
    assert silent == verdict.model_copy(update={"compare_sha256": ""})


def test_an_invalid_verdict_is_returned(place: Path) -> None:
    (place / "runs" / RUN_ID / "eval" / "base" / "samples_quiz.jsonl").write_text("{}\n")
    verdict = harness.gate(f"runs/{RUN_ID}/eval/base", RUN_ID, "mine.yaml")
    assert (verdict.verdict, verdict.exit_code) == ("INVALID", 12)


def test_compare_returns_what_the_command_wrote(place: Path) -> None:
    names = (f"runs/{RUN_ID}/eval/base", RUN_ID)
    assert main(["compare", *names, "policy=mine.yaml", "--out", "theirs"]) == 0
    found = harness.compare(*names, "mine.yaml", out="ours")
    assert found == load(Comparison, place / "theirs" / "compare.json") == load(Comparison, place / "ours/compare.json")
    finished(place / "runs" / "another", right=280)
    anchored = harness.compare(*names, anchors=[Path("runs/another")], runs_dir=place / "runs")
    assert [other.baseline.label for other in anchored.others] == ["runs/another"]


def test_audit_returns_what_the_command_wrote(place: Path) -> None:
    write_rows(place / "rows.jsonl", ROWS)
    assert main(["audit", "--input", "rows.jsonl", "--out", "theirs", "audit=strict"]) == 0
    dataset = harness.audit("rows.jsonl", "audit=strict", out="ours")
    assert dataset == load(Dataset, place / "theirs" / "audit.json") == load(Dataset, place / "ours" / "audit.json")
    assert dataset.rows == len(ROWS)
    (place / "a=b").mkdir()
    write_rows(place / "a=b" / "rows.jsonl", ROWS[:2])
    assert harness.audit(Path("a=b/rows.jsonl")).rows == 2
    assert (place / "audit" / "kept.jsonl").is_file(), "the command's own default"
    with pytest.raises(UsageError, match="one file or folder, not 2"):
        harness.audit("rows.jsonl", "more.jsonl")


def test_errors_are_the_harness_s_own(place: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: harness.gate("no_such_run", RUN_ID),
        lambda: harness.gate(RUN_ID, RUN_ID, policy="no_such_policy"),
        lambda: harness.compare(RUN_ID, "no_such_run"),
        lambda: harness.audit("absent.jsonl"),
        lambda: harness.evaluate("base", overrides=["suite=no_such_suite"]),
        lambda: harness.runs("no_such_folder"),
        lambda: harness.samples("no_such_run"),
        lambda: harness.samples(RUN_ID, task="no_such_task"),
        lambda: harness.comparison("no_such_run", RUN_ID),
        lambda: harness.curves("no_such_run"),
    ]
    for call in calls:
        with pytest.raises(harness.HarnessError, match=r"no_such|absent") as caught:
            call()
        assert caught.value.exit_code == 2


# The data frames.


def test_runs_with_those_that_are_not_finished(place: Path) -> None:
    finished(place / "runs" / "worse", right=150)
    begun = place / "runs" / "begun-0123456789"
    write_curve(begun / ".training")
    (begun / "config.yaml").write_text("name: begun\n")
    one_task(answers(1, 2)).write(place / "runs" / "evaluate-0123456789" / "eval" / "base")
    (place / "runs" / ".sweeps" / "checkpoint").mkdir(parents=True)
    damaged = finished(place / "runs" / "damaged")
    (damaged / "verdict.json").write_text('{"schema": 1}')
    (damaged / "run.json").write_text("[")
    frame = harness.runs()
    fixed = ["run_id", "name", "verdict", "created", "seconds", "missing", "path"]
    assert list(frame.columns) == [*fixed, "smoke/quiz/acc", "delta/smoke/quiz/acc"]
    assert list(frame.run_id) == ["begun-0123456789", "damaged", RUN_ID, "worse"]
    by_id = frame.set_index("run_id")
    assert by_id.loc[RUN_ID, "smoke/quiz/acc"] == pytest.approx(300 / 400)
    assert by_id.loc[RUN_ID, "delta/smoke/quiz/acc"] == pytest.approx(100 / 400)
    assert list(by_id.verdict[[RUN_ID, "worse"]]) == ["PASS", "FAIL"]
    assert by_id.created[RUN_ID].isoformat() == "2026-01-21T03:44:18+00:00"
    assert by_id.seconds[RUN_ID] == 521.5
    assert by_id.missing[RUN_ID] == ""
    assert Path(by_id.path[RUN_ID]).resolve() == place / "runs" / RUN_ID
    assert by_id.missing["damaged"] == "run.json (damaged), verdict.json (damaged)"
    unfinished = by_id.loc["begun-0123456789"]
    assert unfinished["name"] == "begun"
    assert unfinished.missing == "data, checkpoint, eval/base, eval/candidate, verdict.json, run.json"
    assert unfinished[["verdict", "created", "seconds", "smoke/quiz/acc"]].isna().all()


def test_no_runs_are_a_frame_with_columns(tmp_path: Path) -> None:
    frame = harness.runs(tmp_path)
    assert len(frame) == 0
    assert list(frame.columns) == ["run_id", "name", "verdict", "created", "seconds", "missing", "path"]


def test_samples_of_a_run_are_its_candidate_s(place: Path) -> None:
    frame = harness.samples(RUN_ID)
    assert len(frame) == 400
    assert frame.acc.mean() == pytest.approx(300 / 400)
    assert harness.samples(f"runs/{RUN_ID}/eval/base").acc.mean() == pytest.approx(200 / 400)
    first = frame.iloc[0]
    shown = ("task", "item", "doc_hash", "prompt", "response", "target", "acc")
    told = ["quiz", "item-0", "doc0000", "Question 0?", "answer 0", "yes", 0.0]
    assert first[list(shown)].tolist() == told
    assert frame[["slice", "failed", "broken"]].isna().all().all()
    flipped = {flip.item for flip in harness.compare(f"runs/{RUN_ID}/eval/base", RUN_ID).flips}
    assert flipped <= set(frame.doc_hash)


def test_samples_over_tasks_filters_repeats_and_failures(tmp_path: Path) -> None:
    """Two tasks: one with two filters, repeated answers and an item without a score; one of a domain."""
    long = "word " * 2000
    maths = [
        sample(0, 1.0, "exact_match", filter="strict", filtered_resps=["42"], arguments=[[long, {}]]),
        sample(0, 0.0, "exact_match", filter="flexible", filtered_resps=["it is 42"]),
        sample(1, 1.0, "exact_match", filter="strict", repeat=0, filtered_resps=[long]),
        sample(1, 0.0, "exact_match", filter="strict", repeat=1),
        sample(1, 1.0, "exact_match", filter="flexible", repeat=0),
        sample(1, 1.0, "exact_match", filter="flexible", repeat=1),
    ]
    for name in ("strict", "flexible"):
        lost = sample(2, 0.0, "exact_match", filter=name, metrics=[], resps=[], filtered_resps=[], failed="timed out")
        del lost["exact_match"]
        maths.append(lost)
    findings = [{"rule": "risk", "pass": False}, {"rule": "advice", "pass": True}, {"rule": "past", "pass": False}]
    told = [
        sample(0, 0.0, "response", doc={"id": "d-1", "slice": "crypto"}, findings=findings),
        sample(1, 1.0, "response", doc={"slice": "funds"}, findings=[]),
    ]
    folder = Folder({"maths": maths, "told": [row | {"metrics": ["response"]} for row in told]}).write(tmp_path / "a")
    frame = harness.samples(folder)
    assert list(frame.task) == ["maths"] * 3 + ["told"] * 2
    assert list(frame.columns[9:]) == ["exact_match,strict", "exact_match,flexible", "response,none"]
    own = frame[frame.task == "maths"]
    assert own["exact_match,strict"].tolist()[:2] == [1.0, 0.5]
    assert own["exact_match,flexible"].tolist()[:2] == [0.0, 1.0]
    assert own.response.tolist()[:2] == ["42", long], "whole, and of the first filter and sample"
    assert own.prompt.iloc[0] == long
    assert own["exact_match,strict"].isna().tolist() == [False, False, True]
    assert own.failed.iloc[2] == "timed out"
    assert own.response.isna().tolist() == [False, False, True]
    domain = harness.samples(folder, task="told")
    assert domain[["item", "slice", "broken"]].to_numpy().tolist() == [
        ["d-1", "crypto", "risk, past"],
        ["1", "funds", ""],
    ]
    assert "exact_match,strict" not in domain.columns


def test_samples_that_lm_eval_wrote_elsewhere(tmp_path: Path) -> None:
    folder = one_task(answers(3, 4), label="theirs").write_lm_eval(tmp_path / "theirs")
    frame = harness.samples(folder)
    assert frame.acc.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert frame.item.tolist() == [f"item-{n}" for n in range(4)]


def test_a_metric_over_all_items_leaves_their_answers_to_be_seen(tmp_path: Path) -> None:
    """lm-eval computes F1 from pairs: no item has a score of its own, and none has failed."""
    rows = [sample(n, [n, 1], "f1", resps=[[f"answer {n}"]]) for n in range(3)]
    made = Folder({"pairs": rows, "pairs_more": rows[:1]})
    for folder in (made.write(tmp_path / "ours"), made.write_lm_eval(tmp_path / "theirs")):
        frame = harness.samples(folder, task="pairs")
        assert frame.response.tolist() == ["answer 0", "answer 1", "answer 2"]
        assert frame.failed.isna().all()
        assert "f1" not in frame.columns


def test_edited_samples_are_refused(place: Path) -> None:
    path = place / "runs" / RUN_ID / "eval" / "candidate" / "samples_quiz.jsonl"
    path.write_text(path.read_text().replace("answer 7", "another answer"))
    with pytest.raises(EvidenceFault, match=r"samples_quiz.jsonl"):
        harness.samples(RUN_ID)


def test_comparison_has_the_rows_of_compare(place: Path) -> None:
    finished(place / "runs" / "another", right=280)
    names = (f"runs/{RUN_ID}/eval/base", RUN_ID)
    frame = harness.comparison(*names, "mine.yaml", ["another"])
    record = harness.compare(*names, "mine.yaml", ["another"])
    assert frame.against.tolist() == ["base", "another"]
    for row, metric in zip(
        frame.itertuples(), [*record.metrics, *(m for o in record.others for m in o.metrics)], strict=True
    ):
        for name in ("suite", "task", "slice", "metric", "n", "baseline", "candidate", "delta", "ci_low", "ci_high"):
            assert getattr(row, name) == getattr(metric, name), name
        assert (row.only_baseline_right, row.only_candidate_right) == (
            metric.only_baseline_right,
            metric.only_candidate_right,
        )
        assert metric.relative_drop is not None
        assert row.relative_drop == metric.relative_drop.drop
    assert frame[["forgetting", "transfer", "interval_doubt"]].isna().all().all()


def test_comparison_of_multiple_choice_and_of_scores(tmp_path: Path) -> None:
    four = [["q", "a"], ["q", "b"], ["q", "c"], ["q", "d"]]
    for name, right, mean in (("a", 60, 0.5), ("b", 40, 0.25)):
        choice = [row | {"arguments": four} for row in samples(answers(right, 100))]
        rated = [row | {"doc_hash": f"r{n}"} for n, row in enumerate(samples([mean] * 99 + [mean / 2], "score"))]
        Folder({"choice": choice, "rated": rated}, label=name).write(tmp_path / name)
    frame = harness.comparison(tmp_path / "a", tmp_path / "b").set_index("task")
    choice_row, rated_row = frame.loc["choice"], frame.loc["rated"]
    assert choice_row.forgetting_low <= choice_row.forgetting <= choice_row.forgetting_high
    assert choice_row.forgetting > 0
    assert choice_row.only_baseline_right == 20
    assert rated_row[["forgetting", "only_baseline_right"]].isna().all()
    assert rated_row.relative_drop == pytest.approx(0.5)


def test_comparison_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    before = one_task(answers(3, 4), label="a", contract="d" * 64).write(tmp_path / "a")
    after = one_task(answers(3, 4), label="b").write(tmp_path / "b")
    faults = harness.compare(before, after).faults
    assert faults
    with pytest.raises(EvidenceFault) as caught:
        harness.comparison(before, after)
    assert all(fault in str(caught.value) for fault in faults)


def test_curves_of_finished_and_unfinished_trainings(place: Path) -> None:
    frame = harness.curves(RUN_ID)
    assert frame.to_dict("list") == {key: [row[key] for row in CURVE] for key in CURVE[0]}
    assert frame.step.dtype == "int64"
    unfinished = place / "runs" / "unfinished"
    write_curve(unfinished / ".training")
    with (unfinished / ".training" / "train.jsonl").open("a") as file:
        file.write('{"step": 4.0, "lo')
    assert harness.curves(unfinished).step.tolist() == [1, 2, 3]
    (place / "runs" / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no train.jsonl"):
        harness.curves("empty")


def test_without_pandas_the_error_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    calls: list[Callable[[], object]] = [
        harness.runs,
        lambda: harness.samples(RUN_ID),
        lambda: harness.comparison(RUN_ID, RUN_ID),
        lambda: harness.curves(RUN_ID),
    ]
    for call in calls:
        with pytest.raises(MissingDependency, match=r"tuning-harness\[notebook\]"):
            call()
    assert harness.gate(f"runs/{RUN_ID}/eval/base", RUN_ID, "mine.yaml").verdict == "PASS"


# The page.


def test_the_code_of_the_page_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Block after block in one namespace, as a reader would type them; training and serving are replaced."""
    called = without_model(monkeypatch)
    write_rows(place / "rows.jsonl", ROWS)
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(called) == 1
    printed = capsys.readouterr().out
    assert "PASS finance_disclaimer-" in printed
    assert "no_such_run" in printed
    assert len(names["runs"]) == 2
    assert len(names["answers"]) == 400
    assert len(names["curve"]) == len(CURVE)
    assert names["dataset"].rows == len(ROWS)
    assert (place / "decided" / "verdict.json").is_file()


@pytest.mark.parametrize("function", ["runs", "samples", "comparison"])
def test_the_page_explains_every_column(function: str, place: Path) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "runs": harness.runs,
        "samples": lambda: harness.samples(RUN_ID),
        "comparison": lambda: harness.comparison(f"runs/{RUN_ID}/eval/base", RUN_ID),
    }
    page = PAGE.read_text(encoding="utf-8")
    section = page.split(f"### `{function}`\n")[1].split("\n##")[0]
    documented = set(re.findall(r"`(\w+)`", section))
    documented |= {f"{name}_{end}" for name in ("forgetting", "transfer") for end in ("low", "high")}
    metrics = {"smoke/quiz/acc", "delta/smoke/quiz/acc", "acc"}
    assert set(calls[function]().columns) - metrics <= documented


def test_the_page_has_the_signatures() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in FUNCTIONS:
        parameters = inspect.signature(getattr(harness, name)).parameters.values()
        plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        written = str(inspect.Signature(plain)).replace("'", '"')
        assert f"`{name}{written}`" in page, f"{name}{written}"
