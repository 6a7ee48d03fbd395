"""Files that a model.yaml names: of the builder's folder, or carried by an installed package."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path

from modelwright.errors import SpecError
from modelwright.fsops import not_a_file
from modelwright.project.spec import Builder
from modelwright.suggest import did_you_mean
from modelwright.triton.file_types import pointer


def local_file(builder: Builder, field: str, relative: str) -> Path:
    """A file of the builder's folder.

    Raises SpecError when it is not there, a link leads out, or it is a pointer of Git LFS in place of the file.
    """
    path = builder.folder / relative
    if not path.resolve().is_relative_to(builder.folder.resolve()):
        raise SpecError(
            f"{builder.file}: {field}: '{relative}' is a link that leaves the builder's folder", "copy it in"
        )
    if os.path.lexists(path) and (problem := not_a_file(path)):
        raise SpecError(f"{builder.file}: {field}: '{relative}' {problem}", "put the file there")
    if not path.is_file():
        names = [item.relative_to(builder.folder).as_posix() for item in builder.folder.rglob("*") if item.is_file()]
        raise SpecError(f"{builder.file}: {field}: there is no file '{relative}'", did_you_mean(relative, names))
    check_fetched(path, f"{builder.file}: {field}: '{relative}'")
    return path


def local_folder(builder: Builder, field: str, relative: str) -> Path:
    """A folder in the builder's folder. Raises SpecError when it is not there, or a link leads out."""
    path = builder.folder / relative
    if not path.resolve().is_relative_to(builder.folder.resolve()):
        where = f"{builder.file}: {field}: '{relative}'"
        raise SpecError(f"{where} is a link that leaves the builder's folder", "copy the folder in")
    if not path.is_dir():
        names = [item.relative_to(builder.folder).as_posix() for item in builder.folder.rglob("*") if item.is_dir()]
        raise SpecError(f"{builder.file}: {field}: there is no folder '{relative}'", did_you_mean(relative, names))
    return path


def check_fetched(path: Path, where: str) -> None:
    """Refuse a file that stands for one that was not fetched, as a Git LFS pointer does. Raises SpecError."""
    with contextlib.suppress(OSError):  # who reads the file next says what is wrong
        found = pointer(path)
        if found:
            raise SpecError(f"{where} is {found.what}", found.fix)


def published_file(builder: Builder, field: str, origin: str) -> Path:
    """A file of the builder's folder, or `package:path` of an installed package. Raises SpecError."""
    package, colon, path = origin.partition(":")
    if not colon:
        return local_file(builder, field, origin)
    file = package_directory(builder, field, package) / path
    if not file.is_file():
        raise SpecError(f"{builder.file}: {field}: package {package} has no file '{path}'")
    check_fetched(file, f"{builder.file}: {field}: '{origin}'")
    return file


def package_directory(builder: Builder, field: str, package: str) -> Path:
    """Where an installed package lies; it is found without being imported. Raises SpecError."""
    if "." in package:  # find_spec would import the parents of a submodule
        where = f"{builder.file}: {field}: '{package}': name a top-level package"
        raise SpecError(where, "the rest of the path belongs in subfolder")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    locations = list(found.submodule_search_locations or []) if found else []
    if not locations:
        hint = f"pip install {package.replace('_', '-')}"
        raise SpecError(f"{builder.file}: {field}: package '{package}' is not installed", hint)
    return Path(locations[0])
