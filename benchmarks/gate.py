"""The performance gate on models whose difference is known: how often it says what is true.

Each comparison is a whole `modelwright load ab` with default options, its own server, processes and seed. What it found
is a line of gate.jsonl at once, so that a benchmark of hours can be stopped and goes on where it was. It takes minutes
an arm; one arm alone:

    python -m benchmarks.gate --arm self --arm compute --arm config [--beside-stress] [--runs 5]
    python -m benchmarks gate --write                                        what is missing, and the table
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import gatemodels, timing
from benchmarks.options import Options
from benchmarks.table import Section

_KEPT = Path(__file__).with_name("gate.jsonl")
_USUAL: dict[str, object] = {"dynamic_batching": {}}
_SLOWER: dict[str, object] = {"dynamic_batching": {"max_queue_delay_microseconds": 7000}}
_LIMIT_S = 180.0  # of a comparison


@dataclass(frozen=True)
class _Arm:
    name: str
    what: str
    runs: int
    right: str
    wrong: str
    cause: str = ""


_ARMS = (
    _Arm("self", "a version against a copy of itself", 40, "PASS", "FAIL"),
    _Arm(
        "compute",
        f"10 % more compute: {gatemodels.MORE_LAYERS} layers for {gatemodels.LAYERS}",
        20,
        "FAIL",
        "PASS",
        "compute",
    ),
    _Arm("config", "less throughput by config: a queue delay of 7 ms", 20, "FAIL", "PASS", "queue"),
)


@dataclass(frozen=True)
class _Run:
    arm: str
    beside_stress: bool
    number: int
    verdict: str
    cause: str
    changes: dict[str, float]  # "cpu" → ratio
    gated: list[str]
    rounds: int  # of the comparison
    time_s: float
    load: float  # the machine's load average when it began
    reasons: list[str]


def measure(options: Options) -> list[Section]:
    wanted = [(arm, beside) for beside in (False, True) for arm in _ARMS]
    runs = _measured(wanted, options.rounds(1) if options.quick else 0, keep=not options.quick)
    return [_section(runs, beside) for beside in (False, True)]


def _measured(wanted: Sequence[tuple[_Arm, bool]], runs: int, *, keep: bool = True) -> list[_Run]:
    """What was found before and what is missing of these arms; `runs` of each in place of as many as it should have."""
    found = _kept() if keep else []
    with tempfile.TemporaryDirectory(prefix="modelwright-gate-") as folder:
        both = gatemodels.versions(Path(folder) / "versions")
        changed, usual = gatemodels.configs(Path(folder) / "configs", _USUAL, _SLOWER)
        commands = {
            "self": (both, ["--versions", "1,3"]),
            "compute": (both, ["--versions", "1,2"]),
            "config": (changed, ["--baseline-repository", str(usual)]),
        }
        for arm, beside in wanted:
            done = {run.number for run in found if (run.arm, run.beside_stress) == (arm.name, beside)}
            for number in range(1, (runs or arm.runs) + 1):
                if number not in done:
                    with _stress() if beside else contextlib.nullcontext():
                        found.append(_run(arm, beside, number, *commands[arm.name]))
                    if keep:
                        _keep(found[-1])
    return found


@contextlib.contextmanager
def _stress() -> Iterator[None]:
    """A neighbour that wants a whole core."""
    with subprocess.Popen(["stress-ng", "--cpu", "1", "--quiet"], start_new_session=True) as neighbour:
        try:
            yield
        finally:
            neighbour.terminate()


def _run(arm: _Arm, beside: bool, number: int, project: Path, arguments: Sequence[str]) -> _Run:
    """One gate. Raises RuntimeError unless it came to a verdict."""
    command = [timing.MODELWRIGHT, "load", "ab", gatemodels.MODEL, *arguments]
    command += ["--seed", str(number), "--json", "--output", str(project / "output")]
    load, started = os.getloadavg()[0], time.perf_counter()
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    time_s = time.perf_counter() - started
    if done.returncode not in (0, 1, 3) or not done.stdout:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    gate = json.loads(done.stdout)["gates"][0]
    run = _Run(
        arm.name,
        beside,
        number,
        gate["verdict"],
        gate["attribution"]["cause"],
        {item["interval"]["metric"]: item["interval"]["ratio"] for item in gate["metrics"]},
        [item["interval"]["metric"] for item in gate["calibration"] if item["gated"]],
        len({entry["round"] for entry in gate["rounds"] if entry["side"] == "B"}),
        time_s,
        load,
        gate["reasons"],
    )
    beside_what = " beside stress" if beside else ""
    print(f"{arm.name}{beside_what} {number}: {run.verdict}, {run.cause}, {time_s:.0f} s", file=sys.stderr, flush=True)
    return run


def _kept() -> list[_Run]:
    if not _KEPT.is_file():
        return []
    return [_Run(**json.loads(line)) for line in _KEPT.read_text().splitlines()]


def _keep(run: _Run) -> None:
    with _KEPT.open("a") as file:
        file.write(json.dumps(asdict(run), ensure_ascii=False) + "\n")


# --- the tables -------------------------------------------------------------------------------------------------------


def _section(runs: Sequence[_Run], beside: bool) -> Section:
    cores = len(os.sched_getaffinity(0))
    shown = [run for run in runs if run.beside_stress == beside]
    loads = f"{min(run.load for run in shown):.1f} to {max(run.load for run in shown):.1f}" if shown else "-"
    return Section(
        "gate: verdicts on differences that are known" + (", beside stress-ng --cpu 1" if beside else ""),
        f"`modelwright load ab` with default options on a model of {gatemodels.LAYERS} convolutions (ONNX, one "
        f"instance), server and client on the same {cores} cores; every comparison with a server, processes and a seed "
        f"of its own. Load average when they began: {loads}.",
        ["case", "runs", "PASS", "FAIL", "INCONCLUSIVE", "wrong", "cause", "cpu", "throughput", "p50", "gated", "time"],
        [_row(arm, [run for run in shown if run.arm == arm.name]) for arm in _ARMS],
        [
            "The aims: a version against itself PASS in at least 38 of 40 and FAIL in at most 1, the others FAIL in at "
            "least 19 of 20."
            if not beside
            else "The aim: nothing wrong. Wrong is a FAIL of equal versions or a PASS of a worse one.",
            "cpu, throughput, p50: the gate's ratio candidate / baseline, median over runs (and extremes). gated: in "
            "how many runs each was. time: median and longest.",
        ],
    )


def _row(arm: _Arm, runs: Sequence[_Run]) -> list[str]:
    verdicts = Counter(run.verdict for run in runs)
    causes = Counter(run.cause for run in runs if run.verdict == "FAIL")
    gated = Counter(metric for run in runs for metric in run.gated)
    times = [run.time_s for run in runs]
    return [
        arm.what,
        str(len(runs)),
        *(str(verdicts[verdict]) for verdict in ("PASS", "FAIL", "INCONCLUSIVE")),
        str(verdicts[arm.wrong]),
        _counted(causes),
        *(_ratios([run.changes[name] for run in runs if name in run.changes]) for name in ("cpu", "throughput", "p50")),
        _counted(gated),
        f"{statistics.median(times):.0f} s, {max(times):.0f} s{' (too long)' if max(times) > _LIMIT_S else ''}"
        if times
        else "-",
    ]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "-"


def _ratios(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.2f}-{max(values):.2f})" if values else "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = {arm.name: arm for arm in _ARMS}
    parser.add_argument("--arm", action="append", choices=known, help="only this one; may be repeated")
    parser.add_argument("--beside-stress", action="store_true", help="beside stress-ng --cpu 1")
    parser.add_argument("--runs", type=int, default=0, help="of each arm; default: as many as the table should have")
    given = parser.parse_args()
    _measured([(known[name], given.beside_stress) for name in given.arm or known], given.runs)


if __name__ == "__main__":
    main()
