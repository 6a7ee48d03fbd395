"""A repository as it will be: what is published, and what a publish is about to change, without writing it there.

New versions are looked at where they lie in the store; only top files and manifests, which are small, are written, into
a scratch folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from modelwright.build.faults import Faults
from modelwright.lint.tree import ModelFolder, RepositoryTree, TreeEntry, list_entries
from modelwright.repository.repository import Change
from modelwright.triton.layout import MANIFEST


def planned_tree(root: Path, changes: Iterable[Change], scratch: Path, faults: Faults, retired: Path) -> RepositoryTree:
    """The repository at `root` with the changes made. `scratch` must live as long as the tree is used; below `retired`
    lie the versions that come back.

    A model whose change cannot be looked at stands there as it is, and has a fault.
    """
    tree = RepositoryTree.read(root)
    models, entries = dict(tree.models), dict(tree.entries)
    for change in changes:
        with faults.of(change.model, "lint"):
            folder = _planned(root / change.model, models.get(change.model), change, scratch / change.model, retired)
            models[change.model] = folder
            entries[change.model] = TreeEntry(change.model, root / change.model, "folder")
    return RepositoryTree(root, dict(sorted(models.items())), entries)


def _planned(path: Path, current: ModelFolder | None, change: Change, scratch: Path, retired: Path) -> ModelFolder:
    entries = dict(current.entries) if current else {}
    scratch.mkdir(parents=True)
    overrides = dict(change.top_copies)
    files = {**dict.fromkeys(change.top_copies, b""), **change.top_files}  # copies are looked up where their bytes lie
    for name in sorted({name.partition("/")[0] for name in files}):
        entry = _top_entry(path / name, name, files, scratch)
        entries.pop(name, None)
        if entry:
            entries[name] = entry
    for version in change.versions:
        number = str(version.version)
        entries[number] = _version_entry(number, version, scratch)
        overrides |= {f"{number}/{name}": source for name, source in version.version_files.items()}
    for leaving in change.retire:
        entries.pop(str(leaving), None)
    for coming in change.restore:
        entries[str(coming)] = TreeEntry(str(coming), retired / change.model / str(coming), "folder")
    return ModelFolder(change.model, path, entries, overrides=overrides)


def _top_entry(current: Path, name: str, top_files: Mapping[str, bytes | None], scratch: Path) -> TreeEntry | None:
    """A top file, or a folder of such with what it holds already; None for what is removed."""
    target = scratch / name
    if name in top_files:
        data = top_files[name]
        if data is None:
            return None
        target.write_bytes(data)
        return TreeEntry(name, target, "file")
    if current.is_dir():
        shutil.copytree(current, target, symlinks=True)
    target.mkdir(exist_ok=True)
    for inner, data in top_files.items():
        if inner.startswith(f"{name}/"):
            (scratch / inner).parent.mkdir(parents=True, exist_ok=True)
            (scratch / inner).write_bytes(data) if data is not None else (scratch / inner).unlink(missing_ok=True)
    return TreeEntry(name, target, "folder") if list_entries(target)[0] else None


def _version_entry(number: str, change: Change, scratch: Path) -> TreeEntry:
    """The version's folder: names stand in it as empty files, and are looked up where their bytes lie."""
    folder = scratch / number
    for name in (*change.version_files, *change.version_data):
        stand_in = folder / name
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.touch()
    folder.mkdir(exist_ok=True)
    assert change.manifest is not None
    (folder / MANIFEST).write_text(change.manifest.text())
    return TreeEntry(number, folder, "folder")
