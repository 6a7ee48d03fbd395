"""Benches as one self-contained HTML page, in the style of the load tests' report."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright import text as fmt
from modelwright.bench import words
from modelwright.bench.document import BenchResult, ContenderResult, Ratio
from modelwright.charts.figure import Figure
from modelwright.charts.scatter import ScatterPoint, ScatterTitles, scatter
from modelwright.loadtest.report.blocks import (
    Badge,
    Block,
    Bullets,
    Card,
    Definitions,
    Figures,
    Headline,
    Page,
    Table,
    Tile,
)
from modelwright.loadtest.report.html import render_page


def render(results: Sequence[BenchResult]) -> str:
    """The page, made from the documents alone; at least one."""
    first = results[0]
    title = f"Bench: {', '.join(result.model for result in results)}"
    if len(results) == 1:
        page = Page(title, f"Bench · {first.created}", _headline(first), [*_blocks(first), _machine(first)])
        return render_page(page)
    cards = [Card(result.model, [Bullets("", _said(result)), *_blocks(result)]) for result in results]
    lead = f"{fmt.counted(len(results), 'model')} with their variants, measured one after the other."
    notes = [note for result in results for note in result.notes]
    badge = Badge("BUSY MACHINE" if notes else "MEASURED")
    headline = Headline(badge, lead, blocks=[Bullets("Good to know:", notes)] if notes else [])
    return render_page(Page(title, f"Bench · {first.created}", headline, [*cards, _machine(first)]))


def _headline(result: BenchResult) -> Headline:
    said = _said(result)
    notes: list[Block] = [Bullets("Good to know:", result.notes, "unsure")] if result.notes else []
    badge = Badge("BUSY MACHINE" if result.notes else "MEASURED")
    return Headline(
        badge, said[0], tiles=_tiles(result), blocks=[*([Bullets("", said[1:])] if said[1:] else []), *notes]
    )


def _said(result: BenchResult) -> list[str]:
    """The fastest at each batch size, in a sentence each."""
    sentences = []
    for batch in result.batches:
        timed = [(row, found) for row in result.contenders if (found := row.at(batch))]
        if not timed:
            continue
        row, found = min(timed, key=lambda item: item[1].median_ms)
        by = f", {fmt.number(found.speedup.ratio)} times as fast as {result.source}" if found.speedup else ""
        took = fmt.milliseconds(found.median_ms)
        sentences.append(f"With {fmt.counted(batch, 'row')} a call, {row.name} is fastest: {took}{by}.")
    return sentences or ["No contender was measured in a process of its own."]


def _tiles(result: BenchResult) -> list[Tile]:
    """The best speed-ups of models that can be served, one a batch size."""
    tiles = []
    for batch in result.batches:
        rows = [row for row in result.contenders if row.model and (found := row.at(batch)) and found.speedup]
        best = max(rows, key=lambda row: _speedup(row, batch).ratio, default=None)
        if best:
            value = f"{fmt.number(_speedup(best, batch).ratio)} {fmt.TIMES}"
            tiles.append(Tile(best.name, value, f"as fast as {result.source}, {fmt.counted(batch, 'row')} a call"))
    return tiles


def _speedup(row: ContenderResult, batch: int) -> Ratio:
    found = row.at(batch)
    return found.speedup if found and found.speedup else _ITSELF


_ITSELF = Ratio(ratio=1.0, low=1.0, high=1.0, confidence=1.0, rounds=1)


def _blocks(result: BenchResult) -> list[Block]:
    figures = [figure for figure in _figures(result) if figure is not None]
    blocks: list[Block] = [Figures(figures)] if figures else []
    note = f"Speed-up against {result.source}: the ratio of two medians of one round; 95 % intervals over rounds."
    blocks.append(
        Table("Calls in a process of its own", words.TIMES_HEAD, words.times(result), frozenset(range(1, 7)), note)
    )
    if any(row.measured for row in result.contenders):
        served = (
            f"Served: {result.served_with}; speed-up against {result.served_source}." if result.served_source else ""
        )
        note = f"Memory: the peak of the process less what it had before the model was loaded. {served}"
        blocks.append(Table("Models", words.FACTS_HEAD, words.facts(result), frozenset({1, 2, 3, 5, 6}), note.strip()))
    left = words.left_out(result)
    return [*blocks, Bullets("Not measured:", left)] if left else blocks


def _figures(result: BenchResult) -> list[Figure | None]:
    return [*(_accuracy(result, batch) for batch in result.batches), _size(result)]


def _accuracy(result: BenchResult, batch: int) -> Figure | None:
    """The builder's first metric against speed. None where nothing has both."""
    name = next((name for row in result.contenders for name in row.metrics), None)
    if name is None:
        return None
    points = [
        _point(series, row, batch, row.metrics[name], f"{name} {row.metrics[name]:.4f}")
        for series, row in enumerate(result.contenders)
        if row.at(batch) and name in row.metrics
    ]
    titles = ScatterTitles(
        f"{fmt.sentence(name)[:-1]} against speed, {fmt.counted(batch, 'row')} a call",
        f"times as fast as {result.source}",
        name,
        "Right is faster, up is better where more of the metric is better. Lines are 95 % intervals.",
        at=1.0,
    )
    return scatter(titles, points)


def _size(result: BenchResult) -> Figure | None:
    batch = result.batches[-1] if result.batches else 0
    points = [
        _point(series, row, batch, row.size_bytes / 1e6, fmt.size(row.size_bytes))
        for series, row in enumerate(result.contenders)
        if row.at(batch) and row.size_bytes
    ]
    titles = ScatterTitles(
        f"Size against speed, {fmt.counted(batch, 'row')} a call",
        f"times as fast as {result.source}",
        "MB",
        "Right is faster, down is smaller. Lines are 95 % intervals.",
        at=1.0,
    )
    return scatter(titles, points, from_zero=True)


def _point(series: int, row: ContenderResult, batch: int, y: float, shown: str) -> ScatterPoint:
    found = _speedup(row, batch)
    title = f"{fmt.number(found.ratio)} times, {shown}"
    return ScatterPoint(row.name, found.ratio, found.low, found.high, y, title, series)


def _machine(result: BenchResult) -> Definitions:
    machine = result.machine
    others = fmt.NOT_KNOWN if result.others_cores is None else f"{result.others_cores:.1f} cores"
    pairs = [
        ("CPU", f"{machine.cpu} ({result.instruction_set})"),
        ("cores", str(machine.cores)),
        ("memory", fmt.size(machine.memory_bytes)),
        ("system", machine.system),
        ("threads of a contender", str(result.threads)),
        ("other programs took", others),
        *result.versions.items(),
        ("modelwright", result.modelwright),
        ("inputs", result.inputs),
        ("rounds", f"{result.rounds}, seed {result.seed}"),
        ("command", " ".join(result.command)),
    ]
    return Definitions("Machine", pairs)
