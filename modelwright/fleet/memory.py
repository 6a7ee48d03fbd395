"""Whether a server has the memory for a swap, in which the new version is loaded before the old one goes.

What it has is in its metrics, where it gives them: nv_gpu_memory_*_bytes for each GPU, nv_cpu_memory_*_bytes for the
machine. What a version takes is at least its files, once for each instance.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from modelwright.config.render import as_json
from modelwright.errors import ModelwrightError, ServerError
from modelwright.fleet.expected import Expected, served
from modelwright.fleet.member import Member
from modelwright.repository.repository import Repository
from modelwright.repository.versions import published_config
from modelwright.text import size
from modelwright.triton.access import Address, address_of
from modelwright.triton.http import AnswerTooLargeError, BoundedConnection, MalformedAnswerError
from modelwright.triton.layout import GOLDEN

_METRICS_PORT = 8002
_TIMEOUT_S = 2.0
_MOST_BYTES = 1 << 26  # of metrics
_LINE = re.compile(r'^(nv_[cg]pu_memory_(?:total|used)_bytes)(?:\{gpu_uuid="([^"]*)"\})? (\S+)$', re.MULTILINE)
_ON_CPU = ("python",)  # backends whose instances stay on the CPU unless their group says KIND_GPU
_DEFAULT_INSTANCES = {"onnxruntime": 2}  # on the CPU, where the config does not say
_VENDORED = "site-packages/"


@dataclass(frozen=True)
class Memory:
    """Of one device of a server: `device` is "CPU", or a GPU's UUID."""

    device: str
    total_bytes: float
    used_bytes: float

    @property
    def free_bytes(self) -> float:
        return self.total_bytes - self.used_bytes


@dataclass(frozen=True)
class Need:
    """What a version that is not loaded yet takes at least, on the CPU or on each GPU."""

    model: str
    version: int
    size_bytes: int
    instances: int
    on_gpu: bool

    @property
    def total_bytes(self) -> int:
        return self.size_bytes * self.instances

    @property
    def text(self) -> str:
        times = f" in {self.instances} instances" if self.instances > 1 else ""
        return f"{self.model} version {self.version} takes {size(self.total_bytes)}{times}"


def check_memory(member: Member, repository: Repository, wanted: Sequence[Expected]) -> None:
    """Raises ServerError, with the figures, where what is to be loaded takes more than a device has left.

    A server that does not tell is passed over.
    """
    devices = memory_of(member)
    if not devices:
        return
    needs = list(_needs(member, repository, wanted, has_gpu=any(device.device != "CPU" for device in devices)))
    for device in devices:
        here = [need for need in needs if need.on_gpu == (device.device != "CPU")]
        needed = sum(need.total_bytes for need in here)
        if needed > device.free_bytes:
            what = "; ".join(need.text for need in here)
            raise ServerError(
                f"{member.url}: {what}, beside what is served; {device.device} has {size(device.free_bytes)} of "
                f"{size(device.total_bytes)} left",
                "unload what it need not serve, take a server with more memory; or --ignore-memory",
            )


def memory_of(member: Member) -> list[Memory]:
    """By the server's metrics; empty where it gives none, or counts no memory."""
    for address in _metrics_addresses(address_of(member.url)):
        text = _fetched(address)
        if text and "nv_inference_" in text:
            return read_memory(text)
    return []


def read_memory(text: str) -> list[Memory]:
    """From metrics in Prometheus' text format. A server that does not count its CPU memory says 0."""
    found: dict[str, dict[str, float]] = {}
    for name, gpu, value in _LINE.findall(text):
        with contextlib.suppress(ValueError):
            found.setdefault(gpu or "CPU", {})["total" if "_total_" in name else "used"] = float(value)
    return [
        Memory("CPU" if device == "CPU" else f"GPU {device}", values["total"], values.get("used", 0.0))
        for device, values in found.items()
        if values.get("total")
    ]


def _metrics_addresses(address: Address) -> Iterator[Address]:
    """Where a server's metrics may be: in the order of Triton's ports behind its own, and on the usual one."""
    yield Address("http", address.host, address.port + (1 if address.protocol == "grpc" else 2))
    if address.port + 2 != _METRICS_PORT:
        yield Address("http", address.host, _METRICS_PORT)


def _fetched(address: Address) -> str:
    """Without the headers of the command: they are for the server's own port."""
    connection = BoundedConnection(address)
    try:
        answer = connection.ask("GET", "/metrics", timeout_s=_TIMEOUT_S, max_bytes=_MOST_BYTES)
    except (OSError, MalformedAnswerError, AnswerTooLargeError):
        return ""
    finally:
        connection.close()
    return answer.body.decode("utf-8", "replace") if answer.status == HTTPStatus.OK else ""


def _needs(member: Member, repository: Repository, wanted: Iterable[Expected], *, has_gpu: bool) -> Iterator[Need]:
    shown = member.shown()
    for item in wanted:
        loaded = {version for version, entry in shown.get(item.model, {}).items() if served(entry)}
        new = [version for version in item.versions if version not in loaded]
        if not new or item.steps:
            continue
        instances, on_gpu = _instances(_config(member, repository, item.model), has_gpu=has_gpu)
        for version in new:
            yield Need(item.model, version, _size_bytes(repository, item.model, version), instances, on_gpu)


def _config(member: Member, repository: Repository, model: str) -> Mapping[str, Any]:
    """As the server completed it; before the server has the model, as it is published."""
    running = member.config(model)
    if running is not None:
        return running
    published = published_config(repository, model)
    described: dict[str, Any] = json.loads(as_json(published)) if published is not None else {}
    return described


def _instances(config: Mapping[str, Any], *, has_gpu: bool) -> tuple[int, bool]:
    """(instances, whether they are on GPUs): of one GPU, where there are several."""
    backend = str(config.get("backend", ""))
    groups = config.get("instance_group") or [{}]
    kinds = {str(group.get("kind", "KIND_AUTO")) for group in groups}
    on_gpu = "KIND_GPU" in kinds or (has_gpu and "KIND_AUTO" in kinds and backend not in _ON_CPU)
    default = 1 if on_gpu else _DEFAULT_INSTANCES.get(backend, 1)
    return sum(int(group.get("count", 0)) or default for group in groups), on_gpu


def _size_bytes(repository: Repository, model: str, version: int) -> int:
    """Of what is loaded: golden samples are not, and vendored packages are code."""
    try:
        manifest = repository.manifest(model, version) or repository.retired_manifest(model, version)
    except ModelwrightError:
        return 0
    files = manifest.files.items() if manifest else ()
    return sum(file.size_bytes for name, file in files if name != GOLDEN and not name.startswith(_VENDORED))
