"""An HTTP/2 connection for gRPC (RFC 9113): a call takes 30 microseconds of CPU.

grpcio under gevent takes 190 to 270 (each call waits in a native thread), so that one process cannot send 5,000 a
second. Here a call passes its prepared frames to the connection and waits. One greenlet of the connection writes the
frames of all calls, another reads all answers.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections import deque
from socket import SHUT_RDWR
from urllib.parse import unquote

import gevent
from gevent.event import Event

from modelwright.loadtest.wire.calls import CLOSED, READ, CallError, Connection, too_large
from modelwright.loadtest.wire.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WORD,
    MalformedError,
    frame,
    read_headers,
    request_headers,
    unpadded,
)
from modelwright.triton.access import Address

_WINDOW, _LARGEST_WINDOW, _FRAME, _WANTED_FRAME = 65_535, 2**31 - 1, 16_384, 2**20
_LAST_STREAM = 2**31 - 3  # stream ids are odd and 31 bits long
_CANCEL = 8
_FLOOD = 64  # reads
# fmt: off
_STATUS = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)
_NAMES = {str(number): name for number, name in enumerate(_STATUS)}
# fmt: on


class Call:
    """An open call on a connection, for one greenlet at a time, which closes it."""

    __slots__ = (
        "_begun",
        "_deadline",
        "_ended",
        "_error",
        "_event",
        "_link",
        "_messages",
        "_queued",
        "number",
        "received",
        "window",
    )

    def __init__(self, link: Link, number: int, window: int) -> None:
        self.number = number
        self.window = window  # bytes of DATA that may be sent
        self.received = 0  # bytes of DATA since the last WINDOW_UPDATE
        self._link = link
        self._event = Event()
        self._messages: deque[bytes] = deque()
        self._begun = bytearray()  # an incomplete message
        self._ended = False
        self._error: CallError | None = None
        self._queued = 0  # bytes of messages that nobody has received yet
        self._deadline = time.monotonic() + link.timeout_s  # for sending, and then for each message

    def send(self, message: bytes, flags: int = 0) -> None:
        """Send another message, in frames that fit the server's windows and frame size."""
        sent = 0
        self._deadline = time.monotonic() + self._link.timeout_s
        while sent < len(message):
            if self._ended:  # the server answered before it read the message
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

    def receive(self) -> bytes | None:
        """The server's next message; None at the end of the call. Raises CallError if the call ended in an error."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._wait()
        self._deadline = time.monotonic() + self._link.timeout_s
        message = self._messages.popleft()
        self._queued -= len(message)
        return message

    def _wait(self) -> None:
        """Wait for the server."""
        if self._error is not None:
            raise self._error
        self._event.clear()
        left_s = self._deadline - time.monotonic()
        if left_s <= 0 or not self._event.wait(left_s):
            self._link.retire()  # a server that is silent in one call may be silent in all
            raise CallError("timeout", f"no answer within {self._link.timeout_s:g} s")

    def close(self) -> None:
        """End the call; further answers to it are ignored."""
        self._link.forget(self, cancel=not self._ended and self._error is None)

    def violation(self, what: str) -> CallError:
        return self._link.violation(what)

    # Called by the connection's reader:

    def take_data(self, data: bytes, flags: int) -> None:
        if self._begun:
            self._begun += data
            data = bytes(self._begun) if _is_whole(self._begun) else b""
        while _is_whole(data):
            self._begun.clear()
            if data[0]:
                raise MalformedError("a compressed message, without being asked to")
            size = 5 + WORD.unpack_from(data, 1)[0]
            self._messages.append(data[5:size])
            self._queued += size - 5
            data = data[size:]
        self._begun += data
        waiting = self._queued + (WORD.unpack_from(self._begun, 1)[0] if len(self._begun) >= 5 else 0)
        if waiting > self._link.address.access.max_answer_bytes:
            raise too_large(waiting, self._link.address.access)
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


def _is_whole(data: bytes | bytearray) -> bool:
    """Whether the data begins with a whole gRPC message."""
    return len(data) >= 5 and len(data) - 5 >= WORD.unpack_from(data, 1)[0]


class Link(Connection):
    """One HTTP/2 connection. Raises CallError if connecting fails."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        self.timeout_s = timeout_s
        self.takes_calls = True
        self.senders: list[Call] = []  # calls that wait for room in a window
        self._calls: dict[int, Call] = {}
        self._last = -1  # stream
        self._opening: dict[str, tuple[bytes, bytes]] = {}  # path → the frame of headers, before and after its number
        self._window = self._initial_window = _WINDOW
        self._frame_size = _FRAME
        self._received = 0
        self._block: tuple[int, int, bytes] | None = None  # an incomplete header block: stream, flags, bytes so far
        self._unsent: list[bytes] = []
        self._news = Event()  # there is something to send, or the connection has ended
        self._begin()
        self._open(["h2"])
        settings = {HEADER_TABLE_SIZE: 0, INITIAL_WINDOW_SIZE: _LARGEST_WINDOW, MAX_FRAME_SIZE: _WANTED_FRAME}
        values = b"".join(struct.pack(">HI", key, value) for key, value in settings.items())
        grown = WORD.pack(_LARGEST_WINDOW - _WINDOW)
        self.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, values) + frame(WINDOW_UPDATE, 0, 0, grown)
        )
        gevent.spawn(self._write)
        gevent.spawn(self._read)

    def start(self, message: bytes, path: str, flags: int) -> Call:
        if path not in self._opening:
            block = request_headers(self.address, path)
            self._opening[path] = (WORD.pack(len(block))[1:] + bytes((HEADERS, END_HEADERS)), block)
        before, after = self._opening[path]
        size = len(message)
        self._last = stream = self._last + 2
        if stream >= _LAST_STREAM:
            self.takes_calls = False
        call = self._calls[stream] = Call(self, stream, self._initial_window)
        number = WORD.pack(stream)
        if size <= self.room(call):
            self._spend(call, size)
            self.write(b"%b%b%b%b\0%c%b%b" % (before, number, after, WORD.pack(size)[1:], flags, number, message))
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
        """Queue frames; they are sent together with those of other calls."""
        self._unsent.append(frames)
        self._news.set()

    def forget(self, call: Call, *, cancel: bool) -> None:
        if self._calls.pop(call.number, None) is not None and not self._close_if_done() and cancel:
            self.cancel(call)

    def cancel(self, call: Call) -> None:
        self.write(frame(RST_STREAM, 0, call.number, WORD.pack(_CANCEL)))

    def retire(self) -> None:
        """Accept no more calls; open calls go on."""
        self.takes_calls = False
        self._close_if_done()

    def fail(self, error: CallError) -> None:
        """End the connection and its calls with an error."""
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
                self._socket.shutdown(SHUT_RDWR)  # else gevent closes it only when the reader stops waiting
        super().close()
        self._news.set()

    def _left_s(self) -> float:
        """Connecting has a deadline. After that each call has its own, and the connection none."""
        return super()._left_s() if self._socket is None else self._timeout_s

    def _close_if_done(self) -> bool:
        if not self.takes_calls and not self._calls:
            self.close()
        return self._socket is None

    def _broken(self, error: OSError) -> CallError:
        failed = super()._broken(error)
        self.fail(failed)
        return failed

    def _receive(self) -> bytes:
        """More of the answers, at least one byte. Waits without a limit: each call has its own."""
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
        """Write queued frames until the connection ends."""
        with contextlib.suppress(CallError):  # the calls get the error
            while self._socket is not None:
                frames, self._unsent = self._unsent, []
                self._news.clear()
                if frames:
                    self._send(b"".join(frames))
                self._news.wait()

    def _read(self) -> None:
        """Read frames until the connection ends."""
        buffer = b""
        received = 0
        try:
            while self._socket is not None:
                buffer += self._receive()
                received += 1
                if received % _FLOOD == 0:  # receiving what is there already does not let other greenlets run
                    gevent.sleep(0)
                buffer = buffer[self._take_frames(buffer) :]
        except MalformedError as error:
            self.fail(self.violation(str(error)))
        except struct.error:
            self.fail(self.violation("a frame of a wrong size"))
        except CallError as error:
            self.fail(error)

    def _take_frames(self, buffer: bytes) -> int:
        """Handle all whole frames; returns where the rest begins."""
        offset, end = 0, len(buffer)
        while end - offset >= 9:
            size_and_kind, flags, stream = FRAME_HEAD.unpack_from(buffer, offset)
            size, start = size_and_kind >> 8, offset + 9
            if size > _WANTED_FRAME:
                is_http = buffer.startswith(b"HTTP/", offset)
                raise MalformedError(
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
                call.take_data(unpadded(payload) if flags & PADDED else payload, flags)
        elif kind == HEADERS:
            if flags & PADDED:
                payload = unpadded(payload)
            if flags & PRIORITY:
                payload = payload[5:]
            if flags & END_HEADERS:
                self._take_block(stream, flags, payload)
            else:
                self._block = stream, flags, payload
        elif kind == WINDOW_UPDATE:
            self._take_window(call, stream, WORD.unpack(payload)[0])
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM and call is not None:
            call.fail(CallError("gRPC reset", f"the server reset the call, HTTP/2 error {WORD.unpack(payload)[0]}"))
        elif kind == GOAWAY:
            self._on_goaway(WORD.unpack_from(payload)[0])

    def _continue_block(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or kind != CONTINUATION or stream != self._block[0]:
            raise MalformedError("a header block that does not end")
        _, first, begun = self._block
        self._block = None
        if flags & END_HEADERS:
            self._take_block(stream, first, begun + payload)
        elif len(begun) > _WANTED_FRAME:
            raise MalformedError("a header block that does not end")
        else:
            self._block = stream, first, begun + payload

    def _take_block(self, stream: int, flags: int, block: bytes) -> None:
        call = self._calls.get(stream)
        if call is not None:
            call.take_headers(read_headers(block), flags)

    def _replenish(self, call: Call | None, size: int) -> None:
        """Extend the windows long before they are used up."""
        self._received += size
        if self._received > _LARGEST_WINDOW // 2:
            self.write(frame(WINDOW_UPDATE, 0, 0, WORD.pack(self._received)))
            self._received = 0
        if call is not None:
            call.received += size
            if call.received > _LARGEST_WINDOW // 2:
                self.write(frame(WINDOW_UPDATE, 0, call.number, WORD.pack(call.received)))
                call.received = 0

    def _take_window(self, call: Call | None, stream: int, size: int) -> None:
        if stream == 0:
            self._window += size
        elif call is not None:
            call.window += size
        self._wake_senders()

    def _take_settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._initial_window
                self._initial_window = value
            elif key == MAX_FRAME_SIZE:
                self._frame_size = value
        self.write(frame(SETTINGS, ACK, 0, b""))
        self._wake_senders()

    def _wake_senders(self) -> None:
        for call in self.senders:
            call.wake()
        self.senders.clear()

    def _on_goaway(self, last: int) -> None:
        """The server shuts down. It still answers calls up to the stream `last`."""
        for call in self._calls.values():
            if call.number > last:
                call.fail(CallError("closed", "the server is shutting down"))
        self.retire()
