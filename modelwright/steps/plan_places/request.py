"""What goes with a request: the package's code and the program that starts it there.

So the plan is built by the same code as here, whatever the image holds or a node has cached.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from modelwright.steps.plan_places.parcel import Parcel, seal

CODE = "code.zip"
START = "start.sh"
_PACKAGE = Path(__file__).resolve().parents[2]
_LEFT_OUT = {"__pycache__", "starter", "templates", "schemas"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip files begin there; so the same code makes the same file


def seal_request(folder: Path) -> Parcel:
    """Add the code to a folder with a request, and list its files."""
    shutil.copyfile(Path(__file__).with_name(START), folder / START)
    _pack(folder / CODE)
    return seal(folder)


def _pack(target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_PACKAGE.rglob("*")):
            relative = path.relative_to(_PACKAGE)
            if path.is_file() and _LEFT_OUT.isdisjoint(relative.parts):
                entry = zipfile.ZipInfo(f"{_PACKAGE.name}/{relative.as_posix()}", _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
