"""The null server, as real clients see it."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2

from modelwright.errors import ServerError
from modelwright.loadtest.wire.null_server import Delays, NullServer, null_server

PROTOCOLS = ("http", "grpc")
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Literal["http", "grpc"]:
    found: Literal["http", "grpc"] = request.param
    return found


@pytest.fixture
def null(protocol: Literal["http", "grpc"]) -> Iterator[NullServer]:
    with null_server(protocol) as server:
        yield server


def triton(protocol: str, server: NullServer, **options: Any) -> Any:
    module = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    return module.InferenceServerClient(f"127.0.0.1:{server.port}", **options)


def request(protocol: str, count: int = 4) -> list[Any]:
    module = tritonclient.grpc if protocol == "grpc" else tritonclient.http
    tensor = module.InferInput("x", [count], "FP32")
    tensor.set_data_from_numpy(np.zeros(count, np.float32))
    return [tensor]


def grpc_answer(count: int) -> bytes:
    array = np.arange(count, dtype=np.float32)
    output = service_pb2.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[count])
    message = service_pb2.ModelInferResponse(
        model_name="m", model_version="1", outputs=[output], raw_output_contents=[array.tobytes()]
    )
    data: bytes = message.SerializeToString()
    return data


def http_answer(count: int) -> bytes:
    data = np.arange(count, dtype=np.float32).tobytes()
    output = {"name": "y", "datatype": "FP32", "shape": [count], "parameters": {"binary_data_size": len(data)}}
    return json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]}).encode() + data


def test_tritonclient_gets_a_valid_answer(null: NullServer, protocol: str) -> None:
    with triton(protocol, null) as client:
        for _ in range(3):
            answer = client.infer("anything", request(protocol))
            assert answer.as_numpy("OUTPUT").tolist() == [0]


@pytest.mark.parametrize("count", [3, 100, 10_000, 1_000_000], ids=["small", "a frame", "a window", "4 MB"])
def test_tritonclient_gets_the_given_answer(protocol: Literal["http", "grpc"], count: int) -> None:
    given = grpc_answer(count) if protocol == "grpc" else http_answer(count)
    with null_server(protocol, answer=given) as server, triton(protocol, server) as client:
        for _ in range(3):
            np.testing.assert_array_equal(
                client.infer("m", request(protocol)).as_numpy("y"), np.arange(count, dtype=np.float32)
            )


def test_large_requests_are_read_to_their_end(null: NullServer, protocol: str) -> None:
    with triton(protocol, null) as client:
        for count in (4_000, 250_000, 5_000_000, 1):
            assert client.infer("m", request(protocol, count)).as_numpy("OUTPUT").tolist() == [0]
    assert null.delays().count == 4


def test_http_answers_one_request_after_the_other() -> None:
    with null_server("http") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for body in (b"", b"x", b"y" * 1_000_000, b"z"):
            connection.request("POST", "/v2/models/m/infer", body)
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Content-Type")) == (200, "application/json")
            assert json.loads(answer.read())["outputs"][0]["data"] == [0]
        connection.close()


def test_http_requests_may_come_in_any_pieces() -> None:
    message = b"POST /infer HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\nhello" * 2
    for size in (1, 7, 50, len(message)):
        with null_server("http") as server, socket.create_connection(("127.0.0.1", server.port), 5) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(message), size):
                connection.sendall(message[start : start + size])
            answers = b""
            while answers.count(b"}]}") < 2:
                answers += connection.recv(65536)
            assert server.delays().count == 2


@pytest.mark.parametrize(
    ("protocol", "sent"),
    [
        pytest.param("http", b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", id="length"),
        pytest.param("http", b"x" * 100_000, id="no end of head"),
        pytest.param("grpc", b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", id="HTTP/1.1 to gRPC"),
    ],
)
def test_an_invalid_request_ends_only_its_connection(protocol: Literal["http", "grpc"], sent: bytes) -> None:
    with null_server(protocol) as server:
        with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
            connection.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):  # its settings, in gRPC; a timeout would fail the test
                    pass
        with triton(protocol, server) as client:
            assert client.infer("m", request(protocol)).as_numpy("OUTPUT").tolist() == [0]


def test_many_calls_share_a_connection() -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with null_server("grpc", delay_s=0.1) as server, triton("grpc", server) as client:
        client.infer("m", request("grpc"))
        started = time.monotonic()
        for _ in range(50):
            client.async_infer("m", request("grpc"), lambda result, error: answers.put(error or result))
        found = [answers.get(timeout=60) for _ in range(50)]
        assert time.monotonic() - started < 4, "one after the other they would take 5 s"
        assert [answer.as_numpy("OUTPUT").tolist() for answer in found] == [[0]] * 50


def test_large_answers_to_many_calls_keep_to_the_clients_windows() -> None:
    with (
        null_server("grpc", answer=grpc_answer(100_000)) as server,
        triton("grpc", server) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: client.infer("m", request("grpc")).as_numpy("y").sum(), range(40)))
    assert answers == [np.arange(100_000, dtype=np.float32).sum()] * 40


def test_a_cancelled_call_does_not_affect_others() -> None:
    with null_server("grpc", delay_s=0.2) as server, triton("grpc", server) as client:
        with pytest.raises(tritonclient.grpc.InferenceServerException, match="Deadline Exceeded"):
            client.infer("m", request("grpc"), client_timeout=0.05)
        assert client.infer("m", request("grpc")).as_numpy("OUTPUT").tolist() == [0]


DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def word(value: int) -> bytes:
    return struct.pack(">I", value)


class Raw:
    """An HTTP/2 client that grants `window` bytes a stream, and reads what there is up to the answer of a ping."""

    def __init__(self, server: NullServer, window: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 5)
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def call(self, stream: int) -> None:
        self.send(frame(HEADERS, 4, stream, b"not decoded") + frame(DATA, 1, stream, b"\0\0\0\0\0"))

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        self.send(frame(PING, 0, 0, b"question"))
        found: list[tuple[int, int, int, bytes]] = []
        while (PING, 1, 0, b"question") not in found:
            head = self.exactly(9)
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            found.append((kind, flags, stream, self.exactly(int.from_bytes(head[:3], "big"))))
        return found

    def exactly(self, size: int) -> bytes:
        return self.socket.recv(size, socket.MSG_WAITALL) if size else b""

    def data(self) -> dict[int, int]:
        """Bytes of DATA per stream."""
        found: dict[int, int] = {}
        for kind, _, stream, payload in self.frames():
            if kind == DATA:
                found[stream] = found.get(stream, 0) + len(payload)
        return found


@pytest.fixture
def raw() -> Iterator[Raw]:
    """A client with a window of 100 bytes of a server whose answers have 1,000, 5 in front of them included."""
    message = b"\x0a\xe0\x07" + b"n" * 992  # model_name
    with null_server("grpc", answer=message) as server:
        client = Raw(server, 100)
        yield client
        client.socket.close()


def test_a_stream_gets_no_more_than_its_window(raw: Raw) -> None:
    raw.call(1)
    raw.call(3)
    assert raw.data() == {1: 100, 3: 100}
    raw.send(frame(WINDOW_UPDATE, 0, 3, word(50)))
    assert raw.data() == {3: 50}
    raw.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 110)))
    assert raw.data() == {1: 10, 3: 10}
    raw.send(frame(WINDOW_UPDATE, 0, 3, word(10_000)))
    frames = raw.frames()
    assert sum(len(payload) for kind, _, stream, payload in frames if (kind, stream) == (DATA, 3)) == 840
    assert (HEADERS, 5, 3) in [item[:3] for item in frames], "the trailers end the stream"


def test_all_streams_together_get_no_more_than_the_connections_window(raw: Raw) -> None:
    raw.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 10_000)))
    for stream in range(1, 141, 2):
        raw.call(stream)
    assert sum(raw.data().values()) == 65_535
    raw.send(frame(WINDOW_UPDATE, 0, 0, word(100_000)))
    assert sum(raw.data().values()) == 70 * 1000 - 65_535


def test_a_stream_that_was_reset_gets_no_answer(raw: Raw) -> None:
    raw.call(1)
    assert raw.data() == {1: 100}
    raw.send(frame(RST_STREAM, 0, 1, word(8)) + frame(WINDOW_UPDATE, 0, 1, word(1000)))
    assert raw.data() == {}


def lateness_ns() -> int:
    """How late a sleep ends on this machine, here and now."""
    late = []
    for _ in range(20):
        begin_ns = time.monotonic_ns()
        time.sleep(0.005)
        late.append(time.monotonic_ns() - begin_ns - 5_000_000)
    return sorted(late)[15]


@pytest.mark.timing
def test_an_answer_comes_after_the_delay_and_the_server_knows_how_late(protocol: Literal["http", "grpc"]) -> None:
    late_ns = lateness_ns()
    with null_server(protocol, delay_s=0.005) as server, triton(protocol, server) as client:
        client.infer("m", request(protocol))
        server.delays()
        started = time.monotonic()
        for _ in range(50):
            client.infer("m", request(protocol))
        elapsed = time.monotonic() - started
        delays = server.delays()
    assert delays.count == 50
    allowed_ns = 1_000_000 + 3 * max(late_ns, lateness_ns())
    assert 5_000_000 <= delays.p50_ns < 5_000_000 + allowed_ns, "a timer of whole milliseconds would be late, or early"
    assert delays.p50_ns <= delays.p99_ns <= delays.max_ns
    assert elapsed >= 50 * delays.p50_ns / 2e9


def test_delays_are_those_since_the_last_question(null: NullServer, protocol: str) -> None:
    with triton(protocol, null) as client:
        client.infer("m", request(protocol))
    assert null.delays().count == 1
    assert null.delays() == Delays(0, 0, 0, 0)


def test_the_process_ends_with_the_block(protocol: Literal["http", "grpc"]) -> None:
    with null_server(protocol) as server:
        assert server.process.poll() is None
    assert server.process.returncode == 0


def test_a_process_that_does_not_start_is_an_error() -> None:
    with pytest.raises(ServerError, match=r"(?s)the null server did not start: .*'smtp'"):
        null_server("smtp").__enter__()  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["stdin closes", "SIGTERM"])
def test_the_command_prints_its_port_and_at_the_end_its_delays(tmp_path: Path, end: str) -> None:
    (tmp_path / "answer").write_bytes(http_answer(2))
    command = [
        sys.executable,
        "-m",
        "modelwright.loadtest.wire.null_server",
        "--protocol=http",
        f"--answer={tmp_path / 'answer'}",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server = NullServer(json.loads(process.stdout.readline())["port"], process)
        with triton("http", server) as client:
            assert client.infer("m", request("http")).as_numpy("y").tolist() == [0, 1]
        if end == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        last = json.loads(process.stdout.readline())
        assert (last["count"], process.wait(10)) == (1, 0)
