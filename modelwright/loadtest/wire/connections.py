"""Connections of gRPC, which callers share.

Up to six callers share one, as in Triton's own clients. A connection costs the server: with one for each of 32 callers
it answers a quarter less.
"""

from __future__ import annotations

from gevent.event import AsyncResult

from modelwright.loadtest.wire.calls import Address, CallError
from modelwright.loadtest.wire.frames import END_STREAM
from modelwright.loadtest.wire.http2 import Call, Link

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

_CALLERS = 6  # of one connection: what Triton's C++ client, and with it perf_analyzer, puts on one


class GrpcConnections:
    """Connections to one server, each with so many callers at most."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._all: list[GrpcConnection] = []

    def join(self) -> GrpcConnection:
        """A connection for one caller more, who will `leave` it."""
        for connection in self._all:
            if connection.callers < _CALLERS:
                break
        else:
            connection = GrpcConnection(self._address, self._timeout_s)
            self._all.append(connection)
        connection.callers += 1
        return connection


class GrpcConnection:
    """One HTTP/2 connection, made when it is first needed and again after a failure; for any number of greenlets.

    `timeout_s` bounds connecting, and a call's every wait for the server.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.callers = 0
        self._address, self._timeout_s = address, timeout_s
        self._link: Link | None = None
        self._next_link: AsyncResult | None = None

    def call(self, message: bytes, path: str = INFER) -> bytes:
        """A unary call: a message as `message_bytes` makes it; the message that answers it. Raises CallError."""
        call = self.start(message, path, END_STREAM)
        try:
            answer = call.receive()
            if answer is None or call.receive() is not None:
                raise call.violation("no single answer to a unary call")
            return answer
        finally:
            call.close()

    def start(self, message: bytes, path: str, flags: int = 0) -> Call:
        """Open a call with its first message, which is the only one with END_STREAM in `flags`."""
        link = self._link
        while link is None or not link.takes_calls:  # what another greenlet has connected may have ended since
            link = self._connect()
        return link.start(message, path, flags)

    def _connect(self) -> Link:
        """A new link, which one greenlet makes for all that need it now, or none, which they all hear."""
        if self._next_link is not None:
            return self._next_link.get()  # type: ignore[no-any-return]
        found = self._next_link = AsyncResult()
        try:
            self._link = Link(self._address, self._timeout_s)
            found.set(self._link)
            return self._link
        except CallError as error:
            found.set_exception(CallError(error.kind, error.message))
            raise
        finally:
            self._next_link = None
            if not found.ready():  # this greenlet was killed
                found.set_exception(CallError("closed", "nobody connected"))

    def leave(self) -> None:
        """One caller less; the last one closes the connection."""
        self.callers -= 1
        if self.callers <= 0:
            self.close()

    def close(self) -> None:
        """End all calls. The next one connects anew."""
        if self._link is not None:
            self._link.fail(CallError("closed", "the connection was closed on this side"))
            self._link = None
