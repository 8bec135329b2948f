"""The requests of all tasks, built once by lm-eval for every model, and lm-eval's scores of the answers to them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm_eval.api.model import TemplateLM

from harness.core.errors import ConfigError, EvidenceFault
from harness.evaluate.requests import Conversation, Question, instance_keys, questions, require_supported
from harness.prompt.messages import Message
from harness.prompt.render import Renderer

# lm-eval's view of a served model: prompts are rendered by the contract, answers were got in flight before.


Value = str | tuple[float, bool]


class ServedModel(TemplateLM):
    """What lm-eval builds its requests with, and reads their answers from.

    `conversations` holds the messages of every rendered prompt: generations are asked for as messages. `values` are
    the answers by request key, as lm-eval takes them; they are put in before it scores.
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
        """The rendered prompt; its messages are remembered, because that is what the server is asked with."""
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
        """lm-eval hands over an instance once a repeat."""
        repeats: Counter[int] = Counter()
        answers = []
        for instance in requests:
            answers.append(self.values[instance_keys(self._renderer, instance)[repeats[id(instance)]]])
            repeats[id(instance)] += 1
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        raise EvidenceFault("likelihoods are read by request, not by tokens")

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        raise EvidenceFault("whole documents have no likelihood under a chat template")


FEWSHOT_SEED = 1234  # lm-eval's own
ItemIndices = dict[str, list[int]]


@dataclass(frozen=True)
class PlannedItem:
    """One item of a task with its requests and their keys; `index` is its place in the dataset."""

    index: int
    instances: list[Any]
    keys: list[list[bytes]]


class RequestPlan:
    """What lm-eval asks on these tasks. `tasks` holds the items of each task, in the dataset's order."""

    def __init__(self, loaded: dict[str, Any], samples: Mapping[str, Sequence[int]], renderer: Renderer):
        """Raises ConfigError for tasks that no chat model can answer, EvidenceFault for a prompt of their own."""
        self.loaded = loaded
        self.renderer = renderer
        self.model = ServedModel(renderer)
        _require_runnable(loaded["tasks"])
        built = {
            name: _built(task, samples.get(name) or range(len(task.eval_docs)), self.model)
            for name, task in loaded["tasks"].items()
        }
        require_supported({name: [i for item in items for i in item] for name, (_, items) in built.items()})
        for _, items in built.values():
            self._require_rendered(instance.args[0] for item in items for instance in item)
        self.tasks = {name: self._items(indices, items) for name, (indices, items) in built.items()}

    def _require_rendered(self, contexts: Iterable[str]) -> None:
        for context in contexts:
            if context and context not in self.model.conversations:
                raise EvidenceFault(f"lm-eval asks with a prompt that the contract did not render: {context[:200]!r}")

    def _items(self, indices: Sequence[int], items: Sequence[list[Any]]) -> list[PlannedItem]:
        return [
            PlannedItem(index, instances, [instance_keys(self.renderer, instance) for instance in instances])
            for index, instances in zip(indices, items, strict=True)
        ]

    def questions(self, items: ItemIndices | None = None) -> list[Question]:
        """The distinct questions of all items, or of some items of each task."""
        chosen = (item for own in self.chosen(items).values() for item in own)
        return list(questions(self.renderer, (instance for item in chosen for instance in item.instances)))

    def chosen(self, items: ItemIndices | None) -> dict[str, list[PlannedItem]]:
        """The items with these places in the dataset, in its order; all of them for None."""
        if items is None:
            return self.tasks
        wanted = {name: set(indices) for name, indices in items.items()}
        return {name: [i for i in own if i.index in wanted.get(name, ())] for name, own in self.tasks.items()}

    def score(self, values: Mapping[bytes, Value], items: ItemIndices | None = None) -> dict[str, Any] | None:
        """lm-eval's results on the items all of whose requests have a value; a task without any is left out.

        None when no task has any.
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
            task._instances = list(_renumbered(answered[name]))
            # lm-eval would build the requests again for each model; they are the same, and were built once
            task.build_all_requests = _already_built
        try:
            found: dict[str, Any] = evaluate(
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
        return found


def _require_runnable(tasks: Mapping[str, Any]) -> None:
    """Raises ConfigError for tasks that lm-eval would refuse to score after everything was asked."""
    reasons = {
        "UNSAFE_CODE": "it runs the code that a model writes, which is not done here",
        "MULTIMODAL": "it asks about images or sound",
    }
    faults = [
        f"task {name}: {reason}; leave the task out"
        for name, task in tasks.items()
        for flag, reason in reasons.items()
        if getattr(task, flag, False)
    ]
    if faults:
        raise ConfigError(faults)


class _Indices(list[int]):
    """Places in a dataset: lm-eval looks up each document of the dataset among them."""

    def __init__(self, indices: Any):
        super().__init__(indices)
        self._set = frozenset(self)

    def __contains__(self, index: object) -> bool:
        return index in self._set


def _built(task: Any, indices: Sequence[int], model: ServedModel) -> tuple[Sequence[int], list[list[Any]]]:
    """lm-eval's own requests of each item. The few-shot examples begin anew: every model sees the same ones."""
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


def _renumbered(items: Sequence[PlannedItem]) -> Iterator[Any]:
    """Fresh instances without answers; lm-eval numbers the items it is given from 0."""
    for number, item in enumerate(items):
        for instance in item.instances:
            name, _, repeats = instance.metadata
            yield replace(instance, metadata=(name, number, repeats), resps=[], filtered_resps={})


def _already_built(**_: Any) -> None:
    """In place of `task.build_all_requests`."""
