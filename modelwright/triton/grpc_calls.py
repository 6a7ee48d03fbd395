"""Triton's gRPC endpoint, by tritonclient. Answers are plain data, in the shape of the HTTP endpoint's JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelwright.triton.messages import is_repeated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelwright.triton.access import Access, Address
    from modelwright.triton.tensors import Tensors

_MOST_BYTES = 2**31 - 1  # a message's length is a signed 32-bit number to grpc


class GrpcCalls:
    """Calls of any thread: all share one channel. They raise InferenceServerException."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        from tritonclient import grpc

        access = address.access

        # Short waits, to notice soon that a server is back.
        arguments = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", min(access.max_answer_bytes, _MOST_BYTES)),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._client = grpc.InferenceServerClient(
            address.authority,
            ssl=address.is_tls,
            **certificates_of(access),
            channel_args=arguments,
        )
        self._options: dict[str, Any] = {"client_timeout": timeout_s, "headers": metadata_of(access)}

    def close(self) -> None:
        self._client.close()

    def server_ready(self) -> bool:
        return bool(self._client.is_server_ready(**self._options))

    def model_ready(self, name: str, version: str) -> bool:
        return bool(self._client.is_model_ready(name, version, **self._options))

    def server(self) -> dict[str, Any]:
        return plain(self._client.get_server_metadata(**self._options))

    def index(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = plain(self._client.get_model_repository_index(**self._options))["models"]
        return found

    def metadata(self, name: str, version: str) -> dict[str, Any]:
        return plain(self._client.get_model_metadata(name, version, **self._options))

    def config(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = plain(self._client.get_model_config(name, **self._options))["config"]
        return found

    def statistics(self, name: str, version: str) -> dict[str, Any]:
        return plain(self._client.get_inference_statistics(name, version, **self._options))

    def load(self, name: str, config: str | None) -> None:
        self._client.load_model(name, config=config, **self._options)

    def unload(self, name: str) -> None:
        self._client.unload_model(name, **self._options)

    def infer(
        self, name: str, version: str, inputs: Sequence[Any], outputs: Sequence[Any] | None, **options: Any
    ) -> Tensors:
        result = self._client.infer(name, inputs, model_version=version, outputs=outputs, **options, **self._options)
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def certificates_of(access: Access) -> dict[str, str | None]:
    """The files, as tritonclient's gRPC client takes them."""
    return {
        "root_certificates": access.ca_cert or None,
        "private_key": access.client_key or access.client_cert or None,
        "certificate_chain": access.client_cert or None,
    }


def metadata_of(access: Access) -> dict[str, str] | None:
    """Headers as gRPC sends them: names in small letters, one of each."""
    found: dict[str, str] = {}
    for name, value in access.headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found or None


def plain(message: Any) -> dict[str, Any]:
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
        return plain(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value
