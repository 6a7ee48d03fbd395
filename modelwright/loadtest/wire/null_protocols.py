"""The two protocols of the null server: enough to read whole requests and to answer with constant bytes.

The content of requests is ignored. HTTP/1.1 as in RFC 9112; HTTP/2 as in RFC 9113, with flow control.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Protocol

_MAX_HEAD_BYTES = 65536
_HTTP_ANSWER = (
    b'{"model_name":"null","model_version":"1",'
    b'"outputs":[{"name":"OUTPUT","datatype":"FP32","shape":[1],"data":[0.0]}]}'
)
# The same as inference.ModelInferResponse: model_name, model_version, outputs {name, datatype, shape}, raw contents.
_GRPC_ANSWER = b"\x0a\x04null\x12\x011\x2a\x11\x0a\x06OUTPUT\x12\x04FP32\x1a\x01\x01\x32\x04\0\0\0\0"

# HTTP/2 (RFC 9113): frame types, flags, and settings.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW = 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = struct.Struct(">HBBBI")  # length in two parts, type, flags, stream
_DEFAULT_WINDOW = 65535
_MAX_WINDOW = 2**31 - 1
_FRAME_BYTES = 16384  # the size that every peer must accept
# HPACK (RFC 7541) without the dynamic table, so that each block stands alone: `:status: 200` and `content-type:
# application/grpc`; then `grpc-status: 0`.
_ANSWER_HEADERS = b"\x88\x0f\x10\x10application/grpc"
_TRAILERS = b"\x00\x0bgrpc-status\x010"


class BadRequestError(Exception):
    """The connection must be closed."""


class EventLoop(Protocol):
    """The event loop, as a connection uses it."""

    def requested(self, connection: Http | Grpc, stream: int = 0) -> None: ...

    def wait_writable(self, connection: socket.socket, wanted: bool) -> None: ...


class _Sender:
    """Sends bytes to a socket that may be full: the rest waits until it is writable."""

    def __init__(self, server: EventLoop, connection: socket.socket) -> None:
        self._server = server
        self._socket = connection
        self._unsent = b""

    def send(self, data: bytes) -> None:
        if not self._unsent:
            data = data[self._some(data) :]
            if not data:
                return
            self._server.wait_writable(self._socket, True)
        self._unsent += data

    def flush(self) -> None:
        self._unsent = self._unsent[self._some(self._unsent) :]
        if not self._unsent:
            self._server.wait_writable(self._socket, False)

    def _some(self, data: bytes) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, ConnectionError):  # a closed connection is noticed when its socket is read
            return 0


class Http(_Sender):
    """HTTP/1.1 with keep-alive. Bodies are counted and not kept."""

    def __init__(self, server: EventLoop, connection: socket.socket, answer: bytes) -> None:
        super().__init__(server, connection)
        body = answer or _HTTP_ANSWER
        length = _json_length(body)
        binary = f"Inference-Header-Content-Length: {length}\r\n" if length < len(body) else ""
        kind = "application/octet-stream" if binary else "application/json"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{binary}Content-Length: {len(body)}\r\n\r\n"
        self._answer = head.encode() + body
        self._buffer = b""
        self._missing = 0  # bytes of the body that are still to come

    def answer(self, stream: int) -> None:
        self.send(self._answer)

    def received(self, data: bytes) -> None:
        if self._missing > len(data):
            self._missing -= len(data)
            return
        if self._missing:
            data, self._missing = data[self._missing :], 0
            self._server.requested(self)
        self._buffer += data
        while self._buffer:
            end = self._buffer.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    raise BadRequestError
                return
            whole = end + _content_length(self._buffer[:end])
            self._missing = max(whole - len(self._buffer), 0)
            self._buffer = self._buffer[whole:]
            if self._missing:
                return
            self._server.requested(self)


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    try:
        return int(rest.partition(b"\r\n")[0]) if found else 0
    except ValueError:
        raise BadRequestError from None


def _json_length(body: bytes) -> int:
    """Bytes of the JSON at the beginning of an answer; binary tensors follow it."""
    try:
        return json.JSONDecoder().raw_decode(body.decode("latin-1"))[1]
    except ValueError:
        return len(body)


class Grpc(_Sender):
    """Unary gRPC calls, any number at a time on a connection. Headers are not decoded, messages not kept."""

    def __init__(self, server: EventLoop, connection: socket.socket, answer: bytes) -> None:
        super().__init__(server, connection)
        message = answer or _GRPC_ANSWER
        self._message = struct.pack(">BI", 0, len(message)) + message
        self._small = len(self._message) <= _FRAME_BYTES
        self._before = _head(len(_ANSWER_HEADERS), _HEADERS, _END_HEADERS)
        self._between = _ANSWER_HEADERS + _head(len(self._message) if self._small else 0, _DATA, 0)
        self._after = self._message + _head(len(_TRAILERS), _HEADERS, _END_HEADERS | _END_STREAM)
        self._buffer = b""
        self._greeted = False
        self._skipped = 0  # bytes of a DATA frame that are still to come, and the stream that ends with them
        self._ending = 0
        self._received = 0  # bytes of DATA since the client was last allowed more
        self._window = self._initial_window = _DEFAULT_WINDOW  # bytes of DATA that the client takes
        self._streams: dict[int, int] = {}  # open ones, and the window of each
        self._begun: dict[int, int] = {}  # answers that wait for a window: bytes that are sent
        self.send(
            _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, _MAX_WINDOW))
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _MAX_WINDOW - _DEFAULT_WINDOW))
        )

    def answer(self, stream: int) -> None:
        window = self._streams.get(stream)
        if window is None:  # the client has cancelled it
            return
        length, name = len(self._message), stream.to_bytes(4, "big")
        if self._small and length <= window and length <= self._window and not self._begun:
            self._window -= length
            del self._streams[stream]
            self.send(b"".join((self._before, name, self._between, name, self._after, name, _TRAILERS)))
            return
        self.send(self._before + name + _ANSWER_HEADERS)
        self._begun[stream] = 0
        self._continue()

    def _continue(self) -> None:
        """Send as much of the begun answers as the windows allow."""
        for stream, sent in list(self._begun.items()):
            while (size := min(len(self._message) - sent, self._streams[stream], self._window, _FRAME_BYTES)) > 0:
                self.send(_frame(_DATA, 0, stream, self._message[sent : sent + size]))
                sent += size
                self._streams[stream] -= size
                self._window -= size
            self._begun[stream] = sent
            if sent == len(self._message):
                self._forget(stream)
                self.send(_frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, _TRAILERS))

    def _forget(self, stream: int) -> None:
        self._streams.pop(stream, None)
        self._begun.pop(stream, None)

    def received(self, data: bytes) -> None:
        if self._skipped > len(data):
            self._skipped -= len(data)
            return
        at, self._skipped = self._skipped, 0
        if self._ending:
            ending, self._ending = self._ending, 0
            self._server.requested(self, ending)
        if self._buffer:
            data, at = self._buffer + data[at:], 0
        if not self._greeted:
            if len(data) < len(_PREFACE):
                self._buffer = data
                return
            if not data.startswith(_PREFACE):
                raise BadRequestError
            self._greeted, at = True, len(_PREFACE)
        self._buffer = data[self._read_frames(data, at) :]

    def _read_frames(self, data: bytes, at: int) -> int:
        """Handle all whole frames, and the beginning of a DATA frame; where the rest begins."""
        while len(data) - at >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            end = at + _FRAME.size + (high << 8 | low)
            if kind == _DATA:
                self._replenish(high << 8 | low)
                ending = stream if flags & _END_STREAM else 0
                if end > len(data):
                    self._skipped, self._ending = end - len(data), ending
                    return len(data)
                if ending:
                    self._server.requested(self, ending)
            elif end > len(data):
                break
            elif kind == _HEADERS:
                self._streams.setdefault(stream, self._initial_window)
                if flags & _END_STREAM:
                    self._server.requested(self, stream)
            else:
                self._control(kind, flags, stream, data[at + _FRAME.size : end])
            at = end
        return at

    def _replenish(self, size: int) -> None:
        """Extend the connection's window; a stream's own window is larger than any request."""
        self._received += size
        if self._received > _MAX_WINDOW // 2:
            self.send(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            size = int.from_bytes(payload, "big")
            if not stream:
                self._window += size
            elif stream in self._streams:
                self._streams[stream] += size
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
            self.send(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.send(_frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM:
            self._forget(stream)
        if self._begun:
            self._continue()

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW:
                change, self._initial_window = value - self._initial_window, value
                self._streams = {stream: window + change for stream, window in self._streams.items()}


def _head(length: int, kind: int, flags: int) -> bytes:
    """A frame's head but for the stream."""
    return struct.pack(">HBBB", length >> 8, length & 255, kind, flags)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _head(len(payload), kind, flags) + stream.to_bytes(4, "big") + payload
