"""The server under test: a running one at a URL, or a local one that is started for the test."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.errors import RepositoryError, ServerError, ServerTimeoutError
from modelwright.loadtest.measure.listener import triton_process
from modelwright.project.project import ProjectConfig
from modelwright.repository.repository import Repository
from modelwright.repository.versions import composing_first, needs_completion, published_config, serving_versions
from modelwright.server.session import Load, Say, Served, serve
from modelwright.suggest import did_you_mean
from modelwright.triton.access import NO_ACCESS, Access, Address, address_of
from modelwright.triton.client import Client, connect


@dataclass(frozen=True)
class ServerUnderTest:
    """`local` is its process, if it was started here; `listener`, of another one, its process id if it is known."""

    url: str  # of the protocol that the test uses
    repository: Path | None  # where golden samples and manifests are
    local: Served | None = None
    listener: int | None = None
    why_no_pid: str = ""

    @property
    def pid(self) -> int | None:
        return self.local.pid if self.local else self.listener

    def gone(self) -> str:
        """How the local server ended; "" while it runs, and for a server that was not started here."""
        if self.local is None or self.local.alive:
            return ""
        return f"the server ended, exit code {self.local.wait()}; its log: {self.local.log}"


def remote(url: str, protocol: str | None, repository: Path, access: Access = NO_ACCESS) -> ServerUnderTest:
    """A running server. Raises ServerError if it does not answer, or if its URL is of the other protocol."""
    address = address_of(url, access)
    if protocol and protocol != address.protocol:
        raise ServerError(f"--url {url}: is not the URL of a {protocol} endpoint", f"leave out --protocol {protocol}")
    with connect(url, timeout_s=5, access=access) as client:
        check_triton(client, address)
    listener, why_not = triton_process(address)
    there = repository if repository.is_dir() else None
    return ServerUnderTest(address.url, there, listener=listener, why_no_pid=why_not)


def is_on_this_machine(url: str) -> bool:
    """Whether a name or address in a URL is of this machine. Another end of a tunnel (ssh -L) looks the same."""
    address = address_of(url)
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_is_own(family, place[0]) for family, _, _, _, place in found)


def _is_own(family: int, address: str | int) -> bool:
    """The system binds a socket to the machine's own addresses only."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def check_triton(client: Client, address: Address) -> None:
    """Raises ServerError if the server at the URL is not a Triton server, but a web server for example."""
    try:
        name = client.server().get("name")
        client.index()
    except ServerError as error:
        # Over gRPC, what is no gRPC server looks like one that cannot be reached.
        if address.protocol == "http" or isinstance(error, ServerTimeoutError) or not _accepts(address):
            raise
        name = None
    if not name:
        raise ServerError(
            f"what answers at {client.url} is not a Triton server",
            "give the address of its HTTP port (8000) as http://…, of its gRPC port (8001) as grpc://…",
        )


def _accepts(address: Address) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def local(
    project: ProjectConfig, repository: Path, wanted: Mapping[str, Sequence[int]], protocol: str, log: Path, say: Say
) -> Iterator[ServerUnderTest]:
    """A local tritonserver with these versions of models, [] for those of the config, and their composing models."""
    known = Repository(repository, project.staging)
    _check_known(known, wanted, project)
    models = composing_first(known, wanted)
    with serve(
        project.server,
        project.target,
        repository,
        log=log,
        say=say,
        load=[Load(model, (_config(known, model, wanted.get(model, ())),)) for model in models],
        auto_complete=needs_completion(known, models),
        startup_timeout_s=project.startup_timeout_s,
        stop_grace_s=1,
    ) as served:
        for model, reason in served.refused.items():
            raise ServerError(f"{project.shown(repository)}: the server does not load {model}: {reason}")
        yield ServerUnderTest(served.grpc if protocol == "grpc" else served.http, repository, served)


def _check_known(repository: Repository, wanted: Mapping[str, Sequence[int]], project: ProjectConfig) -> None:
    known = repository.models()
    shown = project.shown(repository.root)
    if not known:
        raise RepositoryError(f"{shown}: no models", "build them: modelwright build")
    for model, versions in wanted.items():
        if model not in known:
            raise RepositoryError(f"{model}: not in {shown}", did_you_mean(model, known))
        there = repository.versions(model)
        for version in versions:
            if version not in there:
                raise RepositoryError(
                    f"{model}: no version {version} in {shown}", f"it has {', '.join(map(str, there)) or 'none'}"
                )


def _config(repository: Repository, model: str, versions: Sequence[int]) -> str | None:
    """The model's config with just these versions served, as the load API takes it."""
    config = published_config(repository, model)
    return serving_versions(config, versions) if versions and config is not None else None
