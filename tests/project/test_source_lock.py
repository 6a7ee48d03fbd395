"""source.lock: read as it was written, and refused where it is damaged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelwright.errors import SpecError
from modelwright.project.source_lock import (
    LockedFile,
    SourceLock,
    SourceLockNeededError,
    parse_source_lock,
    read_source_lock,
    source_lock_text,
)

A, B = "a" * 64, "b" * 64
FOLDER = SourceLock(
    "s3://bucket/net", "s3://bucket/net", {"w/1.bin": LockedFile(A, 5), "a b.json": LockedFile(B, 0)}, True
)
ALIAS = SourceLock("models:/m@live", "models:/m/3", {"MLmodel": LockedFile(A, 1)}, True, {"version": "3"})
TEXT = source_lock_text([FOLDER, ALIAS])


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert parse_source_lock(TEXT, "source.lock") == {lock.uri: lock for lock in (FOLDER, ALIAS)}
    assert source_lock_text([ALIAS, FOLDER]) == TEXT
    (tmp_path / "source.lock").write_text(TEXT)
    assert read_source_lock(tmp_path, "builders/m", ALIAS.uri) == ALIAS
    with pytest.raises(SourceLockNeededError, match=r"builders/m/source.lock: does not have s3://other"):
        read_source_lock(tmp_path, "builders/m", "s3://other")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("w/1.bin", "../1.bin", "'../1.bin' is no name of a file in a folder"),
        ("w/1.bin", "/etc/passwd", "'/etc/passwd' is no name"),
        ("w/1.bin", "a b.json", "or there twice: file: "),
        (A, A[1:], "not a line of such a file"),
        ("models:/m@live", "s3://bucket/net", "s3://bucket/net is there twice"),
        ("resolved: s3://bucket/net\n", "", "a URI, what it was resolved to and its files are needed"),
        ("folder: yes", "folder: no", "a URI, what it was resolved to and its files are needed"),
        (f"file: {A} 1 MLmodel", "", "a URI, what it was resolved to and its files are needed"),
    ],
)
def test_a_damaged_one_is_refused_with_its_line(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(SpecError, match=rf"^m/source.lock:\d+: damaged: .*{re.escape(message)}"):
        parse_source_lock(TEXT.replace(old, new), "m/source.lock")
