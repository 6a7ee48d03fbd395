"""Folders that cross machines: sealed, checked, packed and unpacked."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.errors import StepError
from modelwright.steps.plan_places.archive import pack, packed_size, unpack
from modelwright.steps.plan_places.parcel import LIST, check, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "result"
    (made / "answers").mkdir(parents=True)
    (made / "model.plan").write_bytes(b"ftrt" * 100)
    (made / "answers/00000.npz").write_bytes(b"")
    (made / "onnx::MatMul_1 (2)").write_bytes(b"weights may have any name")
    return made


def test_a_sealed_folder_is_what_it_was(folder: Path) -> None:
    sealed = seal(folder, "digest of a request")
    found = check(folder, "here", "digest of a request")
    assert found == sealed
    assert found.files.keys() == {"model.plan", "answers/00000.npz", "onnx::MatMul_1 (2)"}
    assert found.digest == sealed.digest


def test_without_its_list_a_folder_is_incomplete(folder: Path) -> None:
    with pytest.raises(StepError, match=r"here: parcel.json is missing: it is incomplete"):
        check(folder, "here")


def grow(folder: Path) -> None:
    (folder / "model.plan").write_bytes(b"ftrt" * 101)


def change(folder: Path) -> None:
    (folder / "model.plan").write_bytes(b"FTRT" * 100)


def link(folder: Path) -> None:
    (folder / "model.plan").rename(folder.parent / "elsewhere")
    (folder / "model.plan").symlink_to(folder.parent / "elsewhere")


def rewrite(text: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        (folder / LIST).write_text(text)

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "model.plan").unlink(), "model.plan is missing, or is not a file"),
        (grow, "model.plan is damaged: it has 404 bytes, expected 400"),
        (change, "model.plan is damaged: its SHA-256 is "),
        (link, "model.plan is missing, or is not a file"),
        (lambda folder: (folder / "more").write_text("x"), "more is not in parcel.json"),
        (rewrite("{"), "parcel.json is damaged: not JSON"),
        (rewrite("[" * 10**6), "parcel.json is damaged: not JSON"),
        (rewrite("{}"), "parcel.json is damaged: files: missing"),
        (rewrite('{"format": 2, "files": {}}'), "parcel.json has format 2, expected 1"),
        (rewrite('{"files": {"../up": {"size_bytes": 1, "sha256": ""}}}'), "parcel.json names '../up', which no result may hold"),
        (rewrite('{"files": {"/etc/x": {"size_bytes": 1, "sha256": ""}}}'), "parcel.json names '/etc/x', which no result may hold"),
        (rewrite('{"files": {"a//b": {"size_bytes": 1, "sha256": ""}}}'), "parcel.json names 'a//b'"),
        (rewrite('{"files": {"a": {"size_bytes": -1, "sha256": ""}}}'), "parcel.json names 'a', which no result may hold"),
        (rewrite('{"files": {}, "answers": "another"}'), "belongs to another request"),
        (rewrite(" " * 10_000_001), "parcel.json has 10.0 MB, expected at most 10.0 MB"),
    ],
    ids=[
        "gone", "longer", "other bytes", "a link", "a file more", "cut short", "deep", "no files", "a later format", "up",
        "absolute", "no name", "negative", "another request", "huge",
    ],
)  # fmt: skip
def test_what_is_not_as_it_was_sealed_is_refused(folder: Path, harm: Callable[[Path], None], message: str) -> None:
    seal(folder)
    harm(folder)
    with pytest.raises(StepError, match=f"here: {message}"):
        check(folder, "here")


# --- one stream -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(), (0,), (1, 511, 512, 513), (10240,), (9216,), (8704, 100)])
def test_the_length_of_an_archive_is_known_before_it_is_packed(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    files = {}
    for number, size in enumerate(sizes):
        path = tmp_path / str(number)
        path.write_bytes(b"x" * size)
        files[f"{'long' * 40}/{number}"] = path
    packed = io.BytesIO()
    pack(files, packed)
    assert len(packed.getvalue()) == packed_size(files)
    packed.seek(0)
    unpack(packed, tmp_path / "out", "here")
    assert {name: (tmp_path / "out" / name).stat().st_size for name in files} == dict(zip(files, sizes, strict=True))


def archive(*entries: tarfile.TarInfo) -> io.BytesIO:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as made:
        for entry in entries:
            made.addfile(entry, io.BytesIO(b"x" * entry.size))
    target.seek(0)
    return target


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.linkname = target
    made.size = 3 if kind == tarfile.REGTYPE else 0
    return made


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([entry("../up")], "holds '../up', which no result may hold"),
        ([entry("/etc/passwd")], "holds '/etc/passwd'"),
        ([entry("a", tarfile.SYMTYPE, "/etc/passwd")], "holds 'a'"),
        ([entry("a", tarfile.LNKTYPE, "/etc/passwd")], "holds 'a'"),
        ([entry("a", tarfile.FIFOTYPE)], "holds 'a'"),
        ([entry("a"), entry("a")], "cannot be unpacked"),
        ([entry("a"), entry("a/b")], "cannot be unpacked"),
    ],
    ids=["up", "absolute", "link", "hard link", "pipe", "twice", "a file as a folder"],
)
def test_an_archive_holds_plain_files_alone(tmp_path: Path, sent: list[tarfile.TarInfo], message: str) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError, match=f"here: {message}"):
        unpack(archive(*sent), tmp_path / "out", "here")
    assert not (tmp_path / "up").exists()


def test_an_archive_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError, match="cannot be unpacked"):
        unpack(io.BytesIO(archive(entry("a")).getvalue()[:513]), tmp_path / "out", "here")
