"""lm-eval's tasks by name: from local copies of their datasets, with their own settings, and the errors otherwise."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config.experiment import TaskConfig
from harness.core.errors import ConfigError, DataError, EnvironmentFault, NetworkFault
from harness.evaluate.tasks.hub import content_digest
from harness.evaluate.tasks.index import datasets_of
from harness.evaluate.tasks.load import hub_digest, leaves, load_tasks, seeded_samples

HUB = Path(__file__).resolve().parents[3] / "shared" / "hub"
needs_hub = pytest.mark.skipif(not HUB.is_dir(), reason=f"no local copies of hub datasets in {HUB}")
STOCK = {
    "arc_easy": ("multiple_choice", 0, 2000),
    "openbookqa": ("multiple_choice", 0, 400),
    "hellaswag": ("multiple_choice", 0, 900),
    "piqa": ("multiple_choice", 0, 1500),
    "gsm8k": ("generate_until", 5, 800),
    "ifeval": ("generate_until", 0, 541),
    "lambada_openai": ("loglikelihood", 0, 1500),
}
SUBJECTS = (
    "abstract_algebra", "anatomy", "business_ethics", "clinical_knowledge", "econometrics", "professional_medicine"
)  # fmt: skip
QUESTIONS = [{"question": f"Is {n} even?", "answer": f"{n} #### {n % 2}"} for n in range(6)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test asks a hub; each has a cache of prepared datasets of its own."""
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    monkeypatch.setenv("NLTK_DATA", "")
    monkeypatch.chdir(tmp_path)


def named(*names: str, **settings: Any) -> list[TaskConfig]:
    return [TaskConfig(name=name, **settings) for name in names]


def copy(hub: Path, dataset: str, rows: list[dict[str, Any]], config: str = "main") -> Path:
    """A small copy of a dataset's repository: train and test, one configuration."""
    folder = hub / dataset
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [f"  - {{split: {split}, path: {split}.jsonl}}" for split in ("train", "test")]
    card = ["---", "license: mit", "configs:", f"- config_name: {config}", "  data_files:", *files, "---"]
    (folder / "README.md").write_text("\n".join(card) + "\n")
    return folder


def own_task(folder: Path, name: str, yaml: str, code: str = "") -> None:
    """A task in the working directory's tasks/."""
    (folder / "tasks" / name).mkdir(parents=True)
    (folder / "tasks" / name / f"{name}.yaml").write_text(f"task: {name}\n{yaml}")
    if code:
        (folder / "tasks" / name / f"{name}_code.py").write_text(code)


@needs_hub
class TestTheStockTasks:
    def test_all_run_by_name_with_their_own_settings(self) -> None:
        """Each builds its first prompts and requests; the mmlu subjects as a group of ours."""
        loaded = load_tasks(named(*STOCK, "general_mmlu"), HUB)
        assert {name: _settings(loaded["tasks"][name]) for name in STOCK} == STOCK
        assert leaves(loaded, "general_mmlu") == [f"mmlu_{subject}" for subject in SUBJECTS]
        for name, task in loaded["tasks"].items():
            task.build_all_requests(limit=2, rank=0, world_size=1)
            requests = task.instances
            assert len({request.doc_id for request in requests}) == 2, name
            assert all(request.args[0].strip() for request in requests), name

    def test_ifeval_is_scored_with_the_data_beside_the_hub(self) -> None:
        task = load_tasks(named("ifeval"), HUB)["tasks"]["ifeval"]
        scored = [task.process_results(doc, ["One sentence. ANOTHER one."]) for doc in task.eval_docs]
        assert {len(values) for values in scored} == {4}
        assert any(values["prompt_level_loose_acc"] for values in scored)

    def test_a_group_names_every_subject_that_is_not_here(self) -> None:
        with pytest.raises(NetworkFault) as raised:
            load_tasks(named("mmlu_stem"), HUB)
        told = str(raised.value)
        assert "task mmlu_astronomy: the copy of cais/mmlu" in told
        assert "has no configuration 'astronomy'" in told
        assert "task mmlu_virology" not in told
        assert "mmlu_abstract_algebra" not in told
        assert "harness mirror mmlu_stem --to DIR" in told

    def test_all_missing_data_are_reported_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(NetworkFault) as raised:
            load_tasks(named("truthfulqa_mc2", "arc_easy", "winogrande"), HUB)
        told = str(raised.value)
        assert "task truthfulqa_mc2: its dataset truthfulqa/truthful_qa (multiple_choice) cannot be fetched" in told
        assert "task winogrande" in told
        assert "task arc_easy" not in told
        assert "harness mirror truthfulqa_mc2 winogrande --to DIR" in told
        assert "suite.skip=[TASK]" in told


def _settings(task: Any) -> tuple[str, int, int]:
    return task.OUTPUT_TYPE, task.get_config("num_fewshot"), len(task.eval_docs)


class TestLocalCopies:
    def test_a_task_reads_the_copy_and_names_the_dataset(self, tmp_path: Path) -> None:
        copy(tmp_path / "hub", "openai/gsm8k", QUESTIONS)
        task = load_tasks(named("gsm8k"), tmp_path / "hub")["tasks"]["gsm8k"]
        assert [doc["question"] for doc in task.eval_docs] == [row["question"] for row in QUESTIONS]
        assert task.config.dataset_path == "openai/gsm8k"

    def test_code_that_loads_a_dataset_itself_gets_the_copy(self, tmp_path: Path) -> None:
        copy(tmp_path / "hub", "someone/questions", QUESTIONS)
        code = (
            "from datasets import load_dataset\n\n"
            "def rows(**_):\n    return load_dataset('someone/questions', 'main')\n\n"
            "def files(**_):\n    return load_dataset('json', data_files={'test': 'hf://datasets/someone/questions/test.jsonl'})\n"
        )
        common = "test_split: test\noutput_type: generate_until\ndoc_to_text: question\ndoc_to_target: answer\n"
        for name in ("rows", "files"):
            own_task(tmp_path, name, f"custom_dataset: !function {name}_code.{name}\n{common}", code)
        loaded = load_tasks(named("rows", "files"), tmp_path / "hub")
        assert {name: len(task.eval_docs) for name, task in loaded["tasks"].items()} == {"rows": 6, "files": 6}

    def test_a_task_whose_code_needs_a_package_names_it(self, tmp_path: Path) -> None:
        own_task(tmp_path, "needy", "custom_dataset: !function needy_code.rows\n", "import no_such_package\n")
        with pytest.raises(EnvironmentFault, match=r"task needy: its code needs a package .*no_such_package"):
            load_tasks(named("needy"), None)

    def test_a_hub_dir_that_is_not_there_is_a_fault_of_the_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"hub_dir: .*hubb is not a folder"):
            load_tasks(named("gsm8k"), tmp_path / "hubb")

    def test_a_broken_copy_is_a_fault_of_the_data(self, tmp_path: Path) -> None:
        folder = copy(tmp_path / "hub", "openai/gsm8k", QUESTIONS)
        (folder / "test.jsonl").write_text('{"question": "cut o')
        with pytest.raises(DataError, match="task gsm8k"):
            load_tasks(named("gsm8k"), tmp_path / "hub")

    def test_a_copy_that_differs_from_its_record_is_not_used(self, tmp_path: Path) -> None:
        folder = copy(tmp_path / "hub", "openai/gsm8k", QUESTIONS)
        size = (folder / "test.jsonl").stat().st_size
        files = {"openai/gsm8k/test.jsonl": {"sha256": "0" * 64, "bytes": size + 1}}
        (tmp_path / "hub" / "mirror.json").write_text(json.dumps({"schema": 1, "datasets": {}, "files": files}))
        with pytest.raises(NetworkFault, match=r"incomplete: openai/gsm8k/test\.jsonl"):
            load_tasks(named("gsm8k"), tmp_path / "hub")

    def test_a_task_that_splits_sentences_needs_the_data_before_it_starts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import nltk

        copy(tmp_path / "hub", "google/IFEval", QUESTIONS, "default")
        monkeypatch.setattr(nltk.data, "path", [])
        monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
        with pytest.raises(NetworkFault, match="task ifeval: it needs nltk's punkt_tab"):
            load_tasks(named("ifeval"), tmp_path / "hub")

    def test_few_shot_and_length_can_be_overridden(self, tmp_path: Path) -> None:
        copy(tmp_path / "hub", "openai/gsm8k", QUESTIONS)
        task = load_tasks(named("gsm8k", num_fewshot=2, max_new_tokens=7), tmp_path / "hub")["tasks"]["gsm8k"]
        assert task.get_config("num_fewshot") == 2
        assert task.get_config("generation_kwargs")["max_gen_toks"] == 7
        assert task.get_config("generation_kwargs")["until"] == ["Question:", "</s>", "<|im_end|>"]

    def test_a_tag_is_limited_task_by_task(self, tmp_path: Path) -> None:
        copy(tmp_path / "hub", "someone/questions", QUESTIONS)
        yaml = (
            "tag: both\ndataset_path: someone/questions\ntest_split: test\noutput_type: generate_until\n"
            "doc_to_text: question\ndoc_to_target: answer\n"
        )
        for name in ("one", "two"):
            own_task(tmp_path, name, yaml)
        tasks = named("both", limit=4)
        loaded = load_tasks(tasks, tmp_path / "hub")
        assert leaves(loaded, "both") == ["one", "two"]
        assert {name: len(items) for name, items in seeded_samples(loaded, tasks, 0).items()} == {"one": 4, "two": 4}


class TestDigest:
    def test_datasets_are_known_without_loading(self, tmp_path: Path) -> None:
        assert datasets_of(["gsm8k", "arc_easy"]) == {"openai/gsm8k", "allenai/ai2_arc"}
        assert datasets_of(["mmlu", "leaderboard_ifeval"]) == {"cais/mmlu", "wis-k/instruction-following-eval"}
        assert datasets_of(["general_mmlu", "disclaimer"]) == {"cais/mmlu"}
        assert datasets_of(["ruler"]) is None, "its code makes its items"

    def test_only_the_copies_that_are_read_count_and_only_by_content(self, tmp_path: Path) -> None:
        hub = tmp_path / "hub"
        folder = copy(hub, "openai/gsm8k", QUESTIONS)
        other = copy(hub, "google/IFEval", QUESTIONS, "default")
        before = hub_digest(hub, named("gsm8k"))
        (other / "test.jsonl").write_text("")
        (folder / "test.jsonl").touch()
        assert hub_digest(hub, named("gsm8k")) == before
        (folder / "test.jsonl").write_text('{"question": "Else?", "answer": "1"}\n')
        assert hub_digest(hub, named("gsm8k")) != before

    def test_where_only_code_knows_everything_counts(self, tmp_path: Path) -> None:
        folder = copy(tmp_path, "a/b", QUESTIONS)
        before = content_digest(tmp_path, None)
        (folder / "test.jsonl").write_text("{}")
        assert content_digest(tmp_path, None) != before

    def test_own_tasks_alone_need_no_copy(self, tmp_path: Path) -> None:
        copy(tmp_path / "hub", "openai/gsm8k", QUESTIONS)
        empty = tmp_path / "empty"
        empty.mkdir()
        assert hub_digest(tmp_path / "hub", named("disclaimer")) == hub_digest(empty, named("disclaimer"))


def test_a_hub_out_of_reach_is_contacted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier downloads are used; the missing datasets are reported with the reason."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("harness.evaluate.tasks.hub.unreachable", lambda: "the hub cannot be reached: no route")
    with pytest.raises(NetworkFault, match=r"task gsm8k: .* from the hub \(the hub cannot be reached: no route\)"):
        load_tasks(named("gsm8k", "arc_easy"), None)
    assert datasets.config.HF_HUB_OFFLINE is False


def test_loading_leaves_the_library_as_it_was(tmp_path: Path) -> None:
    from datasets import load

    before = load.load_dataset_builder
    with pytest.raises(NetworkFault):
        load_tasks(named("gsm8k"), tmp_path)
    assert load.load_dataset_builder is before
    assert "datasets.load" in sys.modules
