"""What is costly to make and shared by all integration tests: the tiny model, its adapter, one vLLM server.

No property test is timed, and none depends on luck: the examples are the same each time, wherever the tests run.
`pytest --hypothesis-profile=search` draws other examples, and a failing one found so becomes an `@example`.
"""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from story import Story
    from tiny import Served

UNTIMED: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("same", **UNTIMED, derandomize=True)
settings.register_profile("search", **UNTIMED, derandomize=False)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def no_registry_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_REGISTRY", raising=False)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pretrained model. torch gets one thread: more only wait for each other on a model this small."""
    import tiny
    import torch

    torch.set_num_threads(1)
    return tiny.make_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the real trainer on 24 rows, far enough from the base that its answers differ."""
    import tiny

    from harness.train.finetune import finetune

    folder = tmp_path_factory.mktemp("adapter")
    config = tiny.config(tiny_base, "train.learning_rate=1e-2", "train.epochs=4")
    finetune(config.training, tiny_base, tiny.rows(24), folder)
    return folder


@pytest.fixture(scope="session")
def served(tiny_base: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Served"]:
    """The one vLLM server of the session, with base and adapter; nothing of it may outlive the context.

    It takes templates from requests, so that tests can make it behave as one with another template would. In float32:
    what bf16 rounds to depends on what else is in a batch, and that on which request came when. The servers of whole
    runs (test_run.py, story.py) keep bf16.
    """
    import tiny

    from harness.evaluate.write import renderer_for
    from harness.prompt.contract import Contract
    from harness.serve import server
    from harness.serve.server import ServerPlan, server_command, vllm_server, write_prompt

    def trusting(*settings: Any) -> list[str]:
        return [*server_command(*settings), "--trust-request-chat-template"]

    config = tiny.config(tiny_base)
    contract = Contract.load(tiny_adapter)
    log = tmp_path_factory.mktemp("server") / "vllm.log"
    prompt = write_prompt(contract, log.with_name("prompt"))
    plan = ServerPlan(
        tiny_base, prompt, contract.template_kwargs, {"candidate": tiny_adapter}, 8, "float32", adapters_change=True
    )
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server, "server_command", trusting)
            endpoint = stack.enter_context(vllm_server(plan, config.serve, log))
        pids = tiny.group_of(f"--port {tiny.port_of(endpoint)}")
        yield tiny.Served(
            endpoint, config, contract, renderer_for(contract, tiny_adapter), tiny_base, tiny_adapter, log, pids
        )
    assert len(pids) > 1, "the server's processes were not found"
    assert tiny.alive(pids) == [], "processes of the server outlived it"


@pytest.fixture(scope="session")
def story(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> "Story":
    """The promotion story, played once; its servers are stopped, and every test reads what became of it."""
    from story import KeptServers, Story, play, write_story

    project = write_story(tmp_path_factory.mktemp("story"), tiny_base)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.chdir(project)
        patch.delenv("HARNESS_REGISTRY", raising=False)
        patch.setattr("harness.serve.session.launched", KeptServers(stack).serve)
        return play(Story(project))


@pytest.fixture
def own_wandb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B without an account, without the settings of the machine that runs the tests, and as patient as that needs."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "600")
    monkeypatch.setattr("harness.track.wandb_tracker.INIT_TIMEOUT_S", 600.0)
    with warnings.catch_warnings():
        # wandb keeps a TemporaryDirectory until the interpreter collects it, which is not left for a later test.
        warnings.filterwarnings("ignore", "Implicitly cleaning up", ResourceWarning)
        yield
        gc.collect()
