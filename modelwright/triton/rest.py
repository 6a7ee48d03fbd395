"""Triton's HTTP endpoint: the KServe v2 protocol and its extensions.

Whatever answers at an address can answer anything. What is not an answer of Triton raises NotTritonError, so that
callers get the fields that they read, of the types that they expect.
"""

from __future__ import annotations

import json
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelwright.text import printable
from modelwright.triton.http import BoundedConnection
from modelwright.triton.model_config_pb2 import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelwright.triton.access import Address
    from modelwright.triton.http import HttpAnswer
    from modelwright.triton.tensors import Tensors

_DESCRIPTION_BYTES = 1 << 28  # of a server, a model, or an index of thousands
_LOGIN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
_MOST_SHOWN = 100
# What reading raises where an answer has other fields, other types or fewer bytes than Triton's.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error)

_TENSORS = [{"name": str, "datatype": str, "shape": [int]}]
_SERVER = {"name": str, "version": str, "extensions": [str]}
_INDEX = [{"name": str}]
_CONFIG = {"name": str, "max_batch_size": int}
_CONFIG_TENSORS = [{"name": str, "data_type": str, "dims": list}]
_METADATA = {"name": str, "inputs": _TENSORS, "outputs": _TENSORS}
_COUNTED = {"count": int, "ns": int}
_STATISTICS = {
    "model_stats": [
        {
            "name": str,
            "version": str,
            "inference_count": int,
            "execution_count": int,
            "inference_stats": {"success": _COUNTED, "fail": _COUNTED, "queue": _COUNTED},
        }
    ]
}


class NotTritonError(Exception):
    """What is wrong with an answer; `hint` where something other than the address may be wrong."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class RefusedError(Exception):
    """Triton's own error message."""


class RestCalls:
    """Calls of one thread. They raise what BoundedConnection.ask raises, RefusedError and NotTritonError."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._connection = BoundedConnection(address)
        self._timeout_s = timeout_s
        self._max_answer_bytes = address.access.max_answer_bytes

    def close(self) -> None:
        self._connection.close()

    def server_ready(self) -> bool:
        return self._ask("GET", "/v2/health/ready").status == HTTPStatus.OK

    def model_ready(self, name: str, version: str) -> bool:
        return self._ask("GET", f"{_model(name, version)}/ready").status == HTTPStatus.OK

    def server(self) -> dict[str, Any]:
        found: dict[str, Any] = self._described("GET", "/v2", _SERVER)
        return found

    def index(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._described("POST", "/v2/repository/index", _INDEX)
        for entry in found:
            if not all(isinstance(entry.get(key, ""), str) for key in ("version", "state", "reason")):
                raise NotTritonError("its index of models has other fields than Triton's")
        return found

    def metadata(self, name: str, version: str) -> dict[str, Any]:
        found: dict[str, Any] = self._described("GET", _model(name, version), _METADATA)
        return found

    def config(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._described("GET", f"{_model(name)}/config", _CONFIG)
        _check_config(found)
        return found

    def statistics(self, name: str, version: str) -> dict[str, Any]:
        found: dict[str, Any] = self._described("GET", f"{_model(name, version)}/stats", _STATISTICS)
        return found

    def load(self, name: str, config: str | None) -> None:
        parameters = {} if config is None else {"parameters": {"config": config}}
        self._change(f"/v2/repository/models/{quote(name, safe='')}/load", parameters)

    def unload(self, name: str) -> None:
        path = f"/v2/repository/models/{quote(name, safe='')}/unload"
        self._change(path, {"parameters": {"unload_dependents": False}})

    def infer(
        self, name: str, version: str, inputs: Sequence[Any], outputs: Sequence[Any] | None, **options: Any
    ) -> Tensors:
        from tritonclient.http import InferenceServerClient

        body, head_bytes = InferenceServerClient.generate_request_body(inputs, outputs=outputs, **options)
        headers = {"Content-Type": "application/octet-stream" if head_bytes is not None else "application/json"}
        if head_bytes is not None:
            headers["Inference-Header-Content-Length"] = str(head_bytes)
        path = f"{_model(name, version)}/infer"
        answer = self._ask("POST", path, bytes(body), headers, max_bytes=self._max_answer_bytes)
        _check_status(answer)
        try:
            return tensors_of(answer)
        except (
            AttributeError,
            KeyError,
            IndexError,
            OverflowError,
            RecursionError,
            TypeError,
            ValueError,
            struct.error,
        ) as error:
            raise NotTritonError(f"its answer to an inference cannot be read: {_shown(str(error))}") from None

    def _change(self, path: str, body: Any) -> None:
        answer = self._ask("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        _check_status(answer)
        if answer.body.strip() and not isinstance(_json(answer.body), dict):
            raise NotTritonError("its answer to a load or unload is not Triton's")

    def _described(self, method: str, path: str, wanted: Any) -> Any:
        answer = self._ask(method, path)
        _check_status(answer)
        found = _json(answer.body)
        wrong = _difference(found, wanted)
        if wrong:
            raise NotTritonError(f"its answer to {method} {path}: {wrong.removeprefix('.').strip()}")
        return found

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, *, max_bytes: int = 0
    ) -> HttpAnswer:
        most = min(max_bytes or _DESCRIPTION_BYTES, self._max_answer_bytes)
        return self._connection.ask(method, path, body, headers, timeout_s=self._timeout_s, max_bytes=most)


def tensors_of(answer: HttpAnswer) -> Tensors:
    """The outputs of an answer to an inference, as its JSON and its binary parts have them.

    Raises whatever reading raises where the answer is not as the protocol has it.
    """
    import numpy as np
    from tritonclient.utils import deserialize_bytes_tensor

    from modelwright.triton.arrays import numpy_dtype

    given = answer.headers.get("Inference-Header-Content-Length")
    start = len(answer.body) if given is None else int(given)
    if not 0 <= start <= len(answer.body):
        raise ValueError(f"Inference-Header-Content-Length is {start}")
    found: Tensors = {}
    for output in _json(answer.body[:start])["outputs"]:
        dtype, size = numpy_dtype(output["datatype"]), output.get("parameters", {}).get("binary_data_size")
        is_text = output["datatype"] == "BYTES"
        if size is None:
            data = [_as_bytes(item) for item in _flat(output["data"])] if is_text else output["data"]
            array = np.array(data, dtype)
        else:
            part = answer.body[start : start + size]
            if size < 0 or len(part) != size:
                raise ValueError(f"output {output['name']!r} has fewer bytes than it says")
            array = deserialize_bytes_tensor(part) if is_text else np.frombuffer(part, dtype)
            start += size
        if min(output["shape"], default=0) < 0:
            raise ValueError(f"output {output['name']!r} has the shape {output['shape']}")
        found[str(output["name"])] = array.reshape(output["shape"])
    return found


def _flat(data: Any) -> list[Any]:
    return [item for part in data for item in _flat(part)] if isinstance(data, list) else [data]


def _as_bytes(item: Any) -> bytes:
    return item.encode() if isinstance(item, str) else str(item).encode()


def _model(name: str, version: str = "") -> str:
    return f"/v2/models/{quote(name, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _check_status(answer: HttpAnswer) -> None:
    """Raises RefusedError with Triton's message, and NotTritonError for another server's status."""
    if answer.status == HTTPStatus.OK:
        return
    said = f"it answers HTTP {answer.status} {_shown(answer.reason)}".rstrip()
    hint = "it wants a login: --header NAME=VALUE, or --client-cert FILE" if answer.status in _LOGIN else ""
    try:
        message = _json(answer.body)["error"]
    except (NotTritonError, KeyError, TypeError):
        message = None
    if isinstance(message, str) and message:
        raise RefusedError(message)
    where = answer.headers.get("Location", "")
    raise NotTritonError(f"{said}, to {_shown(where)}" if where else said, hint)


def _json(data: bytes) -> Any:
    if not data.strip():
        raise NotTritonError("it answers with nothing")
    try:
        return json.loads(data)
    except RecursionError:
        raise NotTritonError("it answers with JSON that is nested too deep") from None
    except ValueError:
        raise NotTritonError(f"it answers {_start(data)!r}, which is not JSON") from None


def _start(data: bytes) -> str:
    return data.strip()[:40].decode("utf-8", "replace")


def _difference(found: Any, wanted: Any) -> str:
    """What of an answer is not as it must be: `inputs[0].name is a number`; '' when all of it is.

    `wanted` has a type, a list with what each item is, or a table with what must be in it.
    """
    if isinstance(wanted, type):
        right = isinstance(found, wanted) and not (wanted is int and isinstance(found, bool))
        return "" if right else f" is {_kind(found)}"
    if not isinstance(found, type(wanted)):
        return f" is {_kind(found)}"
    if isinstance(wanted, list):
        each = ((f"[{index}]", item, wanted[0]) for index, item in enumerate(found))
    else:
        each = ((f".{key}", found.get(key), value) for key, value in wanted.items())
    for place, item, inner in each:
        wrong = _difference(item, inner)
        if wrong:
            return f"{place}{wrong}"
    return ""


def _kind(value: Any) -> str:
    names = {dict: "a table", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "missing" if value is None else names[type(value)]


def _check_config(found: dict[str, Any]) -> None:
    """Whether it is a ModelConfig, newer fields aside. Raises NotTritonError."""
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        for kind in ("input", "output"):
            if wrong := _difference(found.get(kind, []), _CONFIG_TENSORS):
                raise ValueError(f"{kind}{wrong}")
        ParseDict(found, schema().ModelConfig(), ignore_unknown_fields=True)
    except (ParseError, RecursionError, TypeError, AttributeError, ValueError) as error:
        raise NotTritonError(f"its config of a model is not Triton's: {_shown(str(error))}") from None


def _shown(text: str) -> str:
    plain = printable(" ".join(text.split()))
    return plain if len(plain) <= _MOST_SHOWN else f"{plain[:_MOST_SHOWN]}…"
