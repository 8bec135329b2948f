"""Resolves names: of a checkpoint (run, model folder, adapter folder, hub id, alias), and of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

from harness.checkpoint.adapter import ready_adapter
from harness.checkpoint.alias import registry_folder, require_promoted, resolved
from harness.checkpoint.merge import merged, reasons_to_merge
from harness.checkpoint.scaling import scaled_copy, split_alpha
from harness.config.experiment import ModelConfig, TemplateConfig
from harness.core.code_digest import code_digest
from harness.core.console import say
from harness.core.errors import DataError, EvidenceFault, UsageError, nearest
from harness.core.installed import version_of
from harness.core.layout import CANDIDATE, CONTRACT, EVALUATION, RunFolder
from harness.core.store import sha256_folder, sha256_json, stage
from harness.model.load import (
    adapter_config,
    cache_dir,
    is_adapter,
    load_tokenizer,
    local_model,
    require_safetensors,
    tokenizer_folder,
    weights_sha256,
)
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract, read_template
from harness.records.base import load
from harness.records.stages import Checkpoint, Evaluation


def resolve_checkpoint(name: str, model: ModelConfig, template: TemplateConfig, runs: Path) -> Checkpoint:
    """The checkpoint that `name` means; 'base' is the pretrained `model`.

    Raises UsageError when there is no such run, folder or hub id, and when nothing was promoted as the alias.
    """
    folder, base = locate(name, model, runs)
    return checkpoint(folder, model, template, base)


def locate(name: str, model: ModelConfig, runs: Path) -> tuple[Path, Path]:
    """The folder of a checkpoint and the folder of its base model (the same for a full model).

    NAME@ALPHA is the checkpoint scaled towards its base model: NAME@0.5 has half of the trained change.
    """
    name, alpha = split_alpha(name)
    folder = require_safetensors(_folder(name, model, runs).resolve())
    base = folder
    if is_adapter(folder):
        base = _base_of(folder, model)
        folder = ready_adapter(folder, base)
    if alpha == 1:
        return folder, base
    made = scaled_copy(folder, base if base != folder else local_model(model), alpha, model.dtype)
    return made, base if is_adapter(made) else made


def _folder(name: str, model: ModelConfig, runs: Path) -> Path:
    if name == "base":
        return local_model(model)
    name = resolved(name, registry_folder(runs))
    for folder in (Path(name), runs / name):
        if (run := RunFolder(folder)).is_run:
            return run.checkpoint
        if folder.is_dir():
            return folder
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).parent.is_dir():
        return local_model(ModelConfig(path=name, dtype=model.dtype))
    require_promoted(name, registry_folder(runs))
    known = [run.name for run in RunFolder.all_in(runs) if run.is_run]
    raise UsageError(_unknown(name, "run, checkpoint folder or hub id", known, runs))


def _unknown(name: str, kinds: str, known: Sequence[str], runs: Path) -> str:
    """The message for a name that stands for nothing."""
    return f"{name}: no such {kinds}. {nearest(name, known) if known else f'There are no runs in {runs}.'}"


def checkpoint(folder: Path, model: ModelConfig, template: TemplateConfig, base: Path | None = None) -> Checkpoint:
    """The record of a model or adapter folder. An adapter that cannot be served as one is merged into its base."""
    folder = folder.resolve()
    if not is_adapter(folder):
        return _record(folder, folder, template)
    base = base or _base_of(folder, model)
    folder = ready_adapter(folder, base)
    if reasons := reasons_to_merge(folder, base):
        whole = merged(folder, base, model.dtype, reasons)
        return _record(whole, whole, template)
    return _record(folder, base, template)


def _record(folder: Path, base: Path, template: TemplateConfig) -> Checkpoint:
    weights = weights_sha256(folder)
    return Checkpoint(
        path=str(folder),
        kind="adapter" if is_adapter(folder) else "full",
        base_path=str(base),
        weights_sha256=weights,
        base_sha256=weights if folder == base else weights_sha256(base),
        contract_sha256=contract_of(folder, base, template).digest,
    )


def contract_of(folder: Path, base: Path, template: TemplateConfig) -> Contract:
    """The contract saved with a checkpoint; without one, that of the configured template on its tokenizer.

    A contract that is made here is cached by content, as making it needs transformers.
    """
    if (folder / CONTRACT).is_file():
        return Contract.load(folder)
    tokenizer = tokenizer_folder(folder, base)
    inputs = {
        "template": [template.model_dump(), template.file and read_template(template.file)],
        "tokenizer": [sha256_folder(tokenizer, pattern) for pattern in ("*.json", "*.jinja", "*.model", "*.txt")],
        "versions": {name: version_of(name) for name in ("transformers", "tokenizers", "jinja2")},
        "code": code_digest("harness.prompt.make:make_contract", "harness.model.load:load_tokenizer"),
    }

    def work(target: Path) -> None:
        make_contract(template, load_tokenizer(tokenizer)).save(target)

    home = cache_dir() / "contracts"
    made, _ = stage(home, home / sha256_json(inputs)[:16] / "contract", "contract", inputs, work)
    return Contract.load(made)


def _require_same_weights(evaluation: Path) -> None:
    """Raises EvidenceFault when a run's candidate was evaluated with other weights than the run holds now."""
    run = RunFolder.of_evaluation(evaluation)
    if run is None or evaluation.name != CANDIDATE or not any(run.checkpoint.glob("*.safetensors")):
        return
    try:
        evaluated = load(Evaluation, evaluation / EVALUATION).weights_sha256
    except DataError as error:
        raise EvidenceFault(f"{evaluation / EVALUATION} is damaged: {error}") from None
    if weights_sha256(run.checkpoint) != evaluated:
        raise EvidenceFault(
            f"{run.path}: eval/{CANDIDATE} was made with other weights than those in checkpoint/. "
            f"Restore checkpoint/, or evaluate the present weights: harness evaluate {run.name}"
        )


def _base_of(adapter: Path, model: ModelConfig) -> Path:
    """The base model of an adapter: the folder that it names where that exists, else model.path if it is set, else the
    hub id that the adapter names, else the configured model.

    Says where the base model is not the one that the adapter names; `ready_adapter` refuses one that does not fit.
    """
    named = str(adapter_config(adapter).get("base_model_name_or_path") or "")
    if named and Path(named).is_dir():
        if model.path is not None and Path(model.path).is_dir() and not Path(model.path).samefile(named):
            say(f"· {adapter.name}: base model {named}, as the adapter names it (model.path is {model.path})")
        return Path(named)
    on_hub = named.count("/") == 1 and not named.startswith((".", "/", "~"))
    if on_hub and model.path is None:
        return local_model(ModelConfig(path=named, dtype=model.dtype))
    base = local_model(model)
    if named and named != model.path:
        say(f"· {adapter.name}: base model {base}, although the adapter names {named}; their tensors are compared")
    return base


def resolve_evaluation(name: str, runs: Path) -> Path:
    """The evaluation folder that `name` means: of a run's candidate or an alias, or an lm-eval output folder.

    Raises UsageError for an unknown name, DataError for a folder without an evaluation, EvidenceFault for a run whose
    weights have changed since.
    """
    name = resolved(name, registry_folder(runs))
    for folder in (Path(name), runs / name):
        for evaluation in (folder, RunFolder(folder).candidate):
            if (evaluation / EVALUATION).is_file():
                _require_same_weights(evaluation)
                return evaluation
        if folder.is_file() and folder.suffix == ".json":
            return folder
        if folder.is_dir() and any(folder.rglob("*.json")):
            return folder
        if folder.is_dir():
            raise DataError(f"{folder} holds no evaluation; make one with: harness evaluate {name}")
    require_promoted(name, registry_folder(runs))
    known = [run.name for run in RunFolder.all_in(runs) if run.evaluations.is_dir()]
    raise UsageError(_unknown(name, "run or evaluation folder", known, runs))
