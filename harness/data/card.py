"""The data card: what the rows are, what was found in them, under which licences they stand."""

from collections.abc import Iterator
from pathlib import Path

from harness.config import AuditConfig
from harness.records import Dataset, Finding

CARD = "data_card.md"


def write_card(record: Dataset, config: AuditConfig, out: Path) -> None:
    """data_card.md; the same record gives the same bytes."""
    (out / CARD).write_text("\n".join(card_lines(record, config)) + "\n", encoding="utf-8")


def card_lines(record: Dataset, config: AuditConfig) -> Iterator[str]:
    quarantined = sum(sum(source.quarantined.values()) for source in record.sources)
    kept = record.rows + record.validation_rows
    yield from ("# Data card", "", f"{kept} rows kept, {quarantined} quarantined.", "")
    if record.validation_rows:
        yield from (f"Of these {record.validation_rows} are set aside for validation.", "")
    yield from _composition(record, kept)
    yield from _limits(record)
    yield from _findings(record)
    yield from _patterns(record)
    yield from _digests(record, config)


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
        yield from ("## Broken limits", "", *(f"- {cell(told)}" for told in record.broken_limits), "")


def _findings(record: Dataset) -> Iterator[str]:
    yield from ("## Findings", "", "Rows found by each filter, kept or not; a row may be found by several.", "")
    yield from ("| filter | action | rows | by source | kinds |", "| --- | --- | ---: | --- | --- |")
    for found in record.findings:
        kinds, sources = _counts(found.kinds), _counts(found.by_source)
        yield f"| {cell(found.code)} | {found.action} | {found.rows} | {sources} | {kinds} |"
    yield ""
    for found in record.findings:
        yield from _examples(found)
    if record.conflicts:
        yield f"{record.conflicts} questions have several different answers: see conflicts.jsonl."
        yield ""


def _examples(found: Finding) -> Iterator[str]:
    if found.examples:
        yield from (f"Examples of {cell(found.code)} (addresses and numbers masked):", "")
        yield from (*(f"- {cell(example)}" for example in found.examples), "")


def _patterns(record: Dataset) -> Iterator[str]:
    if record.patterns:
        yield from ("## Patterns", "", *(f"- {cell(line)}" for line in record.patterns), "")


def _digests(record: Dataset, config: AuditConfig) -> Iterator[str]:
    yield from ("## Digests", "")
    yield f"Decontaminated against {record.evaluation_items} evaluation items"
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
    """Text from data as one line of Markdown: nothing in it starts a column, a tag, a link or emphasis."""
    line = "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
    for sign in "\\`*_[]|<>":
        line = line.replace(sign, f"\\{sign}")
    return line
