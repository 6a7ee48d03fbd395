"""The versions of a repository: which there are, which can be served and checked, and what the server must be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.config.render import as_json, parse
from modelwright.digest import parse_json
from modelwright.errors import ConfigError, ModelwrightError, RepositoryError
from modelwright.fsops import read_file, read_text
from modelwright.repository.manifest import Manifest
from modelwright.repository.pins import Pins, pins_of, run_by
from modelwright.repository.policy import is_pinned
from modelwright.repository.repository import Repository
from modelwright.server.native import may_be_lacking
from modelwright.suggest import did_you_mean
from modelwright.triton.layout import CONFIG, ENSEMBLE, GOLDEN


@dataclass(frozen=True)
class Published:
    """One version of the repository, as a replay needs it."""

    model: str
    version: int
    manifest: Manifest
    max_batch_size: int
    golden: Path  # need not exist: a prebuilt version may have no golden samples
    needs_more: bool = False  # than the server here has: GPUs, or another backend

    @property
    def is_prebuilt(self) -> bool:
        return self.manifest.made.prebuilt


@dataclass(frozen=True)
class Unreadable:
    """A version whose manifest, or whose model's config, cannot be read."""

    model: str
    version: int
    error: ModelwrightError


def published(repository: Repository, names: Sequence[str] = ()) -> list[Published]:
    """Every version that was made here, of the named models or of all.

    Raises RepositoryError for an unknown name, and what is wrong with the first version that cannot be read.
    """
    found, unreadable = readable(repository, names)
    if unreadable:
        raise unreadable[0].error
    return found


def readable(repository: Repository, names: Sequence[str] = ()) -> tuple[list[Published], list[Unreadable]]:
    """The same, with the versions that cannot be read beside it: they hide no other."""
    known = repository.models()
    for name in names:
        if name not in known:
            raise RepositoryError(f"{name}: is not in {repository.root.name}", did_you_mean(name, known))
    found: list[Published] = []
    unreadable: list[Unreadable] = []
    for model in names or known:
        for version in repository.versions(model):
            try:
                manifest = repository.manifest(model, version)
                config = published_config(repository, model) if manifest else None
            except (RepositoryError, ConfigError) as error:
                unreadable.append(Unreadable(model, version, error))
                continue
            if manifest and config is not None:
                path = repository.folder(model, version) / GOLDEN
                found.append(Published(model, version, manifest, config.max_batch_size, path, _needs_more(config)))
    return found, unreadable


def check_known(repository: Repository, model: str) -> None:
    """Raises RepositoryError for a model that the repository does not have, and has no retired versions of."""
    known = repository.known_models()
    if model not in known:
        hint = did_you_mean(model, known) or "build something first: modelwright build"
        raise RepositoryError(f"{model}: is not in {repository.root.name}", hint)


def _needs_more(config: Any) -> bool:
    groups = config.instance_group
    on_gpus = bool(groups) and all(group.kind == group.KIND_GPU for group in groups)
    return may_be_lacking(config.backend, on_gpus)


def published_config(repository: Repository, model: str) -> Any:
    """The ModelConfig that a model is served with; None without a config.pbtxt. Raises ConfigError for a faulty one."""
    path = repository.root / model / CONFIG
    try:
        return parse(read_text(path), f"{repository.root.name}/{model}/{CONFIG}")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        hint = f"restore it: modelwright fsck {model} --repair"
        where = f"{repository.root.name}/{model}/{CONFIG}"
        raise ConfigError(f"{where}: not UTF-8 at byte {error.start}", hint) from None


def _config_or_none(repository: Repository, model: str) -> Any:
    """Also None for a faulty config: the server refuses it, and says why."""
    try:
        return published_config(repository, model)
    except ConfigError:
        return None


def superseded(repository: Repository, model: str, version: int) -> str:
    """Why a version cannot be checked as things are: it would run other models than it was verified with. '' when it
    can be.

    A pipeline's config names the versions that it runs: those are what it was verified with, or this is another version
    of it. A pipeline whose config names none runs the newest; then its own newest version can be checked, except that
    of a prebuilt one, which gets no new version for each of its composing models.
    """
    newest = repository.latest(model)
    manifest = repository.manifest(model, version)
    if newest is None or manifest is None:
        return ""
    if newest[0] != version and manifest.tensors != newest[1].tensors:
        return "the config has other tensors now"
    config = _config_or_none(repository, model)
    if config is not None and _has_other_steps(repository, config, model, version):
        return "the config has other steps now"
    if config is not None and is_pinned(config) and not manifest.made.prebuilt:
        return _differs_from_pins(repository, manifest, pins_of(config, [version]))
    if newest[0] == version and not manifest.made.prebuilt:
        return ""
    for composing, digest in manifest.made.composing_models.items():
        latest = repository.latest(composing)
        if latest is None or latest[1].version_digest != digest:
            return f"it runs another version of {composing} now"
    return ""


def _differs_from_pins(repository: Repository, manifest: Manifest, pins: Pins) -> str:
    """Why a version runs others than it was verified with. A config names what inner ensembles run in their place."""
    for composing, digest in manifest.made.composing_models.items():
        live = repository.versions(composing)
        if composing in pins:
            digests = {_digest(repository, composing, number) for number in pins[composing].intersection(live)}
            reason = "" if digest in digests else f"it runs another version of {composing} now"
        else:
            inner = [item for number in live if (item := repository.manifest(composing, number))]
            inner += [
                item
                for number in repository.retired(composing)
                if (item := repository.retired_manifest(composing, number))
            ]
            found = next((item for item in inner if item.version_digest == digest), None)
            if found is None or not found.made.composing_models:
                reason = f"it runs another version of {composing} now"
            else:
                reason = _differs_from_pins(repository, found, pins)
        if reason:
            return reason
    return ""


def _digest(repository: Repository, model: str, version: int) -> str | None:
    manifest = repository.manifest(model, version)
    return manifest.version_digest if manifest else None


def _has_other_steps(repository: Repository, config: Any, model: str, version: int) -> bool:
    """Whether an ensemble's config links other models, or other tensors, than this version of it did."""
    try:
        steps = parse_json(read_file(repository.folder(model, version) / ENSEMBLE))["steps"]
        known = [(step["model_name"], step["input_map"], step["output_map"]) for step in steps]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # prebuilt, or damaged, which a replay says by itself
    now = [(step.model_name, dict(step.input_map), dict(step.output_map)) for step in config.ensemble_scheduling.step]
    has_inner = {model for model, _, _ in known} - {model for model, _, _ in now}  # ensembles: what they run is named
    return known != now and not (now and has_inner)


def with_ensembles(repository: Repository, names: Iterable[str]) -> list[str]:
    """These models, as far as they are in the repository, and the ensembles that run them, however indirectly."""
    known, wanted = repository.models(), set(names)
    return [model for model in known if wanted.intersection(composing_first(repository, [model]))]


def composing_first(repository: Repository, models: Iterable[str]) -> list[str]:
    """These models and those that they run, each after those that it runs: the order to load in.

    A model whose config cannot be read runs none: the server does not serve it.
    """

    def runs(model: str) -> Iterable[str]:
        config = _config_or_none(repository, model)
        return run_by(config) if config is not None else ()

    return in_load_order(models, runs)


def in_load_order(models: Iterable[str], runs: Callable[[str], Iterable[str]]) -> list[str]:
    """These models and what they run, by `runs`, each after what it runs."""
    ordered: dict[str, None] = {}
    seen: set[str] = set()  # a config that was edited by hand can make a circle

    def visit(model: str) -> None:
        if model in seen:
            return
        seen.add(model)
        for other in runs(model):
            visit(other)
        ordered[model] = None

    for model in models:
        visit(model)
    return list(ordered)


def needs_completion(repository: Repository, models: Iterable[str]) -> bool:
    """Whether the server must complete a config: a prebuilt one that leaves the tensors to the server."""
    configs = [_config_or_none(repository, model) for model in models]
    return any(not (config.input and config.output) for config in configs if config is not None)


def serving_versions(config: Any, versions: Sequence[int]) -> str:
    """A ModelConfig with exactly these versions served, as the load API takes it. `config` is changed."""
    config.version_policy.specific.versions[:] = versions
    return as_json(config)


def checkable(repository: Repository, model: str) -> list[int]:
    """The versions of a model that can be checked."""
    return [version for version in repository.versions(model) if _can_be_checked(repository, model, version)]


def _can_be_checked(repository: Repository, model: str, version: int) -> bool:
    try:
        return not superseded(repository, model, version)
    except RepositoryError:  # its manifest, or that of a model that it runs, cannot be read
        return False
