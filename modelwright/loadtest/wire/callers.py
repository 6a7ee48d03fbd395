"""Callers send inference requests. One greenlet uses a caller at a time; over gRPC several share a connection."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from modelwright.loadtest.wire.calls import CallError
from modelwright.loadtest.wire.connections import STREAM_INFER, GrpcConnections
from modelwright.loadtest.wire.encoding import client_inputs, final_marker, grpc_answer, http_answer, sequence_part
from modelwright.loadtest.wire.frames import message_bytes
from modelwright.loadtest.wire.http1 import HttpConnection
from modelwright.loadtest.wire.http2 import Call
from modelwright.triton.access import Access, Address
from modelwright.triton.grpc_calls import certificates_of, metadata_of

if TYPE_CHECKING:
    from modelwright.triton.tensors import Tensors

_LARGEST_MESSAGE = 2**31 - 1  # bytes; tritonclient's own limit


class Caller(Protocol):
    """`call` sends the payload of that number and returns the answer's bytes. Raises CallError."""

    def call(self, payload: int) -> Any: ...

    def parse(self, answer: Any) -> Tensors: ...

    def close(self) -> None: ...


class RawHttp:
    """Prepared requests over HTTP."""

    def __init__(self, address: Address, requests: Sequence[bytes], timeout_s: float) -> None:
        self._connection = HttpConnection(address, timeout_s)
        self._requests = requests

    def call(self, payload: int) -> tuple[bytes, bytes]:
        return self._connection.call(self._requests[payload])

    def parse(self, answer: tuple[bytes, bytes]) -> Tensors:
        return http_answer(answer)

    def close(self) -> None:
        self._connection.close()


class _Grpc:
    """A caller on a shared connection."""

    def __init__(self, connections: GrpcConnections) -> None:
        self._connection = connections.join()
        self._is_on = True

    def close(self) -> None:
        if self._is_on:
            self._is_on = False
            self._connection.leave()


class RawGrpc(_Grpc):
    """Prepared messages (`message_bytes`) over gRPC."""

    def __init__(self, connections: GrpcConnections, messages: Sequence[bytes]) -> None:
        super().__init__(connections)
        self._messages = messages

    def call(self, payload: int) -> bytes:
        return self._connection.call(self._messages[payload])

    def parse(self, answer: bytes) -> Tensors:
        return grpc_answer(answer)


class SequenceGrpc(_Grpc):
    """Sequences of `length` requests over gRPC, one sequence after the other.

    A failed request ends its sequence, since the server may have dropped it. Correlation ids begin at a random number,
    so that callers do not share one; `as_text` for models that take strings.
    """

    def __init__(self, connections: GrpcConnections, requests: Sequence[bytes], length: int, as_text: bool) -> None:
        super().__init__(connections)
        self._requests = requests
        self._length = length
        self._as_text = as_text
        self._position = 0
        self._number = secrets.randbits(48)

    def call(self, payload: int) -> bytes:
        position, self._position = self._position, 0
        if position == 0:
            self._number += 1
        number = str(self._number) if self._as_text else self._number
        part = sequence_part(number, first=position == 0, last=position == self._length - 1)
        answer = self._connection.call(message_bytes(self._requests[payload] + part))
        self._position = (position + 1) % self._length
        return answer

    def parse(self, answer: bytes) -> Tensors:
        return grpc_answer(answer)


class DecoupledGrpc(_Grpc):
    """Requests to a decoupled model, on one stream; a call ends with the last of its answers."""

    def __init__(self, connections: GrpcConnections, requests: Sequence[bytes]) -> None:
        from google.protobuf.message import DecodeError
        from tritonclient.grpc import service_pb2

        super().__init__(connections)
        self._unreadable = DecodeError
        self._messages = [message_bytes(request + final_marker()) for request in requests]
        self._parse = service_pb2.ModelStreamInferResponse.FromString
        self._stream: Call | None = None

    def call(self, payload: int) -> list[Any]:
        try:
            if self._stream is None:
                self._stream = self._connection.start(self._messages[payload], STREAM_INFER)
            else:
                self._stream.send(self._messages[payload])
            return self._answers(self._stream)
        except BaseException:
            self._end_stream()  # late answers to this request must not reach the next one
            raise

    def _answers(self, stream: Call) -> list[Any]:
        answers: list[Any] = []
        while True:
            message = stream.receive()
            if message is None:
                raise CallError("closed", "the server ended the stream")
            try:
                received = self._parse(message)
            except self._unreadable as error:
                raise CallError("not gRPC", str(error)) from None
            if received.error_message:
                raise CallError("model error", received.error_message)
            parameters = received.infer_response.parameters
            if parameters["triton_final_response"].bool_param:
                return answers
            answers.append(received.infer_response)

    def parse(self, answer: list[Any]) -> Tensors:
        return grpc_answer(answer[0].SerializeToString()) if answer else {}

    def close(self) -> None:
        self._end_stream()
        super().close()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class TritonClient:
    """tritonclient's own `infer()`, as an application calls it, to measure what it costs.

    Each call makes new inputs of the arrays, and parses the answer into arrays.
    """

    def __init__(
        self, address: Address, model: str, version: str, payloads: Sequence[Tensors], timeout_s: float
    ) -> None:
        self._module = importlib.import_module(f"tritonclient.{address.protocol}")
        self._is_grpc = address.protocol == "grpc"
        self._address, self._timeout_s = address, timeout_s
        self._model, self._version = model, version
        self._payloads = payloads
        self._client: Any = None

    def _connect(self) -> Any:
        if self._is_grpc:
            # Channels with equal arguments share one connection. Given arguments replace tritonclient's own: without
            # its limits on messages, grpcio's 4 MiB would hold.
            arguments: list[tuple[str, str | int]] = [
                ("modelwright.caller", str(id(self)))
            ]  # an integer must fit 32 bits
            arguments += [(f"grpc.max_{way}_message_length", _LARGEST_MESSAGE) for way in ("send", "receive")]
            return self._module.InferenceServerClient(
                self._address.authority,
                ssl=self._address.is_tls,
                **certificates_of(self._address.access),
                channel_args=arguments,
            )
        return self._module.InferenceServerClient(
            self._address.authority,
            ssl=self._address.is_tls,
            connection_timeout=self._timeout_s,
            network_timeout=self._timeout_s,
            ssl_context_factory=partial(_gevent_context, self._address.access),
        )

    def call(self, payload: int) -> Tensors:
        from tritonclient.utils import InferenceServerException

        if self._client is None:
            self._client = self._connect()
        inputs = client_inputs(self._module, self._payloads[payload])
        options: dict[str, Any] = {"client_timeout": self._timeout_s} if self._is_grpc else {}
        access = self._address.access
        options["headers"] = metadata_of(access) if self._is_grpc else dict(access.headers)
        try:
            result = self._client.infer(self._model, inputs, model_version=self._version, **options)
        except InferenceServerException as error:
            raise CallError(self._kind(str(error.status() or "")), str(error.message())) from None
        except Exception as error:
            kind = _kind_of(error)
            if not kind:
                raise
            self.close()
            raise CallError(kind, str(error)) from None
        response = result.get_response()
        names = [o.name for o in response.outputs] if self._is_grpc else [o["name"] for o in response["outputs"]]
        return {name: result.as_numpy(name) for name in names}

    def _kind(self, status: str) -> str:
        if self._is_grpc:
            return f"gRPC {status.removeprefix('StatusCode.')}"
        return f"HTTP {status}" if status else "timeout"

    def parse(self, answer: Tensors) -> Tensors:
        return answer

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _gevent_context(access: Access, cafile: str | None = None) -> Any:
    """What geventhttpclient makes connections with; `cafile` is its own choice of authorities."""
    from gevent import ssl

    return access.tls_context(ssl)


def _kind_of(error: Exception) -> str:
    """The failure kind of an exception that tritonclient does not translate; "" for a bug."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        return "closed"
    if isinstance(error, OSError):
        return "connect"
    if isinstance(error, ValueError):
        return "not HTTP"  # invalid JSON
    # geventhttpclient has no public base class for its errors; its parser raises those of an extension module.
    where = type(error).__module__.partition(".")[0]
    return {"geventhttpclient": "closed", "_parser": "not HTTP"}.get(where, "")
