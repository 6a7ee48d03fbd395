"""Encodes requests, once for each payload, and decodes answers to arrays.

An inference request of the KServe v2 protocol with Triton's binary tensor extension (HTTP), or a ModelInferRequest.
tritonclient's functions do the encoding; only the sending is ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelwright.loadtest.wire.http1 import post

if TYPE_CHECKING:
    from modelwright.triton.access import Address
    from modelwright.triton.tensors import Tensors

_HEADER_LENGTH = re.compile(rb"\r\ninference-header-content-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Region:
    """Where a tensor lies in shared memory."""

    name: str
    offset: int
    size: int


def client_inputs(module: Any, inputs: Tensors, regions: Mapping[str, Region] | None = None) -> list[Any]:
    """tritonclient's InferInput of each array; with `regions`, references to shared memory in place of the data."""
    from tritonclient.utils import np_to_triton_dtype

    made = []
    for name, array in inputs.items():
        tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        if regions is None:
            tensor.set_data_from_numpy(array)
        else:
            region = regions[name]
            tensor.set_shared_memory(region.name, region.size, region.offset)
        made.append(tensor)
    return made


def client_outputs(module: Any, regions: Mapping[str, Region] | None) -> list[Any] | None:
    """Outputs that the server is to put into shared memory; None: all of them, in the answer."""
    if regions is None:
        return None
    made = []
    for name, region in regions.items():
        tensor = module.InferRequestedOutput(name)
        if region.size:  # an output of unknown size (strings) comes in the answer
            tensor.set_shared_memory(region.name, region.size, region.offset)
        made.append(tensor)
    return made


def http_request(
    address: Address,
    model: str,
    version: str,
    inputs: Tensors,
    regions: tuple[Mapping[str, Region], Mapping[str, Region]] | None = None,
) -> bytes:
    """A whole HTTP request, head and body. `regions`: of the inputs and of the outputs, when in shared memory."""
    import tritonclient.http as module

    there, back = regions or (None, None)
    body, header_length = module.InferenceServerClient.generate_request_body(
        client_inputs(module, inputs, there), client_outputs(module, back)
    )
    headers = {} if header_length is None else {"Inference-Header-Content-Length": str(header_length)}
    headers.update(address.access.headers)
    return post(address.authority, f"{_path(model, version)}/infer", bytes(body), headers)


def _path(model: str, version: str) -> str:
    from urllib.parse import quote

    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{version}" if version else "")


def http_answer(answer: tuple[bytes, bytes]) -> Tensors:
    """The outputs in the answer, without those in shared memory."""
    import tritonclient.http as module

    head, body = answer
    length = _HEADER_LENGTH.search(head)
    result = module.InferenceServerClient.parse_response_body(body, header_length=int(length[1]) if length else None)
    outputs = result.get_response()["outputs"]
    here = (item["name"] for item in outputs if "data" in item or "binary_data_size" in item.get("parameters", {}))
    return {name: result.as_numpy(name) for name in here}


def grpc_request(
    model: str,
    version: str,
    inputs: Tensors,
    regions: tuple[Mapping[str, Region], Mapping[str, Region]] | None = None,
) -> bytes:
    """A serialised ModelInferRequest. Protobuf merges messages that are appended to it (`sequence_part`)."""
    import tritonclient.grpc as module
    from tritonclient.grpc import service_pb2

    there, back = regions or (None, None)
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    for tensor in client_inputs(module, inputs, there):
        request.inputs.append(tensor._get_tensor())
        content = tensor._get_content()
        if content is not None:
            request.raw_input_contents.append(content)
    for output in client_outputs(module, back) or ():
        request.outputs.append(output._get_tensor())
    return bytes(request.SerializeToString())


def sequence_part(number: int | str, first: bool, last: bool) -> bytes:
    """The parameters by which a request belongs to a sequence: its correlation id, its start, its end."""
    from tritonclient.grpc import service_pb2

    part = service_pb2.ModelInferRequest()
    if isinstance(number, str):
        part.parameters["sequence_id"].string_param = number
    else:
        part.parameters["sequence_id"].int64_param = number
    part.parameters["sequence_start"].bool_param = first
    part.parameters["sequence_end"].bool_param = last
    return bytes(part.SerializeToString())


def final_marker() -> bytes:
    """Asks a decoupled model for an empty answer after its last one, which marks the end."""
    from tritonclient.grpc import service_pb2

    part = service_pb2.ModelInferRequest()
    part.parameters["triton_enable_empty_final_response"].bool_param = True
    return bytes(part.SerializeToString())


def grpc_answer(answer: bytes) -> Tensors:
    import tritonclient.grpc as module
    from tritonclient.grpc import service_pb2

    response = service_pb2.ModelInferResponse.FromString(answer)
    result = module.InferResult(response)
    # An output in shared memory has no bytes here, and may lack the parameters that name its region.
    held = [bool(raw) for raw in response.raw_output_contents]
    held += [False] * (len(response.outputs) - len(held))
    here = zip(response.outputs, held, strict=True)
    return {output.name: result.as_numpy(output.name) for output, is_here in here if is_here or 0 in output.shape}
