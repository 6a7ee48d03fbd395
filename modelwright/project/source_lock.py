"""source.lock, beside a model.yaml: what its URIs stood for when they were resolved, file by file.

    uri: s3://bucket/models/net
    resolved: s3://bucket/models/net
    folder: yes
    file: 9f86d081884c7d65… 1048576 config.json
    file: 60303ae22b998861… 90868376 weights/model.safetensors

    uri: models:/digits@champion
    resolved: models:/digits/3
    …

`modelwright lock` writes it, `modelwright update NAME` takes what is there now, and a build writes one that is missing.
It belongs into version control. Planning reads it, and never the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from modelwright.errors import SpecError
from modelwright.fsops import read_text
from modelwright.project.lockfile import LockNeededError

FILE = "source.lock"
MOST_FILES = 10_000

_HEAD = """\
# What the URIs in model.yaml stand for, by SHA-256 and size. `modelwright update NAME` takes what is there now, and
# writes this file again.
"""
_FIELD = re.compile(r"(uri|resolved|folder): (\S.*)")
_DETAIL = re.compile(r"detail: ([a-z_]+) = (.+)")
_ENTRY = re.compile(r"file: ([0-9a-f]{64}) (0|[1-9][0-9]{0,15}) (\S.*)")


@dataclass(frozen=True)
class LockedFile:
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class SourceLock:
    """What a URI was resolved to."""

    uri: str  # as model.yaml has it
    resolved: str  # where the files are: the same URI, or what an alias stands for
    files: Mapping[str, LockedFile]  # by path below the folder; of a file its name, and what lies beside it
    is_folder: bool = False
    details: Mapping[str, str] = field(default_factory=dict)  # what else is known: {"version": "3"}

    @property
    def digests(self) -> dict[str, str]:
        return {name: file.sha256 for name, file in self.files.items()}

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


class SourceLockNeededError(LockNeededError):
    """A URI in model.yaml that source.lock does not have."""


def check_file_name(name: str) -> None:
    """Raise ValueError for the name of a file that would lie elsewhere than below its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or "\\" in name or not name.isprintable():
        raise ValueError(f"'{name}' is no name of a file in a folder")


def source_lock_text(locks: Iterable[SourceLock]) -> str:
    """The file's content."""
    blocks = []
    for lock in sorted(locks, key=lambda item: item.uri):
        lines = [f"uri: {lock.uri}", f"resolved: {lock.resolved}"]
        lines += ["folder: yes"] if lock.is_folder else []
        lines += [f"detail: {name} = {' '.join(value.split())}" for name, value in sorted(lock.details.items())]
        lines += [f"file: {item.sha256} {item.size_bytes} {name}" for name, item in sorted(lock.files.items())]
        blocks.append("".join(f"{line}\n" for line in lines))
    return "\n".join([_HEAD, *blocks])


def parse_source_lock(text: str, shown: str) -> dict[str, SourceLock]:
    """{URI: what it stands for}; `shown` is how messages call the file. Raises SpecError for a damaged one."""
    found: dict[str, SourceLock] = {}
    for number, block in _blocks(text):
        lock = _lock(block, number, shown)
        if lock.uri in found:
            raise _damaged(shown, number, f"{lock.uri} is there twice")
        found[lock.uri] = lock
    return found


def _blocks(text: str) -> list[tuple[int, list[str]]]:
    """(number of its first line, its lines) of each part between blank lines, without comments."""
    blocks: list[tuple[int, list[str]]] = []
    previous_blank = True
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("#"):
            continue
        if line and previous_blank:
            blocks.append((number, []))
        if line:
            blocks[-1][1].append(line)
        previous_blank = not line
    return blocks


def _lock(lines: list[str], first: int, shown: str) -> SourceLock:
    fields: dict[str, str] = {}
    details: dict[str, str] = {}
    files: dict[str, LockedFile] = {}
    for number, line in enumerate(lines, start=first):
        if (found := _FIELD.fullmatch(line)) and found[1] not in fields:
            fields[found[1]] = found[2]
        elif (found := _DETAIL.fullmatch(line)) and found[1] not in details:
            details[found[1]] = found[2]
        elif (found := _ENTRY.fullmatch(line)) and found[3] not in files:
            try:
                check_file_name(found[3])
            except ValueError as error:
                raise _damaged(shown, number, str(error)) from None
            files[found[3]] = LockedFile(found[1], int(found[2]))
        else:
            raise _damaged(shown, number, f"not a line of such a file, or there twice: {line[:80]}")
    if "uri" not in fields or "resolved" not in fields or not files or fields.get("folder", "yes") != "yes":
        raise _damaged(shown, first, "a URI, what it was resolved to and its files are needed")
    return SourceLock(fields["uri"], fields["resolved"], files, "folder" in fields, details)


def read_source_locks(folder: Path, shown: str) -> dict[str, SourceLock]:
    """All that the source.lock of a builder's folder has; nothing where there is none. `shown` is how messages call
    the folder. Raises SpecError for one that is damaged."""
    try:
        text = read_text(folder / FILE)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{shown}/{FILE}: cannot be read: {error}", _HINT) from None
    return parse_source_lock(text, f"{shown}/{FILE}")


def read_source_lock(folder: Path, shown: str, uri: str) -> SourceLock:
    """What a URI was resolved to. Raises SourceLockNeededError where the lock does not have it, SpecError where it is
    damaged."""
    found = read_source_locks(folder, shown).get(uri)
    if found is None:
        hint = f"modelwright lock {folder.name} writes it; then commit it"
        raise SourceLockNeededError(f"{shown}/{FILE}: does not have {uri}, which model.yaml names", hint)
    return found


_HINT = "take it back from version control; or modelwright update takes what is there now"


def _damaged(shown: str, line: int, reason: str) -> SpecError:
    return SpecError(f"{shown}:{line}: damaged: {reason}", _HINT)
