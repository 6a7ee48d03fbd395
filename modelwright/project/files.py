"""Files that a model.yaml names: of the builder's folder, or carried by an installed package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from modelwright.errors import SpecError
from modelwright.project.spec import Builder
from modelwright.suggest import did_you_mean


def local_file(builder: Builder, field: str, relative: str) -> Path:
    """A file of the builder's folder. Raises SpecError when it is not there, or a link leads out."""
    path = builder.folder / relative
    if not path.resolve().is_relative_to(builder.folder.resolve()):
        raise SpecError(
            f"{builder.file}: {field}: '{relative}' is a link that leaves the builder's folder", "copy it in"
        )
    if not path.is_file():
        names = [item.relative_to(builder.folder).as_posix() for item in builder.folder.rglob("*") if item.is_file()]
        raise SpecError(f"{builder.file}: {field}: there is no file '{relative}'", did_you_mean(relative, names))
    return path


def published_file(builder: Builder, field: str, origin: str) -> Path:
    """A file of the builder's folder, or `package:path` of an installed package. Raises SpecError."""
    package, colon, path = origin.partition(":")
    if not colon:
        return local_file(builder, field, origin)
    file = package_directory(builder, field, package) / path
    if not file.is_file():
        raise SpecError(f"{builder.file}: {field}: package {package} has no file '{path}'")
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
