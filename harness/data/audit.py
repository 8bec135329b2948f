"""The audit: every row that enters is either kept or quarantined with a reason; the counts add up."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.behavior.exchange import Exchange
from harness.behavior.registry import Behavior, load_behavior
from harness.config import AuditConfig, DataConfig
from harness.data.overlap import GramIndex, joined
from harness.data.sources import Row, Source, read_source, source_paths
from harness.errors import DataError
from harness.records import Dataset, SourceCount
from harness.store import sha256_json

Item = dict[str, Any]


@dataclass(frozen=True)
class Audited:
    """Kept rows in training order, quarantined rows with their reasons, and the record that counts both."""

    kept: list[Row]
    quarantined: list[Row]
    record: Dataset


def audit(data: DataConfig, config: AuditConfig, items: Sequence[Item]) -> Audited:
    """Audits all sources against the behaviours and against the evaluation `items` of the run.

    Raises DataError for malformed rows (unless they are to be quarantined) and when no row is left.
    """
    sources = [read_source(name, data.sources[name], path) for name, path in source_paths(data).items()]
    if config.malformed == "error":
        _require_well_formed(sources)
    rows = [row for source in sources for row in source.rows]
    reasons = _judge(rows, config, items)
    kept = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    quarantined = [{**row, "reasons": [r]} for row, r in zip(rows, reasons, strict=True) if r is not None]
    quarantined += [_malformed_row(source, m) for source in sources for m in source.malformed]
    if not kept:
        raise DataError("no row is left to train on: " + _why_empty(quarantined))
    random.Random(data.seed).shuffle(kept)
    record = Dataset(
        rows=len(kept),
        sha256=sha256_json(kept),
        sources=[_count(source, kept, quarantined) for source in sources],
        decontaminated_against=sha256_json(items),
        evaluation_items=len(items),
    )
    return Audited(kept, quarantined, record)


def _judge(rows: Sequence[Row], config: AuditConfig, items: Sequence[Item]) -> list[str | None]:
    """Why each row is quarantined, or None. The first reason found counts."""
    behaviors = {name: load_behavior(name) for name in config.behaviors}
    evaluation = GramIndex(config.ngram)
    for item in items:
        evaluation.add(item["id"], item["text"])
    seen = GramIndex(config.ngram)
    reasons: list[str | None] = []
    for row in rows:
        reason = (
            _contaminated(row, evaluation, config)
            or _contradicts(row, behaviors)
            or _duplicate(row, seen, config, behaviors)
        )
        if reason is None:
            seen.add(f"{row['source']}/{row['id']}", _own_text(row, behaviors))
        reasons.append(reason)
    return reasons


def _contaminated(row: Row, evaluation: GramIndex, config: AuditConfig) -> str | None:
    """Evaluation items are prompts, so it is the row's prompt that is compared with them."""
    match = evaluation.most_similar(joined([row["instruction"], row["input"]]))
    if match is None or match[1] < config.contamination_jaccard:
        return None
    return f"contamination: overlaps evaluation item {match[0]} (Jaccard {match[1]:.2f})"


def _contradicts(row: Row, behaviors: dict[str, Behavior]) -> str | None:
    """The row's own answer breaks a rule that the trained model is to keep."""
    exchange = Exchange(row["instruction"], row["output"], row["input"], row["topic"])
    for name, behavior in behaviors.items():
        broken = [finding for finding in behavior.check(exchange).findings if not finding.passed]
        if broken:
            return f"behavior {name}: {broken[0].rule}: expected {broken[0].expected}, found {broken[0].found}"
    return None


def _duplicate(row: Row, seen: GramIndex, config: AuditConfig, behaviors: dict[str, Behavior]) -> str | None:
    match = seen.most_similar(_own_text(row, behaviors))
    if match is None or match[1] < config.near_duplicate_jaccard:
        return None
    return f"duplicate: of row {match[0]} (Jaccard {match[1]:.2f})"


def _own_text(row: Row, behaviors: dict[str, Behavior]) -> str:
    """The row's text without the wordings that every answer must share."""
    answer = row["output"]
    for behavior in behaviors.values():
        answer = behavior.without(answer)
    return joined([row["instruction"], row["input"], answer])


def _require_well_formed(sources: Sequence[Source]) -> None:
    faults = [f"{s.path} line {m.line}: {m.reason}" for s in sources for m in s.malformed]
    if faults:
        shown = "\n".join(f"  - {fault}" for fault in faults[:10])
        more = f"\n  … and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise DataError(
            f"{len(faults)} malformed row{'s' if len(faults) > 1 else ''}:\n{shown}{more}\n"
            "Mend them, or set them aside with audit.malformed=quarantine."
        )


def _malformed_row(source: Source, malformed: Any) -> Row:
    reason = f"malformed: {source.path} line {malformed.line}: {malformed.reason}"
    empty = dict.fromkeys(("instruction", "input", "output", "topic"), "")
    identity = {"id": f"{source.name}-{malformed.line}", "source": source.name}
    return {**identity, **empty, "output": malformed.text, "reasons": [reason]}


def _count(source: Source, kept: Sequence[Row], quarantined: Sequence[Row]) -> SourceCount:
    codes = Counter(row["reasons"][0].split(":")[0] for row in quarantined if row["source"] == source.name)
    return SourceCount(
        source=source.name,
        path=source.config.path,
        licence=source.config.licence,
        role=source.config.role,
        sha256=source.sha256,
        read=len(source.rows) + len(source.malformed),
        kept=sum(row["source"] == source.name for row in kept),
        quarantined=dict(codes),
    )


def _why_empty(quarantined: Sequence[Row]) -> str:
    if not quarantined:
        return "the sources hold no rows"
    codes = Counter(row["reasons"][0].split(":")[0] for row in quarantined)
    return "all were quarantined (" + ", ".join(f"{code}: {n}" for code, n in codes.most_common()) + ")"


def write_audit(audited: Audited, out: Path) -> None:
    """train.parquet, quarantine.parquet, audit.json and data_card.md."""
    import pyarrow
    import pyarrow.parquet

    columns = ["id", "source", "topic", "instruction", "input", "output"]
    for name, rows, extra in (("train", audited.kept, []), ("quarantine", audited.quarantined, ["reasons"])):
        text = [(column, pyarrow.string()) for column in columns]
        schema = pyarrow.schema([*text, *((c, pyarrow.list_(pyarrow.string())) for c in extra)])
        table = pyarrow.Table.from_pylist([{c: row[c] for c in (*columns, *extra)} for row in rows], schema)
        pyarrow.parquet.write_table(table, out / f"{name}.parquet")
    audited.record.save(out / "audit.json")
    (out / "data_card.md").write_text(_card(audited))


def read_rows(folder: Path) -> list[Row]:
    """The rows of train.parquet, in training order."""
    import pyarrow.parquet

    rows: list[Row] = pyarrow.parquet.read_table(folder / "train.parquet").to_pylist()
    return rows


def _card(audited: Audited) -> str:
    record = audited.record
    lines = ["# Data card", "", f"{record.rows} rows kept, {len(audited.quarantined)} quarantined.", ""]
    lines += ["| source | role | licence | read | kept | quarantined |", "| --- | --- | --- | --- | --- | --- |"]
    for s in record.sources:
        out = ", ".join(f"{code}: {n}" for code, n in s.quarantined.items()) or "0"
        lines.append(f"| {s.source} | {s.role} | {s.licence} | {s.read} | {s.kept} | {out} |")
    lines += ["", f"Decontaminated against {record.evaluation_items} evaluation items"]
    lines += [f"(digest {record.decontaminated_against}).", "", f"Digest of the rows: {record.sha256}", ""]
    return "\n".join(lines)
