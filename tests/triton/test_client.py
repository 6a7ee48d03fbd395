"""The client against a real tritonserver, over both protocols."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import ServerError
from modelwright.server.local import Ports, RunningServer, running
from modelwright.triton.arrays import numpy_dtype
from modelwright.triton.client import Client, IndexEntry, connect
from modelwright.triton.dtypes import BY_CONFIG
from tests.ports import free_port
from tests.server.models import config, config_for, double, identity, publish, shared_environment

PROTOCOLS = ("http", "grpc")
TYPES = ("TYPE_BOOL", "TYPE_FP16", "TYPE_BF16", "TYPE_INT64", "TYPE_UINT8", "TYPE_STRING")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client") / "repository"
    publish(folder, "doubled", double(), config())
    publish(folder, "doubled2", double(), config(), version=3)
    publish(folder, "idle", double(), config())
    publish(folder, "broken", double(), config(inputs=[("x", "TYPE_BOOL", [4])]))
    publish(folder, "scores", identity(), config(outputs=[('y; label_filename: "labels.txt"', "TYPE_FP32", [4])]))
    (folder / "scores/labels.txt").write_text("ant\nbee\ncat\ndog\n")
    for data_type in TYPES:
        publish(folder, data_type.lower(), identity(data_type, ["n", "m"]), config_for(data_type, [-1]))
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[RunningServer]:
    models = [path.name for path in repository.iterdir() if path.name != "idle"]
    log = repository.parent / "server.log"
    with running(shared_environment(), repository, log=log, models=models, stop_grace_s=0) as server:
        yield server


def url_of(server: RunningServer, protocol: str) -> str:
    return f"{protocol}://{server.grpc if protocol == 'grpc' else server.http}"


@pytest.fixture(params=PROTOCOLS)
def client(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    with connect(url_of(server, request.param), timeout_s=60) as client:
        yield client


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


def test_inference(client: Client) -> None:
    np.testing.assert_array_equal(client.infer("doubled", {"x": ones(2, 4)})["y"], 2 * ones(2, 4))


@pytest.mark.parametrize("data_type", TYPES)
def test_data_types_come_back_as_they_were(client: Client, data_type: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 0]]).astype(numpy_dtype(BY_CONFIG[data_type].name))
    if data_type == "TYPE_STRING":
        values = np.array([[b"a", b"", "ü€".encode()], [b"b", b"two words", b"\n"]], dtype=object)
    answer = client.infer(data_type.lower(), {"x": values})["y"]
    assert answer.dtype == values.dtype
    np.testing.assert_array_equal(answer, values)


@pytest.mark.parametrize("data_type", ["TYPE_FP16", "TYPE_BF16", "TYPE_STRING"])
def test_empty_tensors_keep_their_shape(client: Client, data_type: str) -> None:
    values = np.empty((2, 0), dtype=numpy_dtype(BY_CONFIG[data_type].name))
    answer = client.infer(data_type.lower(), {"x": values})["y"]
    assert (answer.shape, answer.dtype) == (values.shape, values.dtype)


@pytest.mark.parametrize(
    "strings",
    [
        pytest.param(np.array([["größe", "b"]]), id="str"),
        pytest.param(np.array([["größe", "b"]], dtype=object), id="object of str"),
        pytest.param(np.array([["größe".encode(), b"b"]]), id="bytes"),
    ],
)
def test_strings_of_every_kind_are_sent_as_utf8(client: Client, strings: np.ndarray[Any, Any]) -> None:
    answer = client.infer("type_string", {"x": strings})["y"]
    assert answer.tolist() == [["größe".encode(), b"b"]]


def test_arrays_that_are_not_contiguous_are_sent_in_order(client: Client) -> None:
    values = np.arange(8, dtype=np.float32).reshape(4, 2).T
    np.testing.assert_array_equal(client.infer("doubled", {"x": values})["y"], 2 * values)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("scores", [b"0.900000:2:cat", b"0.500000:1:bee"], id="labels"),
        pytest.param("doubled", [b"1.800000:2", b"1.000000:1"], id="no labels"),
    ],
)
def test_the_best_classes(client: Client, model: str, expected: list[bytes]) -> None:
    scores = np.array([[0.1, 0.5, 0.9, 0.2]], np.float32)
    assert client.infer(model, {"x": scores}, class_count=2)["y"].tolist() == [expected]


def test_a_version_can_be_named(client: Client) -> None:
    assert client.infer("doubled2", {"x": ones(1, 4)}, version="3")["y"].sum() == 8
    with pytest.raises(ServerError, match=r"doubled2: .*version 4 .*not"):
        client.infer("doubled2", {"x": ones(1, 4)}, version="4")


def test_an_output_that_the_model_has_not_is_refused(client: Client) -> None:
    with pytest.raises(ServerError, match="unexpected inference output 'z' for model 'doubled'"):
        client.infer("doubled", {"x": ones(1, 4)}, outputs=["z"])


def test_readiness(client: Client) -> None:
    assert not client.ready(), "one model that failed to load makes tritonserver say that it is not ready"
    assert client.model_ready("doubled")
    assert client.model_ready("doubled2", "3")
    assert not client.model_ready("doubled2", "1")
    assert not client.model_ready("broken")
    assert not client.model_ready("nonexistent")


def test_the_index_has_every_model_with_its_state_and_reason(client: Client) -> None:
    index = {entry.name: entry for entry in client.index()}
    assert index["doubled2"] == IndexEntry("doubled2", "3", "READY", "")
    assert (index["idle"].version, index["idle"].state) == ("", "")
    assert index["broken"].state == "UNAVAILABLE"
    assert index["broken"].reason == (
        "unable to load model 'broken', configuration expects datatype TYPE_BOOL for input 'x', "
        "model provides TYPE_FP32"
    )


def test_both_protocols_answer_in_the_same_shape(server: RunningServer) -> None:
    with connect(url_of(server, "http")) as http, connect(url_of(server, "grpc")) as grpc:
        http.infer("doubled", {"x": ones(1, 4)})
        assert http.metadata("doubled") == grpc.metadata("doubled")
        assert http.config("doubled") == grpc.config("doubled")
        assert http.statistics("doubled") == grpc.statistics("doubled")
        assert sorted(http.index(), key=str) == sorted(grpc.index(), key=str)
    assert http.metadata("doubled")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert http.config("doubled")["max_batch_size"] == 8
    assert http.statistics("doubled")["model_stats"][0]["inference_count"] > 0


def test_models_are_loaded_and_unloaded(client: Client) -> None:
    client.load("idle")
    assert client.model_ready("idle")
    client.unload("idle")
    assert not client.model_ready("idle")


def test_a_load_can_override_the_configuration(client: Client) -> None:
    override = client.config("doubled2") | {"max_batch_size": 2}
    override.pop("runtime")
    client.load("doubled2", json.dumps(override))
    assert client.config("doubled2")["max_batch_size"] == 2
    client.load("doubled2")


def test_a_failed_load_says_why_in_plain_words(client: Client) -> None:
    with pytest.raises(ServerError) as caught:
        client.load("broken")
    assert caught.value.message == (
        f"{client.url}: broken: load failed for model 'broken': version 1 is at UNAVAILABLE state: unable to load "
        "model 'broken', configuration expects datatype TYPE_BOOL for input 'x', model provides TYPE_FP32"
    )


def test_an_unknown_model_is_an_error_with_a_hint(client: Client) -> None:
    with pytest.raises(ServerError, match=r"nope: Request for unknown model: 'nope' is not found\n  hint: .*load it"):
        client.infer("nope", {"x": ones(1, 4)})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param({"x": ones(1, 5)}, r"unexpected shape for input 'x' for model 'doubled'", id="shape"),
        pytest.param({"x": np.ones((1, 4))}, r"inference input 'x' data-type is 'FP64'", id="data type"),
        pytest.param({"z": ones(1, 4)}, r"unexpected inference input 'z' for model 'doubled'", id="name"),
        pytest.param({}, r"expected 1 inputs but got 0 inputs", id="none"),
        pytest.param({"x": ones(9, 4)}, r"inference request batch-size must be <= 8", id="batch size"),
        pytest.param({"x": np.ones((1, 4), complex)}, r"input 'x': .*complex128", id="complex"),
        pytest.param({"x": np.float32(1)}, r"doubled: ", id="scalar"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(client: Client, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ServerError, match=message):
        client.infer("doubled", inputs)


def test_one_client_serves_many_threads(client: Client) -> None:
    client.infer("doubled", {"x": ones(1, 4)})
    wrong: list[object] = []

    def call(value: int) -> None:
        for _ in range(20):
            answer = client.infer("doubled", {"x": value * ones(1, 4)})["y"]
            if answer.tolist() != [[2 * value] * 4]:
                wrong.append(answer)

    threads = [threading.Thread(target=call, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert client.model_ready("doubled")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_does_not_run_is_an_error_with_a_hint(protocol: str) -> None:
    url = f"{protocol}://127.0.0.1:{free_port()}"
    with connect(url) as client:
        assert not client.ready()
        assert not client.model_ready("doubled")
        with pytest.raises(ServerError, match=rf"{url}: doubled: cannot be reached: (?s:.*)hint: start it"):
            client.infer("doubled", {"x": ones(1, 4)})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_does_not_answer_is_given_up(protocol: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with (
            connect(f"{protocol}://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3) as client,
            pytest.raises(ServerError, match=r"doubled: no answer within 0.3 s\n  hint: raise the timeout"),
        ):
            client.infer("doubled", {"x": ones(1, 4)})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_restarts_is_found_again(server: RunningServer, repository: Path, protocol: str) -> None:
    ports = Ports(free_port(), free_port(), free_port())
    log = repository.parent / f"{protocol}.log"
    address = ports.grpc if protocol == "grpc" else ports.http
    with connect(f"{protocol}://127.0.0.1:{address}") as client:
        for _ in range(2):
            with running(shared_environment(), repository, log=log, models=["doubled"], ports=ports, stop_grace_s=0):
                assert client.ready()
                assert client.infer("doubled", {"x": ones(1, 4)})["y"].sum() == 8
            assert not client.ready()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("host:1234", "http://host:1234"),
        ("http://host", "http://host:8000"),
        ("grpc://host/", "grpc://host:8001"),
        ("https://host", "https://host:443"),
        ("grpcs://[::1]", "grpcs://[::1]:443"),
    ],
)
def test_urls(url: str, expected: str) -> None:
    assert connect(url).url == expected


@pytest.mark.parametrize("url", ["ftp://host:1", "", "http://"])
def test_what_is_not_a_url_is_refused(url: str) -> None:
    with pytest.raises(ServerError, match=r"is not the URL of a server\n  hint: write http://host:port"):
        connect(url)
