"""Evaluation on the session's server: lm-eval's files, counts that add up, prompts that were checked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asking
import pytest
import tiny
from asking import tasks_of
from tiny import Served

from harness.config.experiment import Config, TaskConfig
from harness.core.errors import ConfigError, EvidenceFault, PromptMismatch
from harness.evaluate.tasks.load import load_tasks, seeded_samples
from harness.gate.comparison import compare
from harness.prompt.messages import user_text
from harness.prompt.render import Renderer
from harness.records.base import load
from harness.records.stages import Evaluation
from harness.results.evidence import read_evidence

pytestmark = pytest.mark.integration

DISCLAIMER, SMOKE = 12, 4
SMALL = (
    f"domain_tasks=[{{name: disclaimer, limit: {DISCLAIMER}, max_new_tokens: 12}}]",
    f"suite.tasks=[{{name: general_smoke, limit: {SMOKE}, max_new_tokens: 12}}]",
)
LEAVES = {"disclaimer": DISCLAIMER} | {
    f"general_smoke_{part}": SMOKE for part in ("knowledge", "arithmetic", "reading", "instructions")
}
GENERATIONS = DISCLAIMER + 2 * SMOKE
SCHEMA = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
HASHES = {"doc_hash", "prompt_hash", "target_hash"}
needs_hub = pytest.mark.skipif(not tiny.HUB.is_dir(), reason=f"no local copies of hub datasets in {tiny.HUB}")


def score(served: Served, config: Config, label: str, out: Path, renderer: Renderer | None = None) -> Evaluation:
    return asking.score(served, config, tasks_of(config), out, [label], renderer=renderer)[label]


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"samples_{task}.jsonl").read_text().splitlines()]


def arguments(row: dict[str, Any]) -> list[list[Any]]:
    """What each request of an item asked with; lm-eval's writer names the arguments, its results list them."""
    requests = row["arguments"]
    return [[*named.values()] for named in requests.values()] if isinstance(requests, dict) else requests


@pytest.fixture(scope="module")
def folders(served: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both models on the same small tasks."""
    out = tmp_path_factory.mktemp("eval")
    config = tiny.config(served.base, *SMALL)
    asking.score(served, config, tasks_of(config), out, ["base", "candidate"])
    return {label: out / label for label in ("base", "candidate")}


class TestFiles:
    @pytest.mark.parametrize("label", ["base", "candidate"])
    def test_samples_are_in_lm_evals_schema(self, folders: dict[str, Path], label: str) -> None:
        for task, count in LEAVES.items():
            rows = samples(folders[label], task)
            assert len(rows) == count
            for row in rows:
                assert set(row) >= SCHEMA | HASHES
                assert all(len(row[key]) == 64 for key in HASHES)
                assert set(row["metrics"]) <= set(row)
                assert row["resps"]
            assert len({row["doc_hash"] for row in rows}) == count

    def test_samples_are_shaped_as_lm_eval_writes_them(self, folders: dict[str, Path]) -> None:
        """Its own tools (and `datasets`) read requests by name and responses as text."""
        for task in LEAVES:
            for row in samples(folders["base"], task):
                assert set(row["arguments"]) == {f"gen_args_{n}" for n in range(len(row["resps"]))}
                assert isinstance(row["target"], str)
                assert all(isinstance(part, str) for resp in row["resps"] for part in _flat(resp))

    @pytest.mark.parametrize("label", ["base", "candidate"])
    def test_counts_add_up_and_every_prompt_was_checked(self, folders: dict[str, Path], label: str) -> None:
        record = load(Evaluation, folders[label] / "evaluation.json")
        assert {task: (i.asked, i.scored, i.failed) for task, i in record.tasks.items()} == {
            task: (count, count, 0) for task, count in LEAVES.items()
        }
        assert set(record.groups["general_smoke"]) == set(LEAVES) - {"disclaimer"}
        assert record.prompts_checked >= GENERATIONS
        scores = {(s.task, s.metric): s for s in record.scores if s.slice == "all"}
        assert scores["general_smoke", "acc"].n == 4 * SMOKE
        assert scores["general_smoke_knowledge", "acc"].n == SMOKE
        assert all(0 <= s.value <= 1 for s in record.scores)

    def test_each_answer_to_a_domain_task_says_which_rules_it_breaks(self, folders: dict[str, Path]) -> None:
        for row in samples(folders["base"], "disclaimer"):
            assert row["findings"]
            assert all(set(finding) == {"rule", "pass", "expected", "found"} for finding in row["findings"])
            broken = not all(finding["pass"] for finding in row["findings"])
            assert broken == any(row[metric] == 0.0 for metric in row["metrics"])

    def test_slices_add_up_to_the_whole(self, folders: dict[str, Path]) -> None:
        record = load(Evaluation, folders["base"] / "evaluation.json")
        parts = [s for s in record.scores if s.task == "disclaimer" and s.metric == "specificity"]
        (whole,) = (s for s in parts if s.slice == "all")
        slices = [s for s in parts if s.slice != "all"]
        assert sum(s.n for s in slices) == whole.n
        assert sum(s.n * s.value for s in slices) == pytest.approx(whole.n * whole.value)

    def test_results_hold_lm_evals_numbers_and_no_samples(self, folders: dict[str, Path]) -> None:
        results = json.loads((folders["base"] / "results.json").read_text())
        assert {"results", "versions", "configs", "n-shot", "higher_is_better", "chat_template"} <= set(results)
        assert "samples" not in results
        assert set(results["results"]) >= {*LEAVES, "general_smoke"}

    def test_prompts_in_the_samples_are_the_renderers(self, served: Served, folders: dict[str, Path]) -> None:
        for row in samples(folders["candidate"], "disclaimer"):
            (prompt, _settings) = arguments(row)[0]
            asked = user_text(row["doc"]["instruction"], row["doc"]["input"])
            assert served.renderer.encode(prompt) == served.renderer.prompt(tiny.user(asked))

    def test_both_sides_can_be_compared(self, folders: dict[str, Path]) -> None:
        comparison = compare(read_evidence(folders["base"]), read_evidence(folders["candidate"]))
        assert comparison.faults == []
        assert {m.task for m in comparison.metrics} == {*LEAVES, "general_smoke"}

    def test_the_models_answer_differently(self, folders: dict[str, Path]) -> None:
        base, candidate = (
            [row["resps"] for row in samples(folders[label], "disclaimer")] for label in ("base", "candidate")
        )
        assert base != candidate


def _flat(value: Any) -> list[Any]:
    return [part for item in value for part in _flat(item)] if isinstance(value, list) else [value]


class TestSampling:
    def test_the_same_seed_asks_the_same_items(self, served: Served, folders: dict[str, Path], tmp_path: Path) -> None:
        again = score(served, tiny.config(served.base, *SMALL), "base", tmp_path)
        assert again.prompts_checked == load(Evaluation, folders["base"] / "evaluation.json").prompts_checked
        for task in LEAVES:
            both = (folders["base"], tmp_path / "base")
            before, now = ([row["doc_id"] for row in samples(folder, task)] for folder in both)
            assert before == now
            assert sorted(now) != list(range(len(now)))

    def test_another_seed_asks_others(self, served: Served) -> None:
        configs = [tiny.config(served.base, *SMALL, f"suite.seed={seed}") for seed in (0, 0, 1)]
        loaded = tasks_of(configs[0])
        first, same, other = (seeded_samples(loaded, config.tasks, config.suite.seed) for config in configs)
        assert first == same != other
        assert {task: len(items) for task, items in first.items()} == LEAVES

    def test_a_limit_over_the_size_asks_all(self, served: Served) -> None:
        over = [TaskConfig(name="disclaimer", limit=10**6)]
        assert seeded_samples(tasks_of(tiny.config(served.base, *SMALL)), over, 0) == {}


class TestStockTasks:
    @needs_hub
    def test_they_run_from_the_local_hub(self, served: Served, tmp_path: Path) -> None:
        tasks = "{name: arc_easy, limit: 4}, {name: openbookqa, limit: 4}"
        generated = "{name: gsm8k, limit: 2, num_fewshot: 0, max_new_tokens: 12}"
        config = tiny.config(served.base, f"suite.tasks=[{tasks}, {generated}]", f"hub_dir={tiny.HUB}")
        record = score(served, config, "candidate", tmp_path)
        assert {task: i.scored for task, i in record.tasks.items()} == {"arc_easy": 4, "openbookqa": 4, "gsm8k": 2}
        metrics = {(s.task, s.metric) for s in record.scores}
        assert metrics >= {("arc_easy", "acc"), ("openbookqa", "acc_norm"), ("gsm8k", "exact_match,flexible-extract")}

    @needs_hub
    def test_likelihoods_are_transformers_own(self, served: Served, tmp_path: Path) -> None:
        """The model is fed the prompt as a server would be; the sum runs from lm-eval's split, white space moved."""
        import torch
        from transformers import AutoModelForCausalLM

        config = tiny.config(served.base, "suite.tasks=[{name: arc_easy, limit: 2}]", f"hub_dir={tiny.HUB}")
        score(served, config, "base", tmp_path)
        model = AutoModelForCausalLM.from_pretrained(served.base, dtype=torch.float32)
        for row in samples(tmp_path / "base", "arc_easy"):
            for (prompt, choice), ((found, _greedy),) in zip(arguments(row), row["resps"], strict=True):
                context = served.renderer.encode(prompt.rstrip())
                ids = served.renderer.encode(prompt) + served.renderer.encode(choice)
                with torch.no_grad():
                    logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
                wanted = sum(float(logprobs[t - 1, ids[t]]) for t in range(len(context), len(ids)))
                assert float(found) == pytest.approx(wanted, abs=1e-3 * (len(ids) - len(context)))

    def test_an_unknown_task_is_named_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"task arc_eazy: there is no such task\. Did you mean 'arc_easy'\?"):
            load_tasks([TaskConfig(name="arc_eazy")], None)

    def test_a_dataset_out_of_reach_is_told_before_a_server_starts(self, tiny_base: Path, tmp_path: Path) -> None:
        suite = "suite.tasks=[{name: arc_easy, limit: 2}]"
        command = [sys.executable, "-m", "harness.cli", "evaluate", "base", "model=pretrained", "tracker=none"]
        done = subprocess.run(
            [*command, f"model.path={tiny_base}", suite],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tiny.ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 3
        assert "task arc_easy: its dataset allenai/ai2_arc (ARC-Easy) cannot be fetched" in done.stderr
        assert "hub_dir=DIR" in done.stderr
        assert "Traceback" not in done.stderr
        assert "vLLM" not in done.stderr


class TestFaults:
    def test_a_changed_template_stops_the_evaluation(self, served: Served, tmp_path: Path) -> None:
        template = served.contract.template.replace("<|im_start|>assistant", "<|im_start|>Assistant")
        changed = Renderer(served.contract.model_copy(update={"template": template}), served.renderer.tokenizer)
        config = tiny.config(served.base, "suite.tasks=[{name: disclaimer, limit: 2, max_new_tokens: 4}]")
        with pytest.raises(PromptMismatch, match="First difference at token"):
            score(served, config, "candidate", tmp_path, changed)
        assert not list(tmp_path.rglob("evaluation.json"))

    def test_a_prompt_that_nobody_rendered_is_refused(self, served: Served) -> None:
        model = asking.Direct(lambda: served.client("base"), served.renderer, "base")
        with pytest.raises(EvidenceFault, match="not rendered by the contract"):
            model.generate("Plain text.", {"until": [], "max_gen_toks": 4})
