"""Golden replay: put every published version's golden inputs to a server, and compare what comes back.

Any server: the local one, which is told to serve every version; or a URL, where the versions it serves are checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from modelwright.digest import canonical, list_tree, sha256, sha256_file
from modelwright.errors import ModelwrightError, ServerError, VerifyError
from modelwright.project.project import ProjectConfig
from modelwright.repository.repository import Repository
from modelwright.repository.versions import (
    Published,
    composing_first,
    needs_completion,
    serving_all_versions,
    superseded,
)
from modelwright.triton.client import Client, connect
from modelwright.triton.layout import CONFIG, WARMUP
from modelwright.triton.reasons import is_lacking
from modelwright.triton.tensors import Tensors
from modelwright.verification.batches import in_batches
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.golden import load_golden
from modelwright.verification.tolerances import from_json

Verdict = Literal["ok", "loads", "failed", "not served", "not served here", "superseded"]


@dataclass(frozen=True)
class Replayed:
    """One version over one protocol.

    `superseded`: it cannot be checked any more, and why. Of a prebuilt version there may be nothing to check but that
    it `loads`; `not served here`: the local server has not what it needs, and `detail` says what.
    """

    model: str
    version: int
    url: str
    verdict: Verdict
    max_abs_error: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Local:
    """The local server while it serves every version: its URLs, and why it refused a model."""

    urls: tuple[str, str]  # HTTP, gRPC
    refused: dict[str, str]


def replay(
    repository: Repository, versions: Sequence[Published], urls: Sequence[str], refused: Mapping[str, str] | None = None
) -> list[Replayed]:
    """Replay each version on each URL. A version whose files are not what its manifest says fails unasked.

    A version that is not served is no failure, unless `refused` is given: then all were asked for, and it has reasons.
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
    found = [_expected_there(result, refused) if result.verdict == "not served" else result for result in results]
    prebuilt = {item.model for item in versions if item.is_prebuilt}
    return [_excused(result) if result.model in prebuilt else result for result in found]


def _expected_there(result: Replayed, refused: Mapping[str, str]) -> Replayed:
    if result.detail:  # its config leaves it out
        return result
    return replace(result, verdict="failed", detail=refused.get(result.model, "the server does not serve it"))


def _excused(result: Replayed) -> Replayed:
    """A prebuilt version that failed for want of something that this server has not is no failure."""
    lacking = result.verdict == "failed" and is_lacking(result.detail)
    return replace(result, verdict="not served here") if lacking else result


@contextlib.contextmanager
def serving_all(project: ProjectConfig, versions: Sequence[Published], log: Path, say: Any) -> Iterator[Local]:
    """The local server with every one of these versions loaded."""
    from modelwright.server import environment
    from modelwright.server.local import running

    made = environment.ensure(project.server, project.target, say)
    repository = Repository(project.repository, project.staging)
    models = composing_first(repository, dict.fromkeys(item.model for item in versions))
    prebuilt = {item.model for item in versions if item.is_prebuilt}
    completes = needs_completion(repository, models)
    with running(made, project.repository, log=log, mode="explicit", stop_grace_s=0, auto_complete=completes) as server:
        with connect(f"http://{server.http}") as client:
            for model in models:
                _load(client, model, serving_all_versions(repository, model), by_policy=model in prebuilt)
        refused = server.failures()
        yield Local((f"http://{server.http}", f"grpc://{server.grpc}"), refused)


def _load(client: Client, model: str, every_version: str | None, *, by_policy: bool) -> None:
    """What does not load fails where it is replayed, with the reason that the server's log has.

    `by_policy`, a prebuilt model: it must load as its config has it. Its other versions need not fit that config: where
    they do not load, the server goes on with those that it has.
    """
    with contextlib.suppress(ServerError):
        if by_policy:
            client.load(model)
        if every_version is not None or not by_policy:
            client.load(model, every_version)


def fingerprint(project: ProjectConfig, versions: Iterable[Published]) -> str:
    """A digest of everything that a local replay depends on: while it stays, another replay would say the same."""
    from modelwright.server import environment

    made = environment.find(project.server, project.target)
    state = {
        "server": str(made.root) if made else None,
        "versions": [[item.model, item.version, item.manifest["files"]] for item in versions],
        "configs": {item.model: sha256_file(project.repository / item.model / CONFIG) for item in versions},
        "warmup": {item.model: _digests(project.repository / item.model / WARMUP) for item in versions},
    }
    return sha256(canonical(state))


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
    facts = item.manifest["verification"]["golden"]

    def infer(part: Tensors) -> Tensors:
        return client.infer(item.model, part, version=str(item.version))

    batch = min(facts["batch"], item.max_batch_size)
    actual = in_batches(infer, inputs, batch)
    errors = compare_outputs(expected, actual, from_json(facts["tolerance"]))
    return max(errors.values(), default=0.0)


def _served(client: Client) -> dict[tuple[str, str], str]:
    """(model, version) → why it is not ready, '' when it is."""
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
