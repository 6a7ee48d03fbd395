"""`modelwright history`: who did what, when and why; and whether the journal is what was written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.api import Project
from tests.conftest import Sandbox


@pytest.fixture
def used(three: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A project in which an operator did something."""
    monkeypatch.setenv("MODELWRIGHT_USER", "ops")
    for command in ("rollback doubled -m slow", "restore doubled 3", "retire doubled 1 --why old", "promote doubled 2"):
        assert three.cli(*command.split()).exit_code == 0
    return three


def journal(sandbox: Sandbox) -> Path:
    return sandbox.root / "model_history/journal.jsonl"


def test_what_was_done_by_whom_and_why(used: Sandbox) -> None:
    lines = used.cli("history", "doubled", "--last", "4").output.splitlines()
    rows = [re.split(r"  +", line) for line in lines[:-1]]
    assert rows[0] == ["time", "who", "what", "model", "version", "why"]
    assert [row[2:] for row in rows[1:]] == [
        ["rollback", "doubled", "2", "slow"],
        ["restore", "doubled", "3"],
        ["retire", "doubled", "1", "old"],
        ["promote", "doubled", "2"],
    ]
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", row[0]) and row[1].startswith("ops@") for row in rows[1:]
    )
    count = len(journal(used).read_text().splitlines())
    assert lines[-1] == f"{count} events in model_history/journal.jsonl: each follows from the one before"


def test_a_reason_stays_on_its_line_and_does_nothing_to_the_terminal(three: Sandbox) -> None:
    assert three.cli("promote", "doubled", "2", "-m", "two\nlines\x1b[31m").exit_code == 0
    assert three.cli("history", "--last", "1").output.splitlines()[1].endswith("  two\\nlines\\x1b[31m")


def test_json_has_the_whole_events(used: Sandbox) -> None:
    data = json.loads(used.cli("history", "--last", "1", "--json").output)
    (event,) = data["events"]
    assert (event["what"], event["model"], event["version"]) == ("promote", "doubled", 2)
    assert event["details"]["serves"] == {"doubled": [2]}
    assert data["breaks"] == []


def test_a_dry_run_is_no_event(used: Sandbox) -> None:
    before = journal(used).read_bytes()
    assert used.cli("promote", "doubled", "latest", "--dry-run").exit_code == 0
    assert journal(used).read_bytes() == before


def test_nothing_has_happened_yet(sandbox: Sandbox) -> None:
    assert sandbox.cli("history").output == "Nothing has happened yet.\n"


def test_an_unknown_model(used: Sandbox) -> None:
    assert "Error: doubed: is not in model_repository\n  hint: did you mean 'doubled'?" in used.error(
        "history", "doubed"
    )


def test_the_last_event_that_a_kill_cut_short_does_not_count(used: Sandbox) -> None:
    with journal(used).open("ab") as file:
        file.write(b'{"seq": ')
    assert used.cli("history").exit_code == 0
    assert used.cli("promote", "doubled", "latest").exit_code == 0
    assert used.cli("history").exit_code == 0


TAMPERED: dict[str, Callable[[list[str]], list[str]]] = {
    "an edited line": lambda lines: [lines[0], lines[1].replace("doubled", "doubted"), *lines[2:]],
    "an edited last line": lambda lines: [*lines[:-1], lines[-1].replace("doubled", "doubted")],
    "a line less": lambda lines: [lines[0], *lines[2:]],
    "the last line less": lambda lines: lines[:-1],
    "a line more": lambda lines: [*lines[:2], lines[1], *lines[2:]],
    "two lines in another order": lambda lines: [lines[1], lines[0], *lines[2:]],
    "no event": lambda lines: [lines[0], "{}", *lines[2:]],
    "no JSON": lambda lines: [lines[0], "x", *lines[2:]],
    "nothing left": lambda lines: [],
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampering_shows(used: Sandbox, case: str) -> None:
    lines = journal(used).read_text().splitlines()
    journal(used).write_text("".join(f"{line}\n" for line in TAMPERED[case](lines)))
    output = used.error("history")
    assert "Error: model_history/journal.jsonl: line " in output
    assert "hint: restore the journal from a backup" in output
    breaks = Project(used.project).history().breaks
    assert breaks
    assert f"line {breaks[0].line} {breaks[0].problem}" in output


def test_a_journal_that_is_gone_shows(used: Sandbox) -> None:
    journal(used).unlink()
    assert "line 1 is missing" in used.error("history")


def test_lines_that_are_gone_show_after_the_next_event_too(used: Sandbox) -> None:
    lines = journal(used).read_text().splitlines(keepends=True)
    journal(used).write_text("".join(lines[:-2]))
    assert used.cli("promote", "doubled", "latest").exit_code == 0
    output = used.error("history")
    assert f"ended at line {len(lines) - 2}, and the ledger knew {len(lines)} lines" in output
    assert f"line {len(lines) - 1} says that lines before it are gone" in output


def test_a_journal_that_begins_anew_says_so(used: Sandbox) -> None:
    count = len(journal(used).read_text().splitlines())
    journal(used).rename(used.root / "journal.old")
    assert used.cli("promote", "doubled", "latest").exit_code == 0
    result = used.cli("history")
    assert result.exit_code == 0
    assert f"begins anew: the one before, of {count} lines, is not here" in result.output
