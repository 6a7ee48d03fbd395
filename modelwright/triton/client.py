"""A small client, the same for HTTP and gRPC.

    with connect("grpc://127.0.0.1:8001") as client:
        client.infer("digits", {"image": images})["logits"]

A Client can be used from any thread. An HTTP connection belongs to the thread that made it, so each thread gets its
own; all threads share one gRPC channel.
"""

from __future__ import annotations

import importlib
import re
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelwright import extras
from modelwright.errors import ServerError, ServerTimeoutError
from modelwright.text import printable
from modelwright.triton.access import NO_ACCESS, Access, Address, address_of
from modelwright.triton.http import AnswerTooLargeError, MalformedAnswerError
from modelwright.triton.reasons import plain_reason
from modelwright.triton.rest import NotTritonError, RefusedError, RestCalls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from modelwright.triton.grpc_calls import GrpcCalls
    from modelwright.triton.tensors import Tensors

_VERSION = re.compile(r"-?\d{1,19}", re.ASCII)
_PORTS_HINT = "give the address of its HTTP port (8000) as http://…, of its gRPC port (8001) as grpc://…"


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


def connect(url: str, timeout_s: float = 60, access: Access = NO_ACCESS) -> Client:
    """A client for `http://host:port`, `https://…`, `grpc://…`, `grpcs://…`, or `host:port`, which means HTTP.

    Nothing is sent yet: if the server cannot be reached, the first call raises. `timeout_s` limits each call, from
    connecting to the last byte of the answer. Raises ServerError for another URL, and for certificates that cannot be
    used.
    """
    extras.require("talking to a server", "client", ServerError)
    return Client(address_of(url, access), timeout_s)


class Client:
    """Calls to one server. Every failure raises a ServerError that names the server and the model."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.url = address.url
        self._address = address
        self._timeout_s = timeout_s
        self._is_grpc = address.protocol == "grpc"
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
        return self._is_ready("server_ready")

    def model_ready(self, name: str, version: str = "") -> bool:
        """Whether the model, or this version of it, can be called. False when the server cannot be reached."""
        return self._is_ready("model_ready", name, version)

    def index(self) -> list[IndexEntry]:
        """Every model and version that the server knows."""
        found = [
            IndexEntry(
                entry["name"],
                entry.get("version", ""),
                entry.get("state", ""),
                plain_reason(entry.get("reason", "")),
            )
            for entry in self._call("", "index")
        ]
        for entry in found:
            if entry.version and not _VERSION.fullmatch(entry.version):
                raise self._not_triton(f"{printable(entry.name)} has the version {printable(entry.version)!r}", "")
        return found

    def server(self) -> dict[str, Any]:
        """The server's name, version and protocol extensions."""
        answer: dict[str, Any] = self._call("", "server")
        return answer

    def metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Names, data types and shapes of inputs and outputs, as the protocol's model metadata."""
        answer: dict[str, Any] = self._call(name, "metadata", name, version)
        return answer

    def config(self, name: str) -> dict[str, Any]:
        """The model's configuration as the server completed it."""
        answer: dict[str, Any] = self._call(name, "config", name)
        return answer

    def statistics(self, name: str, version: str = "") -> dict[str, Any]:
        """Counts and durations per version, in `model_stats`; times are in nanoseconds."""
        answer: dict[str, Any] = self._call(name, "statistics", name, version)
        return answer

    def load(self, name: str, config: str | None = None) -> None:
        """Load or reload a model; the server must run in explicit mode. `config` is JSON that replaces config.pbtxt."""
        self._call(name, "load", name, config)

    def unload(self, name: str) -> None:
        """Unload a model. The server answers before its last request has finished."""
        self._call(name, "unload", name)

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
        module = importlib.import_module("tritonclient.grpc" if self._is_grpc else "tritonclient.http")
        if class_count and not outputs:
            outputs = [output["name"] for output in self.metadata(name, version)["outputs"]]
        answer: Tensors = self._call(
            name,
            "infer",
            name,
            version,
            [self._input(module, name, key, array) for key, array in inputs.items()],
            [module.InferRequestedOutput(key, class_count=class_count) for key in outputs] or None,
            **_sequence_options(sequence),
        )
        return answer

    def _input(self, module: Any, model: str, name: str, array: Any) -> Any:
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

    def _calls(self) -> RestCalls | GrpcCalls:
        known: dict[str, RestCalls | GrpcCalls] = self._connections.__dict__
        if "connection" not in known:
            known["connection"] = self._opened()
        return known["connection"]

    def _opened(self) -> RestCalls | GrpcCalls:
        if not self._is_grpc:
            return RestCalls(self._address, self._timeout_s)
        from modelwright.triton.grpc_calls import GrpcCalls

        return GrpcCalls(self._address, self._timeout_s)

    def _call(self, model: str, method: str, *arguments: Any, **options: Any) -> Any:
        """One call over either protocol. Its errors become ServerError."""
        from tritonclient.utils import InferenceServerException

        try:
            return getattr(self._calls(), method)(*arguments, **options)
        except InferenceServerException as error:
            raise self._failed(model, error) from None
        except RefusedError as error:
            raise self._refused(model, str(error)) from None
        except (NotTritonError, MalformedAnswerError) as error:
            raise self._not_triton(str(error), getattr(error, "hint", "")) from None
        except AnswerTooLargeError:
            raise self._address.access.too_large(self._where(model)) from None
        except OSError as error:
            raise self._unreachable(model, error) from None

    def _failed(self, model: str, error: Any) -> ServerError:
        """What tritonclient raises: over HTTP for a request that it cannot write."""
        status, message = str(error.status() or ""), str(error.message())
        if status == "StatusCode.UNAVAILABLE" and _is_connection_failure(message):
            return self._unreachable(model, ConnectionError(message))
        if status == "StatusCode.DEADLINE_EXCEEDED":
            return self._unreachable(model, TimeoutError())
        if status == "StatusCode.RESOURCE_EXHAUSTED" and "larger than max" in message:
            return self._address.access.too_large(self._where(model))
        return self._refused(model, message)

    def _refused(self, model: str, message: str) -> ServerError:
        reason = plain_reason(message)
        hint = ""
        if "unknown model" in reason or "no available versions" in reason:
            hint = "the model is not loaded: check its name and version against the server's index, or load it"
        return ServerError(f"{self._where(model)}: {reason}", hint)

    def _not_triton(self, what: str, hint: str) -> ServerError:
        return ServerError(f"what answers at {self.url} is not a Triton server: {what}", hint or _PORTS_HINT)

    def _unreachable(self, model: str, error: Exception) -> ServerError:
        if isinstance(error, TimeoutError):
            return ServerTimeoutError(
                f"{self._where(model)}: no answer within {self._timeout_s:g} s",
                "raise the timeout, or look into the server's log",
            )
        hint = "start it (modelwright serve), or give the URL of a running server"
        reason = printable(getattr(error, "strerror", None) or str(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"its certificate is not trusted: {error.verify_message}"
            hint = "--ca-cert FILE names the authority that signed it"
        elif isinstance(error, ssl.SSLError):
            reason = f"no encrypted connection: {error.reason or reason}"
            hint = "http:// where the server does not encrypt; --client-cert FILE where it wants a certificate"
        return ServerError(f"{self._where(model)}: cannot be reached: {reason}", hint)

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
