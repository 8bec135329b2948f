"""The configuration of the sources, the mix and the audit: groups `data` and `audit`."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.config.group import Count, Group, Positive, Share

ColumnName = Literal["instruction", "input", "output", "topic", "id"]
Format = Literal[
    "auto", "triples", "prompt_response", "question_answer", "messages", "sharegpt", "oasst", "self_instruct"
]


class CsvConfig(Group):
    """How a table or a text file is written; what is null is found, and said where it is unusual."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Character between the columns of a CSV file, such as `;`."""

    encoding: str | None = None
    """Encoding of the file, such as `cp1252` or `utf-16`."""

    sheet: str | None = None
    """Sheet of an Excel workbook; null: the only one with rows."""


class SourceConfig(Group):
    """Rows of one origin: a file, a folder of files, or a dataset on the hub."""

    path: str | None = None
    """File or folder to read; a relative path is looked up in the working directory, then in the shipped files."""

    hub: str | None = None
    """Hub id (`owner/name`) of the dataset; with `path`, that local copy is read instead."""

    hub_config: str | None = None
    """Configuration of the hub dataset; null: its default."""

    revision: str | None = None
    """Commit, tag or branch of the hub dataset; null: the latest commit."""

    split: str = "train"
    """Split of the hub dataset to read."""

    format: Format = "auto"
    """Shape of a record; auto: recognised from its columns."""

    licence: str | None = None
    """Licence, as an SPDX identifier or a common name; required unless `data.allow_unlicensed` names the source."""

    origin: str | None = None
    """Where the rows come from, as the data card shows it; null: the hub id."""

    role: Literal["domain", "replay"] = "domain"
    """domain: rows that teach the new behaviour; replay: general rows mixed in against forgetting."""

    limit: Count | None = None
    """Largest number of rows to read; null: all."""

    columns: dict[ColumnName, str] = {}
    """Columns of the file by the row column that they fill, for a file with other column names."""

    fields: list[str] = []
    """Column names, in order, of a CSV or TSV file without a header line."""

    csv: CsvConfig = CsvConfig()
    """How text files are written, where that is not to be found out."""

    defaults: dict[ColumnName, str] = {}
    """Text for row columns that are absent or empty."""

    actions: dict[str, Literal["drop", "redact", "flag"]] = {}
    """What a filter does with the rows it finds in this source; replaces the filter's own `action`."""

    rows: Count | None = None
    """Exact number of rows in the mix; excludes `weight`."""

    weight: Positive | None = None
    """Share of this source in the mix, relative to the other weights; excludes `rows`."""

    @model_validator(mode="after")
    def _some_origin(self) -> "SourceConfig":
        if self.path is None and self.hub is None:
            raise ValueError("set path (a file or folder) or hub (a dataset id)")
        if self.rows is not None and self.weight is not None:
            raise ValueError("set rows or weight, not both")
        return self


class MixConfig(Group):
    """How much of each source is trained on.

    Sources with neither `rows` nor `weight` are taken whole, except replay sources: see `replay`.
    """

    rows: Count | None = None
    """Total number of rows, for exact counts and weights together; null: as many as the weights allow."""

    replay: Annotated[float, Field(ge=0, lt=1)] | Literal["all"] = 0.05
    """Share of replay rows in the mix, where no source has a weight; all: every replay row."""

    sampling: Literal["random", "first", "by_topic"] = "random"
    """How rows are chosen from a larger source: at random, the first ones, or at random with topic shares kept."""


class DataConfig(Group):
    """The sources and how they are mixed."""

    sources: dict[str, SourceConfig]
    """The sources by name."""

    allow_unlicensed: list[str] = []
    """Sources that may be used without a licence."""

    mix: MixConfig = MixConfig()
    """How much of each source is trained on."""

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of rows set aside for the validation loss; near-duplicates are never split."""

    seed: int = 0
    """Seed for choosing, setting aside and shuffling rows."""

    @field_validator("sources")
    @classmethod
    def _some_source(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        if not sources:
            raise ValueError("give at least one source")
        return sources

    @model_validator(mode="after")
    def _weights_for_all(self) -> "DataConfig":
        weighted = [name for name, source in self.sources.items() if source.weight is not None]
        bare = [n for n, s in self.sources.items() if s.weight is None and s.rows is None]
        if weighted and bare:
            raise ValueError(f"set weight or rows for every source, or for none: {', '.join(bare)} has neither")
        if self.mix.rows is not None and not weighted:
            raise ValueError("mix.rows is a total that weights divide: set sources.<name>.weight")
        return self


class BehaviorRule(Group):
    """A behaviour that the answers of some rows must show."""

    name: str
    """Domain task (a folder under `tasks/`) that defines the behaviour."""

    sources: list[str] = []
    """Sources that are checked; empty: all."""

    topics: list[str] = []
    """Topics that are checked; empty: all."""


class LimitConfig(Group):
    """What the audit tolerates; if a limit is exceeded, the audit ends with exit code 10."""

    max_rows: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Most rows that may have a reason code, kept or not."""

    max_share: dict[str, Share] = {}
    """Largest share of the rows read that may have a reason code, kept or not."""


class AuditConfig(Group):
    """What happens to rows before training."""

    malformed: Literal["error", "quarantine"] = "error"
    """A record that cannot be read as a row: error stops the audit, quarantine sets the record aside."""

    behaviors: list[str | BehaviorRule] = []
    """Behaviours that answers must show: names of domain tasks, or groups with `sources` and `topics`."""

    filters: dict[str, dict[str, Any] | None] = {}
    """Settings by filter; a filter that is absent or null is off."""

    dedupe: dict[str, Any] = {}
    """Settings of the search for duplicates."""

    decontaminate: dict[str, Any] = {}
    """Settings of the search for evaluation items among the rows."""

    semantic: Annotated[dict[str, Any] | Literal[False], Field(exclude_if=lambda given: given == {})] = {}
    """Settings of the search for evaluation items in other words; false: it is not made."""

    licences: dict[str, Any] = {}
    """The use of the model, and which licences that use allows."""

    outliers: dict[str, Any] = {}
    """Settings of the search for answers of unusual length."""

    patterns: dict[str, Any] = {}
    """Settings of the report on phrases that many answers share."""

    limits: LimitConfig = LimitConfig()
    """What the audit tolerates; if a limit is exceeded, the audit ends with exit code 10."""

    engine: Literal["local", "ray"] = "local"
    """What runs the filters: processes on this machine, or Ray; results are the same."""

    workers: Count = 1
    """Processes of the local engine; Ray decides by itself; results are the same."""

    batch_rows: Count = 2000
    """Rows that one process handles at a time, to bound memory; results are the same."""

    @property
    def rules(self) -> list[BehaviorRule]:
        return [BehaviorRule(name=rule) if isinstance(rule, str) else rule for rule in self.behaviors]
