"""Archives of others: harmless ones are unpacked, and nothing of the others is."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from modelwright import archives
from modelwright.errors import StepError


def zipped(path: Path, *entries: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in entries:
            archive.writestr(entry, content)
    return path


def tarred(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 1, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_zip_and_tar_are_unpacked(tmp_path: Path) -> None:
    archives.unpack(zipped(tmp_path / "a.mar", "a/b.txt", "c.txt"), tmp_path / "one")
    archives.unpack(tarred(tmp_path / "a.tar.gz", member("a/b.txt"), member("c.txt")), tmp_path / "two")
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.txt")} == {"a/b.txt", "c.txt"}
        assert (folder / "a/b.txt").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", "a\\..\\b", "C:/a"])
def test_a_name_that_leaves_the_folder(name: str, tmp_path: Path) -> None:
    for archive in (zipped(tmp_path / "a.zip", "good", name), tarred(tmp_path / "a.tar.gz", member(name))):
        with pytest.raises(StepError, match="leaves the folder that it is unpacked into"):
            archives.unpack(archive, tmp_path / "in" / "out")
    assert not (tmp_path / "in" / "a").exists()


def test_links_and_devices(tmp_path: Path) -> None:
    found = [
        zipped(tmp_path / "a.zip", link("a"), content=b"/etc/passwd"),
        tarred(tmp_path / "a.tar", member("a", tarfile.SYMTYPE, 0, "/etc/passwd")),
        tarred(tmp_path / "b.tar", member("a", tarfile.LNKTYPE, 0, "/etc/passwd")),
        tarred(tmp_path / "c.tar", member("a", tarfile.CHRTYPE, 0)),
    ]
    for archive in found:
        with pytest.raises(StepError, match=r"'a'.* is a link or a device"):
            archives.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()


def test_what_would_grow_out_of_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_SMALL_BYTES", 1000)
    bombs = [
        zipped(tmp_path / "a.zip", "a", content=bytes(1_000_000)),
        tarred(tmp_path / "a.tar.gz", member("a", size=1_000_000)),
    ]
    for archive in bombs:
        with pytest.raises(StepError, match="no model shrinks like that"):
            archives.unpack(archive, tmp_path / "out")
        assert not (tmp_path / "out" / "a").exists()


def test_damaged_ones(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", "a", content=bytes(range(256)) * 40).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:200])
    with pytest.raises(StepError, match=r"cut.zip: a damaged archive"):
        archives.unpack(tmp_path / "cut.zip", tmp_path / "out")
    (tmp_path / "flipped.zip").write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    with pytest.raises(StepError, match="damaged"):
        archives.check_zip(tmp_path / "flipped.zip")
    with pytest.raises(StepError, match="two entries need the same place"):
        archives.unpack(zipped(tmp_path / "b.zip", "a", "a/b"), tmp_path / "both")
