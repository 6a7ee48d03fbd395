"""Differences of a server's statistics."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import psutil
import pytest

from modelwright.loadtest.document import BatchSize
from modelwright.loadtest.generator.recording import RECORD, FailureKind, Record
from modelwright.loadtest.measure.listener import triton_process
from modelwright.loadtest.measure.server_side import Snapshot, difference, snapshot, with_cpu
from modelwright.loadtest.measure.usage import Usage
from modelwright.server.local import RunningServer
from modelwright.triton.access import address_of
from modelwright.triton.client import Client, connect
from tests.loadtest.wire import free_port

PARTS = ("success", "queue", "compute_input", "compute_infer", "compute_output")


def statistics(requests: int, ms: float = 1.0, batches: dict[int, tuple[int, float]] | None = None) -> dict[str, Any]:
    """As a server has it after so many requests; in `batches` executions and milliseconds of each, by size."""
    parts = {
        part: {"count": requests, "ns": round(requests * ms * 1e6 * (index + 1))} for index, part in enumerate(PARTS)
    }
    sizes = [
        {"batch_size": size, "compute_infer": {"count": count, "ns": round(count * each_ms * 1e6)}}
        for size, (count, each_ms) in (batches or {}).items()
    ]
    return {"inference_stats": parts | {"cache_hit": {"count": requests // 2, "ns": 5}}, "batch_stats": sizes}


def test_parts_are_means_of_the_requests_in_between() -> None:
    before, after = Snapshot(statistics(100, ms=8), None), Snapshot(statistics(300, ms=4), None)
    found = difference(before, after)
    assert found is not None
    assert (found.requests, found.cache_hits) == (200, 100)
    # 300 * 4 - 100 * 8 = 400 ms of 200 requests
    assert (found.mean_ms, found.queue_ms, found.compute_input_ms) == (2, 4, 6)
    assert (found.compute_infer_ms, found.compute_output_ms) == (8, 10)
    assert (found.cpu_cores, found.memory_bytes) == (None, None)
    assert (found.executions, found.batches, found.mean_batch) == (0, [], None)


def test_batches_are_those_in_between_by_size() -> None:
    before = statistics(10, batches={4: (10, 1.0), 2: (5, 1.0)})
    after = statistics(100, batches={4: (10, 1.0), 8: (1, 2.0), 2: (15, 3.0), 1: (4, 0.5)})
    found = difference(Snapshot(before, None), Snapshot(after, None))
    assert found is not None
    # of size 2: 15 * 3 - 5 * 1 = 40 ms in 10 executions; of size 4 there were none
    assert found.batches == [
        BatchSize(size=1, executions=4, compute_ms=0.5),
        BatchSize(size=2, executions=10, compute_ms=4.0),
        BatchSize(size=8, executions=1, compute_ms=2.0),
    ]
    assert (found.executions, found.mean_batch) == (15, 32 / 15)


def test_counts_that_are_left_out_are_nothing() -> None:
    """Protobuf's JSON leaves out what is 0, and has 64-bit numbers as text."""
    before: dict[str, Any] = {"inference_stats": {part: {} for part in (*PARTS, "cache_hit")}}
    after = {"inference_stats": {part: {"count": "4", "ns": "8000000"} for part in PARTS} | {"cache_hit": {}}}
    found = difference(Snapshot(before, None), Snapshot(after, None))
    assert found is not None
    assert (found.requests, found.mean_ms, found.cache_hits) == (4, 2, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, Snapshot(statistics(5), None), id="nothing before"),
        pytest.param(Snapshot(statistics(5), None), None, id="nothing after"),
        pytest.param(Snapshot(statistics(5), None), Snapshot(statistics(5), None), id="no requests"),
        pytest.param(Snapshot(statistics(5), None), Snapshot(statistics(3), None), id="restarted in between"),
    ],
)
def test_without_two_ends_there_is_no_difference(before: Snapshot | None, after: Snapshot | None) -> None:
    assert difference(before, after) is None


def used(time_s: float, cpu_s: float, memory_bytes: int) -> Usage:
    return Usage(round(time_s * 1e9), {1: round(cpu_s * 1e9)}, memory_bytes)


@pytest.mark.parametrize(
    ("before", "after", "cores", "memory"),
    [
        pytest.param(used(10, 5, 1), used(14, 11, 2), 1.5, 2, id="usual"),
        pytest.param(None, used(14, 11, 2), None, 2, id="only after"),
        pytest.param(used(10, 5, 1), None, None, None, id="only before"),
        pytest.param(used(10, 5, 1), used(10, 5, 2), None, 2, id="no time"),
    ],
)
def test_cpu_and_memory(before: Usage | None, after: Usage | None, cores: float | None, memory: int | None) -> None:
    found = difference(Snapshot(statistics(1), before), Snapshot(statistics(2), after))
    assert found is not None
    assert (found.cpu_cores, found.memory_bytes) == (cores, memory)


def test_the_cpu_time_of_a_request_is_that_of_the_successful_ones() -> None:
    rows = np.zeros(5, dtype=RECORD)
    rows["code"][4] = 1
    record = Record()
    record.add(rows.tobytes(), [FailureKind("timeout", "no answer")])
    found = difference(Snapshot(statistics(1), None), Snapshot(statistics(2), None))
    measured, unknown = with_cpu(found, 0.02, record), with_cpu(found, None, record)
    assert measured is not None
    assert unknown is not None
    assert measured.cpu_ms_per_request == pytest.approx(5)
    assert unknown.cpu_ms_per_request is None


def test_a_snapshot_is_of_the_version_that_is_asked_for(server: RunningServer, client: Client) -> None:
    found = snapshot(client, "two_versions", "9", server.pid)
    assert found is not None
    assert found.statistics["version"] == "9"
    assert found.usage is not None
    without = snapshot(client, "two_versions", "9", None)
    assert without is not None
    assert without.usage is None


def test_a_server_that_is_gone_has_no_snapshot() -> None:
    with connect(f"http://127.0.0.1:{free_port()}", 1) as client:
        assert snapshot(client, "m", "1", None) is None


def test_a_model_that_is_not_served_has_no_snapshot(client: Client) -> None:
    assert snapshot(client, "nothing", "1", None) is None


def test_the_process_of_a_server_on_this_machine_is_found_by_its_port(server: RunningServer) -> None:
    for address in (f"http://{server.http}", f"grpc://{server.grpc.replace('127.0.0.1', 'localhost')}"):
        assert triton_process(address_of(address)) == (server.pid, "")


def test_what_passes_requests_on_is_not_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as forwarder:
        pid, why_not = triton_process(address_of(f"http://127.0.0.1:{forwarder.getsockname()[1]}"))
    assert pid is None
    assert why_not.endswith(f" is {psutil.Process().name()}, which passes requests on")


@pytest.mark.parametrize(
    ("url", "why_not"),
    [
        ("http://gpu.example:8000", "the server at gpu.example:8000 is on another machine"),
        (f"grpc://127.0.0.1:{free_port()}", "cannot be seen: it is another user's, or in a container"),
    ],
    ids=["elsewhere", "nobody that can be seen"],
)
def test_without_a_process_it_is_said_why(url: str, why_not: str) -> None:
    pid, reason = triton_process(address_of(url))
    assert pid is None
    assert reason.endswith(why_not)
