"""A result as one self-contained HTML file: no network, no scripts, charts as inline SVG.

Any text in a result may be hostile (model names, servers' messages): the template escapes the page, `svg.tag` the
charts, and the page's content security policy forbids scripts and network access in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright import charts
from modelwright import text as fmt
from modelwright.charts.figure import Figure
from modelwright.charts.lines import Line, Spot
from modelwright.loadtest.document import Gate, Measurement, Result, SloResult
from modelwright.loadtest.report import bars, forest, lines, tables, words
from modelwright.loadtest.report.blocks import Badge, Block, Bullets, Card, Figures, Folded, Page, Text
from modelwright.loadtest.report.headline import by_target, headline, outcome

if TYPE_CHECKING:
    from jinja2 import Template

_MAX_DIFFERENCES = 8  # beyond these they are folded
_MAX_DETAILED = 150  # measurements with charts of their own on a page, about 20 kB each


def render(result: Result) -> str:
    """The page, made from the document alone: the same document gives the same page."""
    return render_page(_page(result))


def render_page(page: Page) -> str:
    """Any page of blocks."""
    return _template().render(page=page).strip() + "\n"


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(charts.__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _page(result: Result) -> Page:
    kind = {"run": "Load test", "sweep": "Load sweep", "slo": "Search for a rate", "ab": "Performance gate"}[
        result.kind
    ]
    blocks = _gates(result) if result.kind == "ab" else _measured(result)
    return Page(result.title, f"{kind} · {result.created}", headline(result), [*blocks, *_where(result)])


def _where(result: Result) -> list[Block]:
    asked = [tables.targets(result.measurements)] if result.measurements else []
    return [*asked, tables.machine(result), tables.server_metadata(result), tables.run_of(result)]


def _present(*blocks: Block | None) -> list[Block]:
    return [block for block in blocks if block is not None]


def _figures(*figures: Figure | None) -> list[Block]:
    there = [figure for figure in figures if figure is not None]
    return [Figures(there)] if there else []


# --- run, sweep and slo -----------------------------------------------------------------------------------------------


def _measured(result: Result) -> list[Block]:
    items = result.measurements
    if len(items) == 1:
        return [*_figures(*_slo_figures(result)), *_one(items[0]), *_present(tables.failures(items))]
    groups = by_target(items)
    charts = _slo_figures(result) or [chart for group in groups for chart in _sweep(group, len(groups))]
    splits = [bars.split(group, _split_title(group, len(groups))) for group in groups]
    blocks = _figures(*charts, *splits)
    if items:
        blocks.append(tables.measurements(items))
    blocks += _present(tables.failures(items))
    if items:
        blocks.append(Folded("Client and server, by measurement", _present(tables.client(items), tables.server(items))))
    return [*blocks, *_details(items)]


def _split_title(group: Sequence[Measurement], groups: int) -> str:
    return "Where a request's time goes" + (f": {words.target(group[0].target)}" if groups > 1 else "")


def _one(item: Measurement) -> list[Block]:
    """All of one measurement."""
    charts = [lines.over_time(item.windows), lines.percentile_curve(item), bars.split([item])]
    charts += [bars.batch_sizes(item.server)] if item.server else []
    return [
        *_figures(*charts),
        tables.percentile_table(item),
        *_present(tables.client([item]), tables.server([item])),
    ]


def _details(items: Sequence[Measurement], most: int = _MAX_DETAILED) -> list[Block]:
    """Each measurement folded, with its figures in the summary line."""
    blocks: list[Block] = [
        Folded(item.label, _detail(item), Badge(item.validity.verdict), _hint(item)) for item in items[:most]
    ]
    left = len(items) - len(blocks)
    if left:
        blocks.append(Text(f"{left:,} more have no charts here; they are in the table and in the JSON document."))
    return blocks


def _hint(item: Measurement) -> str:
    p99 = item.response.percentiles_ms.get("p99")
    return fmt.rate(item.throughput) + (f" · p99 {fmt.milliseconds(p99)}" if p99 is not None else "")


def _detail(item: Measurement) -> list[Block]:
    first = f"{words.target(item.target)}, {words.load(item.load)}. {' '.join(outcome(item))}"
    reasons = [Bullets("Do not trust these numbers:", item.validity.reasons, "bad")] if item.validity.reasons else []
    notes = [Bullets("Good to know:", item.validity.notes)] if item.validity.notes else []
    return [Text(first), *reasons, *notes, *_one(item), *_present(tables.failures([item]))]


# --- throughput and latency -------------------------------------------------------------------------------------------


def _sweep(items: Sequence[Measurement], groups: int) -> list[Figure | None]:
    """One chart for a single batch size; else a chart for each percentile with a line for each batch size."""
    of = f": {words.target(items[0].target)}" if groups > 1 else ""
    batches = sorted({item.load.batch for item in items})
    grouped = [[item for item in items if item.load.batch == batch] for batch in batches]
    caption = "Numbers at the points: " + (
        "requests in flight." if items[0].load.mode == "closed" else "the rate asked for."
    )
    if len(batches) > 1 and all(len(group) == 1 for group in grouped):
        grouped, caption = [list(items)], f"Numbers at the points: the load {fmt.TIMES} rows a request."
    if len(grouped) == 1:
        series = [_line(grouped[0], name, colour) for colour, name in enumerate(("p50", "p99"))]
        return [lines.throughput_latency(f"Throughput against latency{of}", _last_labelled(series), caption)]
    return [
        lines.throughput_latency(
            f"Throughput against {name}{of}",
            [_line(group, name, colour, f"batch {group[0].load.batch}") for colour, group in enumerate(grouped)],
            caption,
            unit="rows a second",
        )
        for name in ("p50", "p99")
    ]


def _line(items: Sequence[Measurement], name: str, colour: int, title: str = "") -> Line:
    rows = bool(title)
    spots = [
        Spot(
            item.inferences if rows else item.throughput,
            value,
            words.short_load(item.load, len({other.load.batch for other in items}) > 1),
            f"{item.label}: {fmt.rate(item.throughput)}, {name} {fmt.milliseconds(value)}",
        )
        for item in items
        if (value := item.response.percentiles_ms.get(name)) is not None
    ]
    return Line(title or name, spots, colour)


def _last_labelled(series: Sequence[Line]) -> list[Line]:
    """Only the last line with points has labels, since all lines have the same."""
    last = max((index for index, line in enumerate(series) if line.spots), default=0)
    return [Line(line.name, line.spots, line.colour, labelled=index == last) for index, line in enumerate(series)]


def _slo_figures(result: Result) -> list[Figure | None]:
    slo = result.slo
    if slo is None:
        return []
    by_label = {item.label: item for item in result.measurements}
    held = {label: holds for label, holds in zip(slo.probes, slo.held, strict=False) if label in by_label}
    probes = sorted((by_label[label] for label in held), key=lambda item: item.throughput)
    series = [_probe_line(probes, name, colour, held) for colour, name in enumerate(_slo_names(slo))]
    caption = "Each point is a rate that was tried; the numbers at the points are the rates asked for."
    chart = lines.throughput_latency(
        "Throughput against latency", _last_labelled(series), caption, objective_ms=slo.objective_ms
    )
    return [chart]


def _slo_names(slo: SloResult) -> list[str]:
    return list(dict.fromkeys(["p50", slo.percentile]))


def _probe_line(probes: Sequence[Measurement], name: str, colour: int, held: dict[str, bool]) -> Line:
    line = _line(probes, name, colour)
    shown = [item for item in probes if item.response.percentiles_ms.get(name) is not None]
    spots = [replace(spot, hollow=not held[item.label]) for spot, item in zip(line.spots, shown, strict=True)]
    return Line(line.name, spots, colour)


# --- ab ---------------------------------------------------------------------------------------------------------------


def _gates(result: Result) -> list[Block]:
    blocks: list[Block] = [Card(gate.model, _gate(gate), Badge(gate.verdict)) for gate in result.gates]
    blocks += _present(tables.failures(result.measurements))
    groups = _by_model(result.measurements)
    for group in groups:
        tabled = [tables.measurements(group), *_present(tables.client(group), tables.server(group))]
        inner = [*tabled, *_details(group, _MAX_DETAILED // len(groups))]
        about = f"Measurements of {group[0].target.model}"
        blocks.append(Folded(about, inner, hint=fmt.counted(len(group), "measurement")))
    return blocks


def _by_model(items: Sequence[Measurement]) -> list[list[Measurement]]:
    models = dict.fromkeys(item.target.model for item in items)
    return [[item for item in items if item.target.model == model] for model in models]


def _gate(gate: Gate) -> list[Block]:
    cause = gate.attribution
    charts = [forest.forest(gate), bars.shares(cause), bars.batch_mix(cause)]
    return [
        Text(f"{gate.candidate} (candidate) against {gate.baseline} (baseline)."),
        *([Bullets("Why:", gate.reasons)] if gate.reasons else []),
        Text(fmt.sentence(cause.explanation), f"Cause: {cause.cause}"),
        *_differences(cause.differences),
        *_figures(*charts),
        *_present(tables.thresholds(gate)),
        *(
            [Folded("Intervals as numbers", [tables.metrics(gate), *_present(tables.calibration(gate))])]
            if gate.metrics
            else []
        ),
        *([Folded("Rounds", [tables.rounds(gate)], hint=str(len(gate.rounds)))] if gate.rounds else []),
    ]


def _differences(differences: Sequence[str]) -> list[Block]:
    if not differences:
        return [Text("Manifest and config are the same.", "What differs")]
    if len(differences) <= _MAX_DIFFERENCES:
        return [Bullets("What differs:", differences)]
    rest = Folded("More differences", [Bullets("", differences[_MAX_DIFFERENCES:])])
    return [Bullets("What differs:", differences[:_MAX_DIFFERENCES]), rest]
