"""Hold the linter against the real server: `python -m tests.lint.differential`.

    --record              write verdicts.json from what the server does with the hand-made cases; no linter needed
    --cases N --seed S    N generated repositories besides the hand-made ones
    --only TEXT           hand-made cases whose id contains it

Where the server does not load a model, the linter must report an error of that model; where it loads, none. Every
disagreement is written to a folder of its own, tree and verdicts, from where it can become a case.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from modelwright.server.environment import Environment
from tests.lint.adapter import Judge, judge
from tests.lint.cases import Case, all_cases
from tests.lint.harness import Servers, Verdict
from tests.lint.record import MODES, recorded, write_record
from tests.lint.trees import write

SLOTS = {"off": 4, "on": 12}  # completing a Python model's config is mostly waiting


@dataclass(frozen=True)
class Judged:
    """One model of one case: the server's word and the linter's."""

    case: str
    model: str
    verdict: Verdict
    errors: tuple[str, ...]
    excused: bool = False

    @property
    def agree(self) -> bool:
        return self.excused or self.verdict.is_fault == bool(self.errors)


@dataclass
class Tally:
    """The models of one group of cases in one mode."""

    name: str
    judged: list[Judged] = field(default_factory=list)
    seconds: float = 0

    @property
    def disagreements(self) -> list[Judged]:
        return [item for item in self.judged if not item.agree]

    def row(self) -> str:
        faults = sum(item.verdict.is_fault for item in self.judged)
        missed = sum(item.verdict.is_fault for item in self.disagreements)
        false = len(self.disagreements) - missed
        share = 100 * (1 - len(self.disagreements) / max(1, len(self.judged)))
        cases = len({item.case for item in self.judged})
        return f"{self.name:<30}{cases:>8}{len(self.judged):>8}{faults:>9}{missed:>8}{false:>14}{share:>11.2f} %"


HAND_MADE = "hand-made"
HEADER = f"{'':<30}{'cases':>8}{'models':>8}{'refused':>9}{'missed':>8}{'false alarms':>14}{'agreement':>13}"


def compare(servers: Servers, cases: Iterable[Case], judge: Judge, auto_complete: bool) -> Iterator[Judged]:
    """Both verdicts on every model of every case."""
    for case, verdicts in servers.run(cases):
        with tempfile.TemporaryDirectory(prefix="lint-") as folder:
            root = Path(folder, "repository")
            write(case.tree, root)
            errors = judge(root, auto_complete)
        for model, verdict in verdicts.items():
            yield Judged(case.id, model, verdict, tuple(errors.get(model, ())), case.excused)


def keep(folder: Path, mode: str, case: Case, judged: Sequence[Judged]) -> Path:
    """Write a case that the two disagree about: its tree and what each of them says."""
    target = folder / f"{mode}-{re.sub(r'[^A-Za-z0-9]+', '-', case.id)}"
    shutil.rmtree(target, ignore_errors=True)
    write(case.tree, target / "repository")
    said = [{**asdict(item), "agree": item.agree} for item in judged if item.case == case.id]
    (target / "verdicts.json").write_text(json.dumps(said, indent=2) + "\n")
    return target


def record(environment: Environment, cases: Sequence[Case]) -> None:
    """Ask the server about these cases; the record of the others stays."""
    seen = {}
    with tempfile.TemporaryDirectory(prefix="verdicts-") as folder:
        for mode, auto_complete in MODES.items():
            start = time.monotonic()
            with Servers(environment, Path(folder, mode), auto_complete=auto_complete, count=SLOTS[mode]) as servers:
                seen[mode] = {case.id: verdicts for case, verdicts in servers.run(cases)}
            print(f"auto-completion {mode}: {len(cases)} cases in {time.monotonic() - start:.0f} s", file=sys.stderr)
    asked = {case.id for case in cases}
    write_record(seen, kept=[case.id for case in all_cases() if case.id not in asked])


def run(environment: Environment, groups: dict[str, Sequence[Case]], out: Path) -> bool:
    """Print a row for each group and mode, and then what disagrees. True if nothing does."""
    print(HEADER)
    clean = True
    for mode, group, tally in tallies(environment, groups):
        print(f"{tally.row()}   {len(groups[group]) / max(tally.seconds, 0.001):.1f} cases/s", flush=True)
        _report(tally, mode, groups[group], out)
        if group == HAND_MADE:
            print("".join(f"  not as recorded: {line}\n" for line in drift(tally.judged, mode)), end="")
        clean = clean and not tally.disagreements
    return clean


def tallies(environment: Environment, groups: dict[str, Sequence[Case]]) -> Iterator[tuple[str, str, Tally]]:
    """(mode, group, what the two say of it), one after the other."""
    with tempfile.TemporaryDirectory(prefix="differential-") as folder:
        for mode, auto_complete in MODES.items():
            with Servers(environment, Path(folder, mode), auto_complete=auto_complete, count=SLOTS[mode]) as servers:
                for name, cases in groups.items():
                    start = time.monotonic()
                    tally = Tally(f"{name}, auto-completion {mode}")
                    tally.judged = list(compare(servers, cases, judge, auto_complete))
                    tally.seconds = time.monotonic() - start
                    yield mode, name, tally


def _report(tally: Tally, mode: str, cases: Sequence[Case], out: Path) -> None:
    wrong = {item.case for item in tally.disagreements}
    for case in cases:
        if case.id in wrong:
            keep(out, mode, case, tally.judged)
    for item in tally.disagreements:
        said = ", ".join(item.errors) or "nothing"
        print(f"  {item.case} [{item.model}]: server {item.verdict.kind} {item.verdict.reason[:160]!r}, lint {said}")
    if wrong:
        print(f"  {len(wrong)} cases kept in {out}")


def drift(seen: Iterable[Judged], mode: str) -> list[str]:
    """Hand-made cases on which the server's word is no longer the recorded one."""
    changed = []
    for item in seen:
        kind = recorded()[item.case].verdicts(mode).get(item.model) if item.case in recorded() else None
        if kind is None or (kind != "loads") != item.verdict.is_fault:
            changed.append(f"{item.case} [{item.model}]: recorded {kind}, now {item.verdict.kind}")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    from tests.server.models import shared_environment

    parser = argparse.ArgumentParser(prog="python -m tests.lint.differential")
    parser.add_argument("--cases", type=int, default=0, help="how many generated repositories")
    parser.add_argument("--seed", type=int, default=0, help="of the generated repositories")
    parser.add_argument("--only", default="", help="hand-made cases whose id contains this text")
    parser.add_argument("--record", action="store_true", help="write verdicts.json and stop")
    parser.add_argument("--out", type=Path, default=Path(".modelwright/lint-differential"), help="for disagreements")
    given = parser.parse_args(arguments)
    environment = shared_environment()
    hand_made = [case for case in all_cases() if given.only in case.id]
    if given.record:
        record(environment, hand_made)
        return 0
    groups: dict[str, Sequence[Case]] = {HAND_MADE: hand_made}
    if given.cases:
        from tests.lint.generator import generated

        groups["generated"] = generated(given.cases, given.seed)
    return 0 if run(environment, groups, given.out) else 1


if __name__ == "__main__":
    sys.exit(main())
