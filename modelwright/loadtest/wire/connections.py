"""gRPC connections that callers share.

Up to six callers share one, as in Triton's own clients. Connections cost the server: with one for each of 32 callers it
answers a quarter less.
"""

from __future__ import annotations

from gevent.event import AsyncResult

from modelwright.loadtest.wire.calls import CallError
from modelwright.loadtest.wire.frames import END_STREAM
from modelwright.loadtest.wire.http2 import Call, Link
from modelwright.triton.access import Address

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

_CALLERS = 6  # of one connection, as in Triton's C++ client and in perf_analyzer


class GrpcConnections:
    """Connections to one server, each with at most _CALLERS callers."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._all: list[GrpcConnection] = []

    def join(self) -> GrpcConnection:
        """A connection for one more caller, who must `leave` it."""
        for connection in self._all:
            if connection.callers < _CALLERS:
                break
        else:
            connection = GrpcConnection(self._address, self._timeout_s)
            self._all.append(connection)
        connection.callers += 1
        return connection


class GrpcConnection:
    """One HTTP/2 connection for any number of greenlets. It is opened when first needed, and again after a failure.

    `timeout_s` limits connecting, and each message that a call sends or waits for.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.callers = 0
        self._address, self._timeout_s = address, timeout_s
        self._link: Link | None = None
        self._next_link: AsyncResult | None = None

    def call(self, message: bytes, path: str = INFER) -> bytes:
        """A unary call: takes a message from `message_bytes`, returns the answer's message. Raises CallError."""
        call = self.start(message, path, END_STREAM)
        try:
            answer = call.receive()
            if answer is None or call.receive() is not None:
                raise call.violation("no single message as answer to a unary call")
            return answer
        finally:
            call.close()

    def start(self, message: bytes, path: str, flags: int = 0) -> Call:
        """Open a call with its first message; END_STREAM in `flags` makes it the only one."""
        link = self._link
        while link is None or not link.takes_calls:  # a link that another greenlet opened may have ended since
            link = self._connect()
        return link.start(message, path, flags)

    def _connect(self) -> Link:
        """A new link. One greenlet connects for all that wait; if it fails, all of them get the error."""
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
                found.set_exception(CallError("closed", "the connecting greenlet was killed"))

    def leave(self) -> None:
        """The caller is done; the last one closes the connection."""
        self.callers -= 1
        if self.callers <= 0:
            self.close()

    def close(self) -> None:
        """End all calls. The next call connects again."""
        if self._link is not None:
            self._link.fail(CallError("closed", "the connection was closed on this side"))
            self._link = None
