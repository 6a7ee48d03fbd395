"""What a server shows once it has taken over what the repository says, and what still differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelwright.config.render import as_json
from modelwright.fleet.member import Member, ShownVersion
from modelwright.repository.repository import Repository
from modelwright.repository.versions import published_config
from modelwright.triton.policy import selected

READY = "READY"
_SERVED = (READY, "LOADING")  # UNLOADING takes no new requests
_UNLOADED = "unloaded"  # the reason of a version that was taken away


@dataclass(frozen=True)
class Expected:
    """How a model is served by what its folder in the repository says. No versions: it is not served.

    `steps` and `parameters` are fields that a server reports as they were written.
    """

    model: str
    versions: tuple[int, ...]  # highest first
    steps: tuple[tuple[str, int], ...] = ()  # of an ensemble: composing model and its version, in order
    parameters: Mapping[str, str] = field(default_factory=dict)


def expected(repository: Repository, model: str) -> Expected:
    """By the published config. Raises ConfigError where it cannot be read: no server can read it, either."""
    config = published_config(repository, model)
    return Expected(model, ()) if config is None else expected_by(config, model, repository.versions(model))


def expected_by(config: Any, model: str, versions: Iterable[int]) -> Expected:
    """By this ModelConfig, where these versions are there."""
    return Expected(
        model,
        tuple(selected(config.version_policy, versions)),
        tuple((step.model_name, step.model_version) for step in config.ensemble_scheduling.step),
        {name: parameter.string_value for name, parameter in config.parameters.items()},
    )


def published_as_json(repository: Repository, model: str) -> str:
    """The published config, as the load API takes it."""
    return as_json(published_config(repository, model))


def unlike(wanted: Expected, shown: Mapping[int, ShownVersion]) -> str:
    """How a server's versions of a model differ from those that it is to serve: "version 4 is LOADING". '' if not."""
    for version in wanted.versions:
        entry = shown.get(version)
        if entry is None or entry.state != READY:
            state = entry.state if entry and entry.state else "not there"
            return f"version {version} is {state}" + (f": {entry.reason}" if entry and failure(entry) else "")
    left = sorted(version for version, entry in shown.items() if served(entry) and version not in wanted.versions)
    return f"version {left[0]} is still served" if left else ""


def served(entry: ShownVersion) -> bool:
    return entry.state in _SERVED


def failure(entry: ShownVersion) -> str:
    """Why a version did not load; '' for one that did, or that was taken away."""
    return "" if entry.state in _SERVED or entry.reason == _UNLOADED else entry.reason


def other_config(wanted: Expected, member: Member) -> str:
    """How the config that a model runs with differs from the published one; '' where it does not."""
    config = member.config(wanted.model) if wanted.versions else None
    if config is None:
        return "its config cannot be asked for" if wanted.versions else ""
    running = _steps(config)
    for (name, version), (_, other) in zip(wanted.steps, running, strict=False):
        if version != other:
            return f"runs version {other} of {name}, and version {version} is published"
    if len(running) != len(wanted.steps):
        return f"runs {len(running)} models, and {len(wanted.steps)} are published"
    has = {name: str(value.get("string_value", "")) for name, value in config.get("parameters", {}).items()}
    differ = [name for name, value in wanted.parameters.items() if has.get(name) != value]
    return f"parameter '{differ[0]}' is {has.get(differ[0], 'not there')}, not as published" if differ else ""


def _steps(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    steps = config.get("ensemble_scheduling", {}).get("step", ())
    return [(step["model_name"], int(step["model_version"])) for step in steps]
