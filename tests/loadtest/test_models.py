"""The models that load tests are tested with do what they say, in the real server."""

from __future__ import annotations

import queue
import time
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from modelwright.errors import ServerError
from modelwright.server.local import RunningServer
from modelwright.triton.client import Client

Array = np.ndarray[Any, Any]


def tensor(module: Any, name: str, array: Array) -> Any:
    kinds = {"float32": "FP32", "int32": "INT32"}
    made = module.InferInput(name, list(array.shape), kinds[str(array.dtype)])
    made.set_data_from_numpy(array)
    return made


def test_a_decoupled_model_answers_as_often_as_it_is_told(server: RunningServer) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    inputs = [("IN", np.array([1.5, 2], np.float32)), ("COUNT", np.array([3], np.int32))]
    inputs.append(("DELAY_MS", np.array([20], np.int32)))
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        started = time.monotonic()
        client.async_stream_infer(
            "decoupled_repeat",
            [tensor(tritonclient.grpc, name, array) for name, array in inputs],
            enable_empty_final_response=True,
        )
        found = [answers.get(timeout=10) for _ in range(4)]
        elapsed = time.monotonic() - started
        client.stop_stream()
    assert [answer.as_numpy("OUT").tolist() for answer in found[:3]] == [[1.5, 2]] * 3
    assert found[3].get_response().parameters["triton_final_response"].bool_param
    assert elapsed >= 0.06


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_sequences_are_summed_each_for_itself(server: RunningServer, module: Any) -> None:
    with module.InferenceServerClient(server.grpc if module is tritonclient.grpc else server.http) as client:

        def send(sequence: int, value: int, **flags: bool) -> int:
            inputs = [tensor(module, "IN", np.array([[value]], np.int32))]
            return int(client.infer("sequence_sum", inputs, sequence_id=sequence, **flags).as_numpy("OUT")[0, 0])

        assert send(11, 1, sequence_start=True) == 1
        assert send(12, 10, sequence_start=True) == 10
        assert send(11, 2) == 3
        assert send(12, 20, sequence_end=True) == 30
        assert send(11, 3, sequence_end=True) == 6
        assert send(11, 5, sequence_start=True, sequence_end=True) == 5


def test_the_server_does_not_run_sequences_with_names(server: RunningServer) -> None:
    inputs = [tensor(tritonclient.grpc, "IN", np.array([[1]], np.int32))]
    refusal = "unexpected number of string elements 2 for inference input"
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    with client, pytest.raises(InferenceServerException, match=refusal):
        client.infer("sequence_by_name", inputs, sequence_id="a", sequence_start=True)


def test_one_request_in_ten_fails(client: Client) -> None:
    failures = []
    for number in range(20):
        try:
            assert client.infer("flaky", {"IN": np.ones((1, 2), np.float32)})["OUT"].tolist() == [[1, 1]]
        except ServerError as error:
            failures.append((number, error.message))
    assert [message.rpartition("flaky: ")[2] for _, message in failures] == ["every tenth request fails"] * 2
    assert failures[1][0] - failures[0][0] == 10


def test_a_slow_model_takes_the_time_that_it_is_told(client: Client) -> None:
    started = time.monotonic()
    assert client.infer("slow", {"DELAY_MS": np.array([50], np.float32)})["OUT"].tolist() == [50]
    assert time.monotonic() - started >= 0.05


def test_numbers_and_strings_come_back(client: Client) -> None:
    numbers, texts = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[b"a"], ["ü".encode()]], object)
    answer = client.infer("identity", {"NUMBERS": numbers, "TEXTS": texts})
    np.testing.assert_array_equal(answer["SAME_NUMBERS"], numbers)
    assert answer["SAME_TEXTS"].tolist() == texts.tolist()
