"""The audit: every row is either kept or quarantined with its reasons, and the counts add up.

Rows stream through the filters in batches and wait in a temporary file. Duplicates, mix and split are decided on
sketches and numbers. Memory holds a few batches, and a few hundred bytes for each row.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.config.data import AuditConfig, DataConfig
from harness.core.console import plural
from harness.core.errors import DataError, MissingDependency
from harness.core.layout import AUDIT
from harness.core.store import sha256_json
from harness.data.decontaminate import Decontamination
from harness.data.filtering import FilterChain
from harness.data.filters.protocol import Filter
from harness.data.patterns import PatternCounter
from harness.data.row import DataRow
from harness.data.semantic import semantic_filters
from harness.data.settings import action_of, filters_of, section
from harness.data.sources import Origin, find_sources, require_usable
from harness.data.staging import MixPlan, StagedRows
from harness.data.tables import QUARANTINE, TRAIN, VALIDATION, write_json_lines, write_parquet
from harness.data.tally import broken_limits, masked
from harness.records.stages import Dataset, FilterFinding, SourceCount

CARD = "data_card.md"
CONFLICTS = "conflicts.jsonl"


def write_card(record: Dataset, config: AuditConfig, out: Path) -> None:
    """Writes data_card.md: the rows, their licences, and what was found. The same record gives the same bytes."""
    (out / CARD).write_text("\n".join(card_lines(record, config)) + "\n", encoding="utf-8")


def card_lines(record: Dataset, config: AuditConfig) -> Iterator[str]:
    quarantined = sum(sum(source.quarantined.values()) for source in record.sources)
    kept = record.rows + record.validation_rows
    yield from ("# Data card", "", f"{plural(kept, 'row')} kept, {quarantined} quarantined.", "")
    if record.validation_rows:
        yield from (f"Set aside for validation: {plural(record.validation_rows, 'row')} of these.", "")
    yield from _composition(record, kept)
    yield from _limits(record)
    yield from _findings(record)
    yield from _patterns(record)
    yield from _digests(record)


def _composition(record: Dataset, kept: int) -> Iterator[str]:
    yield "## Composition"
    yield ""
    yield "| source | role | licence | read | kept | quarantined | share of the mix | origin |"
    yield "| --- | --- | --- | ---: | ---: | --- | ---: | --- |"
    for s in record.sources:
        out = ", ".join(f"{code}: {n}" for code, n in s.quarantined.items()) or "0"
        share = f"{s.kept / kept:.1%}" if kept else "0%"
        origin = cell(s.origin or s.path)
        yield f"| {cell(s.source)} | {s.role} | {cell(s.licence)} | {s.read} | {s.kept} | {out} | {share} | {origin} |"
    yield ""


def _limits(record: Dataset) -> Iterator[str]:
    if record.broken_limits:
        yield from ("## Broken limits", "", *(f"- {cell(broken)}" for broken in record.broken_limits), "")


def _findings(record: Dataset) -> Iterator[str]:
    yield from ("## Findings", "", "Rows found by each filter, kept or not. Several filters may find the same row.", "")
    yield from ("| filter | action | rows | by source | kinds |", "| --- | --- | ---: | --- | --- |")
    for found in record.findings:
        kinds, sources = _counts(found.kinds), _counts(found.by_source)
        yield f"| {cell(found.code)} | {found.action} | {found.rows} | {sources} | {kinds} |"
    yield ""
    for found in record.findings:
        yield from _examples(found)
    if record.conflicts:
        have = "question has" if record.conflicts == 1 else "questions have"
        yield f"{record.conflicts} {have} several different answers: see {CONFLICTS}."
        yield ""


def _examples(found: FilterFinding) -> Iterator[str]:
    if found.examples:
        yield from (f"Examples of {cell(found.code)} (addresses and numbers masked):", "")
        yield from (*(f"- {cell(example)}" for example in found.examples), "")


def _patterns(record: Dataset) -> Iterator[str]:
    if record.patterns:
        yield from ("## Patterns", "", *(f"- {cell(line)}" for line in record.patterns), "")


def _digests(record: Dataset) -> Iterator[str]:
    yield from ("## Digests", "")
    yield f"Decontaminated against {plural(record.evaluation_items, 'evaluation item')}"
    yield from (f"(digest {record.decontaminated_against}).", "")
    if record.covered:
        yield from (f"Items by task: {_counts(record.covered)}.", "")
    yield from (*(f"- {cell(s.source)}: {s.sha256}" for s in record.sources), "")
    yield f"Digest of the rows: {record.sha256}"
    if record.validation_sha256:
        yield f"Digest of the validation rows: {record.validation_sha256}"
    if record.notes:
        yield from ("", "## Not covered", "", *(f"- {cell(note)}" for note in record.notes))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{cell(name) or 'unnamed'}: {n}" for name, n in counts.items()) or "–"


def cell(text: str) -> str:
    """Text from data as one line of Markdown, escaped so that it starts no column, tag, link or emphasis."""
    line = "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
    for sign in "\\`*_[]|<>":
        line = line.replace(sign, f"\\{sign}")
    return line


EvaluationItem = dict[str, Any]


def audit(
    data: DataConfig,
    config: AuditConfig,
    items: Sequence[EvaluationItem],
    out: Path,
    hub_dir: Path | None = None,
    json_lines: bool = False,
    origins: Sequence[Origin] | None = None,
) -> Dataset:
    """Audits all sources against the behaviours and the evaluation `items` of the run, and writes the result to `out`.

    `origins` are the sources as `usable_sources` returns them, if that was done before. `json_lines` also writes
    kept.jsonl (in the order of the sources) and quarantine.jsonl. Raises DataError for malformed rows (unless they go
    to the quarantine), for a mix that cannot be made, and when no row is left.
    """
    _require_installed()
    if origins is None:
        origins = usable_sources(data, config, hub_dir)
    decontamination = Decontamination(items, section("decontaminate", config.decontaminate))
    with tempfile.TemporaryDirectory(prefix=".audit-", dir=out) as folder:
        staged = StagedRows(data, config, filter_chain(config, decontamination, data, items), Path(folder))
        with closing(staged):
            staged.stage(origins)
            plan = staged.plan()
            if not plan.train:
                raise DataError(f"no row is left to train on: {staged.why_empty(plan)}")
            written = _Written(staged, plan)
            written.write(out, json_lines)
            record = written.record(origins, items)
    record.save(out / AUDIT)
    write_card(record, config, out)
    return record


def usable_sources(data: DataConfig, config: AuditConfig, hub_dir: Path | None = None) -> list[Origin]:
    """The sources with their files. Raises DataError that lists missing files and licences that forbid the use."""
    origins = find_sources(data, hub_dir)
    require_usable(origins, section("licences", config.licences))
    return origins


def _require_installed() -> None:
    """Raises MissingDependency for what every audit needs. Filters check for themselves what they need."""
    missing = next((package for package in ("pyarrow", "rensa") if find_spec(package) is None), None)
    if missing:
        raise MissingDependency(missing, "the audit", "data")


def filter_chain(
    config: AuditConfig, decontamination: Decontamination, data: DataConfig, items: Sequence[EvaluationItem] = ()
) -> FilterChain:
    """Both tiers of decontamination, then the configured filters. Raises ConfigError with every error in settings."""
    filters = [(filter_, action_of(filter_.code.split(" ")[0], config)) for filter_ in filters_of(config, data)]
    first: list[tuple[Filter, str]] = [(decontamination, "drop"), *semantic_filters(items, config.semantic)]
    by_source = {name: source.actions for name, source in data.sources.items()}
    return FilterChain([*first, *filters], section("dedupe", config.dedupe), by_source)


_NOTED = 20


def _lines_of(noted: Counter[str]) -> list[str]:
    """How a source was read, then what of its rows was not, the commonest first."""
    said = [what for what, count in noted.items() if not count]
    counted = [(what, count) for what, count in noted.most_common() if count]
    lines = [f"{plural(count, 'row')}: {what} is not read" for what, count in counted[:_NOTED]]
    rest = [f"{len(counted) - _NOTED} further keys are not read"] if len(counted) > _NOTED else []
    return [*said, *lines, *rest]


class _Written:
    """Writes each row to the file that the plan names, and counts it."""

    def __init__(self, staged: StagedRows, plan: MixPlan):
        self._staged, self._plan = staged, plan
        self._kept: Counter[str] = Counter()
        self._quarantined: Counter[tuple[str, str]] = Counter()
        self._parts: dict[str, tuple[int, str]] = {}
        self._patterns = PatternCounter(section("patterns", staged.config.patterns))

    def write(self, out: Path, json_lines: bool) -> None:
        staged, plan = self._staged, self._plan
        self._parts[TRAIN] = write_parquet(self._counted(staged.kept(plan, plan.train)), out / TRAIN, ("flags",))
        if plan.validation:
            rows = self._counted(staged.kept(plan, plan.validation))
            self._parts[VALIDATION] = write_parquet(rows, out / VALIDATION, ("flags",))
        write_parquet(self._counted_out(staged.quarantined(plan)), out / QUARANTINE, ("reasons",))
        if plan.found.conflicts:
            write_json_lines(staged.conflicts(plan), out / CONFLICTS)
        if json_lines:
            write_json_lines(staged.kept(plan, sorted([*plan.train, *plan.validation])), out / "kept.jsonl")
            write_json_lines(staged.quarantined(plan), out / "quarantine.jsonl")
        for name in (QUARANTINE, CONFLICTS, "kept.jsonl", "quarantine.jsonl"):  # rows as they came, perhaps of persons
            if (out / name).is_file():
                (out / name).chmod(0o600)

    def record(self, origins: Sequence[Origin], items: Sequence[EvaluationItem]) -> Dataset:
        """The record of the audit. Raises RuntimeError, a defect of the harness, when a row is unaccounted for."""
        read = len(self._staged.rows) + len(self._staged.malformed) + len(self._staged.left_out)
        if self._kept.total() + self._quarantined.total() != read:
            raise RuntimeError(
                f"{read} rows were read, {self._kept.total()} kept and {self._quarantined.total()} quarantined"
            )
        findings = self._staged.findings(self._plan)
        limits = self._staged.config.limits
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
            broken_limits=broken_limits(self._staged.tally.rows_of, read, limits.max_rows, limits.max_share),
        )

    def _notes(self) -> list[str]:
        """What the audit did not check: one sentence each."""
        skipped = self._plan.found.skipped
        were = "pair of rows was" if skipped == 1 else "pairs of rows were"
        crowded = f"{skipped} {were} not compared as near-duplicates, because these rows resemble many others"
        unread = [f"source {name}: {line}" for name, noted in self._staged.noted.items() for line in _lines_of(noted)]
        return [*unread, *self._plan.notes, *self._staged.filters.notes, *([crowded] if skipped else [])]

    def _counted(self, rows: Iterator[DataRow]) -> Iterator[DataRow]:
        for row in rows:
            self._kept[row["source"]] += 1
            self._patterns.update([row])
            yield row

    def _counted_out(self, rows: Iterator[DataRow]) -> Iterator[DataRow]:
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
