"""lm-eval tasks for folders that hold only a behaviour and items: the YAML that others write by hand."""

from pathlib import Path

from harness.behavior.registry import behavior_folders, load_behavior
from harness.data.evaluation_items import read_items
from harness.data.task_files import ITEMS, exchange

YAML = """\
task: {name}
custom_dataset: !function harness.evaluate.domain.items
dataset_kwargs: {{file: {items}}}
test_split: test
output_type: generate_until
doc_to_text: !function harness.evaluate.domain.user_prompt
doc_to_target: "{{{{topic}}}}"
process_results: !function graded.process_results
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 256}}
metric_list:
{metrics}
metadata: {{version: 1.0}}
"""
METRIC = "  - {{metric: {name}, aggregation: mean, higher_is_better: true}}"
CODE = """\
from harness.evaluate.domain import grader

process_results = grader("{name}")
"""


def write_tasks(names: list[str], out: Path) -> None:
    """A folder below `out` for each named task that has a behaviour, items, and no lm-eval YAML of its own."""
    folders = behavior_folders()
    for name in names:
        if name in folders and not (folders[name] / f"{name}.yaml").is_file():
            _write(name, folders[name] / ITEMS, out / name)


def _write(name: str, items: Path, out: Path) -> None:
    out.mkdir(parents=True)
    metrics = "\n".join(METRIC.format(name=metric) for metric in metric_names(name, items))
    (out / f"{name}.yaml").write_text(YAML.format(name=name, items=f'"{items.resolve()}"', metrics=metrics))
    (out / "graded.py").write_text(CODE.format(name=name))


def metric_names(name: str, items: Path) -> list[str]:
    """The metrics that a behaviour reports on these items: whatever it says of an empty answer to each."""
    behavior = load_behavior(name)
    checks = [behavior.check(exchange(item)) for item in read_items(items)]
    return list(dict.fromkeys(metric for check in checks for metric in check.metrics))
