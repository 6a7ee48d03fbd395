"""From a phase to a measurement, and whether it can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.loadtest.document import Measurement, ServerStatistics, Target
from modelwright.loadtest.generator.processes import Phase
from modelwright.loadtest.generator.recording import RECORD, WRONG, FailureKind, Record
from modelwright.loadtest.measure.measurement import label_of, load_of, measurement
from modelwright.loadtest.measure.server_side import Snapshot, difference
from modelwright.loadtest.payloads.workload import LoadShape
from tests.loadtest.test_serverside import statistics

TARGET = Target(url="http://x:1", protocol="http", model="m", version="1")
SECOND = 10**9
START = 100 * SECOND  # of the measurement; it lasts 10 s
CLOSED = LoadShape(concurrency=8, warmup_s=1, duration_s=10)
OPEN = LoadShape(rate=100, warmup_s=1, duration_s=10)


def client(**changed: Any) -> dict[str, Any]:
    return {"cpu_s": 1.0, "wall_s": 10.0, "memory_bytes": 5, "loop_lag_p99_ms": 0.2, "max_in_flight": 8} | changed


def rows(
    count: int, service_ms: float = 10, lag_ms: float = 0, code: int = 0, start_s: float = 0, over_s: float = 10
) -> Any:
    """So many requests, evenly spread over the measurement."""
    made = np.zeros(count, RECORD)
    made["intended_ns"] = START + start_s * SECOND + np.arange(count) * over_s * SECOND // max(count, 1)
    made["start_ns"] = made["intended_ns"] + round(lag_ms * 1e6)
    made["end_ns"] = made["start_ns"] + round(service_ms * 1e6)
    made["code"] = code
    return made


def phase(*parts: Any, failures: tuple[str, ...] = (), **changed: Any) -> Phase:
    record = Record()
    record.add(b"".join(part.tobytes() for part in parts), [FailureKind(kind, f"{kind}!") for kind in failures], 7)
    return Phase(START, START + 10 * SECOND, record, **{"clients": [client()]} | changed)


def measured(
    phase: Phase,
    shape: LoadShape = CLOSED,
    *,
    batch: int = 1,
    server: ServerStatistics | None = None,
    ceiling: float | None = None,
) -> Measurement:
    load = load_of(shape, batch, max(len(phase.clients), 1))
    return measurement("x", TARGET, load, phase, server, ceiling)


def test_a_quiet_measurement_is_valid_and_counts_what_it_should() -> None:
    found = measured(phase(rows(1000)), batch=4)
    assert (found.validity.verdict, found.validity.reasons, found.validity.notes) == ("VALID", [], [])
    assert (found.requests.succeeded, found.requests.failed, found.requests.checked) == (1000, 0, 7)
    assert found.throughput == pytest.approx(100, abs=0.2)
    assert found.inferences == 4 * found.throughput
    assert found.service.percentiles_ms["p50"] == found.response.percentiles_ms["p50"] == 10
    assert (found.measured_s, found.complete, found.failures, found.server) == (10, True, [], None)
    assert len(found.windows) == 10
    assert found.stability.stable
    assert found.client.send_lag_p99_ms is None  # nothing is intended in a closed loop


def test_the_warm_up_and_what_comes_after_the_end_do_not_count() -> None:
    before, after = rows(100, service_ms=500, start_s=-1, over_s=0.9), rows(100, service_ms=900, start_s=10, over_s=1)
    found = measured(phase(before, rows(1000), after))
    assert found.requests.succeeded == found.service.count == 1000
    assert found.service.max_ms == 10
    # Throughput counts what ended in the time: of the warm-up's last 100, 45 began within 500 ms of the start.
    assert found.throughput == pytest.approx(104.4, abs=0.3)


def test_response_times_are_from_the_intended_start() -> None:
    found = measured(phase(rows(1000, service_ms=10, lag_ms=0.4)), OPEN)
    assert found.service.percentiles_ms["p99"] == 10
    assert found.response.percentiles_ms["p99"] == pytest.approx(10.4)
    assert found.client.send_lag_p99_ms == pytest.approx(0.4)
    assert found.validity.verdict == "VALID"
    assert found.curve[-1].response_ms == pytest.approx(found.curve[-1].service_ms + 0.4)


def test_a_late_client_is_not_valid() -> None:
    late = rows(1000, service_ms=10)
    late["start_ns"][:20] += 600_000  # 2 % of the sends by 0.6 ms, 6 % of the p99
    late["end_ns"][:20] += 600_000
    reasons = measured(phase(late), OPEN).validity.reasons
    assert reasons == [
        "the client was late: its sends lagged by 0.60 ms (p99), over 5 % of the measured p99 of 10.00 ms; "
        "use more --processes or another machine"
    ]
    assert measured(phase(late), CLOSED).validity.verdict == "VALID"


def test_a_late_client_that_made_few_requests_is_judged_by_the_slowest() -> None:
    found = measured(phase(rows(20, service_ms=10, lag_ms=2)), OPEN)
    assert "its sends lagged by 2.00 ms" in found.validity.reasons[0]
    assert found.service.percentiles_ms["p99"] is None
    assert found.validity.notes == ["20 requests are too few for a p99, which needs 662: measure longer"]


@pytest.mark.parametrize(
    ("shape", "ceiling", "busy"),
    [
        pytest.param(CLOSED, 150.0, True, id="closed, over half"),
        pytest.param(CLOSED, 250.0, False, id="closed, under half"),
        pytest.param(OPEN, 199.0, True, id="open, over half"),
        pytest.param(OPEN, 200.0, False, id="open, half"),
        pytest.param(CLOSED, None, False, id="by CPU time, a tenth of a core"),
    ],
)
def test_over_half_of_what_the_client_can_send_is_not_valid(
    shape: LoadShape, ceiling: float | None, busy: bool
) -> None:
    found = measured(phase(rows(1000)), shape, ceiling=ceiling)
    assert [("the client may be the limit" in reason) for reason in found.validity.reasons] == [True] * busy
    assert found.client.ceiling_source == ("null server" if ceiling else "CPU time")


def test_the_busiest_process_is_the_clients_ceiling_by_cpu_time() -> None:
    clients = [client(cpu_s=1.0, loop_lag_p99_ms=0.1), client(cpu_s=6.0, loop_lag_p99_ms=0.7, memory_bytes=9)]
    found = measured(phase(rows(1000), clients=clients))
    assert found.client.cpu_cores == [0.1, 0.6]
    assert found.client.ceiling == pytest.approx(found.throughput / 0.6)
    assert (found.client.memory_bytes, found.client.loop_lag_p99_ms) == (14, 0.7)
    assert found.client.cpu_us_per_request == pytest.approx(7000)
    assert "CPU time" in found.validity.reasons[0]


def test_failures_count_by_kind_and_not_as_latencies() -> None:
    warm = rows(5, code=2, start_s=-1, over_s=0.5)
    slow = rows(100, service_ms=900, code=1, start_s=2, over_s=1)
    found = measured(
        phase(warm, rows(1000), slow, rows(10, code=3), failures=("timeout", "connect", WRONG, "HTTP 400"))
    )
    assert (found.requests.succeeded, found.requests.failed, found.requests.wrong) == (1000, 110, 10)
    assert found.service.max_ms == 10
    assert [(failure.kind, failure.message, failure.count) for failure in found.failures] == [
        ("timeout", "timeout!", 100),
        ("connect", "connect!", 5),
        (WRONG, "wrong answer!", 10),
    ]
    assert [failure.first_s for failure in found.failures] == [pytest.approx(2), pytest.approx(-1), pytest.approx(0)]
    assert found.throughput == pytest.approx(100, abs=0.2)
    assert sum(window.failed for window in found.windows) == 110


def test_nothing_measured_is_not_valid() -> None:
    found = measured(phase(rows(0)), OPEN)
    assert found.validity.reasons == ["no request was measured"]
    assert (found.throughput, found.service.count, found.curve, found.service.mean_ms) == (0, 0, [], None)
    assert found.client.cpu_us_per_request is None
    assert found.client.ceiling is None


@pytest.mark.parametrize(("back_s", "is_gone"), [(10, True), (8, False)], ids=["to the end", "and came back"])
def test_a_server_that_goes_away_makes_it_invalid(back_s: float, is_gone: bool) -> None:
    down = rows(50, code=1, start_s=4, over_s=back_s - 4)
    found = measured(phase(rows(1000, over_s=4), down, rows(1000, start_s=back_s, over_s=4), failures=("connect",)))
    assert found.complete is not is_gone
    assert found.validity.reasons == ["the server went away: no answer after 4.0 s"] * is_gone


def test_only_failures_are_not_valid() -> None:
    found = measured(phase(rows(50, code=1), failures=("closed",)))
    assert found.validity.reasons == ["no request succeeded"]
    assert (found.requests.succeeded, found.requests.failed, found.throughput) == (0, 50, 0)


def test_a_phase_that_was_cut_short_is_as_long_as_it_lasted() -> None:
    short = phase(rows(500, over_s=5), complete=False, notes=["stopped by Ctrl-C"], clients=[])
    short.until_ns = START + 5 * SECOND
    found = measured(short)
    reasons = ["stopped by Ctrl-C", "measured 5 s of the 10 s that were asked for"]
    assert (found.measured_s, found.complete, found.validity.reasons) == (5, False, reasons)
    assert found.throughput == pytest.approx(100, abs=0.4)
    assert (found.client.cpu_cores, found.client.ceiling, found.client.loop_lag_p99_ms) == ([], None, None)


def test_a_phase_that_ended_in_its_warm_up_measured_nothing() -> None:
    short = phase(rows(10, start_s=-1, over_s=0.5), complete=False, notes=["stopped by Ctrl-C"], clients=[])
    short.until_ns = START - SECOND // 2
    found = measured(short)
    assert (found.measured_s, found.throughput, found.windows, found.requests.succeeded) == (0, 0, [], 0)
    reasons = ["stopped by Ctrl-C", "measured 0 s of the 10 s that were asked for", "no request was measured"]
    assert found.validity.reasons == reasons


def test_what_the_server_does_not_account_for_is_network_and_client() -> None:
    server = difference(Snapshot(statistics(0), None), Snapshot(statistics(1000, ms=4), None))
    found = measured(phase(rows(1000, service_ms=10)), server=server)
    assert found.server == server
    assert found.client.network_and_client_ms == pytest.approx(6)


@pytest.mark.parametrize(
    ("shape", "batch", "label"),
    [
        (LoadShape(concurrency=8), 1, "8 in flight"),
        (LoadShape(concurrency=8), 4, "8 in flight, batch 4"),
        (LoadShape(rate=1234.5), 1, "1,234 req/s"),
        (LoadShape(rate=0.5), 2, "0.5 req/s, batch 2"),
    ],
)
def test_labels(shape: LoadShape, batch: int, label: str) -> None:
    assert label_of(load_of(shape, batch, 1)) == label


def test_arrivals_are_named_in_an_open_loop_only() -> None:
    assert load_of(LoadShape(rate=5, arrivals="constant"), 1, 2).arrivals == "constant"
    assert load_of(LoadShape(concurrency=5), 1, 2).arrivals is None
