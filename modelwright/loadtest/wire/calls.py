"""Errors and TCP connections that HTTP/1.1 and gRPC share."""

from __future__ import annotations

import errno
import time
from functools import lru_cache
from typing import Any

from modelwright.text import size
from modelwright.triton.access import Access, Address

READ = 64 * 1024  # most answers fit; above 128 kB, malloc would ask the kernel for each buffer
CLOSED = "closed", "the server closed the connection before it had answered"


class CallError(Exception):
    """A failed request: its kind, by which failures are counted, and the message of the server or the system."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class Connection:
    """A TCP connection for one greenlet. It is opened when first needed, and again after a failure.

    `timeout_s` limits each exchange, from connecting to the last byte of the answer, once `_begin` was called.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._socket: Any = None
        self._deadline = 0.0

    def _begin(self) -> None:
        self._deadline = time.monotonic() + self._timeout_s

    def _left_s(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, protocols: list[str]) -> Any:
        from gevent import socket

        try:
            opened = socket.create_connection((self.address.host, self.address.port), self._left_s())
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = self._encrypted(opened, protocols) if self.address.is_tls else opened
        except OSError as error:
            raise CallError("connect", f"{self.address.authority}: {_reason(error)}") from None
        return self._socket

    def _encrypted(self, opened: Any, protocols: list[str]) -> Any:
        opened.settimeout(self._left_s())
        return _context(self.address.access, tuple(protocols)).wrap_socket(opened, server_hostname=self.address.host)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._left_s())
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from None

    def _receive(self) -> bytes:
        """More of the answer, at least one byte."""
        try:
            self._socket.settimeout(self._left_s())
            data: bytes = self._socket.recv(READ)
        except OSError as error:
            raise self._broken(error) from None
        if not data:
            self.close()
            raise CallError(*CLOSED)
        return data

    def _broken(self, error: OSError) -> CallError:
        """The rest of the answer may still come, so the connection cannot be used again."""
        self.close()
        if isinstance(error, TimeoutError):
            return CallError("timeout", f"no answer within {self._timeout_s:g} s")
        if error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
            return CallError(*CLOSED)
        return CallError("network", _reason(error))


@lru_cache(maxsize=64)
def _context(access: Access, protocols: tuple[str, ...]) -> Any:
    """Made once: reading the system's certificates takes longer than a connection."""
    from gevent import ssl

    context = access.tls_context(ssl)
    context.set_alpn_protocols(list(protocols))
    return context


def too_large(size_bytes: int, access: Access) -> CallError:
    limit = size(access.max_answer_bytes)
    return CallError(
        "too large", f"an answer of {size(size_bytes)}, above the limit of {limit}: --max-answer GB raises it"
    )


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
