"""Addresses, errors and TCP connections that HTTP/1.1 and gRPC share."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

READ = 64 * 1024  # most answers fit; above 128 kB, malloc would ask the kernel for each buffer
CLOSED = "closed", "the server closed the connection before it had answered"
_SCHEMES = {"http": 8000, "https": 443, "grpc": 8001, "grpcs": 443}


class CallError(Exception):
    """A failed request: its kind, by which failures are counted, and the message of the server or the system."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    scheme: str  # http, https, grpc or grpcs
    host: str
    port: int

    @property
    def protocol(self) -> Literal["http", "grpc"]:
        return "grpc" if self.scheme.startswith("grpc") else "http"

    @property
    def is_tls(self) -> bool:
        return self.scheme.endswith("s")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"


def address_of(url: str) -> Address:
    """`http://host:port`, `https://…`, `grpc://…`, `grpcs://…`, or `host:port`, which means HTTP."""
    from modelwright.errors import ServerError

    wrong = ServerError(f"'{url}' is not the URL of a server", "write http://host:port or grpc://host:port")
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path.strip("/"):
        raise wrong
    return Address(parts.scheme, parts.hostname, port or _SCHEMES[parts.scheme])


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
