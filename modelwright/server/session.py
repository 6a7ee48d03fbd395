"""Serve a repository on the local tritonserver for as long as a `with` block lasts. The one way to do so.

    with serve(project.server, project.target, repository, log=log, say=print, load=[Load("digits")]) as served:
        with connect(served.http) as client: ...

Which models are loaded, in which order and with which configs is passed in: nothing here knows what a repository holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright import extras
from modelwright.errors import ServerError, ServerTimeoutError
from modelwright.server import environment
from modelwright.server.environment import Environment
from modelwright.server.local import Mode, Ports, RunningServer, running
from modelwright.server.native import find_native
from modelwright.server.patience import RAISE_IT, patience_s, request_patience_s
from modelwright.triton.client import connect
from modelwright.triton.releases import Release, release_of_server

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Load:
    """A model to load. Each of `configs` is sent in turn, until the server refuses one.

    A config is the JSON text of a ModelConfig that replaces config.pbtxt; None loads the model with its config.pbtxt.
    """

    model: str
    configs: tuple[str | None, ...] = (None,)


@dataclass(frozen=True)
class Served:
    """A repository while it is served. `http`, `grpc` and `metrics` are URLs."""

    http: str
    grpc: str
    metrics: str
    refused: Mapping[str, str]  # model → why the server did not load it
    environment: Environment
    request_timeout_s: float  # what to give a request to one of its models
    _server: RunningServer = field(repr=False)

    @property
    def urls(self) -> tuple[str, str]:
        return self.http, self.grpc

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def log(self) -> Path:
        return self._server.log

    @property
    def alive(self) -> bool:
        return self._server.alive

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until the server ends; its exit code, or 128 + N for signal N. Raises ServerError after `timeout_s`."""
        return self._server.wait(timeout_s)

    def ready(self) -> list[tuple[str, int]]:
        """Model and version of everything that can be called now."""
        with connect(self.http) as client:
            return [(entry.name, int(entry.version)) for entry in client.index() if entry.state == "READY"]


@contextmanager
def serve(
    folder: Path,
    target: Release,
    repository: Path,
    *,
    log: Path,
    say: Say,
    load: Sequence[Load] | None = None,
    poll: bool = False,
    ports: Ports | None = None,
    auto_complete: bool = False,
    config_name: str = "",
    startup_timeout_s: float | None = None,
    stop_grace_s: float = 0,
) -> Iterator[Served]:
    """Serve `repository` on 127.0.0.1; the block starts when loading has ended, well or not: see `Served.refused`.

    The server's environment for `target` is found in `folder`, or made there, which `say` tells. Without `load` every
    model of the repository is loaded; with `poll` also those that come later. Free ports are chosen unless given.
    `auto_complete` lets the server complete configs that name no tensors. Models that have configs/`config_name`.pbtxt
    run with that one. `startup_timeout_s` is what the server gets to start, and to load each model of `load`; by
    default that follows from what it loads. `stop_grace_s` is what requests in flight get at the end. Raises
    ServerError when the server cannot be installed or does not start.
    """
    extras.require("a local server", "client", ServerError)
    native = find_native(target)
    made = native or environment.ensure(folder, target, say)
    mode: Mode = "poll" if poll else "explicit"
    with running(
        made,
        repository,
        log=log,
        mode=mode,
        models=["*"] if load is None and not poll else (),
        ports=ports,
        auto_complete=auto_complete,
        extra_arguments=[f"--model-config-name={config_name}"] if config_name else (),
        startup_timeout_s=startup_timeout_s,
        stop_grace_s=stop_grace_s,
        say=say,
    ) as server:
        url = f"http://{server.http}"
        refused: dict[str, str] = {}
        for item in load or ():
            reason = _refusal(url, item, startup_timeout_s or patience_s(repository, [item.model]))
            refused |= {item.model: reason} if reason else {}
        refused |= server.failures()  # in the server's log and index stands more than in its answer
        if native is not None:
            refused = {model: native.explained(reason) for model, reason in refused.items()}
            _tell_release(url, target, say)
        request_s = max(startup_timeout_s or 0, request_patience_s(repository))
        grpc, metrics = f"grpc://{server.grpc}", f"http://{server.metrics}/metrics"
        yield Served(url, grpc, metrics, refused, made, request_s, server)


def _tell_release(url: str, target: Release, say: Say) -> None:
    """A server of another release may load and answer otherwise than the one that the repository is for."""
    with connect(url) as client:
        version = str(client.server().get("version", ""))
    if version != target.server:
        name = release_of_server(version) or "a release that is not known"
        say(f"the server here is Triton {version} ({name}), and the repository is for {target.name} ({target.server})")


def _refusal(url: str, item: Load, timeout_s: float) -> str:
    """Load a model; why that failed, "" when it did not."""
    with connect(url, timeout_s) as client:
        try:
            for config in item.configs:
                client.load(item.model, config)
        except ServerTimeoutError:
            return f"it was still loading after {timeout_s:g} s; {RAISE_IT}"
        except ServerError as error:
            return error.message.removeprefix(f"{client.url}: {item.model}: ")
    return ""
