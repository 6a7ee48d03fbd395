"""The linter against what the real server did with every hand-made case: recorded, so that no server is needed here.

`test_differential.py` holds the record, and generated cases, against a server that runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lint.adapter import judge
from tests.lint.cases import BEYOND, Case, all_cases
from tests.lint.record import MODES, recorded
from tests.lint.trees import write

COMPARED = [case for case in all_cases() if case.id not in BEYOND]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", COMPARED, ids=lambda case: case.id)
def test_errors_are_where_the_server_refuses_and_nowhere_else(case: Case, mode: str, tmp_path: Path) -> None:
    write(case.tree, tmp_path / "repository")
    errors = judge(tmp_path / "repository", MODES[mode])
    for model, kind in recorded()[case.id].verdicts(mode).items():
        assert bool(errors.get(model)) == (kind != "loads"), (kind, errors.get(model), recorded()[case.id].reason)


def test_every_case_is_recorded_and_every_record_is_of_a_case() -> None:
    assert recorded().keys() == {case.id for case in all_cases()}


def test_what_is_not_compared_exists_and_has_a_reason() -> None:
    assert BEYOND.keys() <= recorded().keys()
    assert all(BEYOND.values())
    assert len(BEYOND) < len(COMPARED) / 20


def test_there_are_faults_and_none_faults_enough() -> None:
    kinds = [kind for case in COMPARED for kind in recorded()[case.id].off.values()]
    assert len(COMPARED) >= 150
    assert kinds.count("loads") >= 150
    assert len(kinds) - kinds.count("loads") >= 150
