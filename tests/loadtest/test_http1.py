"""HTTP/1.1 calls of ours to the real server, and to ones that misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import tritonclient.http
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ServerError
from modelwright.loadtest.wire.calls import CallError
from modelwright.loadtest.wire.encoding import http_answer, http_request
from modelwright.loadtest.wire.http1 import HttpConnection, post
from modelwright.server.local import RunningServer
from modelwright.triton.access import Address, address_of
from tests.loadtest.wire import drain, finish, free_port, kind_of, listening

REQUEST = post("x", "/v2/models/m/infer", b"question", {})
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"


@contextlib.contextmanager
def connected(address: Address, timeout_s: float = 5.0) -> Iterator[HttpConnection]:
    connection = HttpConnection(address, timeout_s)
    try:
        yield connection
    finally:
        connection.close()


def read_request(connection: socket.socket) -> bytes:
    """A whole request; what has come of it where the client has closed."""
    data = b""
    while not data.endswith(b"\r\n\r\nquestion") and (more := connection.recv(65536)):
        data += more
    return data


@dataclass
class Answering:
    """Gives every request of a connection the same answer; `then_closes` after the first."""

    answer: bytes
    chunk: int = 0  # bytes at a time; 0: all at once
    then_closes: bool = False
    connections: int = 0

    def __call__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        while read_request(connection):
            for start in range(0, len(self.answer), self.chunk or len(self.answer)):
                connection.sendall(self.answer[start : start + (self.chunk or len(self.answer))])
            if self.then_closes:
                finish(connection)
                return

    def call(self) -> tuple[bytes, bytes]:
        with listening(self, "http") as address, connected(address) as connection:
            return connection.call(REQUEST)


@pytest.mark.parametrize("chunk", [0, 1, 7], ids=["whole", "byte by byte", "by seven"])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(OK, b"answer", id="usual"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length:   6\r\nX: y\r\n\r\nanswer", b"answer", id="small letters"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", id="empty"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\r\n\r\n", b"\r\n\r\n", id="a body of breaks"),
    ],
)
def test_an_answer_is_read_in_any_pieces(answer: bytes, body: bytes, chunk: int) -> None:
    server = Answering(answer, chunk)
    with listening(server, "http") as address, connected(address) as connection:
        for _ in range(3):
            assert connection.call(REQUEST) == (answer[: len(answer) - len(body)], body)
    assert server.connections == 1


def test_a_request_has_what_triton_needs_and_no_compression() -> None:
    seen: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(OK)
        drain(connection)

    with listening(serve, "http") as address, connected(address) as connection:
        connection.call(post("host:1", "/v2/models/m/infer", b"question", {"Inference-Header-Content-Length": "8"}))
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v2/models/m/infer HTTP/1.1"
    assert {"Host: host:1", "Content-Length: 8", "Accept-Encoding: identity"} < set(lines)
    assert "Inference-Header-Content-Length: 8" in lines
    assert body == b"question"


def refusal(body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(json.dumps({"error": "wrong shape 'ß'"}).encode(), "wrong shape 'ß'", id="as Triton has it"),
        pytest.param(b"busy", "busy", id="words"),
        pytest.param(b'["error"]', '["error"]', id="other JSON"),
        pytest.param(b"\xff" * 300, "\ufffd" * 200, id="bytes"),
        pytest.param(b"", "", id="nothing"),
    ],
)
def test_a_refusal_has_its_status_and_its_message(body: bytes, message: str) -> None:
    assert kind_of(Answering(refusal(body)).call) == ("HTTP 400", message)


def test_a_refusal_leaves_the_connection_open() -> None:
    server = Answering(refusal(b"no"))
    with listening(server, "http") as address, connected(address) as connection:
        for _ in range(3):
            assert kind_of(lambda: connection.call(REQUEST))[0] == "HTTP 400"
    assert server.connections == 1


def test_connection_close_is_followed() -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nanswer"
    server = Answering(answer, then_closes=True)
    with listening(server, "http") as address, connected(address) as connection:
        for _ in range(3):
            assert connection.call(REQUEST)[1] == b"answer"
    assert server.connections == 3


def test_a_connection_that_was_closed_between_calls_is_one_failure() -> None:
    with listening(Answering(OK, then_closes=True), "http") as address, connected(address) as connection:
        assert connection.call(REQUEST)[1] == b"answer"
        time.sleep(0.05)
        assert kind_of(lambda: connection.call(REQUEST))[0] == "closed"
        assert connection.call(REQUEST)[1] == b"answer"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nanswer", "not HTTP", id="no length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not HTTP", id="a length below nothing"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "not HTTP", id="a length beyond all"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nanswer", "not HTTP", id="more than its length"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP", id="another protocol"),
        pytest.param(b"SSH-2.0-Open\r\nContent-Length: 0\r\n\r\n", "not HTTP", id="another protocol with a length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "not HTTP", id="a huge head"),
        pytest.param(OK[:20], "closed", id="ends within the head"),
        pytest.param(OK[:-1], "closed", id="ends within the body"),
    ],
)
@pytest.mark.parametrize("chunk", [0, 1000], ids=["at once", "in pieces"])
def test_a_bad_answer_is_a_failure(answer: bytes, kind: str, chunk: int) -> None:
    assert kind_of(Answering(answer, chunk, then_closes=True).call)[0] == kind


def test_after_a_bad_answer_there_is_a_new_connection() -> None:
    server = Answering(OK[:-1] + b"ing!" + OK)
    with listening(server, "http") as address, connected(address) as connection:
        for _ in range(3):
            assert kind_of(lambda: connection.call(REQUEST))[0] == "not HTTP"
    assert server.connections == 3


@pytest.mark.parametrize("begun", [b"", OK[:10], OK[:-1]], ids=["nothing", "a head begun", "a body begun"])
def test_silence_is_a_timeout_and_the_connection_is_given_up(begun: bytes) -> None:
    connections: list[int] = []

    def serve(connection: socket.socket) -> None:
        connections.append(1)
        connection.sendall(begun)
        drain(connection)

    with listening(serve, "http") as address, connected(address, 0.1) as connection:
        for _ in range(2):
            assert kind_of(lambda: connection.call(REQUEST)) == ("timeout", "no answer within 0.1 s")
    assert len(connections) == 2


def test_a_closed_port_is_a_failure_to_connect() -> None:
    address = Address("http", "127.0.0.1", free_port())
    with connected(address) as connection:
        found = kind_of(lambda: connection.call(REQUEST))
    assert found == ("connect", f"{address.authority}: Connection refused")


def test_a_host_that_has_no_address_is_a_failure_to_connect() -> None:
    with connected(Address("http", "nowhere.invalid", 80)) as connection:
        assert kind_of(lambda: connection.call(REQUEST))[0] == "connect"


def test_a_server_without_tls_is_a_failure_to_connect() -> None:
    with listening(Answering(OK), "https") as address, connected(address, 0.3) as connection:
        assert kind_of(lambda: connection.call(REQUEST))[0] == "connect"


# --- Triton -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 1_000, 3_000_000])
def test_triton_answers_as_it_answers_tritonclient(server: RunningServer, length: int) -> None:
    numbers = np.random.default_rng(7).normal(size=(2, length)).astype(np.float32)
    texts = np.array([[b"", b"a\xff"], [b"b" * 300, b"\0"]], object)
    inputs = [tritonclient.http.InferInput("NUMBERS", numbers.shape, "FP32")]
    inputs.append(tritonclient.http.InferInput("TEXTS", texts.shape, "BYTES"))
    for tensor, array in zip(inputs, (numbers, texts), strict=True):
        tensor.set_data_from_numpy(array)
    with tritonclient.http.InferenceServerClient(server.http) as client:
        expected = client.infer("identity", inputs)
    address = address_of(f"http://{server.http}")
    with connected(address) as connection:
        request = http_request(address, "identity", "", {"NUMBERS": numbers, "TEXTS": texts})
        for _ in range(2):
            answer = http_answer(connection.call(request))
            assert set(answer) == {"SAME_NUMBERS", "SAME_TEXTS"}
            for name, array in answer.items():
                np.testing.assert_array_equal(array, expected.as_numpy(name), strict=True)


def test_an_error_of_triton_is_in_its_words(server: RunningServer) -> None:
    address = address_of(f"http://{server.http}")
    with connected(address) as connection:
        found = kind_of(lambda: connection.call(http_request(address, "nothing", "", {})))
    assert (found[0], "unknown model: 'nothing'" in found[1]) == ("HTTP 404", True)


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("localhost:8000", Address("http", "localhost", 8000)),
        ("http://localhost", Address("http", "localhost", 8000)),
        ("https://a.b/", Address("https", "a.b", 443)),
        ("grpc://10.0.0.1:1", Address("grpc", "10.0.0.1", 1)),
        ("grpc://[::1]", Address("grpc", "::1", 8001)),
        ("grpcs://a.b", Address("grpcs", "a.b", 443)),
    ],
)
def test_urls_are_read(url: str, address: Address) -> None:
    assert address_of(url) == address
    assert address_of(address.url) == address


@pytest.mark.parametrize("url", ["", "ftp://a", "http://", "http://a:b", "http://a:99999", "http://a/v2", "a:1/v2"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ServerError, match=r"is not the URL of a server\n  hint: write http://host:port"):
        address_of(url)


# --- anything at all --------------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(
        [OK, OK[:-7], b"HTTP/1.1 ", b"200", b"503", b"\r\n", b"Content-Length: ", b"3", b"999", b"Connection: close"]
    ),
    max_size=10,
).map(b"".join)


@pytest.fixture(scope="module")
def saying() -> Iterator[tuple[Address, list[bytes]]]:
    """A server that says the last of these bytes to whoever connects."""
    said = [b""]

    def serve(connection: socket.socket) -> None:
        connection.sendall(said[-1])
        finish(connection)

    with listening(serve, "http") as address:
        yield address, said


@settings(max_examples=200, deadline=None)
@given(answer=st.one_of(st.binary(max_size=60), PIECES))
def test_any_bytes_from_the_server_end_a_call_in_an_answer_or_a_failure(
    saying: tuple[Address, list[bytes]], answer: bytes
) -> None:
    address, said = saying
    said.append(answer)
    with connected(address, 20) as connection:
        begin = time.monotonic()
        with contextlib.suppress(CallError):
            head, body = connection.call(REQUEST)
            assert answer == head + body
        assert time.monotonic() - begin < 20  # no call waits for more
