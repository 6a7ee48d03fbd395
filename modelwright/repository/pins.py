"""Which versions of the models that it runs a pipeline is bound to: an ensemble, or a Python model that calls others.

An ensemble's steps name them (`model_version: 4`). A Python model has them in the parameter `pins` of its config, by
its own version: `{"3": {"digits": 4}}`, or `{"digits": [3, 4]}` where it calls two versions of one model. A router has
them as parameters of their own, `arm.digits:4`, whatever its own version is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from modelwright.config.edit import parameter
from modelwright.config.render import parse, plain_text
from modelwright.digest import parse_json
from modelwright.errors import ConfigError, RepositoryError, VersionGoneError
from modelwright.fsops import read_file, read_text
from modelwright.repository.repository import Repository
from modelwright.triton.layout import CONFIG, ENSEMBLE, PINS
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.policy import selected
from modelwright.triton.routers import ARM, SHADOW, routed_by

Pins = Mapping[str, frozenset[int]]  # model → its versions
Needed = Mapping[str, Mapping[int, tuple[str, ...]]]  # model → version → the pipelines that need it


def pins_of(config: Any, served: Iterable[int]) -> Pins:
    """The versions that a ModelConfig binds its model to, where these versions of it are served.

    Raises ConfigError for a parameter `pins` that does not read.
    """
    found: dict[str, set[int]] = {}
    for step in config.ensemble_scheduling.step:
        if step.model_version > 0:
            found.setdefault(step.model_name, set()).add(step.model_version)
    for item in routed_by(config):
        if item.version is not None:
            found.setdefault(item.model, set()).add(item.version)
    text = parameter(config, PINS)
    for models in _by_version(text, served) if text is not None else ():
        for model, numbers in models.items():
            found.setdefault(model, set()).update(numbers if isinstance(numbers, list) else [numbers])
    return {model: frozenset(numbers) for model, numbers in found.items()}


def run_by(config: Any) -> list[str]:
    """The models that a ModelConfig names, each once: those of an ensemble's steps, those in the parameter `pins`, and
    those that a router calls."""
    found = dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step)
    found |= dict.fromkeys(item.model for item in routed_by(config))
    text = parameter(config, PINS)
    try:
        data = parse_json(text) if text is not None else {}
        found |= dict.fromkeys(str(name) for models in data.values() for name in models)
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass  # a parameter of another meaning
    return list(found)


def _by_version(text: str, served: Iterable[int]) -> Iterable[Mapping[str, Any]]:
    try:
        data = parse_json(text)
        chosen = [data[str(number)] for number in served if str(number) in data]
        if all(_is_number(item) for models in chosen for numbers in models.values() for item in _listed(numbers)):
            return chosen
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    example = '{"3": {"digits": 4}}: own version, model, its version'
    raise ConfigError(f"parameters.{PINS}: does not read: {text[:80]}", f"write {example}")


def _listed(numbers: Any) -> list[Any]:
    return numbers if isinstance(numbers, list) else [numbers]


def _is_number(item: Any) -> bool:
    return type(item) is int and item > 0


def unpinned(config: Any) -> set[str]:
    """The models that an ensemble runs by their newest version, as those do that older Modelwrights published."""
    return {step.model_name for step in config.ensemble_scheduling.step if step.model_version < 0}


def unpinned_by(repository: Repository, model: str) -> set[str]:
    """The same of a published model; of a config that the server cannot read: none."""
    config = _config_with_pins(repository, model)
    return unpinned(config) if config is not None else set()


def _config_with_pins(repository: Repository, model: str) -> Any:
    """The published config of a model; None for one that cannot have pins, or that the server cannot read."""
    try:
        text = read_text(repository.root / model / CONFIG, errors="replace")
        return parse(text, f"{model}/{CONFIG}") if has_pins(text) else None
    except (FileNotFoundError, NotADirectoryError, ConfigError):
        return None


def has_pins(text: str) -> bool:
    """Whether the text of a config can have pins: for those of a large repository, which take long to parse."""
    return "ensemble_scheduling" in text or any(f'"{key}' in text for key in (f'{PINS}"', ARM, SHADOW))


def published_pins(repository: Repository, model: str) -> Pins:
    """What the published config of a model binds it to. A config that the server cannot read binds it to nothing."""
    config = _config_with_pins(repository, model)
    if config is None:
        return {}
    try:
        return pins_of(config, selected(config.version_policy, repository.versions(model)))
    except ConfigError:
        return {}


def needed(repository: Repository, pins: Mapping[str, Pins] | None = None) -> Needed:
    """Which pipelines need which versions: {model: {version: pipelines}}.

    `pins` are those that some pipelines are about to have, in place of what is published.
    """
    changed = dict(pins or {})
    found: dict[str, dict[int, tuple[str, ...]]] = {}
    for pipeline in sorted({*repository.models(), *changed}):
        own = changed[pipeline] if pipeline in changed else published_pins(repository, pipeline)
        for model, numbers in own.items():
            for number in numbers:
                users = found.setdefault(model, {})
                users[number] = (*users.get(number, ()), pipeline)
    return found


def numbers(repository: Repository, model: str, version: int) -> dict[str, int]:
    """The versions of other models that a pipeline's version was verified with: {model: version}.

    They are found by their version digests, among those that are served, live, or retired, in this order; the highest
    of several. Raises RepositoryError for one that is gone.
    """
    manifest = repository.manifest(model, version) or repository.retired_manifest(model, version)
    wanted = manifest.made.composing_models if manifest else {}
    now = published_pins(repository, model)
    return {
        name: number_of(repository, name, digest, now.get(name, frozenset()), f"{model} version {version}")
        for name, digest in wanted.items()
    }


def number_of(repository: Repository, model: str, digest: str, first: Iterable[int] = (), where: str = "") -> int:
    """The version of a model with this version digest; one of `first` where it is among them.

    Raises VersionGoneError where there is none.
    """
    live = [number for number in reversed(repository.versions(model)) if _digest(repository, model, number) == digest]
    for number in [*(number for number in live if number in set(first)), *live]:
        return number
    for number in reversed(repository.retired(model)):
        retired = repository.retired_manifest(model, number)
        if retired is not None and retired.version_digest == digest:
            return number
    hint = f"build it again, or bring it back: modelwright versions {model}"
    raise VersionGoneError(f"{where}: the version of {model} that it was verified with is gone ({digest[:12]})", hint)


def _digest(repository: Repository, model: str, number: int) -> str | None:
    manifest = repository.manifest(model, number)
    return manifest.version_digest if manifest else None


def as_parameter(by_version: Mapping[int, Mapping[str, int | list[int]]]) -> str:
    """The text of the parameter `pins`: {own version: {model: its version}}."""
    return json.dumps({str(own): dict(pins) for own, pins in sorted(by_version.items())}, sort_keys=True)


def merged(text: str | None, more: str, versions: Collection[int]) -> str:
    """A parameter `pins` with the entries of another one, of these own versions alone."""
    try:
        data = {**(parse_json(text) if text else {}), **parse_json(more)}
        return as_parameter({int(own): pins for own, pins in data.items() if int(own) in versions})
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"parameters.{PINS}: does not read: {text} {more}") from None


def scheduling(repository: Repository, model: str, version: int) -> str:
    """The field `ensemble_scheduling` of an ensemble's version, from its ensemble.json and the versions that are there.

    Raises RepositoryError where that is missing, or a version that it runs is gone.
    """
    path = folder_of(repository, model, version) / ENSEMBLE
    try:
        steps = parse_json(read_file(path))["steps"]
        config = schema().ModelConfig()
        pinned = numbers(repository, model, version)
        for step in steps:
            config.ensemble_scheduling.step.add(**step).model_version = pinned.get(step["model_name"], -1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = f"build it again: modelwright build {model}"
        raise RepositoryError(f"{path}: does not say what version {version} runs: {error}", hint) from None
    return plain_text(config).rstrip("\n")


def folder_of(repository: Repository, model: str, version: int) -> Path:
    """Where a version lies: in the repository, or retired."""
    live = repository.folder(model, version)
    return live if live.is_dir() else repository.retired_folder(model, version)
