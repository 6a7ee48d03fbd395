"""Requests over gRPC, at 35 microseconds of CPU a request: the part of HTTP/2 (RFC 9113) that a gRPC client needs.

grpcio under gevent takes 190 to 270 microseconds a call (each waits in a native thread), so that one process cannot ask
for 5,000 a second. Here a call is one write of frames that were made beforehand, and a read of the answer's frames.

The peer is asked for a header table of no entries, so that header blocks can be read without a state, and equal ones
only once; `hpack` reads them. Calls are made one at a time, on a connection of their own.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from urllib.parse import unquote

from loadtest.calls import Address, CallError, Connection

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 4, 5
_WINDOW, _LARGEST_WINDOW, _FRAME, _WANTED_FRAME = 65_535, 2**31 - 1, 16_384, 2**20
_LAST_STREAM = 2**31 - 3  # stream ids are odd and 31 bits long
_MOST_USUAL = 16  # header blocks of answers, two of which are all that a server usually sends
_WORD = struct.Struct(">I")
_WINDOW_UPDATE_HEAD = 4 << 8 | WINDOW_UPDATE
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


class GrpcConnection(Connection):
    """One HTTP/2 connection with one open call at a time."""

    _leaving = False  # the server takes no more calls on this connection
    _stream = -1
    _initial_window = _WINDOW
    _buffer, _offset = b"", 0

    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address, timeout_s)
        self._usual_headers: set[tuple[int, bytes]] = set()  # flags and block
        self._opening: dict[str, tuple[bytes, bytes]] = {}  # path → the frame of headers, before and after its number

    def call(self, message: bytes, path: str = INFER) -> bytes:
        """A unary call: a message as `message_bytes` makes it; the message that answers it. Raises CallError."""
        self.start(message, path, END_STREAM)
        self._buffer, self._offset = self._buffer[self._offset :] + self._receive(), 0
        answer = self._usual_answer()
        if answer is not None:
            return answer
        answer = self.receive()
        if answer is None or self.receive() is not None:
            raise self._violation("no single answer to a unary call")
        return answer

    def _usual_answer(self) -> bytes | None:
        """The answer, if it lies there whole and looks as nearly all do; else None, and nothing is done.

        That is: headers and trailers that `_take_headers` has found good before, between them one frame with one
        message, and perhaps windows that grow.
        """
        buffer, end, offset, stream = self._buffer, len(self._buffer), 0, self._stream
        message, windows = None, []
        while offset + 9 <= end:
            size_and_kind, flags, number = _FRAME_HEAD.unpack_from(buffer, offset)
            start, kind = offset + 9, size_and_kind & 0xFF
            offset = start + (size_and_kind >> 8)
            if offset > end:
                return None
            if size_and_kind == _WINDOW_UPDATE_HEAD:
                windows.append((number, start))
            elif number != stream:
                return None
            elif kind == DATA and not flags and message is None and buffer[start : start + 1] == b"\0":
                message = buffer[start + 5 : offset]
                if _WORD.unpack_from(buffer, start + 1)[0] != len(message):
                    return None
            elif kind != HEADERS or (flags, buffer[start:offset]) not in self._usual_headers:
                return None
            elif flags & END_STREAM:
                break
        else:
            return None
        if message is not None:
            self._offset, self._ended = offset, True
            self._replenish(len(message) + 5, mine=True)
            for number, start in windows:
                self._take_window(number, _WORD.unpack_from(buffer, start)[0])
        return message

    def start(self, message: bytes, path: str, flags: int = 0) -> None:
        """Open a call with its first message, which is the only one with END_STREAM in `flags`."""
        if self._socket is None or self._leaving or self._stream >= _LAST_STREAM:
            self._connect()
        self._stream += 2
        self._stream_window = self._initial_window
        self._stream_received = 0
        self._data = bytearray()
        self._ended = False
        if path not in self._opening:
            block = request_headers(self.address, path)
            self._opening[path] = (_WORD.pack(len(block))[1:] + bytes((HEADERS, END_HEADERS)), block)
        before, after = self._opening[path]
        number = _WORD.pack(self._stream)
        head = b"%b%b%b" % (before, number, after)
        size = len(message)
        if size <= self._room():
            self._spend(size)
            self._send(b"%b%b\x00%c%b%b" % (head, _WORD.pack(size)[1:], flags, number, message))
        else:
            self._send(head)
            self.send(message, flags)

    def send(self, message: bytes, flags: int = 0) -> None:
        """Another message of the open call, in as many frames as the server's windows and frame size ask for."""
        sent = 0
        while sent < len(message):
            room = self._room()
            if room <= 0:
                self._step()
                continue
            part = message[sent : sent + room]
            sent += len(part)
            self._spend(len(part))
            self._send(frame(DATA, flags if sent == len(message) else 0, self._stream, part))

    def end(self) -> None:
        """Nothing more will be sent in this call."""
        self._send(frame(DATA, END_STREAM, self._stream, b""))

    def receive(self) -> bytes | None:
        """The server's next message; None when it has ended the call well. Raises CallError if it ended in an error."""
        while True:
            if len(self._data) >= 5:
                size = 5 + int.from_bytes(self._data[1:5], "big")
                if len(self._data) >= size:
                    whole = bytes(self._data[5:size])
                    del self._data[:size]
                    return whole
            if self._ended:
                return None
            self._step()

    def _connect(self) -> None:
        self.close()
        self._open(["h2"])
        self._leaving = False
        self._stream = -1
        self._buffer, self._offset = b"", 0
        self._usual_headers.clear()
        self._initial_window = self._connection_window = self._stream_window = _WINDOW
        self._frame_size = _FRAME
        self._received = self._stream_received = 0
        settings = {_HEADER_TABLE_SIZE: 0, _INITIAL_WINDOW_SIZE: _LARGEST_WINDOW, _MAX_FRAME_SIZE: _WANTED_FRAME}
        values = b"".join(struct.pack(">HI", key, value) for key, value in settings.items())
        grown = _WORD.pack(_LARGEST_WINDOW - _WINDOW)
        self._send(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, values) + frame(WINDOW_UPDATE, 0, 0, grown)
        )

    def _room(self) -> int:
        """Bytes that may be sent now."""
        return min(self._connection_window, self._stream_window, self._frame_size)

    def _spend(self, size: int) -> None:
        self._connection_window -= size
        self._stream_window -= size

    def _step(self) -> None:
        """Read a frame and do what it asks for."""
        try:
            self._do(*self._next())
        except _MalformedError as error:
            raise self._violation(str(error)) from None
        except struct.error:
            raise self._violation("a frame of a wrong size") from None

    def _do(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        mine = stream == self._stream
        if kind == DATA:
            self._replenish(len(payload), mine)
            if mine:
                self._data += payload
                if flags & END_STREAM:
                    raise self._violation("a call that ends without a status")
        elif kind == HEADERS:
            self._take_headers(flags, payload, mine)
        elif kind == WINDOW_UPDATE:
            self._take_window(stream, _WORD.unpack(payload)[0])
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and not flags & ACK:
            self._send(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM and mine:
            raise CallError("gRPC reset", f"the server reset the call, HTTP/2 error {_WORD.unpack(payload)[0]}")
        elif kind == GOAWAY:
            self._leaving = True  # a call that the server has taken is still answered
            if _WORD.unpack_from(payload)[0] < self._stream:
                self.close()
                raise CallError("closed", "the server is shutting down")

    def _next(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, and the payload without its padding."""
        self._fill(9)
        buffer, offset = self._buffer, self._offset
        if buffer[offset : offset + 5] == b"HTTP/":
            raise self._violation("an answer in HTTP/1: is this the HTTP port?")
        size = int.from_bytes(buffer[offset : offset + 3], "big")
        kind, flags = buffer[offset + 3], buffer[offset + 4]
        stream: int = _WORD.unpack_from(buffer, offset + 5)[0] & _LARGEST_WINDOW
        self._fill(9 + size)
        start = self._offset + 9
        self._offset = start + size
        payload = self._buffer[start : start + size]
        if flags & PADDED and kind in (DATA, HEADERS):
            if not payload or payload[0] >= size:
                raise _MalformedError("more padding than there is in the frame")
            payload = payload[1 : size - payload[0]]
        return kind, flags, stream, payload

    def _fill(self, size: int) -> None:
        """Have at least `size` bytes that were not read yet."""
        while len(self._buffer) - self._offset < size:
            rest = self._buffer[self._offset :]
            self._offset = 0
            self._buffer = rest + self._receive()

    def _replenish(self, size: int, mine: bool) -> None:
        """Give windows back long before they are used up."""
        self._received += size
        if self._received > _LARGEST_WINDOW // 2:
            self._send(frame(WINDOW_UPDATE, 0, 0, _WORD.pack(self._received)))
            self._received = 0
        if mine:
            self._stream_received += size
            if self._stream_received > _LARGEST_WINDOW // 2:
                self._send(frame(WINDOW_UPDATE, 0, self._stream, _WORD.pack(self._stream_received)))
                self._stream_received = 0

    def _take_headers(self, flags: int, payload: bytes, mine: bool) -> None:
        given = flags, payload
        if flags & PRIORITY:
            payload = payload[5:]
        while not flags & END_HEADERS:
            kind, flags, _, more = self._next()
            if kind != CONTINUATION:
                raise self._violation("a header block that does not end")
            payload += more
        if not mine:
            return
        fields = read_headers(payload)
        if fields.get(":status", "200") != "200":
            raise self._violation(f"HTTP status {fields[':status']}")
        status = fields.get("grpc-status")
        is_usual = given[0] == flags and status == ("0" if flags & END_STREAM else None)
        if is_usual and flags & ~END_STREAM == END_HEADERS and len(self._usual_headers) < _MOST_USUAL:
            self._usual_headers.add(given)
        if status is not None:
            self._ended = True
            if status != "0":
                raise CallError(f"gRPC {_NAMES.get(status, status)}", unquote(fields.get("grpc-message", "")))

    def _take_window(self, stream: int, size: int) -> None:
        if stream == 0:
            self._connection_window += size
        elif stream == self._stream:
            self._stream_window += size

    def _take_settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._initial_window
                self._initial_window = value
            elif key == _MAX_FRAME_SIZE:
                self._frame_size = value
        self._send(frame(SETTINGS, ACK, 0, b""))

    def _violation(self, what: str) -> CallError:
        self.close()
        return CallError("not gRPC", f"{self.address.authority} sent {what}")
