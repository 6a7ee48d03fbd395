"""Reading files that others put there: never a wait, and never more bytes than asked for."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright import fsops
from modelwright.digest import sha256_file
from modelwright.fsops import TooLargeError, is_full, log_file, open_file, read_file, read_text, write_cache


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def _link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("p"))
    path.symlink_to("p")


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a pipe": _link_to_pipe,
    "the log of the kernel": lambda path: path.symlink_to("/proc/kmsg"),  # a regular file where reading waits
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_regular_file_is_an_error_and_not_a_wait(kind: str, tmp_path: Path) -> None:
    UNREADABLE[kind](tmp_path / "f")
    with pytest.raises(OSError):  # noqa: PT011  which one depends on the kind
        read_file(tmp_path / "f", 10**9)
    with pytest.raises(OSError):  # noqa: PT011
        sha256_file(tmp_path / "f")


def test_a_pipe_that_takes_a_files_place_before_it_is_open_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "f")
    (tmp_path / "other").write_bytes(b"x")
    before = (tmp_path / "other").stat()
    monkeypatch.setattr(fsops, "_check_regular", Swapped(fsops._check_regular, before.st_mode))
    with pytest.raises(OSError, match="not a regular file"):
        read_file(tmp_path / "f", 10)


class Swapped:
    """Sees a regular file at the first look, and what is there at the second."""

    def __init__(self, check: Callable[[int, Path], None], first: int) -> None:
        self.check, self.modes = check, [first]

    def __call__(self, mode: int, path: Path) -> None:
        assert stat.S_ISFIFO(mode)
        self.check(self.modes.pop() if self.modes else mode, path)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_file(tmp_path / "f", 5) == b"12345"
    with pytest.raises(TooLargeError, match="more than 4 bytes"):
        read_file(tmp_path / "f", 4)
    with pytest.raises(TooLargeError, match="more than 100 bytes"):
        read_file(Path("/proc/self/smaps"), 100)  # says that it has 0


def test_files_under_proc_are_read_whole() -> None:
    assert read_file(Path("/proc/self/smaps"), 10**8).count(b"\n") > 100
    with open_file(Path("/proc/self/smaps")) as file:
        assert file.read().count(b"\n") > 100


def test_a_text_has_the_line_ends_of_python(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("é\r\nb\rc\n".encode())
    assert read_text(tmp_path / "f") == (tmp_path / "f").read_text(encoding="utf-8") == "é\nb\nc\n"
    (tmp_path / "f").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "f")
    assert read_text(tmp_path / "f", errors="replace") == "\N{REPLACEMENT CHARACTER}"


def test_a_log_goes_elsewhere_where_its_place_takes_nothing(tmp_path: Path) -> None:
    assert log_file(tmp_path / "logs/x.log") == tmp_path / "logs/x.log"
    (tmp_path / "file").write_text("")
    elsewhere = log_file(tmp_path / "file/x.log")
    assert elsewhere.name == "x.log"
    assert elsewhere.parent.is_dir()
    assert not is_full(tmp_path / "not/there")


def test_a_cache_that_cannot_be_saved_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    write_cache(tmp_path / "file/cache.json", "{}")
    write_cache(tmp_path / "cache.json", "{}")
    assert (tmp_path / "cache.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.json", "file"]
