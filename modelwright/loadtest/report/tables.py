"""Tables: measurements, percentiles, failures, client health, the server's statistics, what was tested where."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence

from modelwright import text as fmt
from modelwright.charts.intervals import MINUS
from modelwright.loadtest.document import ClientHealth, Gate, Latency, Measurement, Result, ServerStatistics, Target
from modelwright.loadtest.measure.latency import NEEDED
from modelwright.loadtest.report import words
from modelwright.loadtest.report.blocks import Badge, Block, Cell, Definitions, Table

Column = tuple[str, Callable[[Measurement], str]]


def measurements(items: Sequence[Measurement]) -> Table:
    """A row for each measurement. Latencies are response times."""
    several = len({target_key(item.target) for item in items}) > 1
    rows_differ = any(item.load.batch != 1 for item in items)
    head = ["measurement", *(["target"] if several else []), "req/s", *(["rows/s"] if rows_differ else [])]
    first = 2 if several else 1
    numeric = frozenset(range(first, len(head) + len(NEEDED) + 1))
    rows: list[list[Cell]] = []
    for item in items:
        row: list[Cell] = [item.label, *([words.target(item.target)] if several else []), fmt.number(item.throughput)]
        row += [fmt.number(item.inferences)] if rows_differ else []
        row += [words.percentile(item.response, name) for name in NEEDED]
        rows.append([*row, words.failed_share(item), Badge(item.validity.verdict)])
    note = "Latencies are response times, from the intended start, of successful requests."
    return Table("Measurements", [*head, *NEEDED, "failed", "verdict"], rows, numeric, note)


def target_key(target: Target) -> tuple[str, ...]:
    """What makes two measurements comparable in one chart."""
    return (target.url, target.protocol, target.model, target.version, target.api)


def percentile_table(item: Measurement) -> Table:
    head = ["", "requests", "mean", "min", *NEEDED, "max"]
    rows: list[list[Cell]] = [_latency_row("service time", item.service), _latency_row("response time", item.response)]
    note = "Service time counts from the actual start of a request, response time from the intended one."
    return Table("Percentiles", head, rows, frozenset(range(1, len(head))), note)


def _latency_row(name: str, latency: Latency) -> list[Cell]:
    stated = [words.percentile(latency, percentile) for percentile in NEEDED]
    return [
        name,
        f"{latency.count:,}",
        fmt.milliseconds(latency.mean_ms),
        fmt.milliseconds(latency.min_ms),
        *stated,
        fmt.milliseconds(latency.max_ms),
    ]


def failures(items: Sequence[Measurement]) -> Table | None:
    """By kind; None if nothing failed."""
    rows: list[list[Cell]] = [
        [failure.kind, f"{failure.count:,}", _first(failure.first_s), failure.message, item.label]
        for item in items
        for failure in item.failures
    ]
    head = ["kind", "requests", "first at", "message of the first", "measurement"]
    return Table("Failures", head, rows, frozenset({1, 2})) if rows else None


def _first(first_s: float) -> str:
    return f"{fmt.number(-first_s)} s before, in the warm-up" if first_s < 0 else fmt.seconds(first_s)


# --- client and server ------------------------------------------------------------------------------------------------


def client(items: Sequence[Measurement]) -> Block:
    """How the load generator itself performed."""
    columns: list[Column] = [
        ("processes", lambda item: str(item.client.processes)),
        ("CPU of each", lambda item: cores(item.client.cpu_cores)),
        ("memory", lambda item: fmt.size(item.client.memory_bytes)),
        ("send lag p99", lambda item: fmt.milliseconds(item.client.send_lag_p99_ms)),
        ("event loop lag p99", lambda item: fmt.milliseconds(item.client.loop_lag_p99_ms)),
        ("CPU a request", lambda item: _micro(item.client.cpu_us_per_request)),
        ("could send at most", lambda item: _ceiling(item.client)),
        ("network and client", lambda item: fmt.milliseconds(item.client.network_and_client_ms)),
        ("answers checked", lambda item: f"{item.requests.checked:,}, {item.requests.wrong:,} wrong"),
        ("steady", lambda item: "yes" if item.stability.stable else f"no: {item.stability.reason}"),
    ]
    return _table_or_pairs("Client health", items, columns)


def server(items: Sequence[Measurement]) -> Block | None:
    """The server's statistics over the same time; None without statistics."""
    known = [item for item in items if item.server is not None]
    columns: list[Column] = [
        ("requests", _of_server(lambda server: f"{server.requests:,}")),
        ("executions", _of_server(lambda server: f"{server.executions:,}")),
        ("mean batch", _of_server(lambda server: fmt.number(server.mean_batch))),
        ("time in the server", _of_server(lambda server: fmt.milliseconds(server.mean_ms))),
        ("queue", _of_server(lambda server: fmt.milliseconds(server.queue_ms))),
        ("compute input", _of_server(lambda server: fmt.milliseconds(server.compute_input_ms))),
        ("compute infer", _of_server(lambda server: fmt.milliseconds(server.compute_infer_ms))),
        ("compute output", _of_server(lambda server: fmt.milliseconds(server.compute_output_ms))),
        ("cache hits", _of_server(lambda server: f"{server.cache_hits:,}")),
        ("CPU", _of_server(lambda server: cores([] if server.cpu_cores is None else [server.cpu_cores]))),
        ("CPU a request", _of_server(lambda server: fmt.milliseconds(server.cpu_ms_per_request))),
        ("memory", _of_server(lambda s: fmt.NOT_KNOWN if s.memory_bytes is None else fmt.size(s.memory_bytes))),
    ]
    return _table_or_pairs("Server", known, columns) if known else None


def _of_server(text: Callable[[ServerStatistics], str]) -> Callable[[Measurement], str]:
    return lambda item: text(item.server) if item.server else fmt.NOT_KNOWN


def _table_or_pairs(title: str, items: Sequence[Measurement], columns: Sequence[Column]) -> Block:
    """One measurement as a list, several as rows of a table."""
    if len(items) == 1:
        return Definitions(title, [(name, text(items[0])) for name, text in columns])
    rows: list[list[Cell]] = [[item.label, *(text(item) for _, text in columns)] for item in items]
    head = ["measurement", *(name for name, _ in columns)]
    return Table(title, head, rows, frozenset(range(1, len(head))) - {head.index("steady") if "steady" in head else 0})


def cores(busy: Sequence[float]) -> str:
    """`0.98 cores`, `0.98, 0.97 cores`."""
    return (
        f"{', '.join(fmt.number(one) for one in busy)} {'core' if busy == [1.0] else 'cores'}"
        if busy
        else fmt.NOT_KNOWN
    )


def _micro(value: float | None) -> str:
    return fmt.number(value) if value is None else f"{fmt.number(value)} µs"


def _ceiling(of: ClientHealth) -> str:
    source = f" (by {of.ceiling_source})" if of.ceiling_source else ""
    return fmt.rate(of.ceiling) + source


# --- a gate -----------------------------------------------------------------------------------------------------------


def metrics(gate: Gate) -> Table:
    head = ["metric", "regime", "baseline", "candidate", "change", "interval", "allowed", "p", "gated", "verdict"]
    rows: list[list[Cell]] = [
        [
            item.interval.metric,
            item.interval.regime,
            f"{fmt.number(item.interval.baseline)} {item.interval.unit}",
            f"{fmt.number(item.interval.candidate)} {item.interval.unit}",
            words.change(item.interval.ratio),
            f"{words.change(item.interval.low)} to {words.change(item.interval.high)}",
            f"{MINUS if item.higher_is_better else '+'}{fmt.percent(item.margin)}",
            fmt.NOT_KNOWN if item.p_value is None else f"{item.p_value:.3g}{', rejected' if item.rejected else ''}",
            "yes" if item.gated else f"no: {item.why_reported}",
            Badge(item.verdict),
        ]
        for item in gate.metrics
    ]
    note = (
        "p: of “worse by no more than the margin”; rejected after Holm's correction over models and metrics. A metric "
        "that is not gated is reported: it can stop a version, and does not pass one."
    )
    return Table("Intervals", head, rows, frozenset(range(2, 8)), note)


def calibration(gate: Gate) -> Table | None:
    rows: list[list[Cell]] = [
        [
            item.interval.metric,
            item.interval.regime,
            words.change(item.interval.ratio),
            f"{words.change(item.interval.low)} to {words.change(item.interval.high)}",
            f"± {fmt.percent(item.margin)}",
            "yes" if item.gated else f"no: {item.why_reported}",
        ]
        for item in gate.calibration
    ]
    head = ["metric", "regime", "change", "interval", "margin", "gated"]
    note = (
        "The baseline against itself, before the comparison: what this machine's noise alone can do. A metric is gated "
        "if the interval lies within its margin."
    )
    return Table("Calibration A/A", head, rows, frozenset(range(2, 5)), note) if rows else None


def thresholds(gate: Gate) -> Table | None:
    rows: list[list[Cell]] = [
        [item.name, fmt.exact(item.bound), fmt.number(item.measured), Badge(item.verdict)] for item in gate.thresholds
    ]
    head = ["slo in model.yaml", "bound", "measured", "verdict"]
    return Table("Thresholds", head, rows, frozenset({1, 2})) if rows else None


def rounds(gate: Gate) -> Table:
    head = ["round", "order", "side", "req/s", "cpu", "p50", "p99", "compute", "failed"]
    rows: list[list[Cell]] = [
        [
            str(item.round),
            str(item.order),
            item.side,
            fmt.number(item.throughput),
            fmt.milliseconds(item.cpu_ms),
            fmt.milliseconds(item.p50_ms),
            fmt.milliseconds(item.p99_ms),
            fmt.milliseconds(item.compute_ms),
            f"{item.failed:,}",
        ]
        for item in gate.rounds
    ]
    note = f"A: baseline, B: candidate, A2: the baseline once more, in the calibration. Seed of the order: {gate.seed}."
    return Table("Rounds", head, rows, frozenset({0, 1, 3, 4, 5, 6, 7, 8}), note)


# --- where ------------------------------------------------------------------------------------------------------------


def machine(result: Result) -> Definitions:
    shared = result.machine.client_and_server_share_it
    pairs = [
        ("CPU", result.machine.cpu),
        ("cores", str(result.machine.cores)),
        ("memory", fmt.size(result.machine.memory_bytes)),
        ("system", result.machine.system),
        ("client and server", "share this machine" if shared else "are on different machines"),
    ]
    return Definitions("Machine", pairs)


def server_metadata(result: Result) -> Definitions:
    metadata = [(str(name), _plain(value)) for name, value in result.server.items()]
    return Definitions("Server software", metadata or [("", "no metadata")])


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def targets(items: Sequence[Measurement]) -> Table:
    """Each distinct target once."""
    distinct = {(target_key(item.target), item.target.payload): item.target for item in items}
    rows: list[list[Cell]] = [
        [
            words.target(target),
            target.url,
            target.payload or fmt.NOT_KNOWN,
            fmt.NOT_KNOWN if target.payload_bytes is None else fmt.size(target.payload_bytes),
        ]
        for target in distinct.values()
    ]
    return Table("Targets", ["model", "server", "payload", "size of one"], rows, frozenset({3}))


def run_of(result: Result) -> Definitions:
    pairs = [
        ("command", shlex.join(result.command)),
        ("created", result.created),
        ("modelwright", result.modelwright),
        ("document", f"{result.kind}, schema version {result.schema_version}"),
    ]
    return Definitions("This report", pairs)
