"""The requests of all tasks, which lm-eval builds once for all models, and lm-eval's scores of the answers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm_eval.api.model import TemplateLM

from harness.core.errors import ConfigError, EvidenceFault
from harness.evaluate.requests import Conversation, Question, instance_keys, questions, require_supported
from harness.prompt.messages import Message
from harness.prompt.render import Renderer

Value = str | tuple[float, bool]


class ServedModel(TemplateLM):
    """The model object that lm-eval builds its requests with and reads their answers from.

    Prompts are rendered by the contract. `conversations` holds the messages of every rendered prompt, because
    generations are requested as messages. `values` holds the answers by request key, in lm-eval's form; it is set
    before lm-eval scores.
    """

    def __init__(self, renderer: Renderer):
        super().__init__()
        self._renderer = renderer
        self.conversations: dict[str, Conversation] = {}
        self.values: Mapping[bytes, Value] = {}

    @property
    def eot_token_id(self) -> int:
        return self._renderer.contract.end_of_turn_id

    @property
    def tokenizer_name(self) -> str:
        return self._renderer.contract.digest

    def chat_template(self, chat_template: bool | str = False) -> str:
        return self._renderer.contract.template

    def apply_chat_template(self, chat_history: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The rendered prompt. Its messages are kept in `conversations`, since they are what the server gets."""
        text = self._renderer.text(chat_history, continued=not add_generation_prompt)
        self.conversations[text] = (chat_history, add_generation_prompt)
        return text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self._renderer.encode(string)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return [str(value) for value in self._answers(requests)]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return [(float(nats), bool(greedy)) for nats, greedy in self._answers(requests)]

    def _answers(self, requests: Sequence[Any]) -> list[Any]:
        """The answers in order. lm-eval passes an instance once for each of its repeats."""
        repeats: Counter[int] = Counter()
        answers = []
        for instance in requests:
            answers.append(self.values[instance_keys(self._renderer, instance)[repeats[id(instance)]]])
            repeats[id(instance)] += 1
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        raise EvidenceFault("lm-eval asked for likelihoods by token ids; this model answers them by request only")

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        raise EvidenceFault("lm-eval asked for the likelihood of a whole document, which chat templates do not define")


FEWSHOT_SEED = 1234  # lm-eval's own
ItemIndices = dict[str, list[int]]


@dataclass(frozen=True)
class PlannedItem:
    """One item of a task with its requests and their keys; `index` is its position in the dataset."""

    index: int
    instances: list[Any]
    keys: list[list[bytes]]


class RequestPlan:
    """All requests of some loaded tasks. `tasks` holds the items of each task, in the dataset's order."""

    def __init__(self, loaded: dict[str, Any], samples: Mapping[str, Sequence[int]], renderer: Renderer):
        """Raises ConfigError for tasks that no chat model can answer, EvidenceFault for prompts not rendered here."""
        self.loaded = loaded
        self.renderer = renderer
        self.model = ServedModel(renderer)
        _require_runnable(loaded["tasks"])
        built = {
            name: _built(task, samples.get(name) or range(len(task.eval_docs)), self.model)
            for name, task in loaded["tasks"].items()
        }
        require_supported({name: [i for item in items for i in item] for name, (_, items) in built.items()})
        contexts = (i.args[0] for _, items in built.values() for item in items for i in item)
        for context in contexts:
            if context and context not in self.model.conversations:
                raise EvidenceFault(f"lm-eval built a prompt that was not rendered by the contract: {context[:200]!r}")
        self.tasks = {
            name: [
                PlannedItem(index, instances, [instance_keys(renderer, instance) for instance in instances])
                for index, instances in zip(indices, items, strict=True)
            ]
            for name, (indices, items) in built.items()
        }

    def questions(self, items: ItemIndices | None = None) -> list[Question]:
        """The distinct questions of these items (indices by task); of all items for None."""
        chosen = (item for own in self.chosen(items).values() for item in own)
        return list(questions(self.renderer, (instance for item in chosen for instance in item.instances)))

    def chosen(self, items: ItemIndices | None) -> dict[str, list[PlannedItem]]:
        """The items at these positions in the dataset, in its order; all items for None."""
        if items is None:
            return self.tasks
        wanted = {name: set(indices) for name, indices in items.items()}
        return {name: [i for i in own if i.index in wanted.get(name, ())] for name, own in self.tasks.items()}

    def score(self, values: Mapping[bytes, Value], items: ItemIndices | None = None) -> dict[str, Any] | None:
        """lm-eval's results for the items whose requests all have a value; None when there are no such items.

        A task without such items is left out.
        """
        from lm_eval.evaluator import evaluate

        answered = {
            name: [item for item in own if all(key in values for keys in item.keys for key in keys)]
            for name, own in self.chosen(items).items()
        }
        tasks = {name: task for name, task in self.loaded["tasks"].items() if answered[name]}
        if not tasks:
            return None
        self.model.values = values
        for name, task in tasks.items():
            # fresh instances without answers, numbered from 0 as lm-eval numbers the items that it gets
            task._instances = [
                replace(
                    instance, metadata=(instance.metadata[0], number, instance.metadata[2]), resps=[], filtered_resps={}
                )
                for number, item in enumerate(answered[name])
                for instance in item.instances
            ]
            # lm-eval would build the same requests again for each model
            task.build_all_requests = _already_built
        try:
            results: dict[str, Any] = evaluate(
                lm=self.model,
                task_dict={**self.loaded, "tasks": tasks},
                samples={name: _Indices(item.index for item in own) for name, own in answered.items() if own},
                bootstrap_iters=0,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
            )
        finally:
            for task in tasks.values():
                del task.build_all_requests
                task._instances = None
        return results


def _require_runnable(tasks: Mapping[str, Any]) -> None:
    """Raises ConfigError for tasks that lm-eval would refuse to score once all answers are there."""
    reasons = {
        "UNSAFE_CODE": "it runs code that the model writes, which the harness does not do",
        "MULTIMODAL": "it contains images or sound",
    }
    errors = [
        f"task {name}: {reason}; leave it out with suite.skip"
        for name, task in tasks.items()
        for flag, reason in reasons.items()
        if getattr(task, flag, False)
    ]
    if errors:
        raise ConfigError(errors)


class _Indices(list[int]):
    """Positions in a dataset, with fast lookup: lm-eval tests each document of the dataset for membership."""

    def __init__(self, indices: Any):
        super().__init__(indices)
        self._set = frozenset(self)

    def __contains__(self, index: object) -> bool:
        return index in self._set


def _built(task: Any, indices: Sequence[int], model: ServedModel) -> tuple[Sequence[int], list[list[Any]]]:
    """The item indices, and lm-eval's requests for each item. Few-shot examples are drawn again from the same seed."""
    ordered = range(len(task.eval_docs)) if isinstance(indices, range) else _Indices(sorted(indices))
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    task.build_all_requests(
        samples=ordered,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        chat_template=model.apply_chat_template,
        tokenizer_name=model.tokenizer_name,
    )
    items: list[list[Any]] = [[] for _ in ordered]
    for instance in task._instances:
        items[instance.doc_id].append(instance)
    task._instances = None
    return ordered, items


def _already_built(**_: Any) -> None:
    """Replaces `task.build_all_requests`."""
