"""The performance gate on models whose difference is known: how often it says what is true.

Each run is a whole `modelwright load ab`, with its own server, processes and seed. What a run found is kept in a file,
so that a benchmark of more than an hour can be stopped and goes on where it was.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import gatemodels, timing
from benchmarks.options import Options
from benchmarks.table import Section

_KEPT = Path(__file__).with_name("gate.jsonl")
_P99_MARGIN = "p99=0.2"  # on a shared machine p99s of half a second differ from themselves by a tenth
_SLOWER_CONFIG: dict[str, object] = {"dynamic_batching": {"max_queue_delay_microseconds": 110}}


@dataclass(frozen=True)
class _Case:
    name: str
    runs: int
    aim: str
    seconds: str = "0.3"  # a measurement
    metric: str = ""  # gated alone; "" for all


_CASES = (
    _Case("10 % more compute: 34 layers for 30", 20, "≥ 19 FAIL"),
    _Case("20 % less throughput by config: a queue delay, 1 in flight", 5, "FAIL, queue"),
    _Case("A/A: a version against itself", 40, "≤ 1 FAIL"),
    _Case("A/A, gated on compute alone", 8, "PASS", "1", "compute"),
    _Case("10 % more compute, gated on compute alone", 5, "FAIL", "1", "compute"),
)


@dataclass(frozen=True)
class _Run:
    case: str
    number: int
    verdict: str
    cause: str
    changes: dict[str, float]  # metric → ratio
    rounds: int
    time_s: float


def measure(options: Options) -> list[Section]:
    with tempfile.TemporaryDirectory(prefix="modelwright-gate-") as folder:
        root = Path(folder)
        both = gatemodels.versions(root / "versions")
        changed, usual = gatemodels.configs(root / "configs", _SLOWER_CONFIG)
        commands = [
            (both, ["--versions", "1,2"]),
            (changed, ["--baseline-repository", str(usual), "--concurrency", "1"]),
            (both, ["--versions", "1,1"]),
            (both, ["--versions", "1,1"]),
            (both, ["--versions", "1,2"]),
        ]
        kept = [] if options.quick else _kept()
        for case, (project, arguments) in zip(_CASES, commands, strict=True):
            done = {run.number for run in kept if run.case == case.name}
            for number in range(1, options.rounds(case.runs) + 1):
                if number not in done:
                    kept.append(_run(case, number, project, arguments, options))
                    if not options.quick:
                        _keep(kept[-1])
    return [_section(kept)]


def _run(case: _Case, number: int, project: Path, arguments: Sequence[str], options: Options) -> _Run:
    """One gate. Raises RuntimeError unless it came to a verdict."""
    seconds, rounds = ("0.3", "6") if options.quick else (case.seconds, "10")
    command = [timing.MODELWRIGHT, "load", "ab", gatemodels.MODEL, *arguments, "--seconds", seconds, "--rounds", rounds]
    command += ["--margin", _P99_MARGIN, "--warmup", "0.1", *(["--metric", case.metric] if case.metric else [])]
    command += ["--seed", str(number), "--json", "--output", str(project / "output")]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3) or not done.stdout:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    gate = json.loads(done.stdout)["gates"][0]
    return _Run(
        case.name,
        number,
        gate["verdict"],
        gate["attribution"]["cause"],
        {item["interval"]["metric"]: item["interval"]["ratio"] for item in gate["metrics"]},
        max(entry["round"] for entry in gate["rounds"]),
        time.perf_counter() - started,
    )


def _kept() -> list[_Run]:
    if not _KEPT.is_file():
        return []
    return [_Run(**json.loads(line)) for line in _KEPT.read_text().splitlines()]


def _keep(run: _Run) -> None:
    _KEPT.parent.mkdir(parents=True, exist_ok=True)
    with _KEPT.open("a") as file:
        file.write(json.dumps(asdict(run), ensure_ascii=False) + "\n")


def _section(runs: Sequence[_Run]) -> Section:
    return Section(
        "gate: verdicts on differences that are known",
        f"`modelwright load ab` on a model of {gatemodels.LAYERS} convolutions (ONNX, one instance), server and client "
        f"on the same {len(os.sched_getaffinity(0))} cores; longer measurements where p99 needs them, "
        f"10 rounds and 10 more where undecided, margins 5 % and {_P99_MARGIN}; every run with "
        "a server, processes and a seed of its own.",
        [
            "case",
            "a measurement",
            "runs",
            "PASS",
            "FAIL",
            "INCONCLUSIVE",
            "aim",
            "cause",
            "throughput",
            "compute",
            "median time",
        ],
        [_row(case, [run for run in runs if run.case == case.name]) for case in _CASES],
        ["Throughput and compute: the gate's ratio candidate / baseline, median over runs (and extremes)."],
    )


def _row(case: _Case, runs: Sequence[_Run]) -> list[str]:
    verdicts = Counter(run.verdict for run in runs)
    causes = Counter(run.cause for run in runs if run.verdict == "FAIL")
    return [
        case.name,
        f"{case.seconds} s",
        str(len(runs)),
        *(str(verdicts[verdict]) for verdict in ("PASS", "FAIL", "INCONCLUSIVE")),
        case.aim,
        ", ".join(f"{cause} {count}" for cause, count in causes.most_common()) or "-",
        _ratios([run.changes["throughput"] for run in runs if "throughput" in run.changes]),
        _ratios([run.changes["compute"] for run in runs if "compute" in run.changes]),
        f"{statistics.median(run.time_s for run in runs):.0f} s" if runs else "-",
    ]


def _ratios(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.2f}-{max(values):.2f})" if values else "-"
