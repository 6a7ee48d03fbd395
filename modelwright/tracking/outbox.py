"""Records that no registry has yet: one folder each, in .modelwright/tracking/outbox.

    <uid>/record.json      what the run says
          files/…          its artifacts
          version/…        the files of its version, which are logged where it is registered

A record is put together beside the others and renamed into place. It leaves when the registry has it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from modelwright.digest import parse_json
from modelwright.facts.part import DamagedError, validated
from modelwright.fsops import disk_errors, read_file, remove_tree
from modelwright.tracking.record import BuildRecord

_RECORD, _FILES, _VERSION = "record.json", "files", "version"


def new_uid() -> str:
    """Sorts by time."""
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Outbox:
    folder: Path

    @classmethod
    def of(cls, state: Path) -> Outbox:
        """`state` is the project's .modelwright."""
        return cls(state / "tracking" / "outbox")

    def put(
        self,
        record: BuildRecord,
        files: Mapping[str, bytes | Path],
        version: Mapping[str, bytes | Path] = MappingProxyType({}),
    ) -> None:
        """Add a record with its artifacts, and the files of its version: name → content, or the file to copy."""
        staged = self.folder / f".{record.uid}"
        with disk_errors(self.folder):
            for folder, contents in ((_FILES, files), (_VERSION, version)):
                (staged / folder).mkdir(parents=True)
                for name, content in contents.items():
                    _write(staged / folder / name, content)
            (staged / _RECORD).write_text(json.dumps(record.as_json()))
            staged.rename(self.folder / record.uid)

    def waiting(self) -> list[BuildRecord]:
        """Oldest first. One that is damaged is removed: what it told is in the repository."""
        found = []
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if folder.name.startswith("."):
                continue
            try:
                found.append(validated(BuildRecord, parse_json(read_file(folder / _RECORD))))
            except (OSError, ValueError, DamagedError):
                remove_tree(folder)
        return found

    def files(self, record: BuildRecord) -> Path:
        return self.folder / record.uid / _FILES

    def version(self, record: BuildRecord) -> Path:
        """Empty where the record comes without them."""
        return self.folder / record.uid / _VERSION

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def remove(self, uid: str) -> None:
        remove_tree(self.folder / uid)

    def clean(self) -> None:
        """Remove what a killed build left half written. Only for the holder of the build lock."""
        for folder in self.folder.glob(".*"):
            remove_tree(folder)


def _write(target: Path, content: bytes | Path) -> None:
    """Files are linked where that goes: those of a version are never changed, and can be large."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
        return
    try:
        os.link(content, target)
    except OSError:  # of another file system, or one without links
        shutil.copyfile(content, target)
