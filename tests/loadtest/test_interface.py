"""Signatures, as read from a real server."""

from __future__ import annotations

import re
import socket

import pytest

from modelwright.errors import ServerError
from modelwright.loadtest.payloads.interface import InterfaceTensor, ModelInterface, SequencePolicy, read_interface
from modelwright.triton.client import Client, connect


def test_a_models_tensors_are_without_the_batch_dimension(client: Client) -> None:
    assert read_interface(client, "identity") == ModelInterface(
        model="identity",
        version="1",
        max_batch_size=8,
        inputs=(InterfaceTensor("NUMBERS", "FP32", (-1,)), InterfaceTensor("TEXTS", "BYTES", (-1,))),
        outputs=(InterfaceTensor("SAME_NUMBERS", "FP32", (-1,)), InterfaceTensor("SAME_TEXTS", "BYTES", (-1,))),
    )


def test_optional_inputs_are_known_as_such(client: Client) -> None:
    assert [tensor.optional for tensor in read_interface(client, "optional").inputs] == [False, True]


def test_a_decoupled_model(client: Client) -> None:
    interface = read_interface(client, "decoupled_repeat")
    assert (interface.decoupled, interface.max_batch_size, interface.sequence) == (True, 0, None)


@pytest.mark.parametrize(("model", "string_id"), [("sequence_sum", False), ("sequence_by_name", True)])
def test_a_sequence_model_and_the_kind_of_its_ids(client: Client, model: str, string_id: bool) -> None:
    interface = read_interface(client, model)
    assert (interface.sequence, interface.merges_requests) == (SequencePolicy(string_id), True)
    assert [tensor.name for tensor in interface.inputs] == ["IN"], "clients do not send controls"


def test_an_ensemble_needs_what_its_composing_models_need(client: Client) -> None:
    interface = read_interface(client, "ensemble_of_sum")
    assert (interface.ensemble, interface.sequence, interface.decoupled) == (True, SequencePolicy(False), False)


def test_the_highest_version_answers_unless_one_is_named(client: Client) -> None:
    assert read_interface(client, "two_versions").version == "10"
    assert read_interface(client, "two_versions", "9").version == "9"


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [
        ("identiti", "", r"identiti: the server has no such model\n  hint: did you mean 'identity'\?"),
        ("unloaded", "", r"unloaded: no version is served: never loaded\n  hint: load it"),
        ("broken", "", r"broken: no version is served: version 1 is UNAVAILABLE \(.*on purpose.*\)\n  hint: load it"),
        (
            "two_versions",
            "3",
            r"two_versions: version 3 is not served: it has no such version\n  hint: served: version 9, 10",
        ),
    ],
    ids=["unknown model", "not loaded", "failed to load", "unknown version"],
)
def test_what_is_not_served_is_named(client: Client, model: str, version: str, message: str) -> None:
    with pytest.raises(ServerError, match=f"(?s){re.escape(client.url)}: {message}"):
        read_interface(client, model, version)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_no_server(protocol: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"{protocol}://127.0.0.1:{taken.getsockname()[1]}"
        with connect(url, timeout_s=5) as client, pytest.raises(ServerError, match=f"{url}: cannot be reached"):
            read_interface(client, "identity")
