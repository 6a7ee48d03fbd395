"""The content-addressed store of artifacts: one folder a key, complete or not there.

    store/<key[:2]>/<key>/artifact.json   what the key is the digest of, the files' digests, facts, duration
                          files/…         what the step made
                          log.txt         what it printed

An artifact is put together under `store/tmp/`, flushed, and renamed into place. What a killed process leaves lies
under `tmp/` and is removed by the next build, which holds the lock.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from modelwright.digest import list_tree, parse_json, sha256_file, tree_digest
from modelwright.errors import StoreError
from modelwright.facts.part import SCHEMA, DamagedError, Facts, FactsT, JsonObject, validated
from modelwright.fsops import disk_errors, fsync_tree, read_file, remove_tree


@dataclass(frozen=True)
class Artifact:
    """The result of one step. `digest` is that of the files alone: equal files, equal digest, whatever made them."""

    key: str
    folder: Path
    digest: str
    files: dict[str, str]  # relative name → SHA-256
    facts: JsonObject  # as they are stored: `facts_as` reads them
    schema: int  # of the facts
    key_content: JsonObject  # what the key is the digest of
    duration_s: float

    def path(self, name: str) -> Path:
        return self.folder / "files" / name

    def facts_as(self, kind: type[FactsT]) -> FactsT:
        """What the step learnt. Raises StoreError for facts that are not of this type."""
        try:
            return validated(kind, self.facts if self.schema == SCHEMA else kind.from_schema_1(self.facts))
        except DamagedError as error:
            hint = "remove that folder, and build again"
            raise StoreError(f"{self.folder / 'artifact.json'}: facts: damaged: {error}", hint) from None

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._loaded: dict[str, Artifact | None] = {}

    def get(self, key: str) -> Artifact | None:
        """The artifact of a key, or None. One that is damaged, or lacks a file, is as good as none."""
        if key not in self._loaded:
            self._loaded[key] = self._read(key)
        return self._loaded[key]

    def stage(self) -> Path:
        """A new folder with `files/` in it, in which a step puts its result together."""
        folder = self.root / "tmp" / uuid.uuid4().hex
        with disk_errors(self.root):
            (folder / "files").mkdir(parents=True)
        return folder

    def add(self, staged: Path, key: str, key_content: JsonObject, facts: Facts, duration_s: float) -> Artifact:
        """Flush what a step made and move it into place under its key."""
        with disk_errors(self.root):
            files = {name: sha256_file(path) for name, path in list_tree(staged / "files").items()}
            record = {"schema": SCHEMA, "payload": key_content, "files": files, "facts": facts.as_json()}
            record["duration_s"] = round(duration_s, 3)
            (staged / "artifact.json").write_text(json.dumps(record, indent=1))
            fsync_tree(staged)
            target = self._folder(key)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.drop(key)
            staged.rename(target)
        artifact = self.get(key)
        assert artifact is not None
        return artifact

    def drop(self, key: str) -> None:
        """Forget an artifact, for instance one whose files are no longer what its record says."""
        folder = self._folder(key)
        if folder.exists():
            # A rename first: a folder half removed must not be found under its key.
            grave = self.root / "tmp" / uuid.uuid4().hex
            grave.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(grave)
            remove_tree(grave)
        self._loaded.pop(key, None)

    def check(self, artifact: Artifact) -> None:
        """Read every file again and compare. Raises StoreError, after dropping an artifact that was damaged."""
        actual = {name: sha256_file(path) for name, path in list_tree(artifact.folder / "files").items()}
        if actual != artifact.files:
            self.drop(artifact.key)
            hint = "it was dropped from the store: run the same command again to rebuild it"
            raise StoreError(f"{artifact.folder}: the files are not what the step made", hint)

    def clean(self) -> None:
        """Remove what killed processes left. Only for the holder of the build lock."""
        remove_tree(self.root / "tmp")

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key

    def _read(self, key: str) -> Artifact | None:
        folder = self._folder(key)
        try:
            record = parse_json(read_file(folder / "artifact.json"))
            files = record["files"]
            if record.get("schema", 1) > SCHEMA:  # of a newer Modelwright: made again
                return None
            # Whether each file is there; what is in it is read again before it is published (`check`).
            if not all(os.path.isfile(f"{folder}/files/{name}") for name in files):  # noqa: PTH113  (of thousands)
                return None
            return Artifact(
                key=key,
                folder=folder,
                digest=tree_digest(files),
                files=files,
                facts=record["facts"],
                schema=record.get("schema", 1),
                key_content=record["payload"],
                duration_s=record["duration_s"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
