"""Every way to ask, against the real server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.loadtest.wire.callers import Caller, DecoupledGrpc, RawGrpc, RawHttp, SequenceGrpc, TritonClient
from modelwright.loadtest.wire.calls import CallError
from modelwright.loadtest.wire.connections import GrpcConnections
from modelwright.loadtest.wire.encoding import grpc_request, http_request
from modelwright.loadtest.wire.frames import message_bytes
from modelwright.server.local import RunningServer, running
from modelwright.triton.access import Address, address_of
from modelwright.triton.tensors import Tensors
from tests.loadtest.wire import Http2Peer, drain, free_port, grpc_answer, kind_of, listening
from tests.server.models import graph, node, publish, shared_environment

Make = Callable[[RunningServer, str, list[Tensors]], Caller]
TYPES = ("BOOL", "INT8", "INT64", "UINT8", "FP16", "FP64", "STRING")


def raw_http(server: RunningServer, model: str, payloads: list[Tensors]) -> Caller:
    address = address_of(server.http)
    return RawHttp(address, [http_request(address, model, "", inputs) for inputs in payloads], 5)


def connections(server: RunningServer) -> GrpcConnections:
    return GrpcConnections(address_of(f"grpc://{server.grpc}"), 5)


def raw_grpc(server: RunningServer, model: str, payloads: list[Tensors]) -> Caller:
    messages = [message_bytes(grpc_request(model, "", inputs)) for inputs in payloads]
    return RawGrpc(connections(server), messages)


def client_http(server: RunningServer, model: str, payloads: list[Tensors]) -> Caller:
    return TritonClient(address_of(server.http), model, "", payloads, 5)


def client_grpc(server: RunningServer, model: str, payloads: list[Tensors]) -> Caller:
    return TritonClient(address_of(f"grpc://{server.grpc}"), model, "", payloads, 5)


WAYS = (raw_http, raw_grpc, client_http, client_grpc)


@pytest.fixture(params=WAYS, ids=lambda way: str(way.__name__))
def make(request: pytest.FixtureRequest) -> Make:
    found: Make = request.param
    return found


@pytest.fixture(scope="module")
def types_server(tmp_path_factory: pytest.TempPathFactory, server: RunningServer) -> Iterator[RunningServer]:
    """A server of `types`: an output for each of TYPES, which is the input of that type."""
    folder: Path = tmp_path_factory.mktemp("types")
    inputs = [(f"in_{name}", f"TYPE_{name}", ["batch", 2]) for name in TYPES]
    outputs = [(f"out_{name}", f"TYPE_{name}", ["batch", 2]) for name in TYPES]
    nodes = [node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES]
    lines = ['backend: "onnxruntime"', "max_batch_size: 4"]
    for kind in ("input", "output"):
        lines += [f'{kind} [{{ name: "{kind[:-3]}_{name}" data_type: TYPE_{name} dims: [ 2 ] }}]' for name in TYPES]
    publish(folder / "repository", "types", graph(nodes, inputs, outputs), "\n".join(lines))
    options: dict[str, Any] = {"models": ["types"], "stop_grace_s": 0}
    with running(shared_environment(), folder / "repository", log=folder / "log", **options) as started:
        yield started


def values(seed: int) -> Tensors:
    generator = np.random.default_rng(seed)
    return {
        "in_BOOL": generator.integers(0, 2, (3, 2)).astype(bool),
        "in_INT8": generator.integers(-128, 128, (3, 2)).astype(np.int8),
        "in_INT64": generator.integers(-(2**62), 2**62, (3, 2)),
        "in_UINT8": generator.integers(0, 256, (3, 2)).astype(np.uint8),
        "in_FP16": generator.normal(size=(3, 2)).astype(np.float16),
        "in_FP64": generator.normal(size=(3, 2)),
        "in_STRING": np.array([[b"x" * number * seed, "ß".encode()] for number in range(3)], object),
    }


def test_every_type_of_every_output_comes_back(types_server: RunningServer, make: Make) -> None:
    payloads = [values(seed) for seed in range(3)]
    with closing(make(types_server, "types", payloads)) as caller:
        for number in (0, 2, 1, 1):
            answer = caller.parse(caller.call(number))
            assert set(answer) == {f"out_{name}" for name in TYPES}
            for name in TYPES:
                np.testing.assert_array_equal(answer[f"out_{name}"], payloads[number][f"in_{name}"], strict=True)


def test_messages_have_no_limit_that_tritonclient_does_not_have(server: RunningServer, make: Make) -> None:
    """17 MiB. grpcio's own limit is 4 MiB, and HTTP/2's largest frame 16 MiB."""
    numbers = np.arange(17 << 18, dtype=np.float32).reshape(1, -1)
    with closing(make(server, "flaky", [{"IN": numbers}])) as caller:
        try:
            answer = caller.call(0)
        except CallError:
            answer = caller.call(0)  # `flaky` fails every tenth request
        np.testing.assert_array_equal(caller.parse(answer)["OUT"], numbers)


def test_a_refused_request_leaves_the_caller_usable(server: RunningServer, make: Make) -> None:
    good, bad = ({"IN": np.ones((1, 3), dtype)} for dtype in (np.float32, np.int32))
    with closing(make(server, "flaky", [good, bad])) as caller:
        kind, message = kind_of(lambda: caller.call(1))
        assert kind in ("HTTP 400", "gRPC INVALID_ARGUMENT")
        assert "data-type" in message or "datatype" in message or "INT32" in message
        outcomes = []
        for _ in range(10):
            try:
                outcomes.append(caller.parse(caller.call(0))["OUT"].tolist())
            except Exception as error:  # the model fails every tenth request
                outcomes.append(str(error))
        assert outcomes.count([[1, 1, 1]]) == 9


def test_a_closed_caller_connects_again(server: RunningServer, make: Make) -> None:
    with closing(make(server, "slow", [{"DELAY_MS": np.ones(1, np.float32)}])) as caller:
        for _ in range(2):
            assert caller.parse(caller.call(0))["OUT"].tolist() == [1]
            caller.close()


@pytest.mark.parametrize(
    ("way", "kind"),
    [(raw_http, "timeout"), (raw_grpc, "timeout"), (client_http, "timeout"), (client_grpc, "gRPC DEADLINE_EXCEEDED")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_no_answer_in_time_is_a_timeout(server: RunningServer, way: Make, kind: str) -> None:
    caller: Any = way(server, "slow", [{"DELAY_MS": np.full(1, 900, np.float32)}])
    getattr(caller, "_connection", caller)._timeout_s = 0.3
    with closing(caller):
        assert kind_of(lambda: caller.call(0))[0] == kind


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_without_a_server_fails_to_connect(protocol: str) -> None:
    address = Address(protocol, "127.0.0.1", free_port())
    with closing(TritonClient(address, "m", "", [{"x": np.ones(1, np.float32)}], 2)) as caller:
        assert kind_of(lambda: caller.call(0))[0] == ("connect" if protocol == "http" else "gRPC UNAVAILABLE")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
    ],
    ids=["nothing", "nonsense", "half a body", "half a JSON"],
)
def test_tritonclient_over_http_fails_in_our_terms(answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    payloads: list[Tensors] = [{"x": np.ones(1, np.float32)}]
    with listening(serve, "http") as address, closing(TritonClient(address, "m", "", payloads, 2)) as caller:
        for _ in range(2):
            assert kind_of(lambda: caller.call(0))[0] != "connect"


# --- sequences --------------------------------------------------------------------------------------------------------


def sequence(server: RunningServer, count: int, length: int, model: str = "sequence_sum") -> SequenceGrpc:
    requests = [grpc_request(model, "", {"IN": np.full((1, 1), number, np.int32)}) for number in range(count)]
    return SequenceGrpc(connections(server), requests, length, as_text=False)


def total(caller: SequenceGrpc, payload: int) -> int:
    return int(caller.parse(caller.call(payload))["OUT"].item())


def test_sequences_of_two_callers_do_not_mix(server: RunningServer) -> None:
    with closing(sequence(server, 10, 3)) as one, closing(sequence(server, 10, 4)) as two:
        found = [(total(one, number), total(two, 1)) for number in (1, 2, 3, 4, 5, 6)]
    assert found == [(1, 1), (3, 2), (6, 3), (4, 4), (9, 1), (15, 2)]


def test_a_sequence_of_one_request_begins_and_ends_with_it(server: RunningServer) -> None:
    with closing(sequence(server, 10, 1)) as caller:
        assert [total(caller, number) for number in (3, 4, 5)] == [3, 4, 5]


def test_a_failed_request_ends_its_sequence(server: RunningServer) -> None:
    caller = sequence(server, 10, 3)
    caller._requests = [*caller._requests, grpc_request("sequence_sum", "", {"IN": np.zeros((1, 2), np.int32)})]
    with closing(caller):
        assert total(caller, 1) == 1
        assert kind_of(lambda: caller.call(10))[0] == "gRPC INVALID_ARGUMENT"
        assert [total(caller, number) for number in (1, 2, 3, 4)] == [1, 3, 6, 4]


def test_correlation_ids_are_text_where_the_model_wants_it() -> None:
    from tritonclient.grpc import service_pb2

    seen: list[Any] = []

    def serve(connection: socket.socket) -> None:
        with Http2Peer(connection) as peer:
            for stream in range(1, 9, 2):
                seen.append(service_pb2.ModelInferRequest.FromString(peer.request()[5:]).parameters)
                connection.sendall(grpc_answer(b"", stream))
            peer.drain()

    requests = [grpc_request("m", "", {})]
    with (
        listening(serve, "grpc") as address,
        closing(SequenceGrpc(GrpcConnections(address, 5), requests, 2, as_text=True)) as caller,
    ):
        for _ in range(4):
            caller.call(0)
    numbers = [int(parameters["sequence_id"].string_param) for parameters in seen]
    assert numbers == [numbers[0], numbers[0], numbers[0] + 1, numbers[0] + 1]
    assert [p["sequence_start"].bool_param for p in seen] == [True, False, True, False]
    assert [p["sequence_end"].bool_param for p in seen] == [False, True, False, True]


# --- decoupled models -------------------------------------------------------------------------------------------------


def decoupled(server: RunningServer, *counts: int) -> DecoupledGrpc:
    requests = [
        grpc_request(
            "decoupled_repeat",
            "",
            {
                "IN": np.full(2, number, np.float32),
                "COUNT": np.full(1, count, np.int32),
                "DELAY_MS": np.ones(1, np.int32),
            },
        )
        for number, count in enumerate(counts)
    ]
    requests.append(grpc_request("decoupled_repeat", "", {"IN": np.ones(2, np.float32)}))  # inputs are missing
    return DecoupledGrpc(connections(server), requests)


def test_a_call_has_all_answers_of_its_request(server: RunningServer) -> None:
    with closing(decoupled(server, 0, 1, 5)) as caller:
        for number, count in ((2, 5), (0, 0), (1, 1), (0, 0), (2, 5)):
            answers = caller.call(number)
            assert len(answers) == count
            parsed = [caller.parse([answer])["OUT"].tolist() for answer in answers]
            assert parsed == [[number, number]] * count
            assert caller.parse([]) == {}


def test_an_error_on_the_stream_is_a_failure_and_the_next_call_works(server: RunningServer) -> None:
    with closing(decoupled(server, 2)) as caller:
        assert len(caller.call(0)) == 2
        kind, message = kind_of(lambda: caller.call(1))
        assert (kind, "expected 3 inputs" in message) == ("model error", True), message
        assert len(caller.call(0)) == 2


def test_what_cannot_be_read_on_a_stream_is_a_failure() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(grpc_answer(b"\xff\xff\xff"))
        drain(connection)

    with listening(serve, "grpc") as address, closing(DecoupledGrpc(GrpcConnections(address, 2), [b""])) as caller:
        assert kind_of(lambda: caller.call(0))[0] == "not gRPC"


def test_a_stream_that_ends_is_a_failure() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(grpc_answer(b""))
        drain(connection)

    with listening(serve, "grpc") as address, closing(DecoupledGrpc(GrpcConnections(address, 2), [b""])) as caller:
        assert kind_of(lambda: caller.call(0)) == ("closed", "the server ended the stream")
