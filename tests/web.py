"""A web server on this machine that gives files, and makes the faults of others.

with WebFiles({"/m.onnx": data}) as web:
    web.answers["/m.onnx"] = Truncated(data, after=100)
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Status:
    code: int
    location: str = ""


@dataclass(frozen=True)
class Truncated:
    """Says how long the file is, and ends the connection early."""

    data: bytes
    after: int


@dataclass(frozen=True)
class WithoutRanges:
    data: bytes


Answer = bytes | Status | Truncated | WithoutRanges


class WebFiles:
    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, str]] = []  # (path, Range)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._http.server_port}{path}"

    def __enter__(self) -> WebFiles:
        web = self

        class Handler(_Handler):
            pass

        Handler.web = web
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    web: WebFiles

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.web.requests.append((self.path, wanted))
        answer = self.web.answers.get(self.path.partition("?")[0], Status(404))
        if isinstance(answer, Status):
            self.send_response(answer.code)
            if answer.location:
                self.send_header("Location", answer.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif isinstance(answer, Truncated):
            self._send(200, answer.data, answer.data[: answer.after])
        elif isinstance(answer, WithoutRanges) or not wanted:
            data = answer.data if isinstance(answer, WithoutRanges) else answer
            self._send(200, data, data)
        else:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self._send(206, answer[start:], answer[start:])

    def _send(self, status: int, declared: bytes, sent: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(declared)))
        self.end_headers()
        self.wfile.write(sent)
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass
