"""A server that takes requests and never answers: the live check ends in time, and the server is started once more."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tiny

from harness.config.experiment import ServeConfig, TemplateConfig
from harness.core.errors import ServerStalled
from harness.prompt.make import make_contract
from harness.prompt.render import Renderer
from harness.serve.live_check import check_models
from harness.serve.server import Endpoint
from harness.serve.session import LiveServer, ServerReady


def test_the_live_check_does_not_wait_for_ever() -> None:
    tokenizer = tiny.make_tokenizer()
    contract = make_contract(TemplateConfig(name="chatml", file="chatml.jinja", max_length=256), tokenizer)
    config = ServeConfig(stall_timeout_s=0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(500)
        endpoint = Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}", "", ("base",))
        with pytest.raises(ServerStalled, match=r"answered nothing and computed nothing for 0\.5 s"):
            check_models(endpoint, config, Renderer(contract, tokenizer), {})


def test_a_server_that_hangs_at_first_is_started_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    starts = 0

    @contextmanager
    def start() -> Iterator[ServerReady]:
        nonlocal starts
        starts += 1
        number = starts

        def ready() -> Endpoint:
            if number == 1:
                raise ServerStalled("the vLLM server has answered nothing")
            return Endpoint(f"http://{number}", "", ("base",))

        yield ready

    with LiveServer(start) as server:
        assert server.endpoint().url == "http://2"
    assert "has answered nothing; restarting it" in capsys.readouterr().err
