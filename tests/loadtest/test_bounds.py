"""What a server may take of the load generator: time, and memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from modelwright.loadtest.wire.connections import GrpcConnection
from modelwright.loadtest.wire.frames import DATA, END_HEADERS, HEADERS, frame
from modelwright.loadtest.wire.http1 import HttpConnection, post
from modelwright.triton.access import Access, Address
from tests.loadtest.wire import OK_HEADERS, Http2Peer, kind_of, listening

TIMEOUT_S = 0.2
HUGE = b"\0\xf0\0\0\0"  # the head of a gRPC message of 4 GB


def drip(data: bytes) -> Iterator[bytes]:
    for _ in range(250):  # much longer than the timeout
        time.sleep(0.02)
        yield data


def flood(data: bytes) -> Iterator[bytes]:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        yield data


def asked(scheme: str, begin: bytes, then: Iterator[bytes], access: Access) -> tuple[str, str]:
    def serve(connection: socket.socket) -> None:
        if scheme == "http":
            connection.recv(65536)
        else:
            peer = Http2Peer(connection)
            peer.request()
        connection.sendall(begin)
        for piece in then:
            connection.sendall(piece)

    with listening(serve, scheme) as address:
        wanted = Address(scheme, address.host, address.port, access)
        if scheme == "http":
            connection = HttpConnection(wanted, TIMEOUT_S)
            request = post(wanted.authority, "/v2/models/m/infer", b"question", {})
            try:
                return kind_of(lambda: connection.call(request))
            finally:
                connection.close()
        grpc = GrpcConnection(wanted, TIMEOUT_S)
        try:
            return kind_of(lambda: grpc.call(b"\0\0\0\0\1x"))
        finally:
            grpc.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
BEGUN = frame(HEADERS, END_HEADERS, 1, OK_HEADERS)


@pytest.mark.parametrize(
    ("scheme", "begin", "then", "kind"),
    [
        pytest.param("http", b"HTTP/1.1", lambda: drip(b" "), "timeout", id="http: a head that drips in"),
        pytest.param("http", OK % 9999, lambda: drip(b"x"), "timeout", id="http: a body that drips in"),
        pytest.param("http", OK % 10**15, lambda: drip(b"x"), "too large", id="http: a huge body"),
        pytest.param(
            "grpc", BEGUN + frame(DATA, 0, 1, b"\0\0\0\1\0"), lambda: drip(frame(DATA, 0, 1, b"x")), "timeout",
            id="grpc: a message that drips in",
        ),
        pytest.param("grpc", BEGUN + frame(DATA, 0, 1, HUGE), lambda: drip(frame(6, 0, 0, bytes(8))), "too large", id="grpc: a huge message"),
        pytest.param(
            "grpc", BEGUN, lambda: flood(frame(DATA, 0, 1, b"\0\0\0\1\0" + bytes(256)) * 64), "", id="grpc: messages"
        ),
        pytest.param("grpc", BEGUN, lambda: flood(frame(6, 0, 0, bytes(8)) * 999), "", id="grpc: pings"),
    ],
)  # fmt: skip
def test_no_server_holds_a_caller_up_or_fills_its_memory(
    scheme: str, begin: bytes, then: Callable[[], Iterator[bytes]], kind: str
) -> None:
    found, _ = asked(scheme, begin, then(), Access(max_answer_bytes=1_000_000))
    assert found == kind or (not kind and found in ("too large", "not gRPC", "timeout", "closed"))
