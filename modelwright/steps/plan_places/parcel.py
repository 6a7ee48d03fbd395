"""A folder that goes from one machine to another: a list of its files, with their sizes and digests, is written last.

A folder without the list is incomplete: whoever made it died half-way. The list of a result names the request that it
answers, so that a result that was left over, or belongs to another request, is refused. What comes back is not
trusted: names that lead out of the folder, links, and files that the list lacks are refused, too.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from modelwright.digest import canonical, list_tree, sha256, sha256_file
from modelwright.errors import StepError
from modelwright.facts.part import DamagedError, Integer, Part, validated
from modelwright.fsops import fsync_tree, rename_durably
from modelwright.text import size

LIST = "parcel.json"
LARGEST_LIST = 10_000_000  # bytes; a result lists a few files and one for each sample
_LONGEST_NAME = 1000
_FORMAT = 1


class ParcelFile(Part):
    size_bytes: Integer
    sha256: str


class Parcel(Part):
    """The files of a folder. `answers` is the digest of the request that a result is for; "" for a request."""

    format: Integer = _FORMAT
    answers: str = ""
    files: dict[str, ParcelFile]

    @property
    def digest(self) -> str:
        return sha256(canonical(self.as_json()))


def seal(folder: Path, answers: str = "") -> Parcel:
    """List what is in a folder. The list appears by a rename, after everything else is on disk."""
    files = {name: path for name, path in list_tree(folder).items() if name != LIST}
    listed = {
        name: ParcelFile(size_bytes=path.stat().st_size, sha256=sha256_file(path)) for name, path in files.items()
    }
    parcel = Parcel(answers=answers, files=listed)
    part = folder / f".{LIST}"
    part.write_bytes(canonical(parcel.as_json()))
    fsync_tree(folder)
    rename_durably(part, folder / LIST)
    return parcel


def read_list(data: bytes, where: str) -> Parcel:
    """The list of a folder, as it came. Raises StepError where it is damaged or names what no folder may hold."""
    if len(data) > LARGEST_LIST:
        raise StepError(f"{where}: {LIST} has {size(len(data))}, expected at most {size(LARGEST_LIST)}")
    try:
        import json

        parcel = validated(Parcel, json.loads(data))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, DamagedError) else "not JSON"
        raise StepError(f"{where}: {LIST} is damaged: {reason}", "build it again") from None
    if parcel.format != _FORMAT:
        raise StepError(f"{where}: {LIST} has format {parcel.format}, expected {_FORMAT}", "build it again")
    for name, file in parcel.files.items():
        if not is_inside(name) or name == LIST or file.size_bytes < 0:
            raise StepError(f"{where}: {LIST} names {name[:100]!r}, which no result may hold", "build it again")
    return parcel


def check(folder: Path, where: str, answers: str = "") -> Parcel:
    """Check that a folder is complete, is what its list says, and answers this request. Raises StepError."""
    path = folder / LIST
    if not _is_plain(path):
        raise StepError(f"{where}: {LIST} is missing: it is incomplete", "build it again")
    with path.open("rb") as file:
        parcel = read_list(file.read(LARGEST_LIST + 1), where)
    if parcel.answers != answers:
        raise StepError(f"{where}: belongs to another request", "build it again; nothing of it was used")
    there = {name for name in list_tree(folder) if name != LIST}
    if unknown := sorted(there - set(parcel.files)):
        raise StepError(f"{where}: {unknown[0]} is not in {LIST}", "build it again")
    for name, listed in parcel.files.items():
        _check_file(folder / name, name, listed, where)
    return parcel


def is_inside(name: str) -> bool:
    """Whether this is the relative name of a file below a folder."""
    parts = name.split("/")
    return len(name) <= _LONGEST_NAME and "\0" not in name and all(part not in ("", ".", "..") for part in parts)


def _check_file(path: Path, name: str, listed: ParcelFile, where: str) -> None:
    if not _is_plain(path):
        raise StepError(f"{where}: {name} is missing, or is not a file", "build it again")
    if (found := path.stat().st_size) != listed.size_bytes:
        raise StepError(
            f"{where}: {name} is damaged: it has {found} bytes, expected {listed.size_bytes}", "build it again"
        )
    if (digest := sha256_file(path)) != listed.sha256:
        what = f"its SHA-256 is {digest[:12]}…, expected {listed.sha256[:12]}…"
        raise StepError(f"{where}: {name} is damaged: {what}", "build it again")


def _is_plain(path: Path) -> bool:
    """Whether this is a file, and no link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
