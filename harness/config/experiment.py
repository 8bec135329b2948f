"""One typed class a configuration group. `validate` reports every fault at once, before any work starts.

Composition (YAML, overrides) happens in compose.py; this file knows plain dictionaries only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from harness.config.data import AuditConfig as AuditConfig
from harness.config.data import BehaviorRule as BehaviorRule
from harness.config.data import DataConfig as DataConfig
from harness.config.data import LimitConfig as LimitConfig
from harness.config.data import MixConfig as MixConfig
from harness.config.data import SourceConfig as SourceConfig
from harness.config.gate import GateConfig as GateConfig
from harness.config.gate import RuleConfig as RuleConfig
from harness.config.group import Count as Count
from harness.config.group import Group as Group
from harness.config.group import Positive as Positive
from harness.config.group import Share as Share
from harness.config.train import LoraConfig as LoraConfig
from harness.config.train import TrainConfig as TrainConfig
from harness.core import plugins
from harness.core.errors import ConfigError, nearest

SHIPPED_TRACKERS = ("none", "wandb")


class ModelConfig(Group):
    """The pretrained model: a hub id or local folder (`path`), or a GGUF file inside a PyPI wheel."""

    path: str | None = None
    revision: str | None = None
    wheel: str | None = None
    gguf_file: str | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelConfig":
        if self.path is None and (self.wheel is None or self.gguf_file is None):
            raise ValueError("give model.path (hub id or folder), or model.wheel with model.gguf_file")
        return self


class TemplateConfig(Group):
    """The prompt template: a Jinja file (null: the model's own), and what ends a turn (null: found by rendering).

    `system_policy`: none adds no system message, fixed puts `system` first, required refuses a request without one.
    """

    name: str
    file: str | None
    system_policy: Literal["none", "fixed", "required"] = "none"
    system: str | None = None
    end_of_turn: str | None = None
    kwargs: dict[str, str | bool | int] = {}
    max_length: Count = 2048

    @model_validator(mode="after")
    def _one_policy(self) -> "TemplateConfig":
        if (self.system is not None) != (self.system_policy == "fixed"):
            raise ValueError("template.system is the text of template.system_policy=fixed: give both or neither")
        return self


class ServeConfig(Group):
    """The vLLM server. Port 0 picks a free one; only loopback hosts are accepted.

    `keep_in_training` leaves it up between the checkpoints that a training has evaluated; null: on a CPU, where it
    takes no memory from the training's device.
    """

    host: Literal["127.0.0.1", "localhost"] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_model_len: Count = 2048
    max_num_seqs: Count = 256
    kv_cache_gib: Count = 4
    gpu_memory_utilization: Share = 0.85
    enforce_eager: bool = True
    start_timeout_s: Positive = 600
    request_timeout_s: Positive = 1800
    concurrency: Count = 256
    keep_in_training: bool | None = None


class TaskConfig(Group):
    """One lm-eval task or group. None keeps the task's own setting; `limit` is a seeded sample."""

    name: str
    limit: Count | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    max_new_tokens: Count | None = None


class JudgeConfig(Group):
    """A model that judges answers by a task's rubric, for information; url null: `model` of the evaluation's server."""

    url: str | None = None
    model: str = "base"

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        if url and "@" in url.split("//", 1)[-1].split("/", 1)[0]:
            raise ValueError("holds a user or password, which would be written down; give the key in the environment")
        return url


class SuiteConfig(Group):
    """`skip` names tasks to go without: never left out silently, always by name. `aa` asks each model twice."""

    name: str
    tasks: list[TaskConfig]
    seed: int = 0
    skip: list[str] = []
    aa: bool = False
    judge: JudgeConfig | None = None

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, tasks: list[TaskConfig]) -> list[TaskConfig]:
        if not tasks:
            raise ValueError("name at least one task")
        names = [task.name for task in tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tasks named twice: {', '.join(twice)}")
        return tasks

    @model_validator(mode="after")
    def _some_left(self) -> "SuiteConfig":
        names = [task.name for task in self.tasks]
        if unknown := [name for name in self.skip if name not in names]:
            raise ValueError(f"skip names no task of the suite: {', '.join(unknown)}. {nearest(unknown[0], names)}")
        if set(names) <= set(self.skip):
            raise ValueError("skip leaves no task")
        return self


class TrackerConfig(Group):
    """Where runs are reported to. `kind` is wandb, none, or a tracker of an installed package (docs/plugins.md).

    `mode` online reports a training while it runs. `options` are the settings of an installed tracker, which reads
    them itself. They are written to the run folder: keys and passwords belong in the environment.
    """

    kind: str = "none"
    mode: Literal["offline", "online"] = "offline"
    project: str = "harness"
    samples_per_task: Annotated[int, Field(ge=0)] = 100
    options: dict[str, Any] = Field(default={}, exclude_if=lambda options: not options)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in SHIPPED_TRACKERS and kind not in (known := plugins.names("trackers", SHIPPED_TRACKERS)):
            raise ValueError(f"no such tracker is installed. {nearest(kind, known)}")
        return kind

    @model_validator(mode="after")
    def _options_of_a_plugin(self) -> "TrackerConfig":
        if self.options and self.kind in SHIPPED_TRACKERS:
            raise ValueError(f"tracker.options are for trackers of installed packages; {self.kind!r} takes none")
        return self


class Config(Group):
    """The whole experiment: what `config.yaml` of a run holds.

    `launcher`, `num_processes` and `accelerate_config` spread training over processes. `alpha` is the part of the
    trained change that is kept: 0 is the base model, 1 the trained one.
    """

    name: str
    domain_tasks: list[TaskConfig] = []
    hub_dir: str | None = None
    runs_dir: str = "runs"
    launcher: Literal["none", "accelerate"] = "none"
    num_processes: Count = 1
    accelerate_config: str | None = None
    alpha: Share = 1.0
    model: ModelConfig
    data: DataConfig
    audit: AuditConfig
    template: TemplateConfig
    train: TrainConfig
    serve: ServeConfig
    suite: SuiteConfig
    gate: GateConfig
    tracker: TrackerConfig

    @model_validator(mode="after")
    def _one_length(self) -> "Config":
        if self.template.max_length > self.serve.max_model_len:
            raise ValueError("template.max_length is larger than serve.max_model_len")
        if self.train.sequence_length > self.template.max_length:
            raise ValueError("train.sequence_length is larger than template.max_length")
        return self

    @model_validator(mode="after")
    def _launchable(self) -> "Config":
        if self.launcher == "none" and (self.num_processes > 1 or self.accelerate_config):
            raise ValueError("num_processes and accelerate_config need launcher=accelerate")
        if self.train.sequences_per_step % self.num_processes:
            raise ValueError("train.sequences_per_step is not a multiple of num_processes: the steps would differ")
        unknown = sorted(set(self.train.source_weights) - set(self.data.sources))
        if unknown:
            raise ValueError(f"train.source_weights names no source of data.sources: {', '.join(unknown)}")
        return self

    @property
    def tasks(self) -> list[TaskConfig]:
        """Domain tasks first, then the suite's."""
        named = {task.name for task in self.domain_tasks} | set(self.suite.skip)
        return [*self.domain_tasks, *(task for task in self.suite.tasks if task.name not in named)]


GroupT = TypeVar("GroupT", bound=BaseModel)


def validate(model: type[GroupT], values: Mapping[str, Any]) -> GroupT:
    """`values` as a `model`; raises ConfigError that lists every fault with its key and the mend."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_fault(model, dict(item)) for item in error.errors()) from None


def _fault(model: type[BaseModel], item: dict[str, Any]) -> str:
    location = list(item["loc"])
    key = ".".join(str(part) for part in location) or model.__name__
    if item["type"] == "extra_forbidden":
        owner = _class_at(model, location[:-1])
        hint = nearest(str(location[-1]), owner.model_fields) if owner else ""
        return f"{key}: unknown key. {hint}"
    if item["type"] == "missing":
        return f"{key}: missing; a value is needed"
    return f"{key}: {item['msg'].removeprefix('Value error, ')} (given: {_shown(item['input'])})"


def _shown(value: Any) -> str:
    return "a group of keys" if isinstance(value, Mapping | BaseModel) else repr(value)[:80]


def _class_at(model: type[BaseModel], location: list[Any]) -> type[BaseModel] | None:
    """The group class that the keys of `location` lead to, through lists, dictionaries and unions."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        else:
            current = next((a for a in reversed(get_args(current)) if a is not type(None)), None)
        if get_origin(current) is None and not isinstance(current, type):
            return None
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file, numbers read as Hydra reads them; raises ConfigError when it is broken."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError, ValueError) as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())}"]) from None


def resolve_path(path: str, *roots: Path) -> Path:
    """A relative path as seen from the working directory, else from the first of `roots` that has it."""
    for root in (Path.cwd(), *roots):
        if (candidate := root / Path(path).expanduser()).exists():
            return candidate.resolve()
    return (Path.cwd() / Path(path).expanduser()).resolve()
