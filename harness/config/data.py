"""Configuration of sources, mix and audit; part of config.py, which says how it is validated."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.config.group import Count, Group, Positive, Share

Column = Literal["instruction", "input", "output", "topic", "id"]
Format = Literal[
    "auto", "triples", "prompt_response", "question_answer", "messages", "sharegpt", "oasst", "self_instruct"
]


class SourceConfig(Group):
    """Rows of one origin: a file, a folder of files, or a hub dataset (`hub`; a `path` given beside it is its copy).

    `role` replay marks general data mixed in against forgetting. `columns` names the file's own columns, `fields`
    those of a CSV or TSV without a header line; `defaults` fills columns that are absent or empty. `actions` replaces
    the audit's by filter, where people have looked through the source (`actions: {personal_data: flag}`).
    `rows` or `weight` say how much of it the mix takes (see MixConfig).
    """

    path: str | None = None
    hub: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    split: str = "train"
    format: Format = "auto"
    licence: str | None = None
    origin: str | None = None
    role: Literal["domain", "replay"] = "domain"
    limit: Count | None = None
    columns: dict[Column, str] = {}
    fields: list[str] = []
    defaults: dict[Column, str] = {}
    actions: dict[str, Literal["drop", "redact", "flag"]] = {}
    rows: Count | None = None
    weight: Positive | None = None

    @model_validator(mode="after")
    def _some_origin(self) -> "SourceConfig":
        if self.path is None and self.hub is None:
            raise ValueError("give a path (file or folder) or hub (a dataset id)")
        if self.rows is not None and self.weight is not None:
            raise ValueError("give rows or weight, not both")
        return self


class MixConfig(Group):
    """How much of each source is trained on.

    A source's `rows` is its exact count; `weight` its part of `rows` (of as many as the smallest source allows where
    `rows` is not given). Sources that name neither are taken whole, but for replay sources beside domain sources:
    together they make up the share `replay` of the result, or all their rows with `replay: all`.
    """

    rows: Count | None = None
    replay: Annotated[float, Field(ge=0, lt=1)] | Literal["all"] = 0.05
    sampling: Literal["random", "first", "by_topic"] = "random"


class DataConfig(Group):
    """The sources and how they are mixed. `validation` is the share of rows set aside, whole clusters at a time."""

    sources: dict[str, SourceConfig]
    allow_unlicensed: list[str] = []
    mix: MixConfig = MixConfig()
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: int = 0

    @field_validator("sources")
    @classmethod
    def _some_source(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        if not sources:
            raise ValueError("name at least one source")
        return sources

    @model_validator(mode="after")
    def _weights_for_all(self) -> "DataConfig":
        weighted = [name for name, source in self.sources.items() if source.weight is not None]
        bare = [n for n, s in self.sources.items() if s.weight is None and s.rows is None]
        if weighted and bare:
            raise ValueError(f"give every source a weight or rows, or none: {', '.join(bare)} has neither")
        if self.mix.rows is not None and not weighted:
            raise ValueError("mix.rows is the total that weights share out: give sources.<name>.weight")
        return self


class BehaviorRule(Group):
    """A behaviour that rows are held to: those of the named sources and topics, or all where none is named."""

    name: str
    sources: list[str] = []
    topics: list[str] = []


class LimitConfig(Group):
    """What the audit tolerates, by reason code: rows found (kept or not) as a count or as a share of those read."""

    max_rows: dict[str, Annotated[int, Field(ge=0)]] = {}
    max_share: dict[str, Share] = {}


class AuditConfig(Group):
    """What happens to rows before training. `malformed: error` stops, `quarantine` sets the row aside.

    `filters`, `dedupe`, `decontaminate`, `licences`, `outliers` and `patterns` hold the settings of the classes that
    harness.data.settings names. A filter set to null is off. `workers` are processes
    of the local engine; on Ray its scheduler decides. Results depend neither on engine, workers nor batch_rows.
    """

    malformed: Literal["error", "quarantine"] = "error"
    behaviors: list[str | BehaviorRule] = []
    filters: dict[str, dict[str, Any] | None] = {}
    dedupe: dict[str, Any] = {}
    decontaminate: dict[str, Any] = {}
    licences: dict[str, Any] = {}
    outliers: dict[str, Any] = {}
    patterns: dict[str, Any] = {}
    limits: LimitConfig = LimitConfig()
    engine: Literal["local", "ray"] = "local"
    workers: Count = 1
    batch_rows: Count = 2000

    @property
    def rules(self) -> list[BehaviorRule]:
        return [BehaviorRule(name=rule) if isinstance(rule, str) else rule for rule in self.behaviors]
