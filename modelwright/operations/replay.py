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

from modelwright.build import stamp
from modelwright.digest import canonical, list_tree, sha256, sha256_file
from modelwright.errors import ModelwrightError, VerifyError
from modelwright.facts.part import JsonObject
from modelwright.project.project import ProjectConfig
from modelwright.repository.manifest import Manifest
from modelwright.repository.repository import Repository
from modelwright.repository.versions import (
    Published,
    composing_first,
    needs_completion,
    published,
    serving_all_versions,
    superseded,
)
from modelwright.server import environment
from modelwright.server.session import Load, Say, Served, serve
from modelwright.triton.client import Client, connect
from modelwright.triton.layout import CONFIG, MANIFEST, WARMUP
from modelwright.triton.reasons import is_missing_here
from modelwright.triton.tensors import Tensors
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.golden import load_golden
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import scalars_of

Verdict = Literal["ok", "loads", "failed", "not served", "not served here", "superseded"]


@dataclass(frozen=True)
class Replayed:
    """One version over one protocol; `detail` explains the verdict.

    `superseded`: newer versions changed what it runs with. `loads`: a prebuilt version without golden samples.
    `not served here`: the local server lacks something that a prebuilt version needs.
    """

    model: str
    version: int
    url: str
    verdict: Verdict
    max_abs_error: float | None = None
    detail: str = ""


def verify(project: ProjectConfig, names: Sequence[str] = (), urls: Sequence[str] = (), *, say: Say) -> list[Replayed]:
    """Replay the versions of these models, or of all, on these servers.

    Without URLs on a local server that serves every version, over both protocols. Raises VerifyError when nothing is
    published; a version that fails is in the result.
    """
    repository = Repository(project.repository, project.staging)
    versions = published(repository, names)
    if not versions:
        raise VerifyError("nothing is published yet", "build first: modelwright build")
    if urls:
        return replay(repository, versions, urls)
    with serving_all(project, versions, project.logs / "replay.log", say) as served:
        return replay(repository, versions, served.urls, served.refused)


def verify_if_changed(project: ProjectConfig, *, say: Say) -> list[Replayed] | None:
    """Replay everything on a local server. None when the same versions passed on the same server before."""
    versions = published(Repository(project.repository, project.staging))
    passed = project.state / "cache" / "replayed.json"
    if not versions:
        return None
    if passed.is_file() and passed.read_text() == json.dumps(fingerprint(project, versions)):
        stamp.mark_replayed(project)
        return None
    results = verify(project, say=say)
    if not any(result.verdict == "failed" for result in results):
        passed.parent.mkdir(parents=True, exist_ok=True)
        # Computed again: the server's environment, which is part of it, may have been made just now.
        passed.write_text(json.dumps(fingerprint(project, versions)))
    return results


def replay(
    repository: Repository, versions: Sequence[Published], urls: Sequence[str], refused: Mapping[str, str] | None = None
) -> list[Replayed]:
    """Replay each version on each URL. A version whose files differ from its manifest fails without a request.

    A version that is not served is a failure only where `refused` is given, {model: why the server did not load it}:
    then the server was told to serve them all.
    """
    results = []
    with contextlib.ExitStack() as stack:
        clients = {url: stack.enter_context(connect(url)) for url in urls}
        served = {url: _served(client) for url, client in clients.items()}
        for item in versions:
            damage = repository.damage(item.model, item.version)
            for url, client in clients.items():
                if damage:
                    detail = "; ".join(damage)
                    results.append(Replayed(item.model, item.version, url, "failed", detail=f"on disk: {detail}"))
                else:
                    results.append(_replay_one(repository, item, url, client, served[url]))
    if refused is None:
        return results
    found = [_fail_if_not_served(result, refused) for result in results]
    prebuilt = {item.model for item in versions if item.is_prebuilt}
    return [_downgrade_if_lacking(result) if result.model in prebuilt else result for result in found]


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
    """The local server with every one of these versions loaded, as far as it loads them."""
    repository = Repository(project.repository, project.staging)
    models = composing_first(repository, dict.fromkeys(item.model for item in versions))
    prebuilt = {item.model for item in versions if item.is_prebuilt}
    with serve(
        project.server,
        project.target,
        project.repository,
        log=log,
        say=say,
        load=[_load(repository, model, model in prebuilt) for model in models],
        auto_complete=needs_completion(repository, models),
    ) as served:
        yield served


def _load(repository: Repository, model: str, is_prebuilt: bool) -> Load:
    """Every version of a model. A prebuilt one must load by its own version policy first.

    Its other versions need not fit its config: where they do not load, the server keeps those that it has.
    """
    every_version = serving_all_versions(repository, model)
    if not is_prebuilt:
        return Load(model, (every_version,))
    return Load(model, (None,) if every_version is None else (None, every_version))


def fingerprint(project: ProjectConfig, versions: Iterable[Published]) -> str:
    """A digest of everything that a local replay depends on: while it is the same, so is the result."""
    made = environment.find(project.server, project.target)
    state = {
        "server": str(made.root) if made else None,
        "versions": [[item.model, item.version, _files(item.manifest)] for item in versions],
        "configs": {item.model: sha256_file(project.repository / item.model / CONFIG) for item in versions},
        "warmup": {item.model: _digests(project.repository / item.model / WARMUP) for item in versions},
    }
    return sha256(canonical(state))


def _files(manifest: Manifest) -> dict[str, JsonObject]:
    return {name: file.as_json() for name, file in manifest.files.items()}


def _digests(folder: Path) -> dict[str, str]:
    return {name: sha256_file(path) for name, path in list_tree(folder).items()}


def _replay_one(
    repository: Repository, item: Published, url: str, client: Client, served: dict[tuple[str, str], str]
) -> Replayed:
    moved_on = superseded(repository, item.model, item.version)
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
        return Replayed(item.model, item.version, url, "ok", max_abs_error=_largest_error(item, client))
    except (ModelwrightError, OSError) as error:
        detail = error.message if isinstance(error, ModelwrightError) else str(error)
        return Replayed(item.model, item.version, url, "failed", detail=detail)


def _has_another(item: Published, served: Mapping[tuple[str, str], str]) -> bool:
    return any(model == item.model and not reason for (model, _), reason in served.items())


def _largest_error(item: Published, client: Client) -> float:
    inputs, expected = load_golden(item.golden)
    comparison = item.manifest.verification.golden
    if comparison is None:
        raise VerifyError(f"its {MANIFEST} does not say how its golden samples are compared")

    def infer(part: Tensors) -> Tensors:
        return client.infer(item.model, part, version=str(item.version))

    batch = min(comparison.batch, item.max_batch_size)
    runner = SampleRunner(infer, bool(batch), frozenset(scalars_of(expected)))
    errors = compare_outputs(expected, runner.ask_all(inputs, batch), comparison.tolerance)
    return max(errors.values(), default=0.0)


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
