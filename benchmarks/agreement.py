"""The linter against the real server: how often the two agree on which models load."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.options import Options
from benchmarks.table import Section
from tests.lint.cases import Case, all_cases
from tests.lint.differential import HAND_MADE, tallies
from tests.lint.generator import generated
from tests.server.models import shared_environment

_GENERATED, _QUICK = 2000, 10
_SEED = 0


def measure(options: Options) -> list[Section]:
    hand_made = [case for case in all_cases() if not case.excused]
    excused = len(all_cases()) - len(hand_made)
    count = _QUICK if options.quick else _GENERATED
    if options.quick:
        hand_made = hand_made[:count]
    groups: dict[str, Sequence[Case]] = {HAND_MADE: hand_made, "generated": generated(count, _SEED)}
    rows = []
    for mode, group, tally in tallies(shared_environment(), groups):
        faults = sum(item.verdict.is_fault for item in tally.judged)
        missed = sum(item.verdict.is_fault for item in tally.disagreements)
        false = len(tally.disagreements) - missed
        share = f"{100 * (1 - len(tally.disagreements) / len(tally.judged)):.2f} %"
        row = [group, mode, f"{len(groups[group]):,}", f"{len(tally.judged):,}", f"{faults:,}", str(missed), str(false)]
        rows.append([*row, share])
    return [
        Section(
            "agreement: the linter and tritonserver 2.51.0",
            f"Hand-made cases, less {excused} that do not compare (tests/lint/cases/__init__.py says why), and "
            f"generated ones, seed {_SEED}. *Missed*: refused, and no error of the linter. *False*: the reverse.",
            ["cases", "auto-completion", "repositories", "models", "refused", "missed", "false", "agreement"],
            rows,
        )
    ]
