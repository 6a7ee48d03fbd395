"""Tensors in shared memory, with the real server on this machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import LoadError
from modelwright.loadtest.payloads.interface import read_interface
from modelwright.loadtest.wire.callers import Caller, RawGrpc, RawHttp
from modelwright.loadtest.wire.connections import GrpcConnections
from modelwright.loadtest.wire.encoding import grpc_request, http_request
from modelwright.loadtest.wire.frames import message_bytes
from modelwright.loadtest.wire.shm import SharedMemory
from modelwright.server.local import RunningServer
from modelwright.triton.access import Address, address_of
from modelwright.triton.client import connect
from modelwright.triton.tensors import Tensors
from tests.loadtest.wire import free_port


def shared_memory(
    address: Address, server: RunningServer, model: str, payloads: list[Tensors], batch: int = 1
) -> SharedMemory:
    def make(requests: Sequence[Any]) -> Caller:
        if address.protocol == "http":
            made = [http_request(address, model, "", tensors, regions) for tensors, regions in requests]
            return RawHttp(address, made, 5)
        messages = [message_bytes(grpc_request(model, "", tensors, regions)) for tensors, regions in requests]
        return RawGrpc(GrpcConnections(address, 5), messages)

    with connect(server.http, 5) as client:
        interface = read_interface(client, model)
    module = importlib.import_module(f"tritonclient.{address.protocol}")
    return SharedMemory(module.InferenceServerClient(address.authority), interface, payloads, batch, make)


def left(shared: SharedMemory) -> list[str]:
    """Regions that exist. Those of other processes have other names."""
    return [name for name in shared._regions if (Path("/dev/shm") / name).exists()]


def close(shared: SharedMemory) -> None:
    names = left(shared)
    assert names
    shared.close()
    assert not [name for name in names if (Path("/dev/shm") / name).exists()]


@pytest.fixture(params=["http", "grpc"])
def address(server: RunningServer, request: pytest.FixtureRequest) -> Address:
    return address_of(f"{request.param}://{getattr(server, request.param)}")


def test_answers_are_those_of_each_payload_and_strings_come_in_the_answer(
    server: RunningServer, address: Address
) -> None:
    payloads: list[Tensors] = [
        {
            "NUMBERS": np.full((2, 3 + seed), seed, np.float32),
            "TEXTS": np.array([[b"x" * seed], ["ß".encode()]], object),
        }
        for seed in range(3)
    ]
    shared = shared_memory(address, server, "identity", payloads, batch=2)
    caller = shared.caller()
    for number in (0, 1, 2, 0):
        answer = caller.parse(caller.call(number))
        np.testing.assert_array_equal(answer["SAME_NUMBERS"], payloads[number]["NUMBERS"])
        assert answer["SAME_TEXTS"].tolist() == payloads[number]["TEXTS"].tolist()
    caller.close()
    close(shared)


def test_outputs_of_each_caller_have_a_place_of_their_own(server: RunningServer, address: Address) -> None:
    payloads: list[Tensors] = [{"DELAY_MS": np.full(1, number, np.float32)} for number in range(4)]
    shared = shared_memory(address, server, "slow", payloads)
    one, two = shared.caller(), shared.caller()
    first, second = one.call(3), two.call(1)  # both are answered before either is read
    assert one.parse(first)["OUT"].tolist() == [3]
    assert two.parse(second)["OUT"].tolist() == [1]
    assert len(left(shared)) == 3  # the inputs, and each caller's outputs
    for caller in (one, two):
        caller.close()
    close(shared)
    shared.close()


def test_a_server_that_does_not_take_them_is_an_error_and_leaves_nothing(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"test{os.getpid()}{number}" for number in range(3)]
    given = iter(names)
    monkeypatch.setattr("modelwright.loadtest.wire.shm.secrets.token_hex", lambda _: next(given))
    payloads: list[Tensors] = [{"DELAY_MS": np.ones(1, np.float32)}]
    nobody = Address("http", "127.0.0.1", free_port())
    with pytest.raises(LoadError, match=r"--shared-memory: .*\n  hint: the server must be on this machine"):
        shared_memory(nobody, server, "slow", payloads)
    assert not [name for name in names if (Path("/dev/shm") / f"modelwright-{name}").exists()]
