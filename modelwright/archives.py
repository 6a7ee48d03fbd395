"""Archives that others made, zip and tar, read with care.

Every name must stay below the folder that it is unpacked into, links and devices are refused, and so is what would take
far more room than the archive does.
"""

from __future__ import annotations

import contextlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from modelwright.errors import StepError
from modelwright.fsops import open_file

# Weights hardly shrink: what grows a hundredfold and is large is no model.
_SMALL_BYTES = 256_000_000
_MOST_GROWTH = 100
_MOST_ENTRIES = 200_000
_ENCRYPTED = 0x1
_AGAIN = "copy or download it again"
_REFUSED = "do not unpack it by hand; ask whoever made it for another one"
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose names and sizes are harmless. Raises StepError, also where reading it fails in the block."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            for entry in entries:
                _check_zip_entry(entry)
            _check_names([entry.filename for entry in entries])
            _check_size(sum(entry.file_size for entry in entries), path)
            yield archive
    except _DAMAGED as error:
        raise StepError(f"{path.name}: a damaged archive: {error}", _AGAIN) from None


def check_zip(path: Path) -> None:
    """Read every entry of a zip archive, whose checksums say that they are what was written. Raises StepError."""
    with open_zip(path) as archive:
        if damaged := archive.testzip():
            raise StepError(f"{path.name}: '{damaged}' in it is damaged: its checksum is wrong", _AGAIN)


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip, tar or tar.gz archive into a folder. Raises StepError; the folder may then hold a part."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open_file(path) as file:
            is_zip = zipfile.is_zipfile(file)
        if is_zip:
            with open_zip(path) as archive:
                for entry in archive.infolist():
                    _write(folder, entry.filename, None if entry.is_dir() else archive.open(entry))
        else:
            _unpack_tar(path, folder)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise StepError(f"{path.name}: two entries need the same place: {Path(error.filename).name}", _AGAIN) from None


def _unpack_tar(path: Path, folder: Path) -> None:
    total, names = 0, []
    try:
        with open_file(path) as opened, tarfile.open(fileobj=opened) as archive:
            for member in archive:
                if not (member.isreg() or member.isdir()):
                    raise StepError(f"{path.name}: '{member.name}' is a link or a device", _REFUSED)
                names.append(member.name)
                _check_names(names[-1:])
                total += member.size
                _check_size(total, path)
                _write(folder, member.name, archive.extractfile(member))
        _check_names(names)
    except tarfile.ReadError as error:
        reason = str(error).partition(":")[0] if names else "it is no zip or tar archive, or not all of one"
        raise StepError(f"{path.name}: a damaged archive: {reason}", _AGAIN) from None
    except _DAMAGED as error:
        raise StepError(f"{path.name}: a damaged archive: {error}", _AGAIN) from None


def _write(folder: Path, name: str, source: IO[bytes] | None) -> None:
    """`source` is None for a folder."""
    target = folder / name
    if source is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file)


def _check_zip_entry(entry: zipfile.ZipInfo) -> None:
    mode = entry.external_attr >> 16
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
        raise StepError(f"'{entry.filename}' in the archive is a link or a device", _REFUSED)
    if entry.flag_bits & _ENCRYPTED:
        raise StepError(f"'{entry.filename}' in the archive is encrypted", "unpack it, and pack it without a password")


def _check_names(names: list[str]) -> None:
    if len(names) > _MOST_ENTRIES:
        raise StepError(f"the archive has {len(names):,} entries, at most {_MOST_ENTRIES:,} are read", _REFUSED)
    seen: set[str] = set()
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or parts[0].endswith(":"):
            raise StepError(f"'{name}' in the archive leaves the folder that it is unpacked into", _REFUSED)
        if name in seen:
            raise StepError(f"the archive has two entries named '{name}'", _REFUSED)
        seen.add(name)


def _check_size(total: int, path: Path) -> None:
    size = path.stat().st_size
    if total > max(_SMALL_BYTES, _MOST_GROWTH * size):
        what = f"{path.name}: {size:,} bytes that would unpack to {total:,} or more"
        raise StepError(f"{what}: no model shrinks like that", _REFUSED)
