"""Load on a canary: golden samples to the new version and to the served one, in turn, so that noise hits both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Literal

from modelwright.errors import LoadError, ServerError
from modelwright.fleet.member import Member
from modelwright.fleet.verdict import Limits, Recorded, Traffic, too_many_errors
from modelwright.fleet.watcher import Watcher
from modelwright.loadtest.gate.pairings import same_requests
from modelwright.loadtest.generator.processes import GeneratorProcesses, Phase, Watch
from modelwright.loadtest.measure.lab import check_installed
from modelwright.loadtest.measure.latency import NEEDED
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.repository.repository import Repository
from modelwright.text import milliseconds, number, rate
from modelwright.triton.access import Access

SideName = Literal["served", "new"]
_SIDES: tuple[SideName, ...] = ("served", "new")

_SPARE = 1.2  # times what a p99 needs: arrivals are random
_MAX_BUSY = 0.5  # of one client's time: a canary serves clients beside this load
_SLICE_S = 2.5  # of one side in one round, at least
_MAX_ROUNDS = 20
_PROBE = LoadShape(concurrency=1, warmup_s=0.3, duration_s=1.0)
_CHECK_EVERY = 10  # answers of which one is compared
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class BakeLoad:
    """How long, and how many requests a second; without a rate as many as a p99 of each version needs."""

    bake_s: float = 60.0
    rate: float | None = None
    seed: int = 7

    @property
    def rounds(self) -> int:
        """An even number: the served version's rounds are compared with each other, half and half."""
        return max(2, min(_MAX_ROUNDS, int(self.bake_s / (2 * _SLICE_S)) // 2 * 2))

    @property
    def slice_s(self) -> float:
        return self.bake_s / (2 * self.rounds)


@dataclass
class Bake:
    """The load on both sides. `rate`: requests a second, to one side at a time."""

    generators: GeneratorProcesses
    load: BakeLoad
    rate: float
    sides: dict[SideName, Recorded]
    watcher: Watcher
    canary: str

    def run(self, limits: Limits, which: tuple[SideName, ...] = _SIDES) -> None:
        """All rounds, or up to the one in which too many requests of the new version have failed.

        Raises KeyboardInterrupt after Ctrl-C.
        """
        planned = round(self.rate * self.load.slice_s * self.load.rounds)
        for number_ in range(1, self.load.rounds + 1):
            order = list(which)
            Random(f"{self.load.seed} {number_}").shuffle(order)  # noqa: S311 (an order, no secret)
            for side in order:
                self._slice(side, number_)
            self.watcher.server(self.canary, "under load", self._told(number_))
            if too_many_errors(self.sides["new"], planned, limits):
                return

    def _slice(self, name: SideName, number_: int) -> None:
        # Both sides of a round have the same arrivals and payloads.
        shape = LoadShape(rate=self.rate, warmup_s=0.0, duration_s=self.load.slice_s)
        phase = self.generators.run(name, shape, Watch(), self.load.seed + number_)
        if phase.interrupted:
            raise KeyboardInterrupt
        _count(self.sides[name], phase)

    def _told(self, number_: int) -> str:
        words = [f"round {number_} of {self.load.rounds}"]
        for name, label in (("new", "new"), ("served", "served now")):
            side = self.sides[name]  # type: ignore[index]
            if side.requests:
                p99 = f", p99 {milliseconds(side.p99_ms())}" if side.p99_ms() is not None else ""
                words.append(f"{label} {side.failed:,} of {side.requests:,} failed{p99}")
        return "; ".join(words)


def _count(side: Recorded, phase: Phase) -> None:
    rows = phase.measured()
    good = rows[rows["code"] == 0]
    side.requests += len(rows)
    side.failed += len(rows) - len(good)
    side.latencies_ns.append(good["end_ns"] - good["start_ns"])
    for code, failure in enumerate(phase.record.failures, 1):
        count = int((rows["code"] == code).sum())
        if count:
            side.failures[f"{failure.kind}, {failure.message}"] += count
    if not phase.complete:
        raise LoadError(f"the load ended early: {'; '.join(phase.notes)}", "run it again")


@contextlib.contextmanager
def baking(
    repository: Repository,
    model: str,
    versions: tuple[int, int],
    urls: Mapping[SideName, str],
    load: BakeLoad,
    canary: str,
    watcher: Watcher,
    access: Access,
    sides: dict[SideName, Recorded] | None = None,
    agreed_rate: float | None = None,
) -> Iterator[Bake]:
    """Generator processes for the sides that have a URL, where they must be served now. `versions`: (served, new).

    `sides` go on from an earlier bake, and so does the rate.
    """
    check_installed()
    workloads = _workloads(repository, model, versions, urls, access)
    with (
        TemporaryDirectory(prefix="modelwright-canary-") as folder,
        GeneratorProcesses(workloads, 1, Path(folder)) as generators,
    ):
        found = agreed_rate or _agreed_rate(generators, next(iter(urls)), load)
        fresh = {name: Recorded(version) for name, version in zip(_SIDES, versions, strict=True)}
        yield Bake(generators, load, found, sides or fresh, watcher, canary)


def _workloads(
    repository: Repository, model: str, versions: tuple[int, int], urls: Mapping[SideName, str], access: Access
) -> dict[str, Workload]:
    template = Workload(
        url="",
        model=model,
        repository=str(repository.root),
        check_every=_CHECK_EVERY,
        timeout_s=_TIMEOUT_S,
        access=access,
    )
    served, new = versions
    both = same_requests(template, (repository.root, served), (repository.root, new))
    by_name = dict(zip(_SIDES, both, strict=True))
    return {name: replace(by_name[name], url=url) for name, url in urls.items()}


def _agreed_rate(generators: GeneratorProcesses, side: SideName, load: BakeLoad) -> float:
    """Requests a second. Raises LoadError where a p99 needs more than the canary may be kept busy with."""
    if load.rate is not None:
        return load.rate
    wanted = _SPARE * NEEDED["p99"] / (load.bake_s / 2)
    phase = generators.run(side, _PROBE, Watch(), load.seed)
    if phase.interrupted:
        raise KeyboardInterrupt
    rows = phase.measured()
    good = rows[rows["code"] == 0]
    if not len(good):
        raise LoadError("the served version answers no request: there is nothing to compare with")
    most = _MAX_BUSY / (float((good["end_ns"] - good["start_ns"]).mean()) * 1e-9)
    if wanted > most:
        check_long_enough(load, most)
    return min(wanted, most)


def check_long_enough(load: BakeLoad, rate_s: float | None = None) -> None:
    """Raise LoadError where a bake at this rate, or at the one that was asked for, is too short for a p99."""
    per_s = rate_s or load.rate
    if per_s is None:
        return
    if per_s * load.bake_s / 2 < NEEDED["p99"]:
        needed_s = _SPARE * NEEDED["p99"] / per_s * 2
        raise LoadError(
            f"a bake of {number(load.bake_s)} s at {rate(per_s)} is too short for a p99, which needs "
            f"{NEEDED['p99']:,} requests of each version",
            f"bake longer (--bake {needed_s:.0f}s), or send more (--rate)",
        )


# --- what clients sent meanwhile --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Of one version, as the server counts: since it was loaded."""

    succeeded: int = 0
    failed: int = 0


def counts(member: Member, model: str, version: int) -> Counts:
    """None counted where the server does not tell."""
    with contextlib.suppress(ServerError):
        for entry in member.client.statistics(model, str(version))["model_stats"]:
            if entry["version"] == str(version):
                return Counts(_of(entry, "success"), _of(entry, "fail"))
    return Counts()


def traffic(before: Counts, after: Counts, own: Recorded) -> Traffic:
    """What others sent. A request of the load that got no answer may not be among those that the server counts."""
    succeeded = max(after.succeeded - before.succeeded - (own.requests - own.failed), 0)
    failed = max(after.failed - before.failed - own.failed, 0)
    return Traffic(succeeded + failed, failed)


def _of(entry: Mapping[str, Any], part: str) -> int:
    return int(entry["inference_stats"][part].get("count", 0))
