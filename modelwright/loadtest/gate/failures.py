"""Whether a candidate fails requests that its baseline did not.

The rule, over all regimes of all rounds. Requests that the client did not send are not among them: where all its
connections are busy until the end, the machine may have stopped for both, and no version answered them wrongly.

1. Requests without an answer (`connect`, `closed`, `timeout`) are stray if a side has them in one round only, and there
   one, or at most one in a thousand: the network may be the cause. They are noted and do not count. An error or a wrong
   answer always counts.
2. The candidate failed requests and the baseline none: it fails, even for one request.
3. Both failed requests: the candidate fails if its share is higher in so many rounds that chance would do this in at
   most 2.5 % of cases (a sign test over the rounds in which the shares differ).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb

from modelwright.loadtest.document import Measurement
from modelwright.loadtest.gate.rounds import BASELINES, Side, SideName
from modelwright.loadtest.generator.recording import NOT_SENT

_NO_ANSWER = ("connect", "closed", "timeout")
_STRAY_SHARE = 0.001
_LEVEL = 0.025


@dataclass(frozen=True)
class Failing:
    """`reason`: why the candidate fails, "" if it does not; `notes`: what does not decide."""

    reason: str
    notes: list[str] = field(default_factory=list)


@dataclass
class _Tally:
    """The requests of one side in one round."""

    requests: int = 0
    unanswered: int = 0
    errors: int = 0  # answered with an error, or with a wrong answer

    def add(self, measurement: Measurement) -> None:
        counts = measurement.requests
        failed = counts.failed - counts.not_sent
        unanswered = sum(item.count for item in measurement.failures if item.kind in _NO_ANSWER)
        unanswered = min(unanswered, failed)
        self.requests += counts.succeeded + failed
        self.unanswered += unanswered
        self.errors += max(failed - unanswered, counts.wrong)

    @property
    def failed(self) -> int:
        return self.unanswered + self.errors

    @property
    def share(self) -> float:
        return self.failed / self.requests if self.requests else 0.0


def failing(sides: Sequence[Side]) -> Failing:
    """Apply the rule."""
    names: tuple[SideName, ...] = (*BASELINES, "B")
    tallies = {name: _tallies(sides, name) for name in names}
    notes = [note for name in tallies if (note := _without_strays(tallies[name], name))]
    candidate = list(tallies["B"].values())
    baseline = [tally for name in BASELINES for tally in tallies[name].values()]
    ours, theirs = sum(tally.failed for tally in candidate), sum(tally.failed for tally in baseline)
    both = f"failed requests: baseline {_of(theirs, baseline)}, candidate {_of(ours, candidate)}"
    if not ours:
        return Failing("", [*notes, both] if theirs else notes)
    more, fewer = _rounds(tallies)
    if not theirs or _chance(more, more + fewer) <= _LEVEL:
        spread = f"; the share rose in {more} of {more + fewer} rounds" if theirs else ""
        return Failing(f"{both}{_kinds(sides)}{spread}", notes)
    return Failing("", [*notes, f"{both}: no clear rise, the share was higher in {more} of {more + fewer} rounds"])


def _tallies(sides: Sequence[Side], name: str) -> dict[int, _Tally]:
    found: dict[int, _Tally] = {}
    for side in sides:
        for measurement in side.measurements.values():
            if side.side == name:
                found.setdefault(side.round, _Tally()).add(measurement)
    return found


def _without_strays(tallies: dict[int, _Tally], name: str) -> str:
    """Remove stray failures; a note if there were any."""
    hit = [number for number, tally in tallies.items() if tally.unanswered]
    if len(hit) != 1:
        return ""
    tally = tallies[hit[0]]
    if tally.unanswered > max(1, _STRAY_SHARE * tally.requests):
        return ""
    note = f"{tally.unanswered} of {tally.requests:,} requests of {name} got no answer, all in round {hit[0]}"
    tally.unanswered = 0
    return f"{note}: not counted"


def _rounds(tallies: Mapping[SideName, dict[int, _Tally]]) -> tuple[int, int]:
    """The rounds in which the candidate failed a larger share of requests than the baseline, and a smaller one."""
    more = fewer = 0
    for number, tally in tallies["B"].items():
        shares = [tallies[name][number].share for name in BASELINES if number in tallies[name]]
        baseline = sum(shares) / len(shares) if shares else 0.0
        more += tally.share > baseline
        fewer += tally.share < baseline
    return more, fewer


def _chance(successes: int, trials: int) -> float:
    """The probability of at least so many heads of a fair coin."""
    return float(sum(comb(trials, count) for count in range(successes, trials + 1)) / 2**trials)


def _of(failed: int, tallies: Sequence[_Tally]) -> str:
    total = sum(tally.requests for tally in tallies)
    return f"{failed:,} of {total:,}" if failed else f"none of {total:,}"


def _kinds(sides: Sequence[Side]) -> str:
    counted: Counter[str] = Counter()
    for side in sides:
        for measurement in side.measurements.values():
            if side.side == "B":
                counted.update({item.kind: item.count for item in measurement.failures if item.kind != NOT_SENT})
    shown = ", ".join(f"{kind}: {count:,}" for kind, count in counted.most_common(3))
    return f" ({shown})" if shown else ""
