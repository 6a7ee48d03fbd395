"""Brings what is in the outbox to MLflow, and has the alias `live` follow what is served. It fails no build.

sent = send(project, {"digits"})      # after a build of digits, or a change to what it serves
sent.problem                          # "" or why something is still waiting
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from modelwright.errors import ModelwrightError, TrackingError
from modelwright.fsops import locked, log_file
from modelwright.project.project import FILE, ProjectConfig
from modelwright.project.tracking import EMBEDDED
from modelwright.repository.repository import Repository
from modelwright.tracking.outbox import Outbox
from modelwright.tracking.published import put_published
from modelwright.tracking.state import KnownState, experiment_of, journal_head, live_version

_CONNECT_S = 5.0
_PATIENCE_S, _PATIENCE_PER_RECORD_S, _SLOWEST_BYTES_PER_S = 90.0, 15.0, 500_000
_COMMAND = "import sys; sys.path.remove(''); from modelwright.tracking.child import main; main()"
# What MLflow does by default takes minutes where a server hangs. What the user sets stays.
_BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_MOST_NAMED = 3


@dataclass
class Sent:
    """What the registry has now that it did not have before, and what it still lacks."""

    recorded: int = 0  # runs
    registered: dict[str, dict[int, int]] = field(default_factory=dict)  # model → our number → MLflow's
    live: dict[str, int | None] = field(default_factory=dict)  # where the alias moved
    waiting: list[str] = field(default_factory=list)  # models with something that is not recorded
    problem: str = ""

    @property
    def warning(self) -> str:
        """ "" where nothing is missing."""
        if not self.problem:
            return ""
        names = ", ".join(self.waiting[:_MOST_NAMED])
        more = len(self.waiting) - _MOST_NAMED
        what = f"{names}{f' and {more} more' if more > 0 else ''}: " if names else ""
        return f"{what}not recorded in MLflow: {self.problem}; the next build, or modelwright track, records it"


def check_installed(project: ProjectConfig) -> None:
    """Raise TrackingError where the project asks for MLflow and it is not there."""
    if project.tracking.mlflow and find_spec("mlflow") is None:
        hint = "pip install 'modelwright[mlflow]', or mlflow = false"
        raise TrackingError(f"{FILE}: tracking.mlflow needs mlflow, which is not installed", hint)


def send(project: ProjectConfig, models: Collection[str] | None = None) -> Sent:
    """Bring everything of these models, or of all, and whatever waits. Never raises for what the registry does."""
    sent = Sent()
    if not project.tracking.mlflow:
        return sent
    try:
        with locked(project.state / "tracking" / "lock", "modelwright track", wait=True):
            _send(project, models, sent)
    except ModelwrightError as error:  # a full disk
        sent.problem = sent.problem or error.message
    return sent


def _send(project: ProjectConfig, models: Collection[str] | None, sent: Sent) -> None:
    repository, outbox, known = Repository.of(project), Outbox.of(project.state), KnownState.of(project)
    head = journal_head(repository)
    moved = _moved(repository, known, models, head)
    for model in sorted({*moved, *(record.model for record in outbox.waiting())}):
        put_published(project, repository, outbox, model, known.versions.get(model, {}))
    records = outbox.waiting()
    if not records and not moved:
        return
    sent.waiting = sorted({*moved, *(record.model for record in records)})
    try:
        check_reachable(project)
        for answer in _ask(project, outbox, moved, len(records)):
            _take(answer, outbox, known, sent)
    except TrackingError as error:
        sent.problem = error.message
    left = {record.model for record in outbox.waiting()} | {model for model in moved if model not in sent.live}
    sent.waiting = sorted(left)
    if left:
        sent.problem = sent.problem or "its process ended early"
    elif models is None or set(known.versions) <= set(moved) | set(known.live):
        known.journal = head
    known.save()


def _moved(
    repository: Repository, known: KnownState, models: Collection[str] | None, head: str
) -> dict[str, int | None]:
    """The models of which the alias has to move, and to which version: of the named ones, and those that are known."""
    chosen = set(repository.models() if models is None else models)
    if models is None or head != known.journal:
        chosen |= known.versions.keys()
    now = {model: live_version(repository, model) for model in sorted(chosen)}
    return {model: version for model, version in now.items() if version != known.live.get(model)}


def _take(answer: dict[str, Any], outbox: Outbox, known: KnownState, sent: Sent) -> None:
    model, version = str(answer.get("model") or answer.get("live")), answer.get("version")
    if "recorded" in answer:
        outbox.remove(answer["recorded"])
        sent.recorded += 1
        if answer["number"] is not None:
            known.versions.setdefault(model, {})[int(version)] = int(answer["number"])  # type: ignore[arg-type]
            sent.registered.setdefault(model, {})[int(version)] = int(answer["number"])  # type: ignore[arg-type]
    elif "live" in answer:
        sent.live[model] = version
        known.live.pop(model, None)
        if version is not None:
            known.live[model] = int(version)
    else:
        sent.problem = sent.problem or str(answer["problem"])


def check_reachable(project: ProjectConfig) -> None:
    """Raises TrackingError for a server that takes no connection: MLflow would try for long."""
    place = project.tracking.server
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=_CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise TrackingError(f"{project.tracking.shown}: {reason}") from None


def _ask(project: ProjectConfig, outbox: Outbox, live: dict[str, int | None], records: int) -> Iterator[dict[str, Any]]:
    """The answers of a child process, as they come. Raises TrackingError where it takes too long, or dies."""
    order = {**order_of(project), "outbox": str(outbox.folder), "live": live}
    patience_s = _PATIENCE_S + _PATIENCE_PER_RECORD_S * records + outbox.size_bytes() / _SLOWEST_BYTES_PER_S
    yield from run_child(project, _COMMAND, order, patience_s)


def order_of(project: ProjectConfig) -> dict[str, Any]:
    """Which registry a child process is to talk to."""
    return {
        "registry": project.registry,
        "experiment": experiment_of(project),
        "artifacts": "" if project.tracking.uri else str(project.state / EMBEDDED / "artifacts"),
        "outbox": "",
        "live": {},
    }


def run_child(
    project: ProjectConfig,
    command: str,
    order: dict[str, Any],
    patience_s: float,
    bounds: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[dict[str, Any]]:
    """What a process that talks to MLflow answers to an order. `bounds` are variables for it.

    Raises TrackingError where it takes longer than `patience_s`, or dies.
    """
    log = log_file(project.logs / "mlflow.log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env={**_BOUNDS, **bounds, **os.environ, **_QUIET},
            start_new_session=True,  # Ctrl-C ends the build, and this by the pipe
        )
    try:
        try:
            output, _ = process.communicate(json.dumps(order).encode(), timeout=patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            yield from _parsed(output.splitlines())
            raise TrackingError(f"no answer within {patience_s:.0f} s") from None
        yield from _parsed(output.splitlines())
        if process.returncode:
            raise TrackingError(f"MLflow's process ended with exit code {process.returncode}: see {project.shown(log)}")
    finally:
        process.kill()
        process.wait()


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:  # cut short
            return
