"""The only writer of model_repository/.

    model_repository/
      modelwright.json            the ledger: the highest version number each model ever had; and what was published
                                  under numbers that were not given out here. A file at the root, which Triton does not
                                  look at (every folder there, it does)
      <model>/config.pbtxt        and labels, configs/, warmup/, initial_state/: the model's top files (model_files.py)
      <model>/<N>/                a version: never changed, its number never used twice
      <model>/<N>/manifest.json   what it is: files, lineage, verification
      <model>/<N>/golden.npz      inputs and the outputs they must give
      <model>/<N>/config.pbtxt    the config as it was published with the version
    model_history/
      journal.jsonl               what happened (journal.py)
      retired/<model>/<N>/        versions that left the repository, under their numbers
      modelwright.json            a copy of the ledger
      records/<model>/<N>/        copies of what was made when a version was published: manifest, signature, …
      damaged/<time>/…            what a repair replaced or took away

Whatever a publish changes becomes visible in one rename, so that a process killed at any instant leaves the model as it
was or as it is to be: a version's folder; or a config, which says what is served, after the versions that it names came
in and before those leave that it no longer names; or, where other files beside the versions change, the model's whole
folder. Everything is put together outside, in the staging folder, and flushed first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelwright.config.edit import served_by, with_versions
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import ConfigError, RepositoryError
from modelwright.fsops import disk_errors, exchange, fsync_path, fsync_tree, read_text, remove_tree, rename_durably
from modelwright.project.project import ProjectConfig
from modelwright.project.signing import Signing
from modelwright.repository.journal import Journal
from modelwright.repository.ledger import Ledger, ServingState, read_ledger
from modelwright.repository.manifest import Manifest, read
from modelwright.repository.records import keep_record
from modelwright.triton.layout import (
    CONFIG,
    CONFIGS,
    LEDGER,
    MANIFEST,
    SIGNATURE,
    environment_config,
    environment_of,
    version_number,
)

_RETIRED = "retired"
_HISTORY = "model_history"
_DAMAGED = "damaged"


@dataclass(frozen=True)
class Change:
    """What one publish does to one model: versions that come or leave, top files to replace or remove, or all of it."""

    model: str
    version: int | None = None
    version_files: Mapping[str, Path] = field(default_factory=dict)  # relative name → where to copy it from
    manifest: Manifest | None = None  # of the version
    top_files: Mapping[str, bytes | None] = field(default_factory=dict)  # name, with '/' in folders; None: remove it
    top_copies: Mapping[str, Path] = field(default_factory=dict)  # the same, copied: files of any size
    more: tuple[Change, ...] = ()  # further versions of the model, that go out with this one
    retire: tuple[int, ...] = ()  # versions that leave the repository
    restore: tuple[int, ...] = ()  # retired versions that come back
    version_data: Mapping[str, bytes] = field(default_factory=dict)  # files of the version that are made with it
    sign: bool = False  # whether it was made here, so that it is signed here

    @property
    def versions(self) -> list[Change]:
        return [change for change in (self, *self.more) if change.version is not None]

    @property
    def top_names(self) -> set[str]:
        return {*self.top_files, *self.top_copies}


class Repository:
    def __init__(self, root: Path, staging: Path, history: Path | None = None, signing: Signing | None = None) -> None:
        self.root = root
        self.staging = staging
        self.signing = signing or Signing()
        self.history = history or root.parent / _HISTORY
        self.journal = Journal(self.history, lambda: self.ledger().journal)
        self._manifests: dict[tuple[str, int, Path], Manifest] = {}  # a published version never changes

    @classmethod
    def of(cls, project: ProjectConfig) -> Repository:
        return cls(project.repository, project.staging, project.history, project.signing)

    # --- reading ------------------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    def known_models(self) -> list[str]:
        """The models that have a folder here, or retired versions."""
        return sorted({*self.models(), *self.retired_models()})

    def versions(self, model: str) -> list[int]:
        """Its versions, lowest first: folders that are named by a plain number."""
        return _numbers(self.root / model)

    def retired(self, model: str) -> list[int]:
        """Its versions that left the repository and are kept, lowest first."""
        live = set(self.versions(model))  # one that is in both places was copied back by hand: the live one counts
        return [number for number in _numbers(self.retired_root / model) if number not in live]

    @property
    def retired_root(self) -> Path:
        """Where retired versions lie: `<model>/<N>/`."""
        return self.history / _RETIRED

    def retired_models(self) -> list[str]:
        """The models that have retired versions."""
        folder = self.retired_root
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        return [name for name in names if self.retired(name)]

    def kept_twice(self) -> list[tuple[str, int]]:
        """The versions that are live and retired: a version moves by a rename, so a copy was put back by hand."""
        root = self.retired_root
        names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        return [(name, number) for name in names for number in _numbers(root / name) if number in self.versions(name)]

    @property
    def damaged(self) -> Path:
        """What repairs replaced or took away."""
        return self.history / _DAMAGED

    def retired_folder(self, model: str, version: int) -> Path:
        return self.retired_root / model / str(version)

    def retired_manifest(self, model: str, version: int) -> Manifest | None:
        """The manifest of a retired version. Raises RepositoryError for a damaged one."""
        return self._manifest(model, version, self.retired_folder(model, version))

    def folder(self, model: str, version: int) -> Path:
        return self.root / model / str(version)

    def manifest(self, model: str, version: int) -> Manifest | None:
        """A version's manifest; None for a version that was not made here.

        Raises RepositoryError for a damaged one, and for one of another model or version than the folder is named for.
        """
        return self._manifest(model, version, self.folder(model, version))

    def _manifest(self, model: str, version: int, folder: Path) -> Manifest | None:
        known = self._manifests.get((model, version, folder))
        path = folder / MANIFEST
        manifest = known or read(path)
        if manifest and not known:
            if (manifest.model, manifest.version) != (model, version):
                hint = "the folder was renamed or copied by hand: name it as it was, or move it out of the repository"
                raise RepositoryError(f"{path}: is that of {manifest.model} version {manifest.version}", hint)
            self._manifests[model, version, folder] = manifest
        return manifest

    def latest(self, model: str) -> tuple[int, Manifest] | None:
        """The highest version that was made here, with its manifest."""
        for version in reversed(self.versions(model)):
            manifest = self.manifest(model, version)
            if manifest:
                return version, manifest
        return None

    def ledger(self) -> Ledger:
        """What the repository remembers. Raises RepositoryError when it cannot be read, or is missing beside models.

        Where the whole repository was removed, its numbers go on.
        """
        if not (self.root / LEDGER).exists() and (self.history / LEDGER).exists():
            if self.models():
                hint = "write it again: modelwright fsck --repair; without it a version number could be used twice"
                raise RepositoryError(f"{self.root / LEDGER}: is missing", hint)
            kept = read_ledger(self.history)
            return Ledger(kept.versions, kept.fixed)
        return read_ledger(self.root)

    def taken(self, model: str, version: int) -> str | None:
        """The version digest that a number is taken by: "" for one that is not known any more, None for a free one."""
        ledger = self.ledger()
        unknown = "" if version <= ledger.versions.get(model, -1) else None
        return ledger.fixed.get(model, {}).get(str(version), unknown)

    def damage(self, model: str, version: int, *, retired: bool = False) -> list[str]:
        """How a version's files differ from its manifest: `model.onnx changed`; empty when they do not."""
        folder = self.retired_folder(model, version) if retired else self.folder(model, version)
        manifest = self._manifest(model, version, folder)
        if manifest is None:
            return [f"{MANIFEST} missing"]
        actual = {name: path for name, path in list_tree(folder).items() if name not in (MANIFEST, SIGNATURE)}
        expected = manifest.files
        found = [f"{name} missing" for name in expected if name not in actual]
        found += [f"{name} added" for name in actual if name not in expected]
        shared = [name for name in expected if name in actual]
        return found + [f"{name} changed" for name in shared if sha256_file(actual[name]) != expected[name].sha256]

    def environments(self, model: str) -> list[str]:
        """The environments that a model has a config for: configs/<name>.pbtxt."""
        files = [path.name for path in (self.root / model / CONFIGS).glob("*") if path.is_file()]
        names = [environment_of(f"{CONFIGS}/{name}") for name in files]
        return sorted(name for name in names if name)

    def next_number(self, model: str, ledger: Ledger) -> int:
        """The number that its next version gets."""
        return max([ledger.versions.get(model, 0), *self.versions(model), *self.retired(model)]) + 1

    # --- writing ------------------------------------------------------------------------------------------------------

    def reserve(
        self,
        models: Iterable[str] = (),
        fixed: Mapping[str, Mapping[int, str]] | None = None,
        states: Mapping[str, ServingState] | None = None,
    ) -> dict[str, int]:
        """A fresh version number for each model. A number stays taken, even when its publish never comes about.

        `fixed` holds models whose versions bring their own numbers, {model: {number: version digest}}: they are noted
        with what they stand for, so that a publish that was interrupted can be made again, and no other under that
        number. `states` are what operators decided, and are written with them; the journal's head, too.
        """
        ledger = self.ledger()
        numbers = {model: self.next_number(model, ledger) for model in models}
        highest = {model: max(ledger.versions.get(model, 0), *own) for model, own in (fixed or {}).items() if own}
        known = dict(ledger.fixed)
        for model in highest:
            own = {str(number): digest for number, digest in (fixed or {})[model].items()}
            known[model] = {**known.get(model, {}), **own}
        new = replace(
            ledger, versions={**ledger.versions, **highest, **numbers}, fixed=known, journal=self.journal.head()
        )
        new = new.with_states(states or {})
        if new != ledger:
            self.write_ledger(new)
        return numbers

    def merge(self, other: Ledger) -> None:
        """Take over what another ledger knows: the highest numbers, what numbers stand for, and what operators decided.

        What this one knows of a number stays.
        """
        own = self.ledger()
        highest = {model: max(number, own.versions.get(model, 0)) for model, number in other.versions.items()}
        fixed = {model: {**numbers, **own.fixed.get(model, {})} for model, numbers in other.fixed.items()}
        new = replace(
            own, versions={**own.versions, **highest}, fixed={**own.fixed, **fixed}, journal=self.journal.head()
        )
        new = new.with_states(other.serving)
        if new != own:
            self.write_ledger(new)

    def write_ledger(self, ledger: Ledger) -> None:
        """Write the ledger, and a copy of it into the history: nothing else says what operators decided."""
        for folder in (self.root, self.history):
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                self.staging.mkdir(parents=True, exist_ok=True)
                staged = self.staging / LEDGER
                staged.write_text(ledger.text())
                fsync_path(staged)
                rename_durably(staged, folder / LEDGER)

    def publish(self, change: Change) -> None:
        """Make a change visible, at once. Raises RepositoryError or StoreError: then what is served is what was served
        before, or what is to be, and the next build or operation completes it."""
        staged = self.staging / uuid.uuid4().hex
        with disk_errors(self.root):
            staged.mkdir(parents=True)
            try:
                self._publish(change, staged)
            finally:
                remove_tree(staged)

    def clean(self) -> None:
        """Remove what killed processes left in the staging folder. Only for the holder of the build lock."""
        remove_tree(self.staging)

    def _sign(self, change: Change, version: Path) -> None:
        """Sign a version that was made here, where the key is.

        Raises SigningError for a version without a signature where the project requires one.
        """
        if not (self.signing.signs_here or self.signing.required):
            return
        from modelwright.repository.signing import is_required, sign

        if change.sign:
            sign(version, self.signing)
        elif self.signing.required and not (version / SIGNATURE).is_file():
            raise is_required(self.signing, f"{change.model}/{change.version}")

    def _publish(self, change: Change, staged: Path) -> None:
        model = self.root / change.model
        versions = change.versions
        for item in versions:
            if self.folder(item.model, item.version or 0).exists():
                raise RepositoryError(f"{item.model}: version {item.version} exists already")
            _fill_version(staged / f"version-{item.version}", item)
            self._sign(item, staged / f"version-{item.version}")
            keep_record(self.history, item.model, item.version or 0, staged / f"version-{item.version}", staged)
        if len(versions) == 1 and model.is_dir() and not (change.top_names or change.retire or change.restore):
            version = staged / f"version-{versions[0].version}"
            fsync_tree(version)
            rename_durably(version, model / str(versions[0].version))
        elif not (versions or change.retire or change.restore) and self._replace_file(change, staged):
            return
        elif steps := self._steps(change):
            self._take(steps, change, staged)
        else:
            self._replace_model(change, staged)

    def _steps(self, change: Change) -> _Steps | None:
        """How a change is made by the config alone: None where other files beside the versions change, or there is no
        config yet, or it is faulty."""
        model, names = self.root / change.model, [CONFIG, *map(environment_config, self.environments(change.model))]
        if change.top_copies or not change.top_names <= set(names) or None in change.top_files.values():
            if change.retire or change.restore:
                raise RepositoryError(f"{change.model}: files beside its configs cannot change while versions leave")
            return None
        try:
            now = {name: read_text(model / name) for name in names}
            final = {name: (change.top_files.get(name) or now[name].encode()).decode() for name in names}
            return _planned_steps(now, final, set(self.versions(change.model)), change)
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, ConfigError):
            return None

    def _take(self, steps: _Steps, change: Change, staged: Path) -> None:
        """Each step is one rename, and after each of them a server finds a complete model.

        Nothing is linked or copied: a server that polls would load every version again whose files change in any way.
        """
        model = self.root / change.model
        for item in change.versions:
            fsync_tree(staged / f"version-{item.version}")
        self._replace_texts(change.model, steps.before, staged)
        for item in change.versions:
            rename_durably(staged / f"version-{item.version}", model / str(item.version))
        for number in change.restore:
            place = self.retired_folder(change.model, number)
            rename_durably(place, model / str(number))
            fsync_path(place.parent)
        self._replace_texts(change.model, steps.flip, staged)
        for number in sorted(change.retire):
            place = self.retired_folder(change.model, number)
            self.remove_retired(change.model, number)  # what a copy of the history left there
            place.parent.mkdir(parents=True, exist_ok=True)
            rename_durably(model / str(number), place)
            fsync_path(model)
        self._replace_texts(change.model, steps.after, staged)

    def _replace_texts(self, model: str, texts: Mapping[str, str], staged: Path) -> None:
        """Replace configs, each by one rename."""
        for name, text in texts.items():
            _check_no_link(self.root / model, model, name)
            file = staged / "config"
            file.write_text(text, encoding="utf-8")
            fsync_path(file)
            rename_durably(file, self.root / model / name)

    def check_one_filesystem(self) -> None:
        """Raises RepositoryError where a version cannot be moved between the repository and the history in one step."""
        with disk_errors(self.history):
            self.history.mkdir(parents=True, exist_ok=True)
        if self.root.is_dir() and self.root.stat().st_dev != self.history.stat().st_dev:
            raise RepositoryError(
                f"{self.history} is on another filesystem than {self.root}: versions cannot be moved there in one step",
                "set paths.history in modelwright.toml to a folder on the same one, and move what is in it there",
            )

    def remove_retired(self, model: str, number: int) -> None:
        """Remove the retired copy of a version: out of sight by one rename, then for good. Raises StoreError."""
        place = self.retired_folder(model, number)
        if place.exists():
            gone = self.staging / f"{uuid.uuid4().hex}-{number}"
            with disk_errors(place):
                self.staging.mkdir(parents=True, exist_ok=True)
                rename_durably(place, gone)
            remove_tree(gone)
            with contextlib.suppress(OSError):  # others are in it
                place.parent.rmdir()

    def _replace_file(self, change: Change, staged: Path) -> bool:
        """One file alone: a rename into a folder that is there. False where it takes more than that."""
        name = min(change.top_names, default="")
        data, target = change.top_files.get(name), self.root / change.model / name
        if len(change.top_names) != 1 or data is None or not target.parent.is_dir() or target.is_dir():
            return False
        _check_no_link(self.root / change.model, change.model, name)
        (staged / "file").write_bytes(data)
        fsync_tree(staged)
        rename_durably(staged / "file", target)
        return True

    def _replace_model(self, change: Change, staged: Path) -> None:
        """Several things change together: build the model's whole folder beside it, and swap the two in one step."""
        model, new = self.root / change.model, staged / "model"
        new.mkdir()
        if model.is_dir():
            _link_tree(model, new, leave=change.top_names)
        for name, data in change.top_files.items():
            _check_no_link(new, change.model, name)
            if data is not None:
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_bytes(data)
        _remove_empty(new, [name for name, data in change.top_files.items() if data is None])
        for name, origin in change.top_copies.items():
            _check_no_link(new, change.model, name)
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, new / name)
        for item in change.versions:
            (staged / f"version-{item.version}").rename(new / str(item.version))
        fsync_tree(new)
        if not model.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            rename_durably(new, model)
        elif not exchange(new, model):
            _replace_in_turn(new, model, change)


@dataclass(frozen=True)
class _Steps:
    """The configs that a change writes: before its versions come in, to make it visible, and after versions left."""

    before: Mapping[str, str]
    flip: Mapping[str, str]
    after: Mapping[str, str]


def _planned_steps(now: Mapping[str, str], final: Mapping[str, str], versions: set[int], change: Change) -> _Steps:
    """What is served changes at one moment, when the configs are replaced.

    Versions that come are not served before, and those that leave are not served after.
    """
    coming = {*(item.version for item in change.versions if item.version is not None), *change.restore}
    there, after = versions | coming, (versions | coming).difference(change.retire)
    at_once = len(coming) < 2 and not change.retire and now == final  # one rename of a folder, and nothing else

    def served(text: str, among: set[int]) -> list[int]:
        return served_by(text, change.model, among)

    held = {
        name: with_versions(text, served(text, versions))
        for name, text in now.items()
        if not at_once and coming and served(text, versions) != served(text, there)
    }
    flip = {name: with_versions(text, served(text, after)) if change.retire else text for name, text in final.items()}
    return _Steps(held, _other(flip, {**now, **held}), _other(final, flip))


def _other(texts: Mapping[str, str], than: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text != than[name]}


def _numbers(folder: Path) -> list[int]:
    """The versions in a folder, lowest first: folders that are named by a plain number."""
    try:
        with os.scandir(folder) as entries:
            numbers = [version_number(entry.name) for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(number for number in numbers if number is not None)


def _fill_version(folder: Path, change: Change) -> None:
    """Copy a version's files and compare each with its manifest: what is published is what was verified."""
    assert change.manifest is not None
    folder.mkdir()
    for name, source in change.version_files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        if sha256_file(target) != change.manifest.files[name].sha256:
            hint = "the artifact was damaged after it was made: remove .modelwright/store and build again"
            raise RepositoryError(f"{change.model}: {name} is not what was verified", hint)
    for name, data in change.version_data.items():
        (folder / name).write_bytes(data)
    if MANIFEST not in change.version_data:  # one from elsewhere stays as it was written: a signature covers it
        (folder / MANIFEST).write_text(change.manifest.text())


def _link_tree(source: Path, target: Path, leave: Iterable[str]) -> None:
    """A second tree of the same files, without copying what need not be copied. Links stay links."""
    left_out = set(leave)
    for parent, folders, names in os.walk(source):
        below = Path(parent).relative_to(source)
        folders[:] = [name for name in folders if (below / name).as_posix() not in left_out]
        for name in folders + names:
            origin, copy = Path(parent, name), target / below / name
            if (below / name).as_posix() in left_out:
                continue
            if origin.is_dir() and not origin.is_symlink():
                copy.mkdir()
            elif origin.is_symlink():
                shutil.copy2(origin, copy, follow_symlinks=False)
            else:
                os.link(origin, copy)


def _check_no_link(folder: Path, model: str, name: str) -> None:
    """A folder that is a link leads out of the model: what is written there would be somebody else's."""
    for parent in list(Path(name).parents)[:-1]:
        if (folder / parent).is_symlink():
            raise RepositoryError(f"{model}/{parent}: is a link, and {name} belongs in it", "make it a folder")


def _remove_empty(model: Path, removed: Iterable[str]) -> None:
    """The folders of removed files, where nothing is left in them."""
    for name in removed:
        for parent in list(Path(name).parents)[:-1]:
            if (model / parent).is_dir() and not any((model / parent).iterdir()):
                (model / parent).rmdir()


def _replace_in_turn(new: Path, model: Path, change: Change) -> None:
    """Where a filesystem cannot swap folders (NFS, some overlays): the version first, then each file.

    What configs name is there before them, and goes after them. Killed in between, the new version is there, complete,
    under the old config; the next build replaces that.
    """
    for item in change.versions:
        rename_durably(new / str(item.version), model / str(item.version))
    for name in sorted(change.top_names, key=lambda name: (name.endswith(Path(CONFIG).suffix), name == CONFIG)):
        if name in change.top_copies or change.top_files[name] is not None:
            (model / name).parent.mkdir(parents=True, exist_ok=True)
            rename_durably(new / name, model / name)
    removed = [name for name, data in change.top_files.items() if data is None]
    for name in removed:
        (model / name).unlink(missing_ok=True)
    _remove_empty(model, removed)
