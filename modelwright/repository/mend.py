"""Puts files and versions back, each by one rename. Only for the holder of the build lock.

What is in a file's place is kept at `aside`: a repair loses nothing.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from modelwright.fsops import disk_errors, fsync_path, fsync_tree, rename_durably
from modelwright.repository.repository import Repository


def put_file(repository: Repository, place: Path, source: Path, aside: Path) -> None:
    """Restore a file of the repository or the history from another one."""
    with disk_errors(place):
        repository.staging.mkdir(parents=True, exist_ok=True)
        staged = repository.staging / uuid.uuid4().hex
        shutil.copyfile(source, staged)
        fsync_path(staged)
        if place.is_file() and not place.is_symlink():
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.link(place, aside)
        elif place.exists() or place.is_symlink():
            set_aside(place, aside)
        place.parent.mkdir(parents=True, exist_ok=True)
        rename_durably(staged, place)


def set_aside(place: Path, aside: Path) -> None:
    """Take a file or folder out of the repository or the history."""
    with disk_errors(place):
        aside.parent.mkdir(parents=True, exist_ok=True)
        rename_durably(place, aside)
        fsync_path(place.parent)


def put_version(repository: Repository, model: str, version: int, files: Mapping[str, Path]) -> None:
    """Restore a version that is gone: {name: where it lies}, its manifest among them."""
    staged = repository.staging / f"{uuid.uuid4().hex}-version"
    with disk_errors(repository.root):
        for name, source in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, staged / name)
        fsync_tree(staged)
        repository.folder(model, version).parent.mkdir(parents=True, exist_ok=True)
        rename_durably(staged, repository.folder(model, version))
