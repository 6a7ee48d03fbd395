"""Two documents side by side: a quick look without a verdict, since the noise of the machine is not known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelwright.loadtest.document import Measurement, Result
from modelwright.text import change, number, printable


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of one measurement in both documents; None if it is not known."""

    label: str
    name: str
    unit: str
    a: float | None
    b: float | None

    @property
    def ratio(self) -> float | None:
        return self.b / self.a if self.a and self.b is not None else None


@dataclass(frozen=True)
class Comparison:
    rows: list[ComparedFigure]
    only_a: list[str]  # labels
    only_b: list[str]
    warnings: list[str]


def compare(a: Result, b: Result) -> Comparison:
    """Measurements with the same label side by side, and the reasons not to trust the difference."""
    one = {measurement.label: measurement for measurement in a.measurements}
    other = {measurement.label: measurement for measurement in b.measurements}
    both = [(one[label], other[label]) for label in one if label in other]
    return Comparison(
        rows=[row for pair in both for row in _rows(*pair)],
        only_a=[label for label in one if label not in other],
        only_b=[label for label in other if label not in one],
        warnings=[
            *_documents(a, b),
            *_merged([(first.label, line) for first, second in both for line in _pair(first, second)]),
        ],
    )


def text(comparison: Comparison, names: tuple[str, str] = ("A", "B")) -> str:
    """For a terminal. `names`: the files of the two documents."""
    lines = [f"A: {names[0]}", f"B: {names[1]}"]
    lines += [f"Warning: {warning}" for warning in comparison.warnings]
    for label in dict.fromkeys(row.label for row in comparison.rows):
        lines += ["", label, *_table([row for row in comparison.rows if row.label == label])]
    if not comparison.rows:
        lines += ["", "No measurement has the same label in both."]
    for name, labels in (("A", comparison.only_a), ("B", comparison.only_b)):
        if labels:
            lines += ["", f"Only in {name}: {', '.join(labels)}"]
    return "\n".join(
        [*map(printable, lines), "", "No verdict: for one that allows for noise, use `modelwright load ab`."]
    )


def _table(rows: Sequence[ComparedFigure]) -> list[str]:
    cells = [
        [f"{row.name}, {row.unit}" if row.unit else row.name, _shown(row.a), _shown(row.b), _change(row)]
        for row in rows
    ]
    cells.insert(0, ["", "A", "B", "change"])
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return [
        f"  {line[0]:<{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}  {line[3]:>{widths[3]}}"
        for line in cells
    ]


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,}" if isinstance(value, int) else number(value)


def _change(row: ComparedFigure) -> str:
    return "" if row.ratio is None else change(row.ratio)


# --- the numbers ------------------------------------------------------------------------------------------------------


def _rows(a: Measurement, b: Measurement) -> Iterator[ComparedFigure]:
    yield ComparedFigure(a.label, "throughput", "req/s", a.throughput, b.throughput)
    open_loop = "open" in (a.load.mode, b.load.mode)
    for kind in ("service", "response") if open_loop else ("service",):
        for name in ("p50", "p90", "p95", "p99", "p99.9"):
            one, other = (getattr(side, kind).percentiles_ms.get(name) for side in (a, b))
            if one is not None or other is not None:
                yield ComparedFigure(a.label, f"{name} {kind}" if open_loop else name, "ms", one, other)
    if a.server and b.server:
        for title, field in (("queue", "queue_ms"), ("compute", "compute_infer_ms")):
            yield ComparedFigure(a.label, f"server {title}", "ms", getattr(a.server, field), getattr(b.server, field))
        yield ComparedFigure(a.label, "mean batch", "", a.server.mean_batch, b.server.mean_batch)
    yield ComparedFigure(a.label, "failed", "", a.requests.failed, b.requests.failed)


# --- what makes them hard to compare ----------------------------------------------------------------------------------


def _documents(a: Result, b: Result) -> Iterator[str]:
    if a.kind != b.kind:
        yield f"A is of `load {a.kind}`, B of `load {b.kind}`"
    for name in ("cpu", "cores", "memory_bytes", "system", "client_and_server_share_it"):
        one, other = getattr(a.machine, name), getattr(b.machine, name)
        if one != other:
            yield f"the machines differ: {name} {_plain(one)} and {_plain(other)}"
    for name in ("name", "version"):
        if a.server.get(name) != b.server.get(name):
            yield f"the servers differ: {name} {a.server.get(name)} and {b.server.get(name)}"
    if a.modelwright != b.modelwright:
        yield f"the clients differ: Modelwright {a.modelwright} and {b.modelwright}"
    for letter, document in (("A", a), ("B", b)):
        if not document.complete:
            yield f"{letter} is not complete"


def _pair(a: Measurement, b: Measurement) -> Iterator[str]:
    for name in ("mode", "concurrency", "rate", "arrivals", "batch", "processes", "duration_s"):
        one, other = getattr(a.load, name), getattr(b.load, name)
        if one != other:
            yield f"the loads differ: {name} {_plain(one)} and {_plain(other)}"
    for name in ("model", "protocol", "api", "payload", "payload_bytes"):
        one, other = getattr(a.target, name), getattr(b.target, name)
        if one != other:
            kind = {"model": "models", "payload": "payloads", "payload_bytes": "payloads"}.get(name, "clients")
            yield f"the {kind} differ: {name} {_plain(one)} and {_plain(other)}"
    for letter, side in (("A", a), ("B", b)):
        if side.validity.verdict == "INVALID":
            yield f"{letter} is INVALID: {'; '.join(side.validity.reasons)}"
        if not side.complete:
            yield f"{letter} was not measured to its end"


def _merged(found: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Each warning once, with its measurements."""
    for line in dict.fromkeys(line for _, line in found):
        labels = [label for label, text in found if text == line]
        yield f"{labels[0]}{f' and {len(labels) - 1} more' if len(labels) > 1 else ''}: {line}"


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool | str):
        return "none" if value is None else str(value)
    return f"{value:,.10g}" if isinstance(value, float) else f"{value:,}"
