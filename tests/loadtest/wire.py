"""Servers for tests of the code that sends: each does exactly what a test tells it to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from modelwright.loadtest.wire.calls import CallError
from modelwright.loadtest.wire.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame, message_bytes
from modelwright.triton.access import Address

OK_HEADERS = b"\x88"  # `:status: 200` in HPACK's static table
OK_TRAILERS = b"\x00\x0bgrpc-status\x010"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None], scheme: str) -> Iterator[Address]:
    """A TCP server on this machine; `serve` has each connection in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=handle, args=(connection,)))
                threads[-1].start()

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            serve(connection)

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield Address(scheme, "127.0.0.1", listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join(10)


def finish(connection: socket.socket) -> None:
    """Say no more, and wait for the other side to close. A close with bytes unread would reset the connection."""
    connection.shutdown(socket.SHUT_WR)
    drain(connection)


def drain(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def kind_of(call: Callable[[], object]) -> tuple[str, str]:
    """Kind and message of the CallError that a call must raise."""
    try:
        answer = call()
    except CallError as error:
        return error.kind, error.message
    raise AssertionError(f"answered {answer!r}")


def grpc_answer(message: bytes, stream: int = 1) -> bytes:
    """The frames of a whole answer to a unary call."""
    return (
        frame(HEADERS, END_HEADERS, stream, OK_HEADERS)
        + frame(DATA, 0, stream, message_bytes(message))
        + frame(HEADERS, END_HEADERS | END_STREAM, stream, OK_TRAILERS)
    )


class Http2Peer:
    """The server's end of an HTTP/2 connection; `seen` has every frame that was read."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")
        self.seen: list[tuple[int, int, int, bytes]] = []
        assert self._file.read(len(PREFACE)) == PREFACE

    def __enter__(self) -> Http2Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and payload of the next frame. Raises ConnectionError at the end."""
        head = self._file.read(9)
        if len(head) < 9:
            raise ConnectionError
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        self.seen.append((kind, flags, stream, self._file.read(int.from_bytes(head[:3], "big"))))
        return self.seen[-1]

    def request(self) -> bytes:
        """The DATA of one whole request."""
        data = b""
        while True:
            kind, flags, _, payload = self.read()
            if kind == DATA:
                data += payload
                if flags & END_STREAM:
                    return data

    def drain(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                self.read()
