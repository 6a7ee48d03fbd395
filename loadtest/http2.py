"""Requests over gRPC, at 30 microseconds of CPU a request: the part of HTTP/2 (RFC 9113) that a gRPC client needs.

grpcio under gevent takes 190 to 270 microseconds a call (each waits in a native thread), so that one process cannot ask
for 5,000 a second. Here a call hands its frames, which were made beforehand, to the connection and waits. A greenlet of
the connection writes what all calls have handed in since the last write, another reads all that there is.

Up to six callers share a connection, as in Triton's own clients. A connection costs the server: with one for each of 32
callers it answers a third less.

The peer is asked for a header table of no entries, so that header blocks can be read without a state, and equal ones
only once; `hpack` reads them.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from functools import lru_cache
from socket import SHUT_RDWR
from urllib.parse import unquote

import gevent
from gevent.event import AsyncResult, Event

from loadtest.calls import CLOSED, READ, Address, CallError, Connection

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
CALLERS = 6  # of one connection: what Triton's C++ client, and with it perf_analyzer, puts on one

_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 4, 5
_WINDOW, _LARGEST_WINDOW, _FRAME, _WANTED_FRAME = 65_535, 2**31 - 1, 16_384, 2**20
_LAST_STREAM = 2**31 - 3  # stream ids are odd and 31 bits long
_CANCEL = 8
_WORD = struct.Struct(">I")
_FRAME_HEAD = struct.Struct(">IBI")  # size and kind in one word, flags, stream
# fmt: off
_STATUS = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)
_NAMES = {str(number): name for number, name in enumerate(_STATUS)}
# fmt: on


class _MalformedError(Exception):
    """What is wrong with a frame."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return b"%b%b%b" % (_WORD.pack(len(payload))[1:] + bytes((kind, flags)), _WORD.pack(stream), payload)


def message_bytes(message: bytes) -> bytes:
    """A gRPC message as it stands in DATA frames: not compressed, its length, itself."""
    return b"\0" + _WORD.pack(len(message)) + message


@lru_cache(maxsize=64)
def request_headers(address: Address, path: str) -> bytes:
    from hpack import Encoder

    fields = [
        (":method", "POST"),
        (":scheme", "https" if address.is_tls else "http"),
        (":path", path),
        (":authority", address.authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "modelwright"),
    ]
    encoder = Encoder()
    encoder.header_table_size = 0  # the block is sent many times: it must not depend on what was sent before
    return bytes(encoder.encode(fields))


@lru_cache(maxsize=256)
def read_headers(block: bytes) -> dict[str, str]:
    from hpack import Decoder, HPACKError

    try:
        return {_text(name): _text(value) for name, value in Decoder().decode(block)}
    except HPACKError as error:
        raise _MalformedError(f"headers that cannot be read: {error}") from None


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


class GrpcConnections:
    """Connections to one server, each with so many callers at most."""

    def __init__(self, address: Address, timeout_s: float, callers: int = CALLERS) -> None:
        self._address, self._timeout_s, self._callers = address, timeout_s, callers
        self._all: list[GrpcConnection] = []

    def join(self) -> GrpcConnection:
        """A connection for one caller more, who will `leave` it."""
        for connection in self._all:
            if connection.callers < self._callers:
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
        self._link: _Link | None = None
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

    def _connect(self) -> _Link:
        """A new link, which one greenlet makes for all that need it now, or none, which they all hear."""
        if self._next_link is not None:
            return self._next_link.get()  # type: ignore[no-any-return]
        found = self._next_link = AsyncResult()
        try:
            self._link = _Link(self._address, self._timeout_s)
            found.set(self._link)
            return self._link
        except CallError as error:
            found.set_exception(CallError(error.kind, error.message))
            raise
        finally:
            self._next_link = None
            if not found.ready():  # this greenlet was killed
                found.set_exception(CallError("closed", "nobody connected"))

    @property
    def is_connected(self) -> bool:
        return self._link is not None and self._link.takes_calls

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


class Call:
    """A call that is open on a connection; for one greenlet at a time, which closes it."""

    __slots__ = ("_data", "_ended", "_error", "_event", "_link", "_messages", "number", "received", "window")

    def __init__(self, link: _Link, number: int, window: int) -> None:
        self.number = number
        self.window = window  # bytes of DATA that may be sent
        self.received = 0  # bytes of DATA since the server was last allowed more
        self._link = link
        self._event = Event()
        self._messages: deque[bytes] = deque()
        self._data = b""  # the beginning of a message
        self._ended = False
        self._error: CallError | None = None

    def send(self, message: bytes, flags: int = 0) -> None:
        """Another message, in as many frames as the server's windows and frame size ask for."""
        sent = 0
        while sent < len(message):
            if self._ended:  # the server has answered without having read it
                self._link.cancel(self)
                return
            room = self._link.room(self)
            if room > 0:
                part = message[sent : sent + room]
                sent += len(part)
                self._link.write_data(self, part, flags if sent == len(message) else 0)
            else:
                self._link.senders.append(self)
                self._wait()

    def end(self) -> None:
        """Nothing more will be sent in this call."""
        self._link.write(frame(DATA, END_STREAM, self.number, b""))

    def receive(self) -> bytes | None:
        """The server's next message; None when it has ended the call well. Raises CallError if it ended in an error."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._wait()
        return self._messages.popleft()

    def _wait(self) -> None:
        """For news of the server."""
        if self._error is not None:
            raise self._error
        self._event.clear()
        if not self._event.wait(self._link.timeout_s):
            self._link.retire()  # a server that is silent in one call may be in all
            raise CallError("timeout", f"no answer within {self._link.timeout_s:g} s")

    def close(self) -> None:
        """Nothing that the server may still say in this call is of interest."""
        self._link.forget(self, cancel=not self._ended and self._error is None)

    def violation(self, what: str) -> CallError:
        return self._link.violation(what)

    # What follows is for the connection's reader.

    def take_data(self, data: bytes, flags: int) -> None:
        data = self._data + data if self._data else data
        while len(data) >= 5:
            size = 5 + _WORD.unpack_from(data, 1)[0]
            if len(data) < size:
                break
            if data[0]:
                raise _MalformedError("a compressed message, which it was not asked for")
            self._messages.append(data[5:size])
            data = data[size:]
        self._data = data
        self.wake()
        if flags & END_STREAM:
            self.fail(self.violation("a call that ends without a status"))

    def take_headers(self, fields: dict[str, str], flags: int) -> None:
        status = fields.get("grpc-status")
        if fields.get(":status", "200") != "200":
            self.fail(self.violation(f"HTTP status {fields[':status']}"))
        elif status == "0":
            self._ended = True
            self.wake()
        elif status is not None:
            self.fail(CallError(f"gRPC {_NAMES.get(status, status)}", unquote(fields.get("grpc-message", ""))))
        elif flags & END_STREAM:
            self.fail(self.violation("a call that ends without a status"))

    def fail(self, error: CallError) -> None:
        if not self._ended and self._error is None:
            self._error = CallError(error.kind, error.message)  # of its own: each is raised elsewhere
            self.wake()

    def wake(self) -> None:
        self._event.set()


class _Link(Connection):
    """A connection as long as it lives. Raises CallError if there is none to be had."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        self.timeout_s = timeout_s
        self.takes_calls = True
        self.senders: list[Call] = []  # that wait for room
        self._calls: dict[int, Call] = {}
        self._last = -1  # stream
        self._opening: dict[str, tuple[bytes, bytes]] = {}  # path → the frame of headers, before and after its number
        self._window = self._initial_window = _WINDOW
        self._frame_size = _FRAME
        self._received = 0
        self._block: tuple[int, int, bytes] | None = None  # a header block that goes on: stream, flags, what there is
        self._unsent: list[bytes] = []
        self._news = Event()  # there is something to send, or nothing ever again
        self._open(["h2"])
        settings = {_HEADER_TABLE_SIZE: 0, _INITIAL_WINDOW_SIZE: _LARGEST_WINDOW, _MAX_FRAME_SIZE: _WANTED_FRAME}
        values = b"".join(struct.pack(">HI", key, value) for key, value in settings.items())
        grown = _WORD.pack(_LARGEST_WINDOW - _WINDOW)
        self.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, values) + frame(WINDOW_UPDATE, 0, 0, grown)
        )
        gevent.spawn(self._write)
        gevent.spawn(self._read)

    def start(self, message: bytes, path: str, flags: int) -> Call:
        if path not in self._opening:
            block = request_headers(self.address, path)
            self._opening[path] = (_WORD.pack(len(block))[1:] + bytes((HEADERS, END_HEADERS)), block)
        before, after = self._opening[path]
        size = len(message)
        self._last = stream = self._last + 2
        if stream >= _LAST_STREAM:
            self.takes_calls = False
        call = self._calls[stream] = Call(self, stream, self._initial_window)
        number = _WORD.pack(stream)
        if size <= self.room(call):
            self._spend(call, size)
            self.write(b"%b%b%b%b\0%c%b%b" % (before, number, after, _WORD.pack(size)[1:], flags, number, message))
            return call
        self.write(b"%b%b%b" % (before, number, after))
        try:
            call.send(message, flags)
        except BaseException:
            call.close()
            raise
        return call

    def room(self, call: Call) -> int:
        """Bytes of a message that may be sent now."""
        return min(self._window, call.window, self._frame_size)

    def write_data(self, call: Call, part: bytes, flags: int) -> None:
        """A frame of a message, for which there is room."""
        self._spend(call, len(part))
        self.write(frame(DATA, flags, call.number, part))

    def write(self, frames: bytes) -> None:
        """Have frames sent, with what else is to be sent now."""
        self._unsent.append(frames)
        self._news.set()

    def forget(self, call: Call, *, cancel: bool) -> None:
        if self._calls.pop(call.number, None) is not None and not self._close_if_done() and cancel:
            self.cancel(call)

    def cancel(self, call: Call) -> None:
        self.write(frame(RST_STREAM, 0, call.number, _WORD.pack(_CANCEL)))

    def retire(self) -> None:
        """Take no more calls; those that are open go on."""
        self.takes_calls = False
        self._close_if_done()

    def fail(self, error: CallError) -> None:
        """The end of the connection, and of its calls."""
        self.takes_calls = False
        self.close()
        for call in self._calls.values():
            call.fail(error)
        self._calls.clear()

    def violation(self, what: str) -> CallError:
        return CallError("not gRPC", f"{self.address.authority} sent {what}")

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(SHUT_RDWR)  # gevent itself closes later: the reader waits on this socket
        super().close()
        self._news.set()

    def _close_if_done(self) -> bool:
        if not self.takes_calls and not self._calls:
            self.close()
        return self._socket is None

    def _broken(self, error: OSError) -> CallError:
        failed = super()._broken(error)
        self.fail(failed)
        return failed

    def _receive(self) -> bytes:
        """More of the answers, never nothing; however long it takes, for each call has a limit of its own."""
        while True:
            try:
                data: bytes = self._socket.recv(READ)
            except TimeoutError:
                continue
            except OSError as error:
                raise self._broken(error) from None
            if not data:
                raise CallError(*CLOSED)
            return data

    def _spend(self, call: Call, size: int) -> None:
        self._window -= size
        call.window -= size

    def _write(self) -> None:
        """What calls have to send, until the connection ends."""
        with contextlib.suppress(CallError):  # the calls hear of it
            while self._socket is not None:
                frames, self._unsent = self._unsent, []
                self._news.clear()
                if frames:
                    self._send(b"".join(frames))
                self._news.wait()

    def _read(self) -> None:
        """All that comes, until the connection ends."""
        buffer = b""
        try:
            while self._socket is not None:
                buffer += self._receive()
                buffer = buffer[self._take_frames(buffer) :]
        except _MalformedError as error:
            self.fail(self.violation(str(error)))
        except struct.error:
            self.fail(self.violation("a frame of a wrong size"))
        except CallError as error:
            self.fail(error)

    def _take_frames(self, buffer: bytes) -> int:
        """Do what all whole frames ask for; where the rest begins."""
        offset, end = 0, len(buffer)
        while end - offset >= 9:
            size_and_kind, flags, stream = _FRAME_HEAD.unpack_from(buffer, offset)
            size, start = size_and_kind >> 8, offset + 9
            if size > _WANTED_FRAME:
                is_http = buffer.startswith(b"HTTP/", offset)
                raise _MalformedError(
                    "an answer in HTTP/1: is this the HTTP port?" if is_http else "a frame larger than is allowed"
                )
            if start + size > end:
                break
            offset = start + size
            self._take(size_and_kind & 0xFF, flags, stream & _LARGEST_WINDOW, buffer[start:offset])
        return offset

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        call = self._calls.get(stream)
        if self._block is not None or kind == CONTINUATION:
            self._continue_block(kind, flags, stream, payload)
        elif kind == DATA:
            self._replenish(call, len(payload))
            if call is not None:
                call.take_data(_unpadded(payload) if flags & PADDED else payload, flags)
        elif kind == HEADERS:
            if flags & PADDED:
                payload = _unpadded(payload)
            if flags & PRIORITY:
                payload = payload[5:]
            if flags & END_HEADERS:
                self._take_block(stream, flags, payload)
            else:
                self._block = stream, flags, payload
        elif kind == WINDOW_UPDATE:
            self._take_window(call, stream, _WORD.unpack(payload)[0])
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM and call is not None:
            call.fail(CallError("gRPC reset", f"the server reset the call, HTTP/2 error {_WORD.unpack(payload)[0]}"))
        elif kind == GOAWAY:
            self._take_goodbye(_WORD.unpack_from(payload)[0])

    def _continue_block(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or kind != CONTINUATION or stream != self._block[0]:
            raise _MalformedError("a header block that does not end")
        _, first, begun = self._block
        self._block = None
        if flags & END_HEADERS:
            self._take_block(stream, first, begun + payload)
        elif len(begun) > _WANTED_FRAME:
            raise _MalformedError("a header block that does not end")
        else:
            self._block = stream, first, begun + payload

    def _take_block(self, stream: int, flags: int, block: bytes) -> None:
        call = self._calls.get(stream)
        if call is not None:
            call.take_headers(read_headers(block), flags)

    def _replenish(self, call: Call | None, size: int) -> None:
        """Give windows back long before they are used up."""
        self._received += size
        if self._received > _LARGEST_WINDOW // 2:
            self.write(frame(WINDOW_UPDATE, 0, 0, _WORD.pack(self._received)))
            self._received = 0
        if call is not None:
            call.received += size
            if call.received > _LARGEST_WINDOW // 2:
                self.write(frame(WINDOW_UPDATE, 0, call.number, _WORD.pack(call.received)))
                call.received = 0

    def _take_window(self, call: Call | None, stream: int, size: int) -> None:
        if stream == 0:
            self._window += size
        elif call is not None:
            call.window += size
        self._wake_senders()

    def _take_settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._initial_window
                self._initial_window = value
            elif key == _MAX_FRAME_SIZE:
                self._frame_size = value
        self.write(frame(SETTINGS, ACK, 0, b""))
        self._wake_senders()

    def _wake_senders(self) -> None:
        for call in self.senders:
            call.wake()
        self.senders.clear()

    def _take_goodbye(self, last: int) -> None:
        """A call that the server has taken is still answered."""
        for call in self._calls.values():
            if call.number > last:
                call.fail(CallError("closed", "the server is shutting down"))
        self.retire()


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _MalformedError("more padding than there is in the frame")
    return payload[1 : len(payload) - payload[0]]
