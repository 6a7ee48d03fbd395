"""A folder as one stream of bytes whose length is known before the first: a tar of plain files."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Literal

from modelwright.errors import StepError
from modelwright.steps.plan_places.parcel import is_inside

_FORMAT: Literal[1] = 1  # tarfile.GNU_FORMAT: files may have more than 8 GiB


def _entries(files: Mapping[str, Path]) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    for name, path in files.items():
        entry = tarfile.TarInfo(name)
        entry.size = path.stat().st_size
        yield entry, path


def packed_size(files: Mapping[str, Path]) -> int:
    """How many bytes `pack` writes."""
    blocks = sum(
        len(entry.tobuf(_FORMAT)) + -(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        for entry, _ in _entries(files)
    )
    ended = blocks + 2 * tarfile.BLOCKSIZE
    return -(-ended // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def pack(files: Mapping[str, Path], target: IO[bytes]) -> None:
    """Write files, by the names that they get, in this order."""
    with tarfile.open(fileobj=target, mode="w|", format=_FORMAT) as archive:
        for entry, path in _entries(files):
            with path.open("rb") as file:
                archive.addfile(entry, file)


def unpack(source: IO[bytes], folder: Path, where: str) -> None:
    """Unpack an archive that somebody else made. Raises StepError for anything but plain files with plain names."""
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for entry in archive:
                if entry.isdir():
                    continue
                name = entry.name.removeprefix("./")
                data = archive.extractfile(entry) if is_inside(name) and entry.isreg() else None
                if data is None:
                    raise StepError(f"{where}: holds {entry.name[:100]!r}, which no result may hold", "build it again")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(data, file)
    except (tarfile.TarError, FileExistsError, NotADirectoryError, EOFError) as error:
        raise StepError(f"{where}: cannot be unpacked: {error}", "build it again") from None
