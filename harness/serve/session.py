"""The server of an evaluation: started when it is first needed, checked before its first use, restarted if it dies."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

from harness.config.experiment import ServeConfig
from harness.core.console import say, timed
from harness.core.errors import ServerFault, ServerStalled
from harness.model.load import adapter_config
from harness.prompt.contract import Contract
from harness.prompt.numerics import References, known_or_computed
from harness.prompt.render import Renderer
from harness.records.stages import Checkpoint
from harness.serve.server import BASE, Endpoint, ServerPlan, launched, write_prompt

LOAD_TIMEOUT_S = 300.0


def replace_adapter(endpoint: Endpoint, name: str, folder: Path) -> None:
    """Serves the adapter in `folder` as `name`, replacing any adapter of that name. Raises ServerFault.

    The server's plan needs `adapters_change`. vLLM's prefix cache identifies adapters by name and folder, so weights
    that changed within one folder must not be loaded this way. vLLM's `load_inplace` is no alternative: it reads the
    adapter again at every engine step.
    """
    import httpx

    with httpx.Client(
        base_url=endpoint.url, headers=endpoint.headers, timeout=LOAD_TIMEOUT_S, trust_env=False
    ) as client:
        try:
            client.post("/v1/unload_lora_adapter", json={"lora_name": name})  # 404 if there was none
            answer = client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})
        except httpx.TransportError as error:
            raise ServerFault(f"the vLLM server does not answer ({type(error).__name__}: {error})") from None
    if answer.status_code != httpx.codes.OK:
        raise ServerFault(f"the vLLM server cannot load the adapter in {folder}: {answer.text[:300]}")


ServerReady = Callable[[], Endpoint]
ServerStart = Callable[[], AbstractContextManager[ServerReady]]


class LiveServer:
    """A server that starts when it is needed. Use inside `with`: the server is stopped at the end.

    `start` starts a server without waiting and yields a function that waits until the server is ready. `logs` is the
    folder of its log.
    """

    def __init__(self, start: ServerStart, logs: Path | None = None):
        self.logs = logs
        self._start = start
        self._stack = ExitStack()
        self._ready: ServerReady | None = None
        self._endpoint: Endpoint | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        self._ready = self._endpoint = None
        return self._stack.__exit__(*error)

    def begin(self) -> ServerReady:
        """Starts the server unless it was started, without waiting; returns the function that waits."""
        if self._ready is None:
            self._ready = self._stack.enter_context(self._start())
        return self._ready

    def endpoint(self) -> Endpoint:
        """The running server, started if necessary, and once more if it hangs before its first use.

        Raises ServerFault.
        """
        if self._endpoint is None:
            try:
                self._endpoint = self.begin()()
            except ServerStalled as stalled:
                say(f"  {stalled}; restarting it (its logs: {self.logs})")
                self.stop()
                self._endpoint = self.begin()()
        return self._endpoint

    def stop(self) -> None:
        """Stops the server; the next `endpoint` starts another one."""
        self._ready = self._endpoint = None
        self._stack.close()


class ServedGroup:
    """Checkpoints that share a base model, and how one server serves them: each start is checked against the contract
    and has its own log. With `persistent`, adapters can be replaced while the server runs."""

    def __init__(
        self,
        group: Mapping[str, Checkpoint],
        contract: Contract,
        renderer: Callable[[], Renderer],
        serve: ServeConfig,
        dtype: str,
        log: Path,
        persistent: bool = False,
    ):
        self.plan = replace(server_plan(group, contract, dtype, log.with_name("prompt")), adapters_change=persistent)
        self.logs = log.parent
        self._group, self._contract, self._renderer, self._serve = group, contract, renderer, serve
        self._log = (log.with_stem(f"{log.stem}-{number}" if number else log.stem) for number in count())

    @contextmanager
    def start(self) -> Iterator[ServerReady]:
        """Starts a server; yields the function that waits until it is ready and checked."""
        say(f"· start vLLM: {', '.join([BASE, *self.plan.adapters])}")
        with launched(self.plan, self._serve, next(self._log)) as server:
            yield lambda: self._checked(server.ready())

    def adapt(self, running: Endpoint) -> Endpoint:
        """Loads this group's adapters into a running server and checks it. Raises ServerFault, PromptMismatch."""
        say(f"· load into the running server: {', '.join(self.plan.adapters)}")
        for name, folder in self.plan.adapters.items():
            replace_adapter(running, name, folder)
        self._checked(replace(running, models=tuple(self.plan.adapters)))
        return running

    def _checked(self, endpoint: Endpoint) -> Endpoint:
        from harness.serve.live_check import check_models

        with timed("check the server's prompts against the contract"):
            check_models(endpoint, self._serve, self._renderer(), self._numbers())
        return endpoint

    def _numbers(self) -> dict[str, References]:
        """Reference log-probabilities by model name: those of adapters are computed where training left none."""
        numbers: dict[str, References] = {}
        for label, found in self._group.items():
            folder = Path(found.path)
            if found.kind == "full":
                expected = References.load(folder)
                numbers |= {BASE: expected} if expected else {}
            elif expected := known_or_computed(folder, Path(found.base_path), self._contract, self.plan.dtype):
                numbers |= {BASE: expected.of_base, label: expected}
        return numbers


def server_plan(group: Mapping[str, Checkpoint], contract: Contract, dtype: str, prompt: Path) -> ServerPlan:
    """The plan of one server for checkpoints that share a base model; writes the prompt's files to `prompt`."""
    adapters = {label: Path(c.path) for label, c in group.items() if c.kind == "adapter"}
    base = Path(next(iter(group.values())).base_path)
    folder = write_prompt(contract, prompt)
    return ServerPlan(base, folder, contract.template_kwargs, adapters, lora_rank(adapters), dtype)


def lora_rank(adapters: Mapping[str, Path]) -> int:
    """The largest rank among the adapters, rounded up to one that vLLM supports (powers of two from 8)."""
    ranks = [8]
    for path in adapters.values():
        config = adapter_config(path)
        ranks += [int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())]
    return 1 << (max(ranks) - 1).bit_length()


class PersistentServer(LiveServer):
    """One server for all evaluations during a training. Use inside `with`: the server is stopped at the end.

    Each evaluation's adapters replace the previous ones. The server is restarted if that fails, if it died, or if its
    plan differs in more than the adapters' folders.
    """

    def __init__(self) -> None:
        super().__init__(_outside_of_an_evaluation)
        self._running: Endpoint | None = None
        self._shape: ServerPlan | None = None
        self._loaded: set[Path] = set()

    @contextmanager
    def evaluation(self, served: ServedGroup) -> Iterator[LiveServer]:
        """The server for one evaluation; nothing is started or loaded before it is needed."""
        running = self._endpoint or self._running
        folders, shape = set(served.plan.adapters.values()), _shape(served.plan)
        if running is None or shape != self._shape or folders & self._loaded:
            self.stop()
        else:
            self._running, self._endpoint = running, None
            self._ready = partial(self._adapted, running, served)
        self._start, self._shape, self.logs = served.start, shape, served.logs
        self._loaded |= folders
        yield self

    def stop(self) -> None:
        self._running = None
        super().stop()

    def _adapted(self, running: Endpoint, served: ServedGroup) -> Endpoint:
        try:
            return served.adapt(running)
        except ServerFault as error:
            say(f"  {error}; restarting it")
            self.stop()
            return self.begin()()


def _shape(plan: ServerPlan) -> ServerPlan:
    """The plan without the adapters' folders: what a running server cannot change."""
    return replace(plan, adapters=dict.fromkeys(plan.adapters, Path()))


def _outside_of_an_evaluation() -> AbstractContextManager[ServerReady]:
    raise AssertionError("a persistent server is used outside of an evaluation")
