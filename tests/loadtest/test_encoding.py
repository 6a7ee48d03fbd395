"""Requests as bytes are what tritonclient sends, and answers are what it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2

from modelwright.loadtest.wire.encoding import (
    Region,
    final_marker,
    grpc_answer,
    grpc_request,
    http_answer,
    http_request,
    sequence_part,
)
from modelwright.loadtest.wire.frames import message_bytes
from modelwright.triton.access import Address
from modelwright.triton.tensors import Tensors

ADDRESS = Address("http", "::1", 8000)
INPUTS: Tensors = {
    "numbers": np.arange(6, dtype=np.float32).reshape(2, 3),
    "texts": np.array([[b"", "ß".encode()], [b"\xff", b"x" * 300]], object),
    "flags": np.array([[True], [False]]),
}


def given(module: Any) -> list[Any]:
    made = []
    for name, kind in (("numbers", "FP32"), ("texts", "BYTES"), ("flags", "BOOL")):
        made.append(module.InferInput(name, list(INPUTS[name].shape), kind))
        made[-1].set_data_from_numpy(INPUTS[name])
    return made


def parts(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def test_an_http_request_has_tritonclients_body() -> None:
    expected, length = tritonclient.http.InferenceServerClient.generate_request_body(given(tritonclient.http))
    first, headers, body = parts(http_request(ADDRESS, "a model/ß", "3", INPUTS))
    assert first == "POST /v2/models/a%20model%2F%C3%9F/versions/3/infer HTTP/1.1"
    assert body == expected
    assert headers == {
        "Host": "[::1]:8000",
        "Content-Length": str(len(expected)),
        "Accept-Encoding": "identity",
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(length),
    }


def test_without_a_version_the_server_chooses_it() -> None:
    assert parts(http_request(ADDRESS, "m", "", INPUTS))[0] == "POST /v2/models/m/infer HTTP/1.1"
    assert service_pb2.ModelInferRequest.FromString(grpc_request("m", "", INPUTS)).model_version == ""


def test_a_grpc_request_has_tritonclients_tensors() -> None:
    request = service_pb2.ModelInferRequest.FromString(grpc_request("m", "3", INPUTS))
    assert (request.model_name, request.model_version, list(request.outputs)) == ("m", "3", [])
    made = given(tritonclient.grpc)
    assert [tensor.name for tensor in request.inputs] == [tensor.name() for tensor in made]
    assert [(tensor.datatype, list(tensor.shape)) for tensor in request.inputs] == [
        (tensor.datatype(), tensor.shape()) for tensor in made
    ]
    assert list(request.raw_input_contents) == [tensor._get_content() for tensor in made]


@pytest.mark.parametrize("number", [7, 2**62, "a text"])
@pytest.mark.parametrize(("first", "last"), [(True, False), (False, True), (False, False)])
def test_a_part_of_a_sequence_is_merged_with_its_request(number: int | str, first: bool, last: bool) -> None:
    whole = grpc_request("m", "3", INPUTS) + sequence_part(number, first, last)
    request = service_pb2.ModelInferRequest.FromString(whole)
    found = request.parameters["sequence_id"]
    assert (found.string_param if isinstance(number, str) else found.int64_param) == number
    assert found.WhichOneof("parameter_choice") == ("string_param" if isinstance(number, str) else "int64_param")
    assert request.parameters["sequence_start"].bool_param is first
    assert request.parameters["sequence_end"].bool_param is last
    assert (request.model_name, len(request.inputs), len(request.raw_input_contents)) == ("m", 3, 3)


def test_the_final_marker_is_merged_with_its_request() -> None:
    request = service_pb2.ModelInferRequest.FromString(grpc_request("m", "", INPUTS) + final_marker())
    assert request.parameters["triton_enable_empty_final_response"].bool_param
    assert len(request.inputs) == 3


def test_a_message_is_its_length_and_itself() -> None:
    assert message_bytes(b"abc") == b"\0\0\0\0\x03abc"


def regions() -> tuple[dict[str, Region], dict[str, Region]]:
    there = {name: Region("in", 64 * place, 8) for place, name in enumerate(INPUTS)}
    return there, {"fixed": Region("out", 128, 24), "strings": Region("out", 192, 0)}


def test_references_to_shared_memory_take_the_place_of_data() -> None:
    request = service_pb2.ModelInferRequest.FromString(grpc_request("m", "", INPUTS, regions()))
    assert not request.raw_input_contents
    found = [
        (
            p["shared_memory_region"].string_param,
            p["shared_memory_offset"].int64_param,
            p["shared_memory_byte_size"].int64_param,
        )
        for p in (tensor.parameters for tensor in (*request.inputs, *request.outputs[:1]))
    ]
    assert found == [("in", 0, 8), ("in", 64, 8), ("in", 128, 8), ("out", 128, 24)]
    assert [(output.name, len(output.parameters)) for output in request.outputs] == [("fixed", 3), ("strings", 0)]

    _, headers, body = parts(http_request(ADDRESS, "m", "", INPUTS, regions()))
    assert b'"shared_memory_region":"in"' in body
    assert b'"shared_memory_byte_size":24' in body
    assert len(body) == int(headers.get("Inference-Header-Content-Length", len(body)))


def test_outputs_in_shared_memory_are_not_in_the_answer() -> None:
    response = service_pb2.ModelInferResponse(raw_output_contents=[np.array([1, 2], np.float32).tobytes()])
    response.outputs.add(name="here", datatype="FP32", shape=[2])
    response.outputs.add(name="there", datatype="FP32", shape=[2]).parameters["shared_memory_region"].string_param = "r"
    answer = grpc_answer(response.SerializeToString())
    assert {name: array.tolist() for name, array in answer.items()} == {"here": [1, 2]}

    json = (
        b'{"outputs":[{"name":"here","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}},'
        b'{"name":"there","datatype":"FP32","shape":[2],"parameters":{"shared_memory_region":"r"}}]}'
    )
    head = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %d\r\n\r\n" % len(json)
    answer = http_answer((head, json + np.array([1, 2], np.float32).tobytes()))
    assert {name: array.tolist() for name, array in answer.items()} == {"here": [1, 2]}


def test_an_answer_of_json_alone_is_read() -> None:
    body = b'{"outputs":[{"name":"y","datatype":"INT32","shape":[1,2],"data":[3,4]}]}'
    answer = http_answer((b"HTTP/1.1 200 OK\r\n\r\n", body))
    assert answer["y"].tolist() == [[3, 4]]
