"""Figures of a bench in words, as the terminal and the report write them."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright import text
from modelwright.bench.document import BatchLatency, BenchResult, ContenderResult, Ratio, ServedThroughput

NONE = "-"
TIMES_HEAD = ("model", "batch", "median", "95 % interval", "p95", "rows/s", "speed-up")
FACTS_HEAD = ("model", "version", "size", "memory", "metrics", "served", "speed-up")


def ratio(found: Ratio | None) -> str:
    """`2.31 (2.25 … 2.38)`, in times; `-` for the source itself."""
    if found is None:
        return NONE
    return f"{text.number(found.ratio)} ({text.number(found.low)} … {text.number(found.high)})"


def times_row(row: ContenderResult, found: BatchLatency, source: str) -> tuple[str, ...]:
    return (
        row.name,
        str(found.batch),
        text.milliseconds(found.median_ms),
        f"{text.number(found.low_ms)} … {text.number(found.high_ms)}",
        text.milliseconds(found.p95_ms),
        text.number(found.rows_per_s),
        "1, the source" if row.name == source else ratio(found.speedup),
    )


def times(result: BenchResult) -> list[tuple[str, ...]]:
    """A row for each contender at each batch size, batch by batch."""
    return [
        times_row(row, found, result.source)
        for batch in result.batches
        for row in result.contenders
        if (found := row.at(batch))
    ]


def facts(result: BenchResult) -> list[tuple[str, ...]]:
    """A row for each contender, also of those that were not measured."""
    return [
        (
            row.name,
            str(row.version or NONE),
            text.size(row.size_bytes) if row.size_bytes is not None else NONE,
            text.size(row.memory_bytes) if row.memory_bytes is not None else NONE,
            metrics(row),
            _served(row.served),
            _served_ratio(row, result.served_source),
        )
        for row in result.contenders
        if row.measured
    ]


def metrics(row: ContenderResult) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in row.metrics.items()) or NONE


def _served(found: ServedThroughput | None) -> str:
    return text.rate(found.requests_per_s) if found else NONE


def _served_ratio(row: ContenderResult, source: str) -> str:
    if row.served is None:
        return NONE
    return "1" if row.name == source else ratio(row.served.speedup)


def left_out(result: BenchResult) -> list[str]:
    """`digits_trt: not built: …` for each contender that lacks a measurement, with the reason."""
    lines = []
    for row in result.contenders:
        if row.reason:
            lines.append(f"{row.name}: {_what(row)}{row.reason}")
        if row.not_served and row.not_served != row.reason:
            lines.append(f"{row.name}: not served: {row.not_served}")
        if row.served and row.served.failed:
            lines.append(f"{row.name}: {text.counted(row.served.failed, 'request')} failed in the server")
    return lines


def _what(row: ContenderResult) -> str:
    if row.reason.startswith(("not built", "cannot be made")):
        return ""
    return "not run in a process: " if row.served else "not run: "


def where(result: BenchResult) -> str:
    """The machine and the libraries, in a line."""
    machine = result.machine
    libraries = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    threads = text.counted(result.threads, "thread")
    cores = text.counted(machine.cores, "core")
    return f"{cores} of {machine.cpu} ({result.instruction_set}), {threads}; {libraries}; {machine.system}"


def how(result: BenchResult) -> Sequence[str]:
    lines = [f"{result.rounds} rounds in turns; {result.inputs}; speed-up against {result.source}, 95 % intervals"]
    if any(row.served for row in result.contenders):
        lines.append(f"served: {result.served_with}; speed-up against {result.served_source or 'nothing'}")
    return lines
