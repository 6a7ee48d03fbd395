"""The only writer of model_repository/.

    model_repository/
      modelwright.json            the ledger: the highest version number each model ever had; and what was published
                                  under numbers that were not given out here. A file at the root, which Triton does not
                                  look at (every folder there, it does)
      <model>/config.pbtxt        and labels, configs/, warmup/, initial_state/: the model's top files (topfiles.py)
      <model>/<N>/                a version: never changed, its number never used twice
      <model>/<N>/manifest.json   what it is: files, lineage, verification
      <model>/<N>/golden.npz      inputs and the outputs they must give

Whatever a publish changes becomes visible in one rename, so that a process killed at any instant leaves the model as it
was or as it is to be. Everything is put together outside, in the staging folder, and flushed first.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.digest import list_tree, sha256_file
from modelwright.errors import RepositoryError
from modelwright.fsops import disk_errors, exchange, fsync_path, fsync_tree, remove_tree, rename_durably
from modelwright.repository.manifest import Manifest, read
from modelwright.triton.layout import CONFIG, CONFIGS, LEDGER, MANIFEST, environment_of, version_number


@dataclass(frozen=True)
class Change:
    """What one publish does to one model: a version to add, top files to replace or remove, or both."""

    model: str
    version: int | None = None
    version_files: Mapping[str, Path] = field(default_factory=dict)  # relative name → where to copy it from
    manifest: Manifest | None = None  # of the version
    top_files: Mapping[str, bytes | None] = field(default_factory=dict)  # name, with '/' in folders; None: remove it
    top_copies: Mapping[str, Path] = field(default_factory=dict)  # the same, copied: files of any size
    more: tuple[Change, ...] = ()  # further versions of the model, that go out with this one

    @property
    def versions(self) -> list[Change]:
        return [change for change in (self, *self.more) if change.version is not None]

    @property
    def top_names(self) -> set[str]:
        return {*self.top_files, *self.top_copies}


class Repository:
    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self.staging = staging
        self._manifests: dict[tuple[str, int], Manifest] = {}  # a published version never changes

    # --- reading ------------------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    def versions(self, model: str) -> list[int]:
        """Its versions, lowest first: folders that are named by a plain number."""
        try:
            with os.scandir(self.root / model) as entries:
                numbers = [version_number(entry.name) for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(number for number in numbers if number is not None)

    def folder(self, model: str, version: int) -> Path:
        return self.root / model / str(version)

    def manifest(self, model: str, version: int) -> Manifest | None:
        """A version's manifest; None for a version that was not made here.

        Raises RepositoryError for a damaged one, and for one of another model or version than the folder is named for.
        """
        known = self._manifests.get((model, version))
        path = self.folder(model, version) / MANIFEST
        manifest = known or read(path)
        if manifest and not known:
            if (manifest.model, manifest.version) != (model, version):
                hint = "the folder was renamed or copied by hand: name it as it was, or move it out of the repository"
                raise RepositoryError(f"{path}: is that of {manifest.model} version {manifest.version}", hint)
            self._manifests[model, version] = manifest
        return manifest

    def latest(self, model: str) -> tuple[int, Manifest] | None:
        """The highest version that was made here, with its manifest."""
        for version in reversed(self.versions(model)):
            manifest = self.manifest(model, version)
            if manifest:
                return version, manifest
        return None

    def ledger(self) -> dict[str, int]:
        """The highest version number that each model ever had. Raises RepositoryError when it cannot be read."""
        return self._ledger()[0]

    def taken(self, model: str, version: int) -> str | None:
        """The version digest that a number is taken by: "" for one that is not known any more, None for a free one."""
        highest, fixed = self._ledger()
        unknown = "" if version <= highest.get(model, -1) else None
        return fixed.get(model, {}).get(str(version), unknown)

    def _ledger(self) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
        path = self.root / LEDGER
        try:
            data = json.loads(path.read_bytes())
            fixed = {str(name): dict(numbers) for name, numbers in data.get("fixed", {}).items()}
            return {str(name): int(number) for name, number in data["versions"].items()}, fixed
        except FileNotFoundError:
            return {}, {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "restore it from a backup; without it a version number could be used twice"
            raise RepositoryError(f"{path}: is no ledger ({error})", hint) from None

    def damage(self, model: str, version: int) -> list[str]:
        """How a version's files differ from its manifest: `model.onnx changed`; empty when they do not."""
        manifest = self.manifest(model, version)
        if manifest is None:
            return [f"{MANIFEST} missing"]
        folder = self.folder(model, version)
        actual = {name: path for name, path in list_tree(folder).items() if name != MANIFEST}
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

    def next_number(self, model: str, ledger: Mapping[str, int]) -> int:
        """The number that its next version gets."""
        return max([ledger.get(model, 0), *self.versions(model)]) + 1

    # --- writing ------------------------------------------------------------------------------------------------------

    def reserve(self, models: Iterable[str], fixed: Mapping[str, Mapping[int, str]] | None = None) -> dict[str, int]:
        """A fresh version number for each model. A number stays taken, even when its publish never comes about.

        `fixed` holds models whose versions bring their own numbers, {model: {number: version digest}}: they are noted
        with what they stand for, so that a publish that was interrupted can be made again, and no other under that
        number.
        """
        ledger, known = self._ledger()
        numbers = {model: self.next_number(model, ledger) for model in models}
        highest = {model: max(ledger.get(model, 0), *own) for model, own in (fixed or {}).items() if own}
        for model in highest:
            known[model] = known.get(model, {}) | {
                str(number): digest for number, digest in (fixed or {})[model].items()
            }
        if numbers or highest:
            data: dict[str, Any] = {"versions": dict(sorted((ledger | highest | numbers).items()))}
            text = json.dumps(data | ({"fixed": dict(sorted(known.items()))} if known else {}), indent=1) + "\n"
            with disk_errors(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                self.staging.mkdir(parents=True, exist_ok=True)
                staged = self.staging / LEDGER
                staged.write_text(text)
                fsync_path(staged)
                rename_durably(staged, self.root / LEDGER)
        return numbers

    def publish(self, change: Change) -> None:
        """Make a change visible, at once. Raises RepositoryError or StoreError, and then nothing has changed."""
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

    def _publish(self, change: Change, staged: Path) -> None:
        model = self.root / change.model
        versions = change.versions
        for item in versions:
            if self.folder(item.model, item.version or 0).exists():
                raise RepositoryError(f"{item.model}: version {item.version} exists already")
            _fill_version(staged / f"version-{item.version}", item)
        if len(versions) == 1 and model.is_dir() and not change.top_names:
            version = staged / f"version-{versions[0].version}"
            fsync_tree(version)
            rename_durably(version, model / str(versions[0].version))
        elif not versions and len(change.top_names) == 1 and self._replace_file(change, staged):
            return
        else:
            self._replace_model(change, staged)

    def _replace_file(self, change: Change, staged: Path) -> bool:
        """One file alone: a rename into a folder that is there. False where it takes more than that."""
        name = next(iter(change.top_names))
        data = change.top_files.get(name)
        target = self.root / change.model / name
        if data is None or not target.parent.is_dir() or target.is_dir():
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
    (folder / MANIFEST).write_text(change.manifest.text())


def _link_tree(source: Path, target: Path, leave: Iterable[str]) -> None:
    """A second tree of the same files, without copying what need not be copied. Links stay links."""
    left_out = set(leave)
    for parent, folders, names in os.walk(source):
        below = Path(parent).relative_to(source)
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
