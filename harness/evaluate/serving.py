"""The server of an evaluation: started when the first question needs it, checked before anything is asked of it, and
started again when it dies."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from harness.base_model import adapter_config
from harness.config import Config
from harness.console import say, timed
from harness.prompt.contract import Contract
from harness.prompt.numerics import References
from harness.prompt.render import Renderer
from harness.records import Checkpoint
from harness.serve.server import BASE, Endpoint, ServerPlan, launched, write_prompt

Ready = Callable[[], Endpoint]
Start = Callable[[], AbstractContextManager[Ready]]


class LiveServer:
    """A server that is there when it is needed. Use inside `with`: it is stopped on the way out.

    `start` begins to start it; what it gives waits until the server is ready. `logs` is where its last words are.
    """

    def __init__(self, start: Start, logs: Path | None = None):
        self.logs = logs
        self._start = start
        self._stack = ExitStack()
        self._ready: Ready | None = None
        self._endpoint: Endpoint | None = None

    def __enter__(self) -> "LiveServer":
        return self

    def __exit__(self, *error: Any) -> bool | None:
        self._ready = self._endpoint = None
        return self._stack.__exit__(*error)

    def begin(self) -> Ready:
        """Starts it where none is, without waiting: there is other work to do meanwhile."""
        if self._ready is None:
            self._ready = self._stack.enter_context(self._start())
        return self._ready

    def endpoint(self) -> Endpoint:
        """The running server; starts it when none is."""
        if self._endpoint is None:
            self._endpoint = self.begin()()
        return self._endpoint

    def stop(self) -> None:
        """Ends what is left of it; the next `endpoint` starts another."""
        self._ready = self._endpoint = None
        self._stack.close()


def started(
    group: Mapping[str, Checkpoint], contract: Contract, renderer: Callable[[], Renderer], config: Config, log: Path
) -> Start:
    """How the server of checkpoints that share a base model is started: checked against the contract, each with a log
    of its own."""
    logs = (log.with_stem(f"{log.stem}-{number}" if number else log.stem) for number in count())
    plan = server_plan(group, contract, config, log.with_name("prompt"))

    @contextmanager
    def start() -> Iterator[Ready]:
        say(f"· start vLLM: {', '.join([BASE, *plan.adapters])}")
        with launched(plan, config.serve, next(logs)) as server:

            def ready() -> Endpoint:
                endpoint = server.ready()
                with timed("check the server's prompts against the contract"):
                    _check_live(group, renderer(), config, endpoint)
                return endpoint

            yield ready

    return start


def server_plan(group: Mapping[str, Checkpoint], contract: Contract, config: Config, prompt: Path) -> ServerPlan:
    """How checkpoints that share a base model are served; the prompt's files are written to `prompt`."""
    adapters = {label: Path(c.path) for label, c in group.items() if c.kind == "adapter"}
    base = Path(next(iter(group.values())).base_path)
    folder = write_prompt(contract, prompt)
    return ServerPlan(base, folder, contract.template_kwargs, adapters, lora_rank(adapters), config.model.dtype)


def _check_live(group: Mapping[str, Checkpoint], renderer: Renderer, config: Config, endpoint: Endpoint) -> None:
    """Golden conversations, stop ids, sampling defaults and numbers of every model that the server offers."""
    from harness.serve.live_check import check_models

    numbers: dict[str, References] = {}
    for label, checkpoint in group.items():
        found = References.load(Path(checkpoint.path))
        if found is not None:
            numbers |= {BASE: found.of_base, label: found} if checkpoint.kind == "adapter" else {BASE: found}
    check_models(endpoint, config.serve, renderer, numbers)


def lora_rank(adapters: Mapping[str, Path]) -> int:
    """The largest rank among adapters, rounded up to one that vLLM knows (powers of two from 8)."""
    ranks = [8]
    for path in adapters.values():
        config = adapter_config(path)
        ranks += [int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())]
    return 1 << (max(ranks) - 1).bit_length()
