"""The linter says what the server says: on every hand-made case by the record, on generated ones by asking both.

All of them live, and 2,000 generated ones, is `python -m tests.lint.differential --cases 2000`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lint.adapter import judge
from tests.lint.cases import Case, all_cases
from tests.lint.differential import compare
from tests.lint.generator import generated
from tests.lint.harness import Servers
from tests.lint.record import MODES, recorded
from tests.lint.trees import write
from tests.server.models import shared_environment

# With auto-completion a Python model takes a second and a half.
GENERATED = {"off": 80, "on": 25}


@pytest.mark.parametrize("case", [case for case in all_cases() if not case.excused], ids=lambda case: case.id)
def test_lint_agrees_with_what_the_server_did(case: Case, tmp_path: Path) -> None:
    write(case.tree, tmp_path / "repository")
    server, lint, found = {}, {}, {}
    for mode, completes in MODES.items():
        kinds, found[mode] = recorded()[case.id].verdicts(mode), judge(tmp_path / "repository", completes)
        server[mode] = {model: "loads" if kind == "loads" else "refused" for model, kind in kinds.items()}
        lint[mode] = {model: "refused" if found[mode].get(model) else "loads" for model in kinds}
    assert lint == server, f"server: {recorded()[case.id].reason or 'no fault'}; lint: {found}"


def test_there_are_enough_faults_and_enough_of_the_others() -> None:
    compared = [case for case in all_cases() if not case.excused]
    kinds = [kind for case in compared for kind in recorded()[case.id].off.values()]
    assert len(compared) >= 150
    assert kinds.count("loads") >= 150
    assert len(kinds) - kinds.count("loads") >= 150


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.server
def test_lint_agrees_with_the_server_on_generated_repositories(mode: str, tmp_path: Path) -> None:
    with Servers(shared_environment(), tmp_path, auto_complete=MODES[mode], count=4) as servers:
        judged = list(compare(servers, generated(GENERATED[mode], seed_of(mode)), judge, MODES[mode]))
    assert [item for item in judged if not item.agree] == []


def seed_of(mode: str) -> int:
    return 1 + list(MODES).index(mode)
