"""Filters as the audit uses them: actions, conversations, behaviours, limits; the same rows on every engine."""

import json
import os
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.config.data import AuditConfig, BehaviorRule, DataConfig, SourceConfig
from harness.core.errors import ConfigError, EnvironmentFault, MissingDependency
from harness.data.audit import audit
from harness.data.dedupe import DedupeConfig
from harness.data.engine import filter_rows
from harness.data.filtering import FilterChain, judge_conversations
from harness.data.filters.behavior import BehaviorConflict, BehaviorConflictConfig
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.row import DataRow, from_turns
from harness.data.settings import FILTERS, config_class, filter_class, filters_of, setting_errors
from harness.data.tables import QUARANTINE, TRAIN, read_parquet, read_rows
from harness.records.stages import Dataset

DISCLAIMER = (
    "This is general information, not financial advice. Investments can lose value. "
    "Please speak to a licensed adviser before you invest."
)
WORDS = ("river", "stone", "garden", "window", "market", "letter", "summer", "engine", "forest", "bridge", "winter")


def sentence(seed: int, length: int = 9) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def row(seed: int, **values: Any) -> DataRow:
    return {
        "instruction": f"{sentence(seed)}?",
        "output": f"{sentence(seed + 10_000, 14)}.",
        "topic": "banking",
        **values,
    }


def run(folder: Path, rows: Sequence[DataRow], actions: dict[str, Any] | None = None, **config: Any) -> Dataset:
    """Audits these rows into the folder."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    source = SourceConfig(path=str(folder / "rows.jsonl"), licence="CC0-1.0", actions=actions or {})
    return audit(DataConfig(sources={"mine": source}), AuditConfig(**config), [], folder)


class Marked:
    """Finds the word 'mark' and masks it."""

    code = "marked"

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        return [self._judge(r) for r in rows]

    def _judge(self, row: DataRow) -> Judgement:
        if "mark" not in row["instruction"] + row["input"] + row["output"]:
            return CLEAN
        masked = {key: value.replace("mark", "****") for key, value in row.items()}
        return Judgement("a mark", masked, ("mark",))


class Failing:
    """Needs a package that is not there, or ends its process."""

    code = "failing"

    def __init__(self, fatal: bool):
        self._fatal = fatal

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        if self._fatal:
            os._exit(1)
        raise MissingDependency("nopackage", "the failing filter", "data")


@pytest.mark.parametrize(("fatal", "told"), [(False, "nopackage.*not installed"), (True, "died.*audit.workers")])
def test_what_a_worker_meets_is_told_here(tmp_path: Path, fatal: bool, told: str) -> None:
    filters = FilterChain([(Failing(fatal), "drop")], DedupeConfig())
    batch = [{"id": "1", "source": "s", "topic": "", "input": "", "instruction": "q", "output": "a"}]
    with pytest.raises(EnvironmentFault, match=told) as caught:
        list(filter_rows([batch] * 5, filters, "local", 2, tmp_path))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_resolves_with_its_configuration(name: str) -> None:
    config = config_class(name)
    assert "action" in config.model_fields
    assert callable(filter_class(name).judge)


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_travels_to_another_process(name: str) -> None:
    values: dict[str, Any] = {"name": "disclaimer"} if name == "behavior" else {}
    made = filter_class(name)(config_class(name)(**values))
    clean = [{"id": "1", "source": "s", "topic": "banking", "input": "", "instruction": "How do I open an account?",
              "output": "Bring an identity card to any branch; it takes ten minutes."}]  # fmt: skip
    assert pickle.loads(pickle.dumps(made)).judge(clean) == [CLEAN]


def judged(row: DataRow, action: str) -> tuple[DataRow, list[tuple[str, str]]]:
    whole = {"id": "1", "source": "s", "topic": "", "input": "", "instruction": "q", "output": "a", **row}
    done = FilterChain([(Marked(), action)], DedupeConfig())([whole])
    return done.rows[0], [(o.action, o.reason) for o in done.outcomes[0]]


def test_actions() -> None:
    found = {"output": "the mark"}
    assert judged(found, "drop")[1] == [("drop", "a mark")]
    assert judged(found, "flag")[0]["output"] == "the mark"
    masked, outcomes = judged(found, "redact")
    assert masked["output"] == "the ****"
    assert outcomes == [("redact", "a mark")]
    assert judged({}, "drop")[1] == []


def test_conversations_are_judged_exchange_by_exchange() -> None:
    turns = from_turns(
        [("system", "s"), ("user", "mark 1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "mark 2")]
    )
    assert isinstance(turns, dict)
    masked, outcomes = judged(turns, "redact")
    assert outcomes == [("redact", "exchange 1: a mark; exchange 2: a mark")]
    assert [m["content"] for m in json.loads(masked["messages"])] == ["s", "**** 1", "a1", "q2", "**** 2"]
    assert "mark" not in json.dumps(masked)


def test_a_behaviour_is_checked_in_every_exchange() -> None:
    turns = from_turns([("user", "q1"), ("assistant", f"a1 {DISCLAIMER}"), ("user", "q2"), ("assistant", "a2")])
    assert isinstance(turns, dict)
    behavior = BehaviorConflict(BehaviorConflictConfig(name="disclaimer"))
    whole = {"id": "1", "source": "s", "topic": "investing", **turns}
    found = judge_conversations(behavior, [whole])[0]
    assert found.reason is not None
    assert found.reason.startswith("exchange 2: element_")
    assert "element_risk" in found.evidence


def test_behaviours_apply_to_sources_and_topics() -> None:
    broken = {"id": "1", "source": "bank", "topic": "investing", "instruction": "q", "input": "", "output": "Buy."}
    for rule, applies in (
        (BehaviorRule(name="disclaimer"), True),
        (BehaviorRule(name="disclaimer", sources=["bank"], topics=["investing"]), True),
        (BehaviorRule(name="disclaimer", sources=["clinic"]), False),
        (BehaviorRule(name="disclaimer", topics=["notes"]), False),
    ):
        data = DataConfig(sources={"bank": SourceConfig(path="x", licence="MIT")})
        (filter_,) = filters_of(AuditConfig(behaviors=[rule]), data)
        assert (filter_.judge([broken])[0].reason is not None) == applies


def test_a_flagged_row_is_kept_with_its_flag(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        [row(1), row(2, topic="investing")],
        behaviors=["disclaimer"],
        filters={"behavior": {"action": "flag"}},
    )
    flags = {r["topic"]: r["flags"] for r in read_parquet(tmp_path / TRAIN, ("flags",))}
    assert flags["banking"] == []
    assert flags["investing"][0].startswith("behavior disclaimer: element_")
    found = next(f for f in record.findings if f.code == "behavior disclaimer")
    assert (found.rows, found.action, found.by_source) == (1, "flag", {"mine": 1})


def test_personal_data_is_masked_in_what_is_trained_on_and_in_the_card(tmp_path: Path) -> None:
    mail = "jane.roe@hospital.org"
    rows = [row(1), row(2, output=f"Write to {mail} about the {sentence(3)}.")]
    run(tmp_path, rows, filters={"personal_data": {"action": "redact"}})
    (masked,) = [r for r in read_rows(tmp_path) if "Write to" in r["output"]]
    assert masked["output"].startswith("Write to <EMAIL_ADDRESS> about")
    written = "".join((tmp_path / name).read_text() for name in ("audit.json", "data_card.md"))
    assert mail not in written
    assert "EMAIL" in written


def test_a_source_that_people_looked_through_is_flagged_only(tmp_path: Path) -> None:
    rows = [row(1), row(2, output="Write to jane.roe@hospital.org about it.")]
    run(tmp_path, rows, actions={"personal_data": "flag"}, filters={"personal_data": {"action": "redact"}})
    assert any("jane.roe@hospital.org" in r["output"] for r in read_rows(tmp_path))


def test_all_reasons_of_a_row_are_told(tmp_path: Path) -> None:
    wrong = row(2, topic="investing", output="")
    wrong["output"] = "Sorry, I cannot help with that."
    run(tmp_path, [row(1), wrong], behaviors=["disclaimer"], filters={"quality": {"action": "drop"}})
    (quarantined,) = read_parquet(tmp_path / QUARANTINE, ("reasons",))
    assert [reason.split(":")[0] for reason in quarantined["reasons"]] == ["behavior disclaimer", "quality"]


@pytest.mark.parametrize(
    ("limits", "broken"),
    [
        ({"max_rows": {"duplicate": 2}}, []),
        ({"max_rows": {"duplicate": 1}}, ["duplicate: 2 rows found, at most 1 allowed"]),
        ({"max_share": {"duplicate": 0.4}}, ["duplicate: found in 50.00% of 4 rows, at most 40.00% allowed"]),
        ({"max_rows": {"behavior": 0}}, ["behavior: 1 row found, at most 0 allowed"]),
        ({"max_rows": {"behavior disclaimer": 0, "malformed": 0}}, ["behavior disclaimer: 1 row found"]),
    ],
)
def test_limits(tmp_path: Path, limits: dict[str, Any], broken: list[str]) -> None:
    rows = [row(1), row(1), row(1), row(2, topic="investing")]
    record = run(tmp_path, rows, behaviors=["disclaimer"], limits=limits)
    assert len(record.broken_limits) == len(broken)
    assert all(found.startswith(told) for found, told in zip(record.broken_limits, broken, strict=True))


@pytest.mark.parametrize(
    ("audit_values", "data_values", "told"),
    [
        ({"filters": {"toxicty": {}}}, {}, "audit.filters.toxicty: unknown filter. Did you mean 'toxicity'?"),
        ({"filters": {"toxicity": {"thresold": 1}}}, {}, "audit.filters.toxicity.thresold: unknown key."),
        ({"filters": {"behavior": {"action": "redact"}}}, {}, "audit.filters.behavior.action: "),
        ({"dedupe": {"jaccard": 7}}, {}, "audit.dedupe.jaccard: "),
        ({"decontaminate": {"x": 7}}, {}, "audit.decontaminate.x: unknown key."),
        ({"licences": {"intended_use": "fun"}}, {}, "audit.licences.intended_use: "),
        ({"patterns": {"top": 0}}, {}, "audit.patterns.top: "),
        ({"limits": {"max_rows": {"toxic": 0}}}, {}, "audit.limits.max_rows.toxic: unknown reason code."),
        (
            {},
            {"sources": {"a": {"actions": {"quality": "redact"}}}},
            "data.sources.a.actions.quality: the filter quality cannot redact; it can drop or flag",
        ),
        ({}, {"sources": {"a": {"actions": {"qualty": "drop"}}}}, "data.sources.a.actions.qualty: unknown filter."),
    ],
)  # fmt: skip
def test_faults_in_the_parts_settings_are_told_with_their_key(
    audit_values: dict[str, Any], data_values: dict[str, Any], told: str
) -> None:
    found = setting_errors(audit_values, data_values)
    assert len(found) == 1
    assert found[0].startswith(told)


def test_an_unknown_behaviour_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="disclamer"):
        run(tmp_path, [row(1)], behaviors=["disclamer"])


def mixed_rows() -> list[DataRow]:
    rows = [row(n) for n in range(40)]
    rows += [row(5), row(6, output=f"{row(6)['output']} indeed"), row(50, topic="investing"), row(51, output="a@b.org")]
    turns = [{"role": r, "content": f"{sentence(n)}"} for n, r in enumerate(["user", "assistant"] * 2, 300)]
    return [*rows, {"messages": turns}]


def outputs(folder: Path) -> dict[str, Any]:
    names = ("audit.json", "data_card.md")
    tables = {name: list(read_parquet(folder / name)) for name in (TRAIN, QUARANTINE)}
    return {**{name: (folder / name).read_text() for name in names}, **tables}


FULL: dict[str, Any] = {
    "behaviors": ["disclaimer"],
    "filters": {"personal_data": {"action": "redact"}, "quality": {"action": "drop"}},
}


def audited_by(folder: Path, settings: dict[str, Any], **config: Any) -> dict[str, Any]:
    folder.mkdir()
    (folder.parent / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in mixed_rows()))
    source = SourceConfig(path=str(folder.parent / "rows.jsonl"), licence="CC0-1.0")
    audit(DataConfig(sources={"mine": source}), AuditConfig(**settings, **config), [], folder)
    return outputs(folder)


def test_batches_and_processes_do_not_matter(tmp_path: Path) -> None:
    once = audited_by(tmp_path / "once", FULL)
    assert len(once[QUARANTINE]) >= 3
    assert audited_by(tmp_path / "small", FULL, batch_rows=3) == once
    assert audited_by(tmp_path / "two", FULL, batch_rows=7, workers=2) == once


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray sets options of its own that it deprecates
def test_ray_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine does: Ray gives up on a slow start, a full memory and a full disk."""
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "600")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    monkeypatch.setenv("RAY_local_fs_capacity_threshold", "1")
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    light = {"behaviors": ["disclaimer"], "filters": {"quality": {"action": "drop"}}}  # models load slowly, thrice
    once = audited_by(tmp_path / "once", light)
    assert audited_by(tmp_path / "ray", light, engine="ray", batch_rows=7) == once
