"""Carries remedies out: each file by one rename, the journal first. What was in a file's place is kept aside."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from modelwright.digest import sha256, sha256_file
from modelwright.errors import ModelwrightError, RepositoryError
from modelwright.facts.part import JsonObject
from modelwright.project.project import ProjectConfig
from modelwright.remotes.place import place_of
from modelwright.remotes.store import open_store
from modelwright.repair.damage import Action, Damage
from modelwright.repair.ledger import rebuilt_ledger
from modelwright.repository.manifest import read
from modelwright.repository.mend import put_file, put_version, set_aside
from modelwright.repository.recorded import record, recorded
from modelwright.repository.repository import Change, Repository
from modelwright.triton.layout import LEDGER, MANIFEST


class Repairs:
    """Repairs one after the other. Only for the holder of the build lock.

    `aside` is where what is replaced or removed goes. `failed` has the damages that could not be repaired after all.
    """

    def __init__(self, project: ProjectConfig, repository: Repository, why: str) -> None:
        self._project = project
        self._repository = repository
        self._why = why
        self._time = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        self.failed: dict[Path, ModelwrightError] = {}

    @property
    def aside(self) -> Path:
        return self._repository.damaged / self._time

    def run(self, damages: Sequence[Damage]) -> list[Damage]:
        """Those that were repaired."""
        done = []
        for damage in sorted(damages, key=_order):
            if damage.remedy is None or damage.remedy.action is Action.BUILD:
                continue
            try:
                self._repair(damage)
            except ModelwrightError as error:
                self.failed[damage.place] = error
            else:
                done.append(damage)
        self._repository.reserve()  # the ledger knows the journal's last line
        return done

    def _repair(self, damage: Damage) -> None:
        repository, remedy = self._repository, damage.remedy
        assert remedy is not None
        if remedy.action is Action.CLEAN:
            repository.clean()
        elif damage.place == repository.journal.file:
            self._begin_journal()
        elif damage.place.name == LEDGER:
            ledger = rebuilt_ledger(repository, recorded(repository.journal.read()[0]))
            if damage.place.exists():
                set_aside(damage.place, self._kept(damage.place))
            repository.write_ledger(ledger)
            with contextlib.suppress(RepositoryError):  # a journal whose last line is damaged: a new one begins next
                self._tell(damage)
        elif damage.kind == "twice":
            self._tell(damage)
            repository.remove_retired(damage.model, damage.version or 0)
        elif remedy.action is Action.WRITE and damage.version is not None:
            self._tell(damage)
            repository.publish(Change(damage.model, restore=(damage.version,)))
        elif remedy.action is Action.WRITE:
            assert remedy.data is not None
            self._tell(damage, {"top": {damage.name: sha256(remedy.data)}})
            repository.publish(Change(damage.model, top_files={damage.name: remedy.data}))
        elif remedy.action is Action.REMOVE:
            self._tell(damage, {"top": {damage.name: None}} if damage.version is None else {})
            set_aside(damage.place, self._kept(damage.place))
        elif not damage.name:
            files = remedy.files or self._fetched_version(damage)
            self._tell(damage)
            put_version(repository, damage.model, damage.version or 0, files)
        else:
            source = remedy.path or self._fetched(damage, damage.name, damage.expected)
            self._tell(damage)
            put_file(repository, damage.place, source, self._kept(damage.place))

    def _begin_journal(self) -> None:
        """A journal with a break is kept, and a new one begins with what is there."""
        place = self._repository.journal.file
        if place.exists():
            kept = self._kept(place)
            broken = sha256_file(place)
            set_aside(place, kept)
            why = self._why or "the journal was damaged"
            self._repository.journal.append("begin", why=why, details={"broken": broken, "kept": self._shown(kept)})
            record(self._repository, why=why)

    def _fetched_version(self, damage: Damage) -> dict[str, Path]:
        """A whole version from a remote: its manifest first, which says what else there is."""
        files = {MANIFEST: self._fetched(damage, MANIFEST, damage.expected)}
        manifest = read(files[MANIFEST])
        for name, entry in manifest.files.items() if manifest else ():
            files[name] = self._fetched(damage, name, entry.sha256)
        return files

    def _fetched(self, damage: Damage, name: str, expected: str) -> Path:
        """A file from a remote. Raises the last remote's error where none of them has it as it was published."""
        assert damage.remedy is not None
        error: ModelwrightError = RepositoryError(f"{self._shown(damage.place)}: no remote is known")
        for url in damage.remedy.urls:
            try:
                return self._fetch(url, f"{damage.model}/{damage.version}/{name}", expected)
            except ModelwrightError as problem:
                error = problem
        raise error

    def _fetch(self, url: str, name: str, expected: str) -> Path:
        target = self._repository.staging / uuid.uuid4().hex
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = open_store(place_of(url)).fetch(name, target)
        if expected and digest != expected:
            raise RepositoryError(f"{url}: {name} is not what was published, either")
        return target

    def _tell(self, damage: Damage, details: JsonObject | None = None) -> None:
        assert damage.remedy is not None
        told: JsonObject = {
            "file": self._shown(damage.place),
            "problem": damage.problem,
            "repair": damage.remedy.says,
            **(details or {}),
        }
        self._repository.journal.append("repair", damage.model, damage.version, why=self._why, details=told)

    def _shown(self, path: Path) -> str:
        return self._project.shown(path)

    def _kept(self, place: Path) -> Path:
        """Where what is in a file's place goes."""
        for base in (self._repository.root, self._repository.history):
            if place.is_relative_to(base):
                return self.aside / base.name / place.relative_to(base)
        return self.aside / place.name


def _order(damage: Damage) -> tuple[int, str]:
    """The ledger first, without which nothing can be told; the journal, where repairs are told; a manifest before the
    files that it names; what is served last."""
    if damage.place.name == LEDGER:
        return 0, str(damage.place)
    if damage.kind == "journal":
        return 1, ""
    if damage.kind in ("config", "twice") or (damage.kind == "missing" and not damage.name):
        return 4, str(damage.place)
    return (2 if damage.name == MANIFEST else 3), str(damage.place)
