"""A real S3 server in a process of its own, and a proxy in front of it that makes faults.

    with moto() as port, Proxy(port) as proxy:
        proxy.on_request = lambda request: Reset() if request.number == 3 else None

A fault is decided from a request's number, method and path. After every request that changes something,
`proxy.after_write` is called, with the server's state as it then is.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.ports import free_port
from tests.waiting import wait_until

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "3",
}

# moto asks for a signature, and does not check it.
_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, Signature=none"}


@contextlib.contextmanager
def moto() -> Iterator[int]:
    """moto's server; the port that it listens on."""
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **CREDENTIALS}
    )
    try:
        wait_until(lambda: _answers(port), "moto's server")
        yield port
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        ask(port, "GET", "/moto-api/")
    except OSError:
        return False
    return True


def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, _SIGNED)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@dataclass(frozen=True)
class Request:
    number: int  # from 1, since the last reset
    method: str
    path: str  # /bucket/prefix/name, without quotes
    query: str

    @property
    def changes(self) -> bool:
        return self.method in ("PUT", "DELETE", "POST")


@dataclass(frozen=True)
class Answer:
    """Answer with this error instead of the server's answer. `done`: the server has carried the request out."""

    status: int
    code: str
    done: bool = False


@dataclass(frozen=True)
class Reset:
    """Cut the connection: before the server has seen the request, or after it has carried it out."""

    done: bool = False


@dataclass(frozen=True)
class Truncate:
    """Send half of the answer's body, and cut the connection; or hand half of the request's body on."""

    upload: bool = False


@dataclass(frozen=True)
class Hang:
    """Answer nothing, until the client has gone."""


Fault = Answer | Reset | Truncate | Hang | None


class Proxy:
    def __init__(self, server: int) -> None:
        self.server = server
        self.port = free_port()
        self.requests: list[Request] = []
        self.on_request: Callable[[Request], Fault] = lambda _: None
        self.after_write: Callable[[Request], object] = lambda _: None
        self.problems: list[BaseException] = []  # of `after_write`
        self._one = threading.Lock()
        self._closing = threading.Event()

    def reset(self) -> None:
        self.requests.clear()
        self.on_request = lambda _: None
        self.after_write = lambda _: None

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy = proxy
        self._http = _Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def handle(self, handler: _Handler, method: str) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        if len(body) < length:  # the client has gone; a store takes no such body
            handler.close_connection = True
            return
        with self._one:
            request = Request(len(self.requests) + 1, method, unquote(parts.path), parts.query)
            self.requests.append(request)
            fault = self.on_request(request)
        if isinstance(fault, Hang):
            self._hang(handler)
        elif isinstance(fault, Reset) and not fault.done:
            _cut(handler)
        elif isinstance(fault, Answer) and not fault.done:
            _error(handler, fault)
        else:
            self._pass_on(handler, request, body, fault)

    def _hang(self, handler: _Handler) -> None:
        handler.connection.settimeout(30)
        with contextlib.suppress(OSError):
            while not self._closing.is_set() and handler.connection.recv(1 << 16):
                pass
        handler.close_connection = True

    def _pass_on(self, handler: _Handler, request: Request, body: bytes, fault: Fault) -> None:
        if isinstance(fault, Truncate) and fault.upload:
            body = body[: len(body) // 2]
        with self._one if request.changes else contextlib.nullcontext():
            status, headers, content = self._forward(handler, request.method, body)
            if request.changes:
                try:
                    self.after_write(request)
                except BaseException as error:  # told by the test, not by this thread
                    self.problems.append(error)
        if isinstance(fault, Reset):
            _cut(handler)
        elif isinstance(fault, Answer):
            _error(handler, fault)
        else:
            half = isinstance(fault, Truncate) and not fault.upload
            self._answer(handler, request.method, status, headers, content, half=half)

    def _forward(self, handler: _Handler, method: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server, timeout=60)
        try:
            headers = {
                name: value
                for name, value in handler.headers.items()
                if name.lower() not in ("content-length", "connection", "expect")
            }
            connection.request(method, handler.path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(
        self, handler: _Handler, method: str, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool
    ) -> None:
        handler.send_response_only(status)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(content)))
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if method != "HEAD":
            handler.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            handler.wfile.flush()
            _cut(handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return lambda: self._handled(name[3:])
        raise AttributeError(name)

    def _handled(self, method: str) -> None:
        try:
            self.proxy.handle(self, method)
        except OSError:
            self.close_connection = True


def _cut(handler: _Handler) -> None:
    """Close with a reset, as a network that goes away does."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.rfile.close()


def _error(handler: _Handler, fault: Answer) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>made by a test</Message></Error>".encode()
    handler.send_response_only(fault.status)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("Content-Type", "application/xml")
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
