"""Finds kinds: those of this package by the name of their module, those of other distributions by entry points.

A build loads only the kinds that its builders name, and looks at entry points only for a name that is not built in. A
plug-in that is broken is an error where a builder uses it, and nowhere else.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from modelwright.errors import KindError, one_line
from modelwright.kinds.kind import Kind
from modelwright.project.spec import Builder, SourceSpec
from modelwright.suggest import did_you_mean

GROUP = "modelwright.kinds"


@dataclass(frozen=True)
class Registered:
    """Every kind that works, by name; where each one comes from; and what is wrong with the others."""

    kinds: dict[str, Kind[Any]]
    distributions: dict[str, str]  # name of a kind that is not built in → "toy-kind 1.0"
    problems: tuple[KindError, ...]


@cache
def find(name: str) -> Kind[Any]:
    """The kind of this name. Raises KindError when there is none, or its plug-in is broken."""
    kind = _built_in(name)
    if kind is not None:
        return kind
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise KindError(f"unknown kind '{name}'", did_you_mean(name, registered().kinds))
    return _plugged_in(points)


@cache
def registered() -> Registered:
    """All kinds, in order of their names. Loads every one of them."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    found = {name: kind for name in names if (kind := _built_in(name)) is not None}
    plugged: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        plugged.setdefault(point.name, []).append(point)
    distributions: dict[str, str] = {}
    problems: list[KindError] = []
    for name, points in plugged.items():
        try:
            if name in found:
                raise KindError(f"{_where(points)}: '{name}' is the name of a kind of Modelwright", _remedy(points))
            found[name] = _plugged_in(points)
            distributions[name] = _distribution(points[0])
        except KindError as error:
            problems.append(error)
    return Registered(dict(sorted(found.items())), distributions, tuple(problems))


def kind_of(builder: Builder) -> Kind[Any]:
    """The kind of a builder, in the form that its source asks for."""
    source = builder.spec.source
    kind = find(source.kind)
    return kind.other_form(source) or kind


def source_model(given: object) -> type[SourceSpec]:
    """The model of a `source` by what stands at its `kind`. Raises KindError."""
    if not isinstance(given, str):
        reason = "missing" if given is None else f"must be the name of a kind, got {given!r}"
        raise KindError(reason, f"one of {', '.join(registered().kinds)}")
    model: type[SourceSpec] = find(given).source
    return model


def _built_in(name: str) -> Kind[Any] | None:
    if not name.isidentifier():
        return None
    module = f"{__package__}.{name}"
    try:
        kind = getattr(import_module(module), "KIND", None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return kind if isinstance(kind, Kind) else None


def _plugged_in(points: list[EntryPoint]) -> Kind[Any]:
    """The kind of the one distribution that has this name."""
    where = _where(points)
    if len(points) > 1:
        raise KindError(f"{where}: two distributions have a kind of this name", _remedy(points))
    point = points[0]
    try:
        kind = point.load()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise KindError(f"{where}: {point.value} cannot be imported: {reason}", _remedy(points)) from error
    if not isinstance(kind, Kind):
        raise KindError(f"{where}: {point.value} is a {type(kind).__name__}, not a Kind", _remedy(points))
    if kind.name != point.name:
        raise KindError(f"{where}: {point.value} has another name, '{kind.name}'", _remedy(points))
    if not (isinstance(kind.source, type) and issubclass(kind.source, SourceSpec)):
        raise KindError(f"{where}: its source is no SourceSpec", _remedy(points))
    return kind


def _where(points: list[EntryPoint]) -> str:
    return f"source kind '{points[0].name}' of {' and '.join(map(_distribution, points))}"


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def _remedy(points: Iterable[EntryPoint]) -> str:
    names = [point.dist.name for point in points if point.dist]
    return f"update it, or remove it: pip uninstall {' or '.join(names)}"
