"""`make claims`: what guides promise of each technique, beside what the shipped models gain here.

The table goes into README.md, with the machine named. Each figure is the ratio of two things that took turns in one
run (`modelwright bench`), and a technique that cannot run here says why.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.__main__ import replaced
from benchmarks.table import machine
from modelwright import text
from modelwright.api import Project
from modelwright.bench.bench import Asked
from modelwright.bench.contenders import EAGER
from modelwright.bench.document import BenchResult, ContenderResult, Ratio
from modelwright.bench.inputs import alike
from modelwright.bench.others import busy_note
from modelwright.bench.rounds import BenchPlan, speedup
from modelwright.bench.served import ServedPlan, measure_served, throughput
from modelwright.config.render import parse, plain_text
from modelwright.loadtest.measure.lab import Setting
from modelwright.loadtest.measure.progress import Progress
from modelwright.loadtest.payloads.workload import Workload
from modelwright.repository.repository import Repository
from modelwright.text import TIMES
from modelwright.triton.layout import CONFIG, GOLDEN
from modelwright.verification.golden import load_golden

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
NAME = "claims"
HEADER = ("technique", "guides promise", "model", "measured", "that is", "at what loss")
_METHOD = (
    "How many times as fast as what it was made from: one thread, in turns in one run, with the 95 % interval over "
    "rounds. `make claims` measures it."
)
_BATCHING = (
    "Batching is measured in the local server at saturation, with and without `dynamic_batching`. Its onnxruntime "
    "backend runs in Python, whose time a request is part of both figures."
)
_ALONE = "alone"  # the copy of a model that runs each request by itself


@dataclass(frozen=True)
class Promise:
    """What guides say a technique gains: a factor between `low` and `high`."""

    technique: str
    words: str
    low: float
    high: float

    def held(self, found: Ratio) -> str:
        """Whether the measured interval lies within, above or below the promise."""
        if found.high < self.low:
            return "less"
        if found.low > self.high:
            return "more"
        return "as promised" if self.low <= found.ratio <= self.high else "about that"


ONNX = Promise("ONNX instead of PyTorch", "10 to 30 % faster", 1.1, 1.3)
TENSORRT = Promise("TensorRT", f"2 to 5 {TIMES}", 2, 5)
QUANTISED = Promise("quantisation", f"2 to 4 {TIMES}", 2, 4)
PRUNED = Promise("pruning", f"1.5 to 3 {TIMES}", 1.5, 3)
DISTILLED = Promise("distillation", "a smaller model", 1.0, float("inf"))
BATCHED = Promise("dynamic batching", f"2 to 10 {TIMES}", 2, 10)


@dataclass(frozen=True)
class Pair:
    """A model that is held against another one; the first is what a technique starts from."""

    promise: Promise
    first: str
    second: str
    batches: Sequence[int]
    by_size: bool = False


DIGITS = (
    Pair(ONNX, EAGER, "digits", (1, 8, 64)),
    Pair(TENSORRT, "digits", "digits_trt", (8,)),
    Pair(QUANTISED, "digits", "digits_int8", (1, 8)),
    Pair(PRUNED, "digits", "digits_pruned", (1, 8)),
    Pair(DISTILLED, "digits", "digits_distilled", (8,), by_size=True),
    Pair(DISTILLED, "digits", "digits_distilled", (1, 8)),
)
MINILM = (
    Pair(ONNX, EAGER, "minilm", (1, 8)),
    Pair(TENSORRT, "minilm", "minilm_trt", (8,)),
    Pair(QUANTISED, "minilm", "minilm_int8", (1, 8)),
)
ORDER = (ONNX, TENSORRT, QUANTISED, PRUNED, DISTILLED, BATCHED)


@dataclass(frozen=True)
class Row:
    """One line of the table; a model that was not run has the reason alone, which stands below."""

    promise: Promise
    model: str
    measured: str = ""
    that_is: str = ""
    loss: str = ""
    reason: str = ""

    @property
    def cells(self) -> Sequence[str]:
        return (self.model, self.measured or "not run, see below", self.that_is, self.loss)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it runs at all")
    parser.add_argument("--write", action="store_true", help=f"put the table into {README.name}")
    given = parser.parse_args(arguments)
    if given.quick and given.write:
        parser.error("--quick measures nothing worth writing down")
    markdown = measure(Project.find(ROOT), quick=given.quick)
    print(markdown)
    if given.write:
        README.write_text(replaced(README.read_text(), NAME, markdown))


def measure(project: Project, *, quick: bool) -> str:
    plan = BenchPlan(seconds=0.02, rounds=6) if quick else BenchPlan()
    served = ServedPlan(seconds=0.3 if quick else 1.5)
    asked = Asked(plan, served=None, compiled=False)
    (digits,) = project.bench("digits", asked, progress=_Spoken())
    sentences = Asked(plan, served=None, compiled=False, batches=[1, 8], sizes={"sequence": 64})
    (minilm,) = project.bench("minilm", sentences, progress=_Spoken())
    rows = [row for pair in DIGITS for row in compared(pair, digits, _images)]
    rows += [row for pair in MINILM for row in compared(pair, minilm, _sentences)]
    rows += [batched(project, model, served) for model in ("digits", "minilm")]
    busiest = max(result.others_cores or 0.0 for result in (digits, minilm))
    return table(rows, digits, busy_note(busiest))


def table(rows: Sequence[Row], result: BenchResult, notes: Sequence[str]) -> str:
    """Markdown, technique by technique."""
    ordered = [
        (row.promise.technique, row.promise.words, *row.cells)
        for promise in ORDER
        for row in rows
        if row.promise is promise
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [HEADER, ["---"] * len(HEADER), *_without_repeats(ordered)]
    body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    measured = f"Measured {machine()}; {result.instruction_set}; {versions}."
    below = "\n".join(f"- {note}" for note in (*_reasons(rows), _BATCHING))
    return "\n\n".join([_METHOD, body, below, " ".join([measured, *(text.sentence(note) for note in notes)])])


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Why models were not run: each reason once, with the models that share it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            found.setdefault(row.reason, []).append(row.model)
    return [f"{', '.join(dict.fromkeys(models))}: {reason}" for reason, models in found.items()]


def _without_repeats(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """A technique and its promise stand in its first row."""
    found: list[Sequence[str]] = []
    last = ""
    for row in rows:
        found.append(row if row[0] != last else ("", "", *row[2:]))
        last = row[0]
    return found


def _images(batch: int) -> str:
    return text.counted(batch, "image")


def _sentences(batch: int) -> str:
    return f"{batch} {TIMES} 64 tokens"


def compared(pair: Pair, result: BenchResult, words: Callable[[int], str]) -> list[Row]:
    """A row for each batch size, or one with the reason why there is none."""
    first, second = result.contender(pair.first), result.contender(pair.second)
    if first is None or second is None:
        missing = pair.first if first is None else pair.second
        return [Row(pair.promise, pair.second, reason=f"there is no {missing} in this project")]
    loss = _loss(first, second)
    if pair.by_size:
        if not first.size_bytes or not second.size_bytes:
            return [Row(pair.promise, pair.second, reason=_not_run(second))]
        found = first.size_bytes / second.size_bytes
        sizes = f"{text.number(found)} {TIMES} smaller: {text.size(first.size_bytes)} → {text.size(second.size_bytes)}"
        return [Row(pair.promise, pair.second, sizes, "as promised" if found > 1 else "less", loss)]
    rows: list[Row] = []
    for batch in pair.batches:
        one, other = first.at(batch), second.at(batch)
        if one and other:
            ratio = speedup(one.rounds_ms, other.rounds_ms, result.seed)
            shown = f"{words(batch)}: {_shown(ratio)}"
            held = "" if pair.promise is DISTILLED else pair.promise.held(ratio)
            rows.append(Row(pair.promise, pair.second, shown, held, loss))
    return rows or [Row(pair.promise, pair.second, reason=_not_run(second if first.latencies else first))]


def _shown(ratio: Ratio) -> str:
    return f"{text.number(ratio.ratio)} {TIMES} ({text.number(ratio.low)} … {text.number(ratio.high)})"


def _not_run(row: ContenderResult) -> str:
    return row.reason or "not measured at these batch sizes"


def _loss(first: ContenderResult, second: ContenderResult) -> str:
    """The builder's first metric, before and after."""
    name = next((name for name in second.metrics if name in first.metrics), "")
    return f"{name} {first.metrics[name]:.4f} → {second.metrics[name]:.4f}" if name else "the same answers"


# --- dynamic batching -------------------------------------------------------------------------------------------------


def batched(project: Project, model: str, plan: ServedPlan) -> Row:
    """One model twice in one server: as it is configured, and with every request run alone."""
    with tempfile.TemporaryDirectory(prefix="modelwright-claims-") as folder:
        root = Path(folder) / "model_repository"
        source = project.repository / model
        shutil.copytree(source, root / model)
        shutil.copytree(source, root / f"{model}_{_ALONE}")
        config = parse((source / CONFIG).read_text(), CONFIG)
        config.name = f"{model}_{_ALONE}"
        config.ClearField("dynamic_batching")
        (root / config.name / CONFIG).write_text(plain_text(config))
        repository = Repository(root, Path(folder) / "staging")
        version = repository.versions(model)[-1]
        setting = Setting(project.config, root, Workload(url="", model=""), _Spoken())
        samples = alike(load_golden(root / model / str(version) / GOLDEN)[0])
        versions = {model: version, str(config.name): version}
        found = measure_served(setting, versions, samples, plan)
    together, alone = (throughput(found.measured[name], plan.seed) for name in versions)
    if isinstance(together, str):
        return Row(BATCHED, model, reason=together)
    if isinstance(alone, str):
        return Row(BATCHED, model, reason=alone)
    ratio = speedup(alone.rounds_per_s, together.rounds_per_s, plan.seed, higher_is_better=True)
    rates = f"{text.rate(alone.requests_per_s)} → {text.rate(together.requests_per_s)}"
    in_flight = found.described.partition(",")[0]
    return Row(BATCHED, model, f"in the server, {in_flight}: {_shown(ratio)}", BATCHED.held(ratio), rates)


class _Spoken(Progress):
    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
