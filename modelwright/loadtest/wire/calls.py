"""Errors and TCP connections that HTTP/1.1 and gRPC share."""

from __future__ import annotations

import errno
from typing import Any

from modelwright.triton.access import Address

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

    `timeout_s` limits connecting, and every wait for more of an answer.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._socket: Any = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, protocols: list[str]) -> Any:
        from gevent import socket

        try:
            opened = socket.create_connection((self.address.host, self.address.port), self._timeout_s)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = self._encrypted(opened, protocols) if self.address.is_tls else opened
        except OSError as error:
            raise CallError("connect", f"{self.address.authority}: {_reason(error)}") from None
        return self._socket

    def _encrypted(self, opened: Any, protocols: list[str]) -> Any:
        from gevent import ssl

        context = ssl.create_default_context()
        context.set_alpn_protocols(protocols)
        return context.wrap_socket(opened, server_hostname=self.address.host)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from None

    def _receive(self) -> bytes:
        """More of the answer, at least one byte."""
        try:
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


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
