"""A judge on this machine: an OpenAI-compatible server whose replies a test decides."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # with the default of 5 the kernel may drop connections, and clients wait seconds


@contextmanager
def judge_server(
    reply: Callable[[dict[str, Any]], str],
    seen: list[dict[str, Any]],
    status: int | Callable[[dict[str, Any]], int] = 200,
) -> Iterator[str]:
    """An OpenAI-compatible server on this machine that replies what `reply` makes of the request, with a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            answer = json.dumps({"choices": [{"message": {"content": reply(body)}}]}).encode()
            self.send_response(status if isinstance(status, int) else status(body))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()
