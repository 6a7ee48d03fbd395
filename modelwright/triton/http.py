"""One HTTP/1.1 connection that cannot be held up: a deadline for a whole exchange, and a limit on what comes back.

The standard library's timeouts are those of one read: a server that sends a byte a second outlasts them. Here each
read gets what is left until the deadline, which covers connecting, TLS, the request, the headers and the body. (Only
looking up a name is left to the system's resolver and its own limits.)
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelwright.triton.access import Address

_PIECE = 1 << 20
_HTTP2_SETTINGS = "\x04\0"  # kind and flags of the frame that a server begins with
_HEAD_BYTES = 1 << 20  # headers, and what chunks add to a body


class MalformedAnswerError(Exception):
    """What came is not HTTP, or not an answer that was asked for; the message says what it is."""


class AnswerTooLargeError(Exception):
    """More came than is taken in."""


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


class BoundedConnection:
    """Kept alive between requests, and opened again where the server has closed it. For one thread at a time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._context = address.access.tls_context() if address.is_tls else None
        self._socket: Any = None

    def __del__(self) -> None:  # of a thread that has ended
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float,
        max_bytes: int,
    ) -> HttpAnswer:
        """One request and its answer, whatever its status.

        Raises TimeoutError after `timeout_s` in all, AnswerTooLargeError for a body of more than `max_bytes`,
        MalformedAnswerError for what is not HTTP or is compressed, OSError where the server cannot be reached.
        """
        deadline = time.monotonic() + timeout_s
        try:
            answer, is_kept = self._exchange(method, path, body, headers or {}, deadline, max_bytes)
        except BaseException:
            self.close()  # the rest of the answer may still come
            raise
        if not is_kept:
            self.close()
        return answer

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], deadline: float, max_bytes: int
    ) -> tuple[HttpAnswer, bool]:
        self._connect(deadline)
        request = http.client.HTTPConnection(self._address.host, self._address.port)
        request.sock = self._socket
        self._socket.settimeout(_left_s(deadline))
        request.putrequest(method, path, skip_accept_encoding=True)
        own = {"Accept-Encoding": "identity", "Content-Length": str(len(body)), **headers}
        for name, value in (*own.items(), *self._address.access.headers):
            request.putheader(name, value)
        bounded: Any = _Bounded(self._socket, deadline, max_bytes + _HEAD_BYTES)
        try:
            request.endheaders(body or None)
            with http.client.HTTPResponse(bounded, method=method) as response:
                response.begin()
                found = _body(response, max_bytes)
                answer = HttpAnswer(response.status, response.reason, response.headers, found)
                return answer, not response.will_close
        except http.client.RemoteDisconnected as error:  # it closed without a word
            raise ConnectionResetError("it closes the connection without an answer") from error
        except (http.client.HTTPException, ValueError) as error:
            raise MalformedAnswerError(_described(error)) from None

    def _connect(self, deadline: float) -> None:
        if self._socket is not None and not _is_idle(self._socket):
            self.close()
        if self._socket is None:
            opened = _opened(self._address.host, self._address.port, deadline)
            try:
                opened.settimeout(_left_s(deadline))
                if self._context is not None:
                    opened = self._context.wrap_socket(opened, server_hostname=self._address.host)
            except BaseException:
                opened.close()
                raise
            self._socket = opened


class _Bounded(io.RawIOBase):
    """A socket, as HTTPResponse reads it: no read lasts longer than the deadline, or takes more than the limit."""

    def __init__(self, sock: Any, deadline: float, max_bytes: int) -> None:
        self._socket, self._deadline, self._left = sock, deadline, max_bytes

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 1 << 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_left_s(self._deadline))
        count: int = self._socket.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise AnswerTooLargeError
        return count


def _opened(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to the first of a name's addresses that takes one. Raises the last one's OSError."""
    failed: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(_left_s(deadline))
            opened.connect(place)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return opened
        except OSError as error:
            opened.close()
            failed = error
    raise failed


def _left_s(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_idle(sock: Any) -> bool:
    """Whether a kept connection can be used: nothing came, not even its end."""
    try:
        readable, _, _ = select.select([sock], [], [], 0)
    except (OSError, ValueError):
        return False
    return not readable


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise MalformedAnswerError(f"it answers in the encoding {encoding!r}, which was not asked for")
    if response.length is not None and response.length > max_bytes:
        raise AnswerTooLargeError
    found = bytearray()
    while piece := response.read(_PIECE):
        found += piece
        if len(found) > max_bytes:
            raise AnswerTooLargeError
    if response.length:  # a piece that is too short ends no exception
        raise MalformedAnswerError("its answer ends before it is complete")
    return bytes(found)


def _described(error: Exception) -> str:
    if isinstance(error, http.client.BadStatusLine):
        if str(error.args[0])[3:5] == _HTTP2_SETTINGS:
            return "it speaks HTTP/2: is this its gRPC port?"
        return f"it answers {str(error.args[0]).strip()[:60]!r}"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer ends before it is complete"
    return f"its answer is not HTTP: {str(error)[:100] or type(error).__name__}"
