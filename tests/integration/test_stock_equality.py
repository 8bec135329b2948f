"""The harness's scores are stock lm-eval's: its own `local-completions` on the same server, item by item."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import tiny
from asking import score
from tiny import Served

from harness.evaluate import requests
from harness.evaluate.tasks.load import load_tasks, seeded_samples
from harness.serve.client import Client, Scored

pytestmark = pytest.mark.integration

CHOSEN = ("arc_easy", "hellaswag", "openbookqa", "piqa", "lambada_openai", "mmlu_anatomy")
GENERATED = ("gsm8k", "ifeval")
ITEMS, NEW_TOKENS = 4, 12
NATS = 1e-3
IN_FLIGHT = 8  # requests at once, here and there: batches of other sizes round otherwise
needs_hub = pytest.mark.skipif(not tiny.HUB.is_dir(), reason=f"no local copies of hub datasets in {tiny.HUB}")


@pytest.fixture(scope="module")
def both(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """(our samples, stock lm-eval's) by model and task."""
    out = tmp_path_factory.mktemp("equality")
    listed = [f"{{name: {name}, limit: {ITEMS}}}" for name in CHOSEN]
    listed += [f"{{name: {name}, limit: {ITEMS}, max_new_tokens: {NEW_TOKENS}, num_fewshot: 0}}" for name in GENERATED]
    suite = f"suite.tasks=[{', '.join(listed)}]"
    in_flight = f"serve.concurrency={IN_FLIGHT}"
    config = tiny.config(served.base, suite, f"hub_dir={tiny.HUB}", "domain_tasks=[]", in_flight)
    loaded = load_tasks(config.tasks, tiny.HUB)
    samples = seeded_samples(loaded, config.tasks, config.suite.seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLTK_DATA", str(tiny.HUB.parent / "nltk_data"))
        patch.setenv("OPENAI_API_KEY", served.endpoint.key)
        score(served, config, loaded, out, ["base", "candidate"])
        yield {model: (ours(out / model), stock(served, model, loaded, samples)) for model in ("base", "candidate")}


def ours(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files = {path.stem.removeprefix("samples_"): path for path in folder.glob("samples_*.jsonl")}
    return {task: [json.loads(line) for line in path.read_text().splitlines()] for task, path in files.items()}


def stock(served: Served, model: str, loaded: dict[str, Any], samples: dict[str, list[int]]) -> dict[str, Any]:
    """What lm-eval's own client for OpenAI-compatible servers makes of the same items."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    client = LocalCompletionsAPI(
        base_url=f"{served.endpoint.url}/v1/completions",
        model=model,
        tokenizer=str(served.adapter),
        tokenizer_backend="huggingface",
        tokenized_requests=True,
        num_concurrent=IN_FLIGHT,
        max_retries=1,
    )
    for task in loaded["tasks"].values():
        task._instances = None
        task.set_fewshot_seed(seed=1234)
    found = evaluate(
        lm=client,
        task_dict=loaded,
        samples=samples,
        bootstrap_iters=0,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
    )
    rows: dict[str, Any] = found["samples"]
    return rows


def pairs(both: dict[str, Any], model: str, task: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The same item in both; a row a filter."""
    mine, theirs = ({(row["doc_hash"], row["filter"]): row for row in side[task]} for side in both[model])
    assert mine.keys() == theirs.keys()
    assert len({item for item, _ in mine}) == ITEMS
    for key in mine:
        yield mine[key], theirs[key]


def nats(row: dict[str, Any]) -> list[float]:
    return [float(answers[0][0]) for answers in row["resps"]]


def metrics(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in row["metrics"]]


def marks(row: dict[str, Any]) -> list[Any]:
    """The metrics without perplexity, which is the likelihood itself."""
    return [row[name] for name in row["metrics"] if name != "perplexity"]


@needs_hub
@pytest.mark.parametrize("model", ["base", "candidate"])
class TestStock:
    @pytest.mark.parametrize("task", CHOSEN)
    def test_likelihoods_and_scores_are_stock_lm_evals(self, both: dict[str, Any], model: str, task: str) -> None:
        for mine, theirs in pairs(both, model, task):
            assert nats(mine) == pytest.approx(nats(theirs), abs=NATS)
            assert marks(mine) == marks(theirs)

    @pytest.mark.parametrize("task", GENERATED)
    def test_generations_and_scores_are_stock_lm_evals(self, both: dict[str, Any], model: str, task: str) -> None:
        for mine, theirs in pairs(both, model, task):
            assert mine["resps"] == theirs["resps"]
            assert metrics(mine) == metrics(theirs)


class TestSplit:
    """Where a score begins, on a tokenizer of one id a character that joins a newline with a letter after it."""

    @staticmethod
    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for character in text:
            if ids and ids[-1] == ord("\n") and character == "Z":
                ids[-1] = 1000
            else:
                ids.append(ord(character))
        return ids

    @staticmethod
    def ids(text: str) -> list[int]:
        return [ord(character) for character in text]

    def test_white_space_at_the_prompts_end_is_scored(self) -> None:
        assert requests.split_prompt(self.encode, "ab\n", "c") == ((self.ids("ab"), self.ids("\nc")), False)

    def test_it_is_where_lm_evals_own_split_is(self) -> None:
        from lm_eval.api.model import TemplateLM

        class Stock:
            backend = "causal"
            tok_encode = staticmethod(self.encode)

        for context, continuation in [("ab\n", "c"), ("ab \n ", "cd"), ("ab", " c"), ("a", "\n")]:
            own, merged = requests.split_prompt(self.encode, context, continuation)
            assert own == TemplateLM._encode_pair(Stock(), context, continuation)
            assert not merged

    def test_the_prompt_stays_as_it_is_where_a_token_would_merge_with_it(self) -> None:
        (given, scored), merged = requests.split_prompt(self.encode, "ab\n", "Zc")
        assert merged
        assert given + scored == self.encode("ab\n") + self.encode("Zc")
        assert scored == self.ids("\nZc")


class TestRequests:
    class Model:
        """Stands for the server's: each token's log-probability is minus its id, tokens under 10 are greedy."""

        def __init__(self) -> None:
            self.asked: list[tuple[list[list[int]], int]] = []

        async def score(self, prompts: list[list[int]], start: int) -> list[Scored]:
            self.asked.append((prompts, start))
            return [Scored([-float(i) for i in ids[start:]], max(ids[start:]) < 10, ids) for ids in prompts]

    def ask(self, pairs: Sequence[requests.Pair]) -> tuple[list[tuple[float, bool]], "TestRequests.Model", int]:
        model, checked = self.Model(), list[bool]()

        def check(sent: list[int], fed: list[int]) -> None:
            checked.append(sent == fed)

        scores = asyncio.run(requests.score_pairs(cast(Client, model), pairs, check))
        assert all(checked)
        return scores, model, len(checked)

    def test_choices_of_one_prompt_are_one_request(self) -> None:
        scores, model, checked = self.ask([([1, 2], [3]), ([9], [3]), ([1, 2], [4, 50]), ([1, 2], [4, 6])])
        assert model.asked == [([[1, 2, 3], [1, 2, 4, 50], [1, 2, 4, 6]], 2), ([[9, 3]], 1)]
        assert checked == 4
        assert scores == [(-3.0, True), (-3.0, True), (-54.0, False), (-10.0, True)]
