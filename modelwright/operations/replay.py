"""Golden replay: send every published version's golden inputs to a server, and compare the answers.

Any server will do: the local one, which is told to serve every version, or one at a URL, where the versions that it
serves are checked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from modelwright import tools
from modelwright.build import stamp
from modelwright.digest import canonical, list_tree, parse_json, sha256, sha256_file
from modelwright.errors import ModelwrightError, RepositoryError, VerifyError
from modelwright.facts.part import JsonObject
from modelwright.facts.verified import Verified
from modelwright.fsops import read_file, write_cache
from modelwright.project.project import ProjectConfig
from modelwright.repository.manifest import Manifest
from modelwright.repository.repository import Repository
from modelwright.repository.versions import (
    Published,
    Unreadable,
    checkable,
    composing_first,
    needs_completion,
    published_config,
    readable,
    serving_versions,
    superseded,
    with_ensembles,
)
from modelwright.server import environment
from modelwright.server.native import NativeServer, find_native
from modelwright.server.session import Load, Say, Served, serve
from modelwright.triton.access import NO_ACCESS, Access
from modelwright.triton.client import Client, connect
from modelwright.triton.layout import CONFIG, MANIFEST, WARMUP
from modelwright.triton.reasons import is_missing_here
from modelwright.verification.golden_replay import ask_golden

Verdict = Literal["ok", "loads", "failed", "differs here", "not served", "not served here", "superseded"]


@dataclass(frozen=True)
class Replayed:
    """One version over one protocol; `detail` explains the verdict.

    `superseded`: newer versions changed what it runs with. `loads`: a prebuilt version without golden samples.
    `not served here`: the local server lacks a GPU, a backend, or something else that a prebuilt version needs.
    `differs here`: an INT8 version that was verified on a CPU of another instruction set.
    """

    model: str
    version: int
    url: str
    verdict: Verdict
    max_abs_error: float | None = None
    detail: str = ""


def verify(
    project: ProjectConfig,
    names: Sequence[str] = (),
    urls: Sequence[str] = (),
    *,
    access: Access | None = None,
    exact: bool = False,
    say: Say,
) -> list[Replayed]:
    """Replay the versions of these models, or of all, on these servers.

    Without URLs on a local server that serves these versions, over both protocols. With `exact` what a server at a URL
    serves, of these models or of all, and the repository lacks, fails. Raises VerifyError when nothing is
    published; a version that fails, or cannot be read, is in the result.
    """
    repository = Repository.of(project)
    versions, unreadable = readable(repository, names)
    if not versions and not unreadable:
        raise VerifyError("nothing is published yet", "build first: modelwright build")
    results = _replay_on(project, repository, versions, urls, say, access or NO_ACCESS) if versions else []
    if exact:
        results += [extra for url in urls for extra in _extras(project, repository, names, url, access or NO_ACCESS)]
    return results + [_unreadable(item) for item in unreadable]


def _extras(
    project: ProjectConfig, repository: Repository, names: Sequence[str], url: str, access: Access
) -> list[Replayed]:
    """What a server serves and the repository lacks."""
    known = repository.models()
    where = project.shown(repository.root)
    found = []
    with connect(url, access=access) as client:
        for (model, version), reason in sorted(_served(client).items()):
            if reason or (names and model not in names):
                continue
            if model not in known:
                detail = f"the server serves it, and {where} has no such model"
            elif int(version) not in repository.versions(model):
                has = ", ".join(map(str, repository.versions(model))) or "none"
                detail = f"the server serves it, and {where} has no such version, but {has}"
            else:
                continue
            found.append(Replayed(model, int(version), url, "failed", detail=detail))
    return found


def _replay_on(
    project: ProjectConfig,
    repository: Repository,
    versions: Sequence[Published],
    urls: Sequence[str],
    say: Say,
    access: Access = NO_ACCESS,
) -> list[Replayed]:
    if urls:
        return replay(repository, versions, urls, access=access)
    with serving_all(project, versions, project.logs / "replay.log", say) as served:
        results = replay(repository, versions, served.urls, served.refused, served.request_timeout_s)
        made = served.environment
    if isinstance(made, NativeServer):
        return [replace(result, detail=made.explained(result.detail)) for result in results]
    return results


def _unreadable(item: Unreadable) -> Replayed:
    return Replayed(item.model, item.version, "", "failed", detail=f"on disk: {item.error.message}")


def verify_if_changed(project: ProjectConfig, names: Sequence[str] = (), *, say: Say) -> list[Replayed] | None:
    """Replay on a local server what is not known to have passed on it as it is. None when there is nothing such.

    With names: versions of these models and of the ensembles that run them. A name that is not published is passed
    over.
    """
    repository = Repository.of(project)
    chosen = with_ensembles(repository, names)
    if names and not chosen:
        return None
    versions, unreadable = readable(repository, chosen)
    passed = _read_passed(project)
    known = fingerprints(project, repository, versions)
    pending = [item for item in versions if passed.get(_label(item)) != known[_label(item)]]
    if not pending and not unreadable:
        if versions:
            stamp.mark_replayed(project, names)
        return None
    results = _replay_on(project, repository, pending, (), say) if pending else []
    failed = {f"{result.model}/{result.version}" for result in results if result.verdict == "failed"}
    # Computed again: the server's environment, which is part of it, may have been made just now.
    known = fingerprints(project, repository, pending)
    passed |= {label: digest for label, digest in known.items() if label not in failed}
    _write_passed(project, {label: passed[label] for label in passed if (project.repository / label).is_dir()})
    return results + [_unreadable(item) for item in unreadable]


def _label(item: Published) -> str:
    return f"{item.model}/{item.version}"


def _passed_file(project: ProjectConfig) -> Path:
    return project.state / "cache" / "replayed.json"


def _read_passed(project: ProjectConfig) -> dict[str, str]:
    """The fingerprint with which each version passed last; a damaged file, or an older one, is an empty one."""
    try:
        data = parse_json(read_file(_passed_file(project)))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _write_passed(project: ProjectConfig, passed: Mapping[str, str]) -> None:
    write_cache(_passed_file(project), json.dumps(passed, indent=1))


def replay(
    repository: Repository,
    versions: Sequence[Published],
    urls: Sequence[str],
    refused: Mapping[str, str] | None = None,
    timeout_s: float = 60,
    access: Access = NO_ACCESS,
) -> list[Replayed]:
    """Replay each version on each URL. A version whose files differ from its manifest fails without a request.

    `timeout_s` limits each request.

    A version that is not served is a failure only where `refused` is given, {model: why the server did not load it}:
    then the server was told to serve them all.
    """
    results = []
    here = "" if refused is None else tools.instruction_set()  # of the server's CPU, where that is known
    with contextlib.ExitStack() as stack:
        clients = {url: stack.enter_context(connect(url, timeout_s, access)) for url in urls}
        served = {url: _served(client) for url, client in clients.items()}
        for item in versions:
            damage = _damage(repository, item)
            for url, client in clients.items():
                if damage:
                    results.append(Replayed(item.model, item.version, url, "failed", detail=f"on disk: {damage}"))
                else:
                    results.append(_replay_one(repository, item, url, client, served[url], here))
    if refused is None:
        return results
    found = [_fail_if_not_served(result, refused) for result in results]
    elsewhere = {item.model for item in versions if item.is_prebuilt or item.needs_more}
    return [_downgrade_if_lacking(result) if result.model in elsewhere else result for result in found]


def _damage(repository: Repository, item: Published) -> str:
    try:
        return "; ".join(repository.damage(item.model, item.version))
    except OSError as error:
        return f"{error.filename}: {error.strerror}"


def _fail_if_not_served(result: Replayed, refused: Mapping[str, str]) -> Replayed:
    if result.verdict != "not served" or result.detail:  # with a detail: its config leaves it out
        return result
    return replace(result, verdict="failed", detail=refused.get(result.model, "the server does not serve it"))


def _downgrade_if_lacking(result: Replayed) -> Replayed:
    """Downgrade to "not served here" when the local server lacks the dependency."""
    lacking = result.verdict == "failed" and is_missing_here(result.detail)
    return replace(result, verdict="not served here") if lacking else result


@contextlib.contextmanager
def serving_all(project: ProjectConfig, versions: Sequence[Published], log: Path, say: Say) -> Iterator[Served]:
    """The local server with these versions loaded, as far as it loads them, and what their ensembles run."""
    repository = Repository.of(project)
    wanted: dict[str, list[int]] = {}
    for item in versions:
        wanted.setdefault(item.model, []).append(item.version)
    models = composing_first(repository, wanted)
    prebuilt = {item.model for item in versions if item.is_prebuilt}
    composing = {run for model in models for run in composing_first(repository, [model]) if run != model}
    loads = [
        load
        for model in models
        for load in _loads(
            repository,
            model,
            wanted.get(model, ()),
            is_composing=model in composing,
            is_prebuilt=model in prebuilt,
        )
    ]
    with serve(
        project.server,
        project.target,
        project.repository,
        log=log,
        say=say,
        load=loads,
        startup_timeout_s=project.startup_timeout_s,
        auto_complete=needs_completion(repository, models),
    ) as served:
        yield served


def _loads(
    repository: Repository, model: str, wanted: Sequence[int], *, is_composing: bool, is_prebuilt: bool
) -> list[Load]:
    """How to load a model: the versions that are wanted and can be checked; all, where an ensemble may run any.

    A prebuilt model must load by its own version policy first. Its other versions need not fit its config: where they
    do not load, the server keeps those that it has.
    """
    versions = checkable(repository, model)
    chosen = [version for version in versions if is_composing or version in wanted]
    if wanted and not chosen and not is_composing:
        return []  # what runs with it has moved on: there is nothing to ask
    if not wanted or len(versions) < 2:
        return [Load(model)]  # the config as published serves it
    config = serving_versions(published_config(repository, model), chosen)
    return [Load(model, (None, config) if is_prebuilt else (config,))]


def fingerprints(project: ProjectConfig, repository: Repository, versions: Sequence[Published]) -> dict[str, str]:
    """Of each version, `model/version`, a digest of all that its local replay depends on: while that is the same, so is
    the result."""
    native = find_native(project.target)
    made = None if native else environment.find(project.server, project.target)
    served: dict[str, JsonObject] = {}

    def how_served(model: str) -> JsonObject:
        if model not in served:
            config = project.repository / model / CONFIG
            warmup = _digests(project.repository / model / WARMUP)
            served[model] = {"config": sha256_file(config) if config.is_file() else None, "warmup": {**warmup}}
        return served[model]

    found = {}
    for item in versions:
        runs = [model for model in composing_first(repository, [item.model]) if model != item.model]
        state: JsonObject = {
            "server": native.identity() if native else str(made.root) if made else None,
            "files": {**_files(item.manifest)},
            "served": how_served(item.model),
            "runs": {model: {**how_served(model), "versions": _contents(repository, model)} for model in runs},
        }
        found[_label(item)] = sha256(canonical(state))
    return found


def _contents(repository: Repository, model: str) -> JsonObject:
    """The version digests of a composing model: an ensemble may run any of its versions."""
    found: JsonObject = {}
    for version in repository.versions(model):
        try:
            manifest = repository.manifest(model, version)
        except RepositoryError as error:
            found[str(version)] = error.message
        else:
            found[str(version)] = manifest.version_digest if manifest else ""
    return found


def _files(manifest: Manifest) -> dict[str, JsonObject]:
    return {name: file.as_json() for name, file in manifest.files.items()}


def _digests(folder: Path) -> dict[str, str]:
    return {name: sha256_file(path) for name, path in list_tree(folder).items()}


def _replay_one(
    repository: Repository, item: Published, url: str, client: Client, served: dict[tuple[str, str], str], here: str
) -> Replayed:
    try:
        moved_on = superseded(repository, item.model, item.version)
    except RepositoryError as error:  # a model that it runs has a manifest that cannot be read
        return Replayed(item.model, item.version, url, "failed", detail=f"on disk: {error.message}")
    if moved_on:
        return Replayed(item.model, item.version, url, "superseded", detail=moved_on)
    reason = served.get((item.model, str(item.version)))
    if reason != "" and item.is_prebuilt and _has_another(item, served):
        detail = "; with it, the server says: ".join(filter(None, ("its version_policy names others", reason)))
        return Replayed(item.model, item.version, url, "not served", detail=detail)
    if reason != "":
        return Replayed(item.model, item.version, url, "failed" if reason else "not served", detail=reason or "")
    if not item.golden.is_file() and item.is_prebuilt:
        return Replayed(item.model, item.version, url, "loads", detail="no golden samples to compare with")
    try:
        return _compared(item, url, client, here)
    except (ModelwrightError, OSError) as error:
        detail = error.message if isinstance(error, ModelwrightError) else str(error)
        return Replayed(item.model, item.version, url, "failed", detail=detail)


def _has_another(item: Published, served: Mapping[tuple[str, str], str]) -> bool:
    return any(model == item.model and not reason for (model, _), reason in served.items())


def _compared(item: Published, url: str, client: Client, here: str) -> Replayed:
    """Ask for the golden samples. Raises VerifyError for answers that cannot be compared."""
    comparison = item.manifest.verification.golden
    if comparison is None:
        raise VerifyError(f"its {MANIFEST} does not say how its golden samples are compared")
    answer = ask_golden(client, item.model, item.version, item.golden, comparison, item.max_batch_size)
    if answer.worst is None:
        return Replayed(item.model, item.version, url, "ok", max_abs_error=answer.max_abs_error)
    verdict, why = _differs(item.manifest.verification, here)
    return Replayed(item.model, item.version, url, verdict, detail=f"{answer.difference}{why}")


def _differs(verified: Verified, here: str) -> tuple[Verdict, str]:
    """What another answer means: the integer kernels of another CPU can round in another way. `here` is the instruction
    set of the server's CPU, '' where it is not known."""
    there = verified.instruction_set
    if verified.precision != "int8" or not there or here == there:
        return "failed", ""
    if not here:
        return "failed", f"; it was verified with {there}: answers of INT8 depend on the server's CPU"
    fix = "build it on this CPU, or with quantise: {reduce_range: true}"
    return "differs here", f"; it was verified with {there}, this CPU has {here}: {fix}"


def _served(client: Client) -> dict[tuple[str, str], str]:
    """(model, version) → why it is not ready; '' when it is."""
    return {
        (entry.name, entry.version): "" if entry.state == "READY" else entry.reason or entry.state
        for entry in client.index()
        if entry.version
    }


def check(results: Iterable[Replayed]) -> None:
    """Raises VerifyError when any version failed."""
    failed = [result for result in results if result.verdict == "failed"]
    if failed:
        lines = [f"{item.model} version {item.version} on {item.url}: {item.detail}" for item in failed]
        raise VerifyError(f"{len(failed)} golden replays failed:\n" + "\n".join(f"  {line}" for line in lines))
