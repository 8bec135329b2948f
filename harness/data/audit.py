"""The audit: every row that enters is either kept or quarantined with its reasons; the counts add up.

Rows stream through the filters in batches and lie in a scratch file meanwhile; duplicates, mix and split are decided
on sketches and numbers. Memory holds a few batches and some hundred bytes a row.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.config import AuditConfig, DataConfig
from harness.data.card import write_card
from harness.data.decontaminate import Decontamination
from harness.data.filters.judgement import Row
from harness.data.judging import Judge
from harness.data.patterns import PatternCounter
from harness.data.room import Plan, Room
from harness.data.settings import action_of, filters_of, section
from harness.data.sources import Origin, find_sources, require_usable
from harness.data.tables import QUARANTINE, TRAIN, VALIDATION, write_json_lines, write_parquet
from harness.data.tally import broken_limits, masked
from harness.errors import DataError, MissingDependency
from harness.records import Dataset, SourceCount
from harness.store import sha256_json

Item = dict[str, Any]
CONFLICTS = "conflicts.jsonl"


def audit(
    data: DataConfig,
    config: AuditConfig,
    items: Sequence[Item],
    out: Path,
    hub_dir: Path | None = None,
    json_lines: bool = False,
) -> Dataset:
    """Audits all sources against the behaviours and against the evaluation `items` of the run; writes into `out`.

    `json_lines` also writes kept.jsonl (in the order of the sources) and quarantine.jsonl. Raises DataError for
    malformed rows (unless they are to be quarantined), for a mix that cannot be made, and when no row is left.
    """
    _require_installed()
    origins = find_sources(data, hub_dir)
    require_usable(origins, section("licences", config.licences))
    decontamination = Decontamination(items, section("decontaminate", config.decontaminate))
    with tempfile.TemporaryDirectory(prefix=".audit-", dir=out) as folder:
        room = Room(data, config, judge_of(config, decontamination, data), Path(folder))
        with closing(room):
            room.fill(origins)
            plan = room.plan()
            if not plan.train:
                raise DataError("no row is left to train on: " + room.why_empty(plan))
            written = _Written(room, plan)
            written.write(out, json_lines)
            record = written.record(origins, items)
    record.save(out / "audit.json")
    write_card(record, config, out)
    return record


def _require_installed() -> None:
    """Raises MissingDependency for what every audit needs; filters tell what they need themselves."""
    missing = next((package for package in ("pyarrow", "rensa") if find_spec(package) is None), None)
    if missing:
        raise MissingDependency(missing, "the audit", "data")


def judge_of(config: AuditConfig, decontamination: Decontamination, data: DataConfig) -> Judge:
    """The configured filters, after decontamination; raises ConfigError with every fault of their settings."""
    filters = [(filter_, action_of(filter_.code.split(" ")[0], config)) for filter_ in filters_of(config, data)]
    first = (decontamination, "drop")
    by_source = {name: source.actions for name, source in data.sources.items()}
    return Judge([first, *filters], section("dedupe", config.dedupe), by_source)


class _Written:
    """Writes the rows where the plan wants them, and counts each as it is written."""

    def __init__(self, room: Room, plan: Plan):
        self._room, self._plan = room, plan
        self._kept: Counter[str] = Counter()
        self._quarantined: Counter[tuple[str, str]] = Counter()
        self._parts: dict[str, tuple[int, str]] = {}
        self._patterns = PatternCounter(section("patterns", room.config.patterns))

    def write(self, out: Path, json_lines: bool) -> None:
        room, plan = self._room, self._plan
        self._parts[TRAIN] = write_parquet(self._counted(room.kept(plan, plan.train)), out / TRAIN, ("flags",))
        if plan.validation:
            rows = self._counted(room.kept(plan, plan.validation))
            self._parts[VALIDATION] = write_parquet(rows, out / VALIDATION, ("flags",))
        write_parquet(self._counted_out(room.quarantined(plan)), out / QUARANTINE, ("reasons",))
        if plan.found.conflicts:
            write_json_lines(room.conflicts(plan), out / CONFLICTS)
        if json_lines:
            write_json_lines(room.kept(plan, sorted([*plan.train, *plan.validation])), out / "kept.jsonl")
            write_json_lines(room.quarantined(plan), out / "quarantine.jsonl")

    def record(self, origins: Sequence[Origin], items: Sequence[Item]) -> Dataset:
        """The record; an internal error when a row is unaccounted for."""
        read = len(self._room.rows) + len(self._room.malformed)
        if self._kept.total() + self._quarantined.total() != read:
            raise RuntimeError(
                f"{read} rows were read, {self._kept.total()} kept and {self._quarantined.total()} quarantined"
            )
        findings = self._room.findings(self._plan)
        limits = self._room.config.limits
        validation = self._parts.get(VALIDATION, (0, ""))
        return Dataset(
            rows=self._parts[TRAIN][0],
            sha256=self._parts[TRAIN][1],
            sources=[self._count(origin) for origin in origins],
            decontaminated_against=sha256_json(items),
            evaluation_items=len(items),
            covered=dict(Counter(str(item.get("task") or "") for item in items)),
            validation_rows=validation[0],
            validation_sha256=validation[1],
            findings=findings,
            conflicts=len(self._plan.found.conflicts),
            patterns=[masked(pattern.sentence()) for pattern in self._patterns.report()],
            notes=self._notes(),
            broken_limits=broken_limits(self._room.tally.rows_of, read, limits.max_rows, limits.max_share),
        )

    def _notes(self) -> list[str]:
        """What the audit did not look at, in words."""
        skipped = self._plan.found.skipped
        crowded = f"{skipped} pairs of rows that resemble many others were not compared as near-duplicates"
        return [*self._room.judge.notes, *([crowded] if skipped else [])]

    def _counted(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            self._kept[row["source"]] += 1
            self._patterns.update([row])
            yield row

    def _counted_out(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            self._quarantined[row["source"], row["reasons"][0].split(":")[0]] += 1
            yield row

    def _count(self, origin: Origin) -> SourceCount:
        out = {code: n for (source, code), n in sorted(self._quarantined.items()) if source == origin.name}
        kept = self._kept[origin.name]
        return SourceCount(
            source=origin.name,
            path=origin.shown,
            licence=origin.licence,
            role=origin.config.role,
            sha256=origin.digest(),
            read=kept + sum(out.values()),
            kept=kept,
            quarantined=out,
            origin=origin.config.origin or origin.config.hub or "",
        )
