"""One server of a fleet: how it takes changes, which release it is, and what it serves.

    with reach("http://gpu1:8000") as member:
        member.control              # "explicit": it loads when it is told; "poll": it looks at the repository by itself
        member.shown()["digits"]    # {3: ShownVersion("READY", "")}

A server does not say how it is controlled. `unload` of a name that no model has tells: an explicit server answers 200
and does nothing, any other refuses. A server with --model-control-mode=none refuses as a polling one does, and follows
nothing: waiting for it ends with a message that names this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelwright.errors import ServerError
from modelwright.loadtest.measure.servers import check_triton
from modelwright.triton.access import NO_ACCESS, Access, address_of
from modelwright.triton.client import Client, connect
from modelwright.triton.releases import Release, release_of_server

Control = Literal["explicit", "poll"]

_NO_MODEL = "modelwright-asks-whether-models-can-be-loaded"
_NOT_EXPLICIT = "explicit model load / unload is not allowed"
_LOCAL = "modelwright-"  # the name of a server that Modelwright started: see server/local.py
_REPOSITORY_API = "model_repository"


@dataclass(frozen=True)
class ShownVersion:
    """One version in a server's index. `state` as in IndexEntry."""

    state: str
    reason: str


Shown = Mapping[str, Mapping[int, ShownVersion]]  # by model; a model that is not loaded has no versions


@dataclass(frozen=True)
class Member:
    """A server that answered. `version` is that of the server itself: "2.51.0"."""

    url: str
    client: Client
    control: Control
    version: str
    is_local: bool  # started by Modelwright: the stand-in for any release, with the target's onnxruntime

    def shown(self) -> Shown:
        """What the server has in its repository, and in which state."""
        found: dict[str, dict[int, ShownVersion]] = {}
        for entry in self.client.index():
            versions = found.setdefault(entry.name, {})
            if entry.version:
                versions[int(entry.version)] = ShownVersion(entry.state, entry.reason)
        return found

    def config(self, model: str) -> Mapping[str, Any] | None:
        """The config that a model runs with; None while the server has none."""
        try:
            return self.client.config(model)
        except ServerError:
            return None

    @property
    def release(self) -> str:
        """`26.07 (2.71.0)`; the server's version alone where no release is known to have it."""
        name = release_of_server(self.version)
        return f"{name} ({self.version})" if name else self.version


@contextlib.contextmanager
def reach(url: str, timeout_s: float = 60, access: Access = NO_ACCESS) -> Iterator[Member]:
    """A server at a URL, HTTP or gRPC. `timeout_s` limits each call, loading a model too.

    Raises ServerError for one that cannot be reached, is no Triton server, or keeps its repository API to others.
    """
    address = address_of(url, access)
    with connect(url, timeout_s, access) as client:
        check_triton(client, address)
        described = client.server()
        yield Member(
            client.url,
            client,
            _control(client, described.get("extensions", ())),
            str(described.get("version", "")),
            str(described.get("name", "")).startswith(_LOCAL),
        )


def _control(client: Client, extensions: Any) -> Control:
    if _REPOSITORY_API not in extensions:
        raise ServerError(f"{client.url}: has no repository API ({_REPOSITORY_API} is not among its extensions)")
    name = _NO_MODEL
    while any(entry.name == name for entry in client.index()):
        name += "-"
    try:
        client.unload(name)
    except ServerError as error:
        if _NOT_EXPLICIT in error.message:
            return "poll"
        hint = "let this machine use its repository API (--http-restricted-api), or leave the server out"
        reason = error.message.rpartition(f"{name}: ")[2]
        raise ServerError(f"{client.url}: does not say whether models can be loaded: {reason}", hint) from None
    return "explicit"


def check_release(member: Member, target: Release, *, allow_other: bool) -> None:
    """Raises ServerError for a server of another release than the repository is for."""
    if allow_other or member.is_local or member.version == target.server:
        return
    raise ServerError(
        f"{member.url}: is Triton {member.release}, and the repository is for {target.name} ({target.server})",
        "give a server of that release; or --allow-other-release, if you have tried that its models load there",
    )
