"""Makes a Measurement of a phase's record and the server's statistics, and decides whether it is valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.loadtest.document import (
    ClientHealth,
    Failure,
    Latency,
    Measurement,
    OfferedLoad,
    Requests,
    ServerStatistics,
    Target,
    Validity,
)
from modelwright.loadtest.generator.processes import Phase
from modelwright.loadtest.generator.recording import NOT_SENT, WRONG, FailureKind
from modelwright.loadtest.measure.latency import NEEDED, curve, latency, stability, windows
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.text import percent
from modelwright.triton.access import address_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_LAG = 0.05  # of the measured p99
MAX_OF_CEILING = 0.5
_UNREACHED = ("connect", "gRPC UNAVAILABLE")
_LAST = 0.1  # of the measured time
_WHOLE = 0.99  # of the time that was asked for
_MS = 1e-6


def target_of(workload: Workload, described: Mapping[str, Any]) -> Target:
    """`described`: what a generator process reports of the workload: version and payloads."""
    return Target(
        url=workload.url,
        protocol=address_of(workload.url).protocol,
        model=workload.model,
        version=described["version"],
        api=workload.api,
        payload=described["payload"],
        payload_bytes=described["payload_bytes"],
    )


def load_of(shape: LoadShape, batch: int, processes: int) -> OfferedLoad:
    return OfferedLoad(
        mode="open" if shape.is_open else "closed",
        concurrency=shape.concurrency,
        rate=shape.rate,
        arrivals=shape.arrivals if shape.is_open else None,
        batch=batch,
        processes=processes,
        warmup_s=shape.warmup_s,
        duration_s=shape.duration_s,
    )


def label_of(load: OfferedLoad) -> str:
    rows = f", batch {load.batch}" if load.batch > 1 else ""
    if load.mode == "open":
        return f"{load.rate:,.0f} req/s{rows}" if load.rate and load.rate >= 10 else f"{load.rate:g} req/s{rows}"
    return f"{load.concurrency} in flight{rows}"


def measurement(
    label: str,
    target: Target,
    load: OfferedLoad,
    phase: Phase,
    server: ServerStatistics | None,
    ceiling: float | None = None,
    max_lag: float = MAX_LAG,
) -> Measurement:
    """`ceiling`: requests a second that the client reached against a null server; without it, CPU time is used.

    `max_lag`: the allowed send lag, a share of the measured p99.
    """
    rows = phase.measured()
    good = rows[rows["code"] == 0]
    service_ns, response_ns = good["end_ns"] - good["start_ns"], good["end_ns"] - good["intended_ns"]
    measured_s = _measured_s(phase)
    # Requests that ended in the measured time: about as many are in flight at its end as at its start.
    ended = phase.record.rows()
    ended = ended[(ended["end_ns"] >= phase.start_ns) & (ended["end_ns"] < phase.until_ns)]
    succeeded = int((ended["code"] == 0).sum())
    throughput = succeeded / measured_s if measured_s > 0 else 0.0
    service = latency(service_ns)
    parts = windows(ended, phase.start_ns, phase.until_ns)
    client = _client(load, phase, rows, service, server, throughput, ceiling)
    steady = stability(parts)
    return Measurement(
        label=label,
        target=target,
        load=load,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        measured_s=measured_s,
        complete=phase.complete and not _is_short(load, measured_s) and not _gone(phase, rows),
        requests=_requests(rows, phase),
        throughput=throughput,
        inferences=throughput * load.batch,
        service=service,
        response=latency(response_ns),
        curve=curve(service_ns, response_ns),
        windows=parts,
        stability=steady,
        failures=_failures(phase),
        server=server,
        client=client,
        validity=_validity(load, phase, rows, service, client, throughput, max_lag),
    )


def _measured_s(phase: Phase) -> float:
    return max((phase.until_ns - phase.start_ns) * 1e-9, 0.0)


def _is_short(load: OfferedLoad, measured_s: float) -> bool:
    return measured_s < _WHOLE * load.duration_s


def _requests(rows: NDArray[Any], phase: Phase) -> Requests:
    good = int((rows["code"] == 0).sum())

    def of(kind: str) -> int:
        codes = [number for number, failure in enumerate(phase.record.failures, 1) if failure.kind == kind]
        return int(np.isin(rows["code"], codes).sum())

    return Requests(
        succeeded=good,
        failed=len(rows) - good,
        checked=phase.record.checked,
        wrong=of(WRONG),
        not_sent=of(NOT_SENT),
    )


def _failures(phase: Phase) -> list[Failure]:
    """Failures of the warm-up too, since some happen only then."""
    rows = phase.record.rows()
    return [
        Failure(
            kind=failure.kind,
            message=failure.message,
            count=int((rows["code"] == number).sum()),
            first_s=float(rows["start_ns"][rows["code"] == number].min() - phase.start_ns) * 1e-9,
        )
        for number, failure in _seen(phase.record.failures, rows)
    ]


def _seen(failures: Sequence[FailureKind], rows: NDArray[Any]) -> list[tuple[int, FailureKind]]:
    return [(number, failure) for number, failure in enumerate(failures, 1) if (rows["code"] == number).any()]


def _client(
    load: OfferedLoad,
    phase: Phase,
    rows: NDArray[Any],
    service: Latency,
    server: ServerStatistics | None,
    throughput: float,
    ceiling: float | None,
) -> ClientHealth:
    cores = [client["cpu_s"] / client["wall_s"] for client in phase.clients if client["wall_s"] > 0]
    cpu_s = sum(client["cpu_s"] for client in phase.clients)
    lags = [client["loop_lag_p99_ms"] for client in phase.clients if client["loop_lag_p99_ms"] is not None]
    by_cpu = throughput / max(cores) if throughput and cores and max(cores) > 0 else None
    return ClientHealth(
        processes=load.processes,
        cpu_cores=cores,
        memory_bytes=sum(client["memory_bytes"] for client in phase.clients),
        send_lag_p99_ms=_p99_ms(rows["start_ns"] - rows["intended_ns"]) if load.mode == "open" else None,
        loop_lag_p99_ms=max(lags, default=None),
        cpu_us_per_request=cpu_s * 1e6 / len(rows) if len(rows) and cores else None,
        ceiling=ceiling or by_cpu,
        ceiling_source="null server" if ceiling else "CPU time" if by_cpu else None,
        network_and_client_ms=service.mean_ms - server.mean_ms if server and service.mean_ms is not None else None,
    )


def _p99_ms(ns: NDArray[Any]) -> float | None:
    return float(np.percentile(ns, 99, method="higher")) * _MS if len(ns) else None


def _gone(phase: Phase, rows: NDArray[Any]) -> str:
    """Since when no request reached the server, if that went on to the end; "" if some did, or none ever did."""
    unreached = [number for number, failure in enumerate(phase.record.failures, 1) if failure.kind in _UNREACHED]
    good = rows["end_ns"][rows["code"] == 0]
    last = rows["code"][rows["end_ns"] >= phase.until_ns - _LAST * (phase.until_ns - phase.start_ns)]
    if not len(good) or not len(last) or not np.isin(last, unreached).all():
        return ""
    return f"the server went away: no answer after {(int(good.max()) - phase.start_ns) * 1e-9:.1f} s"


def _validity(
    load: OfferedLoad,
    phase: Phase,
    rows: NDArray[Any],
    service: Latency,
    client: ClientHealth,
    throughput: float,
    max_lag: float,
) -> Validity:
    reasons = [*phase.notes]
    measured_s = _measured_s(phase)
    if _is_short(load, measured_s):
        reasons.append(f"measured {measured_s:.3g} s of the {load.duration_s:.3g} s that were asked for")
    if gone := _gone(phase, rows):
        reasons.append(gone)
    if not len(rows):
        reasons.append("no request was measured")
    elif service.count == 0:
        reasons.append("no request succeeded")
    reasons += _lag(client, service, max_lag)
    reasons += _busy(load, client, throughput)
    notes = []
    if 0 < service.count < NEEDED["p99"]:
        notes.append(f"{service.count:,} requests are too few for a p99, which needs {NEEDED['p99']:,}: measure longer")
    return Validity(verdict="INVALID" if reasons else "VALID", reasons=reasons, notes=notes)


def _lag(client: ClientHealth, service: Latency, most: float) -> list[str]:
    p99_ms = service.percentiles_ms["p99"] or service.max_ms
    if client.send_lag_p99_ms is None or not p99_ms or client.send_lag_p99_ms <= most * p99_ms:
        return []
    return [
        f"the client was late: its sends lagged by {client.send_lag_p99_ms:.2f} ms (p99), over {percent(most)} of the "
        f"measured p99 of {p99_ms:.2f} ms; use more --processes or another machine"
    ]


def _busy(load: OfferedLoad, client: ClientHealth, throughput: float) -> list[str]:
    asked = load.rate or throughput
    if client.ceiling is None or asked <= MAX_OF_CEILING * client.ceiling:
        return []
    return [
        f"the client may be the limit: {asked:,.0f} requests/s of the {client.ceiling:,.0f} that it can send at most "
        f"({client.ceiling_source}); use more --processes or another machine"
    ]
