"""What a project remembers of its remotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.errors import RepositoryError
from modelwright.remotes.record import RECORD, Copy, copies, read_record, write_record

URL, OTHER = "s3://bucket/models", "file:///srv/models"


def test_a_record_names_the_remotes_of_a_version(tmp_path: Path) -> None:
    write_record(tmp_path / "history", URL, {"digits": {3: "abc"}})
    write_record(tmp_path / "history", OTHER, {"digits": {2: "ab", 3: "abc"}})
    assert copies(tmp_path / "history") == {
        ("digits", 2): [Copy(OTHER, "ab")],
        ("digits", 3): [Copy(OTHER, "abc"), Copy(URL, "abc")],
    }


def test_while_a_push_runs_the_old_versions_stay_noted(tmp_path: Path) -> None:
    write_record(tmp_path, URL, {"digits": {3: "abc"}, "gone": {1: "x"}})
    write_record(tmp_path, URL, {"digits": {4: "abcd"}}, keep_old=True)
    assert set(copies(tmp_path)) == {("digits", 3), ("digits", 4), ("gone", 1)}
    write_record(tmp_path, URL, {"digits": {4: "abcd"}})
    assert set(copies(tmp_path)) == {("digits", 4)}


def test_without_a_push_there_is_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"s3://b": {"models": {}}}', '{"s3://b": {"time": "x"}}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(RepositoryError, match=r"remotes\.json: cannot be read"):
        read_record(tmp_path)
