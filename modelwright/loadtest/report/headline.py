"""What a reader sees first: the verdict in plain words, and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modelwright import text as fmt
from modelwright.loadtest.document import Gate, Measurement, Result, SloResult
from modelwright.loadtest.measure.latency import NEEDED
from modelwright.loadtest.report import words
from modelwright.loadtest.report.blocks import Badge, Block, Bullets, Headline, Tile
from modelwright.loadtest.report.tables import target_key

_WORST_FIRST = ("FAIL", "INCONCLUSIVE", "PASS")


def headline(result: Result) -> Headline:
    if result.kind == "ab":
        return _of_gates(result)
    if result.slo is not None:
        return _of_slo(result, result.slo)
    if len(result.measurements) == 1:
        return _of_one(result, result.measurements[0])
    return _of_several(result)


def _blocks(result: Result, items: Sequence[Measurement]) -> list[Block]:
    """Why it is not valid, whether it stopped early, and notes."""
    blocks: list[Block] = []
    if not result.complete:
        blocks.append(Bullets("It stopped early. What was measured until then:", [_until(result)], "unsure"))
    several = len(items) > 1
    reasons = _collected(items, several, lambda item: item.validity.reasons)
    notes = [*result.notes, *_collected(items, several, lambda item: [*item.validity.notes, *unsteady(item)])]
    if reasons:
        lead = "Do not trust these measurements:" if several else "Do not trust these numbers:"
        blocks.append(Bullets(lead, reasons, "bad"))
    if notes:
        blocks.append(Bullets("Good to know:", notes))
    return blocks


def _collected(items: Sequence[Measurement], named: bool, texts: Callable[[Measurement], list[str]]) -> list[str]:
    """Each text once, with its measurements."""
    found: dict[str, list[str]] = {}
    for item in items:
        for text in texts(item):
            found.setdefault(text, []).append(item.label)
    return [f"{_labels(labels)}: {text}" if named else text for text, labels in found.items()]


def _labels(labels: Sequence[str], most: int = 4) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def _until(result: Result) -> str:
    if not result.measurements:
        return "nothing"
    last = result.measurements[-1]
    return f"{last.label}: {fmt.seconds(last.measured_s)} of {fmt.seconds(last.load.duration_s)}" + (
        f", and {fmt.counted(len(result.measurements) - 1, 'measurement')} before it"
        if len(result.measurements) > 1
        else ""
    )


# --- one measurement --------------------------------------------------------------------------------------------------


def _of_one(result: Result, item: Measurement) -> Headline:
    lead = f"{words.target(item.target)}, {words.load(item.load)}."
    return Headline(Badge(item.validity.verdict), lead, " ".join(outcome(item)), tiles(item), _blocks(result, [item]))


def unsteady(item: Measurement) -> list[str]:
    """A note on a load that was not steady."""
    told = not item.stability.stable and item.stability.reason and item.requests.succeeded
    return [f"not steady: {item.stability.reason}"] if told else []


def outcome(item: Measurement) -> list[str]:
    """Throughput and latency in words, or why they are missing."""
    if not item.requests.succeeded:
        return [_nothing(item)]
    rows = f" ({fmt.number(item.inferences)} rows a second)" if item.load.batch != 1 else ""
    sentences = [f"{fmt.number(item.throughput)} requests a second{rows}.", _latency(item)]
    if item.requests.failed:
        sentences.append(f"{words.failed_share(item)} of the requests failed.")
    if item.requests.wrong:
        sentences.append(f"{item.requests.wrong:,} of {item.requests.checked:,} checked answers were wrong.")
    return sentences


def _nothing(item: Measurement) -> str:
    if not item.requests.failed:
        return "No request was measured."
    kinds = ", ".join(failure.kind for failure in item.failures[:3])
    return (
        f"No request succeeded: {fmt.counted(item.requests.failed, 'request')} failed{f' ({kinds})' if kinds else ''}."
    )


def _latency(item: Measurement) -> str:
    p50, p99 = (item.response.percentiles_ms.get(name) for name in ("p50", "p99"))
    if p50 is None:
        return "Too few requests succeeded to say how long they take."
    if p99 is None:
        few = f"for a p99 there are too few: {item.response.count:,} succeeded, {NEEDED['p99']:,} are needed"
        return f"Half of the requests took no longer than {fmt.milliseconds(p50)}; {few}."
    half = f"Half of the requests took no longer than {fmt.milliseconds(p50)}"
    return f"{half}, and 99 % no longer than {fmt.milliseconds(p99)}."


def tiles(item: Measurement) -> list[Tile]:
    values = item.response.percentiles_ms
    failed = words.failed_share(item)
    return [
        Tile("throughput", fmt.number(item.throughput), "requests a second"),
        Tile("p50", *_tile_value(values.get("p50"), "p50")),
        Tile("p99", *_tile_value(values.get("p99"), "p99")),
        Tile("failed", failed.split(" ")[0], f"of {item.requests.succeeded + item.requests.failed:,} requests"),
    ]


def _tile_value(value: float | None, name: str) -> tuple[str, str]:
    return (fmt.number(value), "ms") if value is not None else (fmt.NOT_KNOWN, f"needs {NEEDED[name]:,} requests")


# --- several ----------------------------------------------------------------------------------------------------------


def _of_several(result: Result) -> Headline:
    items = result.measurements
    valid = sum(item.validity.verdict == "VALID" for item in items)
    word = "STOPPED EARLY" if not items else "VALID" if valid == len(items) else "MIXED" if valid else "INVALID"
    lead = f"{fmt.counted(len(items), 'measurement')}, {_how_many(valid, len(items))} valid."
    lead = lead if items else "Nothing was measured."
    groups = by_target(items)
    best = _fastest(items)
    if best is None or len(groups) == 1:
        said = "".join(_best(group) for group in groups)
        return Headline(Badge(word), lead, said, tiles(best) if best else [], _blocks(result, items), _at(best))
    each = Bullets("", [_best(group) for group in groups])
    return Headline(Badge(word), lead, blocks=[each, *_blocks(result, items)])


def _how_many(some: int, total: int) -> str:
    return "all" if some == total else f"{some:,} of them" if some else "none"


def _at(item: Measurement | None) -> str:
    return f"At {item.label}:" if item else ""


def by_target(items: Iterable[Measurement]) -> list[list[Measurement]]:
    groups: dict[tuple[str, ...], list[Measurement]] = {}
    for item in items:
        groups.setdefault(target_key(item.target), []).append(item)
    return list(groups.values())


def _fastest(items: Sequence[Measurement]) -> Measurement | None:
    """By rows a second, among the valid ones if there are any."""
    valid = [item for item in items if item.validity.verdict == "VALID"]
    return max(valid or items, key=lambda item: item.inferences, default=None)


def _best(items: Sequence[Measurement]) -> str:
    best = _fastest(items)
    if best is None or not best.requests.succeeded:
        return f"{words.target(items[0].target)}: no request succeeded."
    p99 = best.response.percentiles_ms.get("p99")
    latency = f", p99 {fmt.milliseconds(p99)}" if p99 is not None else ""
    rows = f" ({fmt.number(best.inferences)} rows/s)" if best.load.batch != 1 else ""
    return f"{words.target(best.target)} is fastest at {best.label}: {fmt.rate(best.throughput)}{rows}{latency}."


# --- slo and gate -----------------------------------------------------------------------------------------------------


def best_probe(result: Result, slo: SloResult) -> Measurement | None:
    """The measurement at the highest rate that held."""
    held = {label for label, holds in zip(slo.probes, slo.held, strict=False) if holds}
    return max(
        (item for item in result.measurements if item.label in held),
        key=lambda item: item.load.rate or 0.0,
        default=None,
    )


def _of_slo(result: Result, slo: SloResult) -> Headline:
    objective = f"{slo.percentile} of at most {fmt.exact(slo.objective_ms)} ms"
    asked = words.target(result.measurements[0].target) if result.measurements else result.title
    if slo.rate is None:
        first = f"{asked} did not hold a {objective}, not even at the lowest rate that was tried."
    else:
        first = f"{asked} holds a {objective} up to {fmt.number(slo.rate)} requests a second."
    by = {
        "objective": "",
        "client": "The client was the limit: the server may do more.",
        "rate given": "It held at the highest rate that was tried: the server may do more.",
    }[slo.limited_by]
    best = best_probe(result, slo)
    word = "OBJECTIVE HOLDS" if slo.rate is not None else "OBJECTIVE DOES NOT HOLD"
    text = " ".join(text for text in (fmt.sentence(slo.explanation), by) if text)
    about = [best] if best else []
    return Headline(Badge(word), first, text, tiles(best) if best else [], _blocks(result, about), _at(best))


def _of_gates(result: Result) -> Headline:
    verdicts = [gate.verdict for gate in result.gates]
    if not verdicts:
        return Headline(Badge("NO VERDICT"), "No model was compared.", blocks=_blocks(result, []))
    worst = next(word for word in _WORST_FIRST if word in verdicts)
    counted = ", ".join(f"{verdicts.count(word)} {word}" for word in _WORST_FIRST if word in verdicts)
    said = [gate_sentence(gate) for gate in result.gates]
    if len(said) == 1:
        return Headline(Badge(worst), said[0], blocks=_blocks(result, []))
    lead = f"{fmt.counted(len(verdicts), 'model')} compared: {counted}."
    return Headline(Badge(worst), lead, blocks=[Bullets("", said), *_blocks(result, [])])


def gate_sentence(gate: Gate) -> str:
    """The verdict on one model in a sentence, with the cause where something moved."""
    pair = f"{gate.model}: {gate.candidate} against {gate.baseline}"
    cause = f" Cause: {gate.attribution.cause}." if gate.verdict == "FAIL" else ""
    said = {
        "PASS": "is not slower than the margins allow",
        "FAIL": "is worse than the margins allow",
        "INCONCLUSIVE": "is undecided: the difference is too small for the noise",
    }[gate.verdict]
    return f"{pair} {said}.{cause}"
