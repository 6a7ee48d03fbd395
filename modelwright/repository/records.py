"""`model_history/records/<model>/<N>/`: copies of what was made when a version was published.

Its manifest, signature, bill of materials and config come of no step, so the store cannot make them again. A record is
written before the version becomes visible, and goes when the version is deleted.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from modelwright.fsops import disk_errors, fsync_tree, remove_tree, rename_durably
from modelwright.triton.layout import CONFIG, MANIFEST, SBOM, SIGNATURE, version_number

_FOLDER = "records"
NAMES = (MANIFEST, CONFIG, SBOM, SIGNATURE)


def record_folder(history: Path, model: str, version: int) -> Path:
    return history / _FOLDER / model / str(version)


def record_folders(history: Path) -> dict[tuple[str, int], Path]:
    """{(model, version): its record}."""
    found = {}
    for path in sorted((history / _FOLDER).glob("*/*")):
        number = version_number(path.name)
        if path.is_dir() and number is not None:
            found[path.parent.name, number] = path
    return found


def keep_record(history: Path, model: str, version: int, folder: Path, staging: Path) -> None:
    """Copy what a version's folder has of this into the history. `staging` is a folder on the same filesystem."""
    place = record_folder(history, model, version)
    with disk_errors(place):
        staged = staging / f"{uuid.uuid4().hex}-record"
        staged.mkdir(parents=True)
        for name in NAMES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, staged / name)
        fsync_tree(staged)
        remove_tree(place)  # of a publish that did not come about, or before the version was signed
        place.parent.mkdir(parents=True, exist_ok=True)
        rename_durably(staged, place)


def remove_record(history: Path, model: str, version: int) -> None:
    """For a version that is deleted for good."""
    remove_tree(record_folder(history, model, version))
