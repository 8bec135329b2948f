"""A server that answers like vLLM, fails as configured, and counts; prompt ids are the bytes of the prompt."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

from harness.evaluate.requests import Question
from harness.serve.server import Endpoint

OK = 200
DIES = -1
HANGS_UP = -2
HANGS = -3


class Renderer:
    """The part of the real renderer that dispatch uses."""

    contract = SimpleNamespace(sampling={"temperature": 0.0}, stop_ids=[0], end_of_turn_id=0)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with the default of 5 the kernel may drop connections, and clients wait seconds

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is expected."""


class FakeServer:
    """`behave` maps (prompt, number of earlier requests for it) to a status, DIES or HANGS_UP."""

    def __init__(self, behave: Callable[[str, int], int]):
        self._behave = behave
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.starts = 0
        self.most_in_flight = 0
        self._in_flight = 0
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def start(self) -> Iterator[Callable[[], Endpoint]]:
        """One life of the server; every start has a new endpoint."""
        self.starts += 1
        self._stopping.clear()
        server = _Quiet(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}", "", ("base",))
            yield lambda: endpoint
        finally:
            self._stopping.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            dead = False

            def do_GET(self) -> None:
                self._reply(503 if type(self).dead else OK, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                with fake._counted():
                    status = fake._status(prompt)
                    if status == HANGS:
                        fake._stopping.wait()
                        return
                    with fake._lock:  # answers are sent before any client learns of a death
                        self._say(prompt, status)

            def _say(self, prompt: str, status: int) -> None:
                if type(self).dead or status == DIES:
                    type(self).dead = True
                    status = 500
                if status != HANGS_UP:
                    fake.answered[prompt] += status == OK
                    self._reply(status, _answer(prompt))

            def _reply(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _status(self, prompt: str) -> int:
        with self._lock:
            before = self.asked[prompt]
            self.asked[prompt] += 1
        return self._behave(prompt, before)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1


def _answer(prompt: str) -> dict[str, Any]:
    message = {"content": prompt.upper()}
    choice = {"message": message, "finish_reason": "stop", "token_ids": list(prompt.upper().encode())}
    return {"prompt_token_ids": list(prompt.encode()), "choices": [choice]}


def question(prompt: str) -> Question:
    return Question(prompt, (prompt.encode(),), {"max_tokens": 4})
