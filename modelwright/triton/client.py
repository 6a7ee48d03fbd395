"""A small client over tritonclient, the same for HTTP and gRPC.

    with connect("grpc://127.0.0.1:8001") as client:
        client.infer("digits", {"image": images})["logits"]

A Client can be used from any thread. tritonclient's HTTP client belongs to the thread that made it, so each thread gets
its own; all threads share one gRPC channel.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelwright.errors import ServerError, ServerTimeoutError
from modelwright.triton.messages import is_repeated
from modelwright.triton.reasons import plain_reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType, TracebackType

    from modelwright.triton.tensors import Tensors

_PORTS = {"http": 8000, "https": 443, "grpc": 8001, "grpcs": 443}


@dataclass(frozen=True)
class IndexEntry:
    """One version of one model in the server's repository; version and state are empty if it was never loaded."""

    name: str
    version: str
    state: str  # "READY", "UNAVAILABLE", "LOADING", "UNLOADING" or ""
    reason: str


@dataclass(frozen=True)
class SequencePlace:
    """A request's place in the sequence with this correlation id; the default is a sequence of this one request."""

    id: int | str = 1
    start: bool = True
    end: bool = True


def connect(url: str, timeout_s: float = 60) -> Client:
    """A client for `http://host:port`, `https://…`, `grpc://…`, `grpcs://…`, or `host:port`, which means HTTP.

    Nothing is sent yet: if the server cannot be reached, the first call raises. `timeout_s` limits each call.
    """
    scheme, separator, address = url.partition("://")
    if not separator:
        scheme, address = "http", url
    address = address.rstrip("/")
    if scheme not in _PORTS or not address:
        raise ServerError(f"'{url}' is not the URL of a server", "write http://host:port or grpc://host:port")
    if ":" not in address.rpartition("]")[2]:
        address = f"{address}:{_PORTS[scheme]}"
    return Client(scheme, address, timeout_s)


class Client:
    """Calls to one server. Every failure raises a ServerError that names the server and the model."""

    def __init__(self, scheme: str, address: str, timeout_s: float) -> None:
        self.url = f"{scheme}://{address}"
        self._address = address
        self._timeout_s = timeout_s
        self._is_grpc = scheme.startswith("grpc")
        self._ssl = scheme.endswith("s")
        self._connections: Any = _Shared() if self._is_grpc else threading.local()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close this thread's connection; those of other threads close when the threads end."""
        connection = self._connections.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def ready(self) -> bool:
        """Whether the server says that it is ready. False when it cannot be reached."""
        return self._is_ready("is_server_ready")

    def model_ready(self, name: str, version: str = "") -> bool:
        """Whether the model, or this version of it, can be called. False when the server cannot be reached."""
        return self._is_ready("is_model_ready", name, version)

    def index(self) -> list[IndexEntry]:
        """Every model and version that the server knows."""
        answer = self._call("", "get_model_repository_index")
        entries = answer["models"] if self._is_grpc else answer
        return [
            IndexEntry(
                entry["name"],
                entry.get("version", ""),
                entry.get("state", ""),
                plain_reason(entry.get("reason", "")),
            )
            for entry in entries
        ]

    def server(self) -> dict[str, Any]:
        """The server's name, version and protocol extensions."""
        answer: dict[str, Any] = self._call("", "get_server_metadata")
        return answer

    def metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Names, data types and shapes of inputs and outputs, as the protocol's model metadata."""
        answer: dict[str, Any] = self._call(name, "get_model_metadata", name, version)
        return answer

    def config(self, name: str) -> dict[str, Any]:
        """The model's configuration as the server completed it."""
        answer: dict[str, Any] = self._call(name, "get_model_config", name)
        return answer["config"] if self._is_grpc else answer

    def statistics(self, name: str, version: str = "") -> dict[str, Any]:
        """Counts and durations per version, in `model_stats`; times are in nanoseconds."""
        answer: dict[str, Any] = self._call(name, "get_inference_statistics", name, version)
        return answer

    def load(self, name: str, config: str | None = None) -> None:
        """Load or reload a model; the server must run in explicit mode. `config` is JSON that replaces config.pbtxt."""
        self._call(name, "load_model", name, config=config)

    def unload(self, name: str) -> None:
        """Unload a model. The server answers before its last request has finished."""
        self._call(name, "unload_model", name)

    def infer(
        self,
        name: str,
        inputs: Tensors,
        version: str = "",
        outputs: Sequence[str] = (),
        class_count: int = 0,
        sequence: SequencePlace | None = None,
    ) -> Tensors:
        """Run a model, for all its outputs or those named. Arrays include the batch dimension and may be read-only.

        Strings are object arrays of bytes (str is accepted as input). With a `class_count`, each output is replaced by
        its best classes, as b"value:index" or b"value:index:label". A model with sequences needs a place in one:
        `sequences.whole_sequence`.
        """
        module = self._module()
        if class_count and not outputs:
            outputs = [output["name"] for output in self.metadata(name, version)["outputs"]]
        result = self._call(
            name,
            "infer",
            name,
            [self._input(module, name, key, array) for key, array in inputs.items()],
            model_version=version,
            outputs=[module.InferRequestedOutput(key, class_count=class_count) for key in outputs] or None,
            **_sequence_options(sequence),
        )
        response = result.get_response()
        names = [o.name for o in response.outputs] if self._is_grpc else [o["name"] for o in response["outputs"]]
        return {key: result.as_numpy(key) for key in names}

    def _input(self, module: ModuleType, model: str, name: str, array: Any) -> Any:
        import numpy as np
        from tritonclient.utils import np_to_triton_dtype

        array = np.asarray(array)
        if array.dtype.kind == "U":
            array = np.char.encode(array, "utf-8").astype(object)
        datatype = np_to_triton_dtype(array.dtype)
        if datatype is None:
            raise ServerError(f"{self.url}: {model}: input '{name}': Triton has no data type for numpy's {array.dtype}")
        tensor = module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return tensor

    def _is_ready(self, method: str, *arguments: str) -> bool:
        try:
            return bool(self._call("", method, *arguments))
        except ServerError:
            return False

    def _module(self) -> ModuleType:
        return importlib.import_module("tritonclient.grpc" if self._is_grpc else "tritonclient.http")

    def _connection(self) -> Any:
        known = self._connections.__dict__
        if "connection" not in known:
            known["connection"] = self._connect_grpc() if self._is_grpc else self._connect_http()
        return known["connection"]

    def _connect_grpc(self) -> Any:
        # No limits on message size, as tritonclient's default; short waits, to notice soon that a server is back.
        arguments = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        return self._module().InferenceServerClient(self._address, ssl=self._ssl, channel_args=arguments)

    def _connect_http(self) -> Any:
        return self._module().InferenceServerClient(
            self._address, ssl=self._ssl, connection_timeout=self._timeout_s, network_timeout=self._timeout_s
        )

    def _call(self, model: str, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of tritonclient. The answer is plain data; errors become ServerError."""
        from tritonclient.utils import InferenceServerException

        if self._is_grpc:
            options["client_timeout"] = self._timeout_s
        try:
            answer = getattr(self._connection(), method)(*arguments, **options)
        except InferenceServerException as error:
            raise self._refusal(model, error) from None
        except OSError as error:
            raise self._unreachable(model, error) from None
        except Exception as error:
            # geventhttpclient has no public base class for its errors.
            if not type(error).__module__.startswith(("geventhttpclient", "_parser")):
                raise
            raise self._unreachable(model, error) from None
        return _plain(answer) if hasattr(answer, "DESCRIPTOR") else answer

    def _refusal(self, model: str, error: Any) -> ServerError:
        status = str(error.status() or "")
        if status == "StatusCode.UNAVAILABLE" and _is_connection_failure(error.message()):
            return self._unreachable(model, ConnectionError(error.message()))
        if status == "StatusCode.DEADLINE_EXCEEDED" or error.message() == "timed out":
            return self._unreachable(model, TimeoutError())
        message = plain_reason(str(error.message()))
        hint = ""
        if "unknown model" in message or "no available versions" in message:
            hint = "the model is not loaded: check its name and version against the server's index, or load it"
        return ServerError(f"{self._where(model)}: {message}", hint)

    def _unreachable(self, model: str, error: Exception) -> ServerError:
        if isinstance(error, TimeoutError):
            return ServerTimeoutError(
                f"{self._where(model)}: no answer within {self._timeout_s:g} s",
                "raise the timeout, or look into the server's log",
            )
        return ServerError(
            f"{self._where(model)}: cannot be reached: {error}",
            "start it (modelwright serve), or give the URL of a running server",
        )

    def _where(self, model: str) -> str:
        return f"{self.url}: {model}" if model else self.url


def _sequence_options(place: SequencePlace | None) -> dict[str, Any]:
    if place is None:
        return {}
    return {"sequence_id": place.id, "sequence_start": place.start, "sequence_end": place.end}


class _Shared:
    """Holds a gRPC connection like threading.local, but for all threads."""


def _is_connection_failure(message: str) -> bool:
    return any(text in message for text in ("onnect", "DNS", "resolution", "Socket closed"))


def _plain(message: Any) -> Any:
    """A protobuf message as the HTTP endpoint's JSON: enums by name, defaults included.

    64-bit integers are numbers, which json_format would give as strings.
    """
    return {
        field.name: _plain_field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if field.message_type is None or is_repeated(field) or message.HasField(field.name)
    }


def _plain_field(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _plain_field(entry, item) for key, item in value.items()}
    if is_repeated(field):
        return [_plain_value(field, item) for item in value]
    return _plain_value(field, value)


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value
