"""gRPC calls of ours to real servers, and to ones that misbehave."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import gevent
import grpc
import numpy as np
import pytest
import tritonclient.grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.loadtest.wire.calls import CallError
from modelwright.loadtest.wire.connections import GrpcConnection, GrpcConnections
from modelwright.loadtest.wire.encoding import grpc_answer as tensors_of
from modelwright.loadtest.wire.encoding import grpc_request
from modelwright.loadtest.wire.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    message_bytes,
)
from modelwright.server.local import RunningServer
from modelwright.triton.access import Address
from tests.loadtest.wire import (
    OK_HEADERS,
    OK_TRAILERS,
    Http2Peer,
    drain,
    finish,
    free_port,
    grpc_answer,
    kind_of,
    listening,
)

ECHO = "/test/Echo"
MIB = 2**20


@contextlib.contextmanager
def connected(address: Address, timeout_s: float = 5.0) -> Iterator[GrpcConnection]:
    connection = GrpcConnection(address, timeout_s)
    try:
        yield connection
    finally:
        connection.close()


# --- grpcio's server --------------------------------------------------------------------------------------------------


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Echo gives the request back, Size its length, Fail its text as an error; Hold waits for `released`."""

    def service(self, details: Any) -> Any:
        method = {"/test/Echo": _echo, "/test/Size": _size, "/test/Fail": _fail, "/test/Hold": _hold}
        return grpc.unary_unary_rpc_method_handler(method[details.method]) if details.method in method else None


def _echo(request: bytes, context: Any) -> bytes:
    return request


def _size(request: bytes, context: Any) -> bytes:
    return str(len(request)).encode()


def _fail(request: bytes, context: Any) -> bytes:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, request.decode())
    return b""


def _hold(request: bytes, context: Any) -> bytes:
    released.wait(30)
    return b""


released = threading.Event()


@pytest.fixture
def held() -> Iterator[None]:
    """Calls of Hold are answered when the test sets `released`, or after it."""
    released.clear()
    yield
    released.set()


@contextlib.contextmanager
def grpc_server(port: int = 0) -> Iterator[Address]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, [Methods()], options=options)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield Address("grpc", "127.0.0.1", port)
        finally:
            server.stop(grace=0.3).wait()


@pytest.fixture(scope="module")
def real() -> Iterator[Address]:
    with grpc_server() as address:
        yield address


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 16_384, 65_530, 65_531, MIB, 20 * MIB])
def test_a_message_of_any_size_goes_there_and_back(real: Address, size: int) -> None:
    message = np.random.default_rng(size).bytes(size)
    with connected(real) as connection:
        for _ in range(2):  # the windows are as they were
            assert connection.call(message_bytes(message), ECHO) == message


def test_one_connection_serves_many_calls(real: Address) -> None:
    with connected(real) as connection:
        for number in range(300):
            assert connection.call(message_bytes(b"%d" % number), ECHO) == b"%d" % number
        assert connection.call(message_bytes(bytes(3 * MIB)), "/test/Size") == b"%d" % (3 * MIB)


@pytest.mark.parametrize("message", ["no such model", "100 % größer\nthan 'ß'", ""])
def test_an_error_of_the_server_has_its_status_and_its_message(real: Address, message: str) -> None:
    with connected(real) as connection:
        found = kind_of(lambda: connection.call(message_bytes(message.encode()), "/test/Fail"))
        assert found == ("gRPC INVALID_ARGUMENT", message)
        assert connection.call(message_bytes(b"still there"), ECHO) == b"still there"


def test_a_method_that_is_not_there_is_an_error(real: Address) -> None:
    with connected(real) as connection:
        assert kind_of(lambda: connection.call(message_bytes(b""), "/test/Nothing"))[0] == "gRPC UNIMPLEMENTED"


@pytest.mark.usefixtures("held")
def test_no_answer_in_time_is_a_timeout_and_the_connection_is_given_up(real: Address) -> None:
    with connected(real, timeout_s=1) as connection:
        found = kind_of(lambda: connection.call(message_bytes(b""), "/test/Hold"))
        assert found == ("timeout", "no answer within 1 s")
        assert connection.call(message_bytes(b"next"), ECHO) == b"next"


def test_a_server_that_was_restarted_is_found_again_after_one_failure_at_most() -> None:
    with grpc_server() as address:
        connection = GrpcConnection(address, 5)
        assert connection.call(message_bytes(b"1"), ECHO) == b"1"
    with grpc_server(address.port):
        with contextlib.suppress(CallError):  # what it said on leaving is read with the next call
            connection.call(message_bytes(b"2"), ECHO)
        assert connection.call(message_bytes(b"3"), ECHO) == b"3"
    connection.close()


def test_a_closed_port_is_a_failure_to_connect() -> None:
    address = Address("grpc", "127.0.0.1", free_port())
    with connected(address) as connection:
        found = kind_of(lambda: connection.call(message_bytes(b""), ECHO))
    assert found == ("connect", f"{address.authority}: Connection refused")


def test_the_http_port_is_told_apart() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        finish(connection)

    with listening(serve, "grpc") as address, connected(address) as connection:
        kind, message = kind_of(lambda: connection.call(message_bytes(b""), ECHO))
    assert (kind, "is this the HTTP port?" in message) == ("not gRPC", True)


# --- Triton -----------------------------------------------------------------------------------------------------------


def triton(server: RunningServer) -> Address:
    host, _, port = server.grpc.rpartition(":")
    return Address("grpc", host, int(port))


@pytest.mark.parametrize("length", [1, 1_000, 3_000_000])
def test_triton_answers_as_it_answers_tritonclient(server: RunningServer, length: int) -> None:
    numbers = np.random.default_rng(7).normal(size=(2, length)).astype(np.float32)
    texts = np.array([[b"", b"a\xff"], [b"b" * 300, b"\0"]], object)
    inputs = [tritonclient.grpc.InferInput("NUMBERS", numbers.shape, "FP32")]
    inputs.append(tritonclient.grpc.InferInput("TEXTS", texts.shape, "BYTES"))
    for tensor, array in zip(inputs, (numbers, texts), strict=True):
        tensor.set_data_from_numpy(array)
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        expected = client.infer("identity", inputs)
    with connected(triton(server)) as connection:
        message = message_bytes(grpc_request("identity", "", {"NUMBERS": numbers, "TEXTS": texts}))
        answer = tensors_of(connection.call(message))
    assert set(answer) == {"SAME_NUMBERS", "SAME_TEXTS"}
    for name, array in answer.items():
        np.testing.assert_array_equal(array, expected.as_numpy(name), strict=True)


def test_an_error_of_triton_is_in_its_words(server: RunningServer) -> None:
    with connected(triton(server)) as connection:
        message = message_bytes(grpc_request("nothing", "", {}))
        kind, words = kind_of(lambda: connection.call(message))
    assert (kind, "unknown model: 'nothing'" in words) == ("gRPC NOT_FOUND", True)


# --- frames made by hand ----------------------------------------------------------------------------------------------


@dataclass
class Script:
    """Sends `hello` first, and `answer` after a request; keeps the frames that the client sent."""

    answer: bytes
    hello: bytes = frame(SETTINGS, 0, 0, b"")
    chunk: int = 0  # bytes at a time; 0: all at once
    peers: list[Http2Peer] = field(default_factory=list)

    def __call__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(self.hello)
        with Http2Peer(connection) as peer:
            self.peers.append(peer)
            peer.request()
            for start in range(0, len(self.answer), self.chunk or len(self.answer) or 1):
                connection.sendall(self.answer[start : start + (self.chunk or len(self.answer))])
            connection.shutdown(socket.SHUT_WR)
            peer.drain()

    def call(self, message: bytes = b"question", timeout_s: float = 5.0) -> bytes:
        with listening(self, "grpc") as address, connected(address, timeout_s) as connection:
            return connection.call(message_bytes(message), ECHO)


HEAD, TAIL = (
    frame(HEADERS, END_HEADERS, 1, OK_HEADERS),
    frame(HEADERS, END_HEADERS | END_STREAM, 1, OK_TRAILERS),
)


def body(message: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, 1, message_bytes(message))


PRIORITY_PART = bytes(5)
WELL = {
    "plain": HEAD + body(b"answer") + TAIL,
    "a PING before it": frame(PING, 0, 0, b"12345678") + grpc_answer(b"answer"),
    "padded": frame(HEADERS, END_HEADERS | PADDED, 1, b"\x03" + OK_HEADERS + bytes(3))
    + frame(DATA, PADDED, 1, b"\xff" + message_bytes(b"answer") + bytes(255))
    + TAIL,
    "padded with nothing": frame(DATA, PADDED, 1, b"\0") + grpc_answer(b"answer"),
    "priority": frame(HEADERS, END_HEADERS | PRIORITY | PADDED, 1, b"\1" + PRIORITY_PART + OK_HEADERS + b"\0")
    + body(b"answer")
    + TAIL,
    "CONTINUATION": HEAD
    + body(b"answer")
    + frame(HEADERS, END_STREAM, 1, OK_TRAILERS[:3])
    + frame(CONTINUATION, 0, 1, OK_TRAILERS[3:9])
    + frame(CONTINUATION, END_HEADERS, 1, OK_TRAILERS[9:]),
    "a message in pieces": HEAD
    + b"".join(frame(DATA, 0, 1, bytes([byte])) for byte in message_bytes(b"answer"))
    + frame(DATA, 0, 1, b"")
    + TAIL,
    "frames of other streams and kinds": frame(DATA, 0, 7, b"x")
    + frame(RST_STREAM, 0, 7, bytes(4))
    + frame(HEADERS, END_HEADERS, 7, OK_HEADERS)
    + frame(0x42, 0xFF, 0, b"unknown")
    + frame(SETTINGS, ACK, 0, b"")
    + grpc_answer(b"answer"),
    "shutting down, this call still answered": frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)) + grpc_answer(b"answer"),
}


@pytest.mark.parametrize("chunk", [0, 1, 7], ids=["whole", "byte by byte", "by seven"])
@pytest.mark.parametrize("case", WELL)
def test_an_answer_is_read(case: str, chunk: int) -> None:
    assert Script(WELL[case], chunk=chunk).call() == b"answer"


def test_a_ping_and_settings_are_acknowledged() -> None:
    wanted = {(PING, ACK, 0, b"12345678"), (SETTINGS, ACK, 0, b"")}

    def serve(connection: socket.socket) -> None:
        connection.sendall(frame(SETTINGS, 0, 0, b"") + frame(PING, 0, 0, b"12345678"))
        with Http2Peer(connection) as peer:
            while not wanted <= set(peer.seen):
                peer.read()
            connection.sendall(grpc_answer(b"answer"))
            peer.drain()

    with listening(serve, "grpc") as address, connected(address) as connection:
        assert connection.call(message_bytes(b"question"), ECHO) == b"answer"


STATUS_5 = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88\x00\x0bgrpc-status\x015\x00\x0cgrpc-message\x07a%20%C3")


def trailers(status: bytes) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88\x00\x0bgrpc-status" + bytes([len(status)]) + status)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(STATUS_5, "gRPC NOT_FOUND", id="trailers only"),
        pytest.param(trailers(b"99"), "gRPC 99", id="a status that there is not"),
        pytest.param(trailers("²".encode()), "gRPC ²", id="a status that is a digit and no number"),
        pytest.param(trailers(b""), "gRPC ", id="an empty status"),
        pytest.param(frame(RST_STREAM, 0, 1, b"\0\0\0\x08"), "gRPC reset", id="reset"),
        pytest.param(frame(GOAWAY, 0, 0, bytes(8)), "closed", id="shutting down, this call not taken"),
        pytest.param(HEAD + body(b"1") + body(b"2") + TAIL, "not gRPC", id="two messages"),
        pytest.param(HEAD + TAIL, "not gRPC", id="no message"),
        pytest.param(HEAD + body(b"1", END_STREAM), "not gRPC", id="no status"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\x8d"), "not gRPC", id="HTTP status 404"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\xff\xff"), "not gRPC", id="headers that are none"),
        pytest.param(frame(HEADERS, 0, 1, OK_HEADERS) + body(b"1"), "not gRPC", id="headers without an end"),
        pytest.param(frame(DATA, PADDED, 1, b""), "not gRPC", id="padded without a length"),
        pytest.param(frame(DATA, PADDED, 1, b"\x05ab"), "not gRPC", id="more padding than there is"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, b"\1"), "not gRPC", id="a short WINDOW_UPDATE"),
        pytest.param(frame(SETTINGS, 0, 0, b"12345"), "not gRPC", id="short SETTINGS"),
        pytest.param(frame(RST_STREAM, 0, 1, b""), "not gRPC", id="a short RST_STREAM"),
        pytest.param(frame(GOAWAY, 0, 0, b"123"), "not gRPC", id="a short GOAWAY"),
        pytest.param(HEAD + body(b"answer")[:-2], "closed", id="ends within the message"),
        pytest.param(b"", "closed", id="ends at once"),
    ],
)
def test_a_bad_answer_is_a_failure(answer: bytes, kind: str) -> None:
    assert kind_of(Script(answer).call)[0] == kind


def test_the_message_of_an_error_is_percent_encoded() -> None:
    assert kind_of(Script(STATUS_5).call)[1] == "a \ufffd"


def test_silence_within_an_answer_is_a_timeout() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(HEAD + body(b"answer"))
        drain(connection)

    with listening(serve, "grpc") as address, connected(address, 0.2) as connection:
        assert kind_of(lambda: connection.call(message_bytes(b""), ECHO))[0] == "timeout"


def test_after_goaway_the_next_call_is_on_a_new_connection() -> None:
    goaway = Script(grpc_answer(b"answer") + frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)))
    with listening(goaway, "grpc") as address, connected(address) as connection:
        assert connection.call(message_bytes(b"1"), ECHO) == b"answer"
        with contextlib.suppress(CallError):
            connection.call(message_bytes(b"2"), ECHO)
        assert connection.call(message_bytes(b"3"), ECHO) == b"answer"
        assert len(goaway.peers) >= 2


def settings_frame(**values: int) -> bytes:
    keys = {"window": 4, "frame_size": 5}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", keys[key], value) for key, value in values.items()))


def allowing(hello: bytes, allow: int, seen: list[int], got: list[bytes]) -> Callable[[socket.socket], None]:
    """Serve one call; after each frame of DATA allow so many bytes more. `seen` are the frames' sizes."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(hello)
        with Http2Peer(connection) as peer:
            data, ended = b"", False
            while not ended:
                kind, flags, _, payload = peer.read()
                if kind == SETTINGS and flags & ACK and allow:  # by now the client knows the new window
                    connection.sendall(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", allow)))
                if kind == DATA:
                    seen.append(len(payload))
                    data, ended = data + payload, bool(flags & END_STREAM)
                    if payload and not ended and allow:
                        connection.sendall(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", allow)))
            got.append(data)
            connection.sendall(grpc_answer(b"answer"))
            peer.drain()

    return serve


def test_a_window_of_one_byte_is_kept_to() -> None:
    seen: list[int] = []
    got: list[bytes] = []
    message = message_bytes(bytes(range(100)) * 700)  # more than the first window: the client must read the settings
    grown = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 10**6))
    serve = allowing(settings_frame(window=65_536) + grown, 1, seen, got)
    with listening(serve, "grpc") as address, connected(address) as connection:
        assert connection.call(message, ECHO) == b"answer"
    assert got == [message]
    assert max(seen) <= 16_384
    assert seen.count(1) > 1000


def test_settings_that_take_the_window_back_stop_the_sending_until_there_is_room() -> None:
    got: list[bytes] = []
    message = message_bytes(bytes(100_000))

    def serve(connection: socket.socket) -> None:
        with Http2Peer(connection) as peer:
            data = b""
            while len(data) < 65_535:
                kind, _, _, payload = peer.read()
                data += payload if kind == DATA else b""
            connection.sendall(settings_frame(window=1, frame_size=20_000))  # 65,534 bytes below nothing
            connection.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 10**6)))
            while peer.read()[:2] != (SETTINGS, ACK):
                pass
            connection.sendall(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 65_534)))
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.read()
            got.append(data)
            connection.sendall(STATUS_5)

    with listening(serve, "grpc") as address, connected(address) as connection:
        assert kind_of(lambda: connection.call(message, ECHO))[0] == "gRPC NOT_FOUND"
    assert len(got[0]) == 65_535


def test_a_frame_size_that_the_server_allows_is_used() -> None:
    seen: list[int] = []
    hello = settings_frame(window=2**20, frame_size=50_000) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**20))
    with listening(allowing(hello, 0, seen, []), "grpc") as address, connected(address) as connection:
        assert connection.call(message_bytes(bytes(200_000)), ECHO) == b"answer"
    assert max(seen) == 50_000


# --- calls that share a connection ------------------------------------------------------------------------------------


def at_once(*calls: Callable[[], bytes]) -> list[tuple[str, str] | bytes]:
    """What calls in greenlets of their own give back, or kind and message of their CallErrors."""

    def one(call: Callable[[], bytes]) -> tuple[str, str] | bytes:
        try:
            return call()
        except CallError as error:
            return error.kind, error.message

    greenlets = [gevent.spawn(one, call) for call in calls]
    gevent.joinall(greenlets, timeout=60, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


def answering(order: Callable[[list[int]], list[int]], count: int) -> Callable[[socket.socket], None]:
    """Reads so many requests, and answers each with itself, in an order of its own."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(frame(SETTINGS, 0, 0, b""))
        with Http2Peer(connection) as peer:
            asked: dict[int, bytes] = {}
            while len(asked) < count:
                kind, flags, stream, payload = peer.read()
                if kind == DATA and flags & END_STREAM:
                    asked[stream] = payload[5:]
            assert sorted(asked) == list(range(1, 2 * count, 2))
            # All headers first, then all messages, then all trailers, so that answers lie in each other.
            numbers = order(list(asked))
            for part in range(3):
                for stream in numbers:
                    connection.sendall(parts(asked[stream], stream)[part])
            peer.drain()

    return serve


def parts(message: bytes, stream: int) -> tuple[bytes, bytes, bytes]:
    return (
        frame(HEADERS, END_HEADERS, stream, OK_HEADERS),
        frame(DATA, 0, stream, message_bytes(message)),
        frame(HEADERS, END_HEADERS | END_STREAM, stream, OK_TRAILERS),
    )


@pytest.mark.parametrize("order", [sorted, lambda numbers: sorted(numbers)[::-1]], ids=["in order", "backwards"])
def test_each_call_has_its_own_answer(order: Callable[[list[int]], list[int]]) -> None:
    messages = [b"message %d" % number for number in range(50)]
    with listening(answering(order, 50), "grpc") as address, connected(address) as connection:
        answers = at_once(*(lambda m=m: connection.call(message_bytes(m), ECHO) for m in messages))
    assert answers == messages


def test_calls_at_once_connect_once(real: Address) -> None:
    accepted = []

    def serve(connection: socket.socket) -> None:
        accepted.append(connection)
        answering(sorted, 6)(connection)

    with listening(serve, "grpc") as address, connected(address) as connection:
        answers = at_once(*[lambda: connection.call(message_bytes(b"x"), ECHO)] * 6)
    assert (answers, len(accepted)) == ([b"x"] * 6, 1)


def test_messages_larger_than_the_windows_go_side_by_side(real: Address) -> None:
    messages = [np.random.default_rng(number).bytes(3 * MIB + number) for number in range(4)]
    with connected(real) as connection:
        answers = at_once(*(lambda m=m: connection.call(message_bytes(m), ECHO) for m in messages))
    assert answers == messages


@pytest.mark.usefixtures("held")
def test_a_call_that_times_out_leaves_the_others_and_the_next_one_connects_anew(real: Address) -> None:
    def times_out() -> bytes:
        try:
            return connection.call(message_bytes(b""), "/test/Hold")
        finally:
            released.set()

    def answered_after_that() -> bytes:
        gevent.sleep(0.8)
        return connection.call(message_bytes(b""), "/test/Hold")

    with connected(real, timeout_s=1) as connection:
        first = connection.call(message_bytes(b"here"), ECHO)
        answers = at_once(times_out, answered_after_that)
        assert (first, answers) == (b"here", [("timeout", "no answer within 1 s"), b""])
        assert connection.call(message_bytes(b"next"), ECHO) == b"next"


def test_a_reset_ends_one_call() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(frame(SETTINGS, 0, 0, b""))
        with Http2Peer(connection) as peer:
            peer.request()
            peer.request()
            connection.sendall(frame(RST_STREAM, 0, 1, b"\0\0\0\x08") + grpc_answer(b"answer", 3))
            peer.drain()

    with listening(serve, "grpc") as address, connected(address) as connection:
        answers = at_once(*[lambda: connection.call(message_bytes(b"x"), ECHO)] * 2)
    assert answers == [("gRPC reset", "the server reset the call, HTTP/2 error 8"), b"answer"]


def test_goaway_ends_the_calls_that_the_server_did_not_accept() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(frame(SETTINGS, 0, 0, b""))
        with Http2Peer(connection) as peer:
            peer.request()
            peer.request()
            connection.sendall(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)) + grpc_answer(b"answer", 1))
            peer.drain()

    with listening(serve, "grpc") as address, connected(address) as connection:
        answers = at_once(*[lambda: connection.call(message_bytes(b"x"), ECHO)] * 2)
    assert answers == [b"answer", ("closed", "the server is shutting down")]


@pytest.mark.parametrize(
    ("end", "kind"), [(b"", "closed"), (frame(DATA, PADDED, 1, b""), "not gRPC"), (b"HTTP/1.1 400 \r\n", "not gRPC")]
)
def test_a_connection_that_fails_fails_all_its_calls_and_the_next_one_connects_anew(end: bytes, kind: str) -> None:
    connections = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        connection.sendall(frame(SETTINGS, 0, 0, b""))
        with Http2Peer(connection) as peer:
            if len(connections) == 1:
                for _ in range(3):
                    peer.request()
                connection.sendall(end)
                connection.shutdown(socket.SHUT_WR)
            else:
                peer.request()
                connection.sendall(grpc_answer(b"answer"))
            peer.drain()

    with listening(serve, "grpc") as address, connected(address) as connection:
        answers = at_once(*[lambda: connection.call(message_bytes(b"x"), ECHO)] * 3)
        assert [answer[0] for answer in answers] == [kind] * 3
        assert connection.call(message_bytes(b"x"), ECHO) == b"answer"


def test_a_greenlet_that_is_killed_cancels_its_call_only() -> None:
    cancelled = []
    both_came = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(frame(SETTINGS, 0, 0, b""))
        with Http2Peer(connection) as peer:
            peer.request()
            peer.request()
            both_came.set()
            while peer.seen[-1][0] != RST_STREAM:
                peer.read()
            cancelled.append(peer.seen[-1])
            connection.sendall(grpc_answer(b"late", 1) + grpc_answer(b"answer", 3))
            peer.drain()

    with listening(serve, "grpc") as address, connected(address) as connection:
        first = gevent.spawn(connection.call, message_bytes(b"1"), ECHO)
        second = gevent.spawn(connection.call, message_bytes(b"2"), ECHO)
        while not both_came.is_set():
            gevent.sleep(0.01)
        first.kill()
        assert second.get(timeout=60) == b"answer"
    assert cancelled == [(RST_STREAM, 0, 1, b"\0\0\0\x08")]


def test_all_calls_that_wait_for_a_connection_get_its_error() -> None:
    address = Address("grpc", "127.0.0.1", free_port())
    with connected(address) as connection:
        answers = at_once(*[lambda: connection.call(message_bytes(b""), ECHO)] * 3)
    assert answers == [("connect", f"{address.authority}: Connection refused")] * 3


def test_a_server_that_reads_nothing_is_a_timeout_for_all() -> None:
    all_ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(settings_frame(window=2**30) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30)))
        assert all_ended.wait(60)

    with listening(serve, "grpc") as address, connected(address, 0.4) as connection:
        message = message_bytes(bytes(30 * MIB))
        answers = at_once(*[lambda: connection.call(message, ECHO)] * 3)
        all_ended.set()
        assert [answer[0] for answer in answers] == ["timeout"] * 3


def test_a_connection_has_six_callers_and_room_again_when_one_leaves() -> None:
    connections = GrpcConnections(Address("grpc", "127.0.0.1", 1), 5)
    joined = [connections.join() for _ in range(14)]
    assert [joined.index(one) for one in joined] == [0] * 6 + [6] * 6 + [12] * 2
    joined[7].leave()
    assert [connections.join() for _ in range(2)] == [joined[7], joined[12]]


# --- anything at all --------------------------------------------------------------------------------------------------

FRAMES = st.lists(
    st.one_of(
        st.builds(frame, st.integers(0, 10), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=20)),
        st.sampled_from([HEAD, TAIL, body(b"answer"), STATUS_5, frame(SETTINGS, 0, 0, bytes(6))]),
    ),
    max_size=8,
).map(b"".join)


@pytest.fixture(scope="module")
def saying() -> Iterator[tuple[Address, list[bytes]]]:
    """A server that says the last of these bytes to whoever connects."""
    said = [b""]

    def serve(connection: socket.socket) -> None:
        connection.sendall(said[-1])
        finish(connection)

    with listening(serve, "grpc") as address:
        yield address, said


@settings(max_examples=250, deadline=None)
@given(answer=st.one_of(st.binary(max_size=60), FRAMES))
def test_any_bytes_from_the_server_end_all_calls_in_an_answer_or_a_failure(
    saying: tuple[Address, list[bytes]], answer: bytes
) -> None:
    address, said = saying
    said.append(answer)
    with connected(address, 20) as connection:
        begin = time.monotonic()
        ended = at_once(*(lambda m=m: connection.call(message_bytes(m), ECHO) for m in (bytes(70_000), b"", b"x")))
        assert all(isinstance(end, bytes | tuple) for end in ended)
        assert time.monotonic() - begin < 20  # no call waits for more
