"""A model's interface, as a client needs it: its tensors, its batch dimension, its sequences.

    interface = read_interface(client, "digits")
    interface.inputs  # (Tensor("image", "FP32", (1, 8, 8), optional=False),)

Shapes are without the batch dimension, as in config.pbtxt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.errors import ServerError
from modelwright.suggest import did_you_mean
from modelwright.triton.client import Client, IndexEntry
from modelwright.triton.dtypes import BY_CONFIG
from modelwright.triton.sequences import configs_with_composing, has_string_ids


@dataclass(frozen=True)
class InterfaceTensor:
    """`dims` has -1 for a variable size; `datatype` is the protocol's: "FP32", "BYTES"."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class SequencePolicy:
    """The model keeps state: requests of a sequence share a correlation id, and mark its start and end."""

    string_id: bool  # the id is a string, else an unsigned integer


@dataclass(frozen=True)
class ModelInterface:
    """One version of one model, as a server serves it.

    `version` is the requested one, or the highest that is ready. `merges_requests`: the server may run rows of several
    requests together (dynamic or sequence batching, also in an ensemble's composing models).
    """

    model: str
    version: str
    max_batch_size: int  # 0: requests have no batch dimension
    inputs: tuple[InterfaceTensor, ...]
    outputs: tuple[InterfaceTensor, ...]
    decoupled: bool = False
    sequence: SequencePolicy | None = None
    ensemble: bool = False
    merges_requests: bool = False


def read_interface(client: Client, model: str, version: str = "") -> ModelInterface:
    """Read it from a server. Raises ServerError if the server cannot be reached, or does not serve model or version."""
    served = _served_version(client, model, version)
    config = client.config(model)
    configs = list(configs_with_composing(client, config))
    return ModelInterface(
        model=model,
        version=served,
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=tuple(_tensor(entry) for entry in config.get("input", ())),
        outputs=tuple(_tensor(entry) for entry in config.get("output", ())),
        decoupled=any(item.get("model_transaction_policy", {}).get("decoupled", False) for item in configs),
        sequence=next((_policy(item["sequence_batching"]) for item in configs if "sequence_batching" in item), None),
        ensemble=len(configs) > 1,
        merges_requests=any("dynamic_batching" in item or "sequence_batching" in item for item in configs),
    )


def _served_version(client: Client, model: str, version: str) -> str:
    index = client.index()
    entries = [entry for entry in index if entry.name == model]
    if not entries:
        hint = did_you_mean(model, sorted({entry.name for entry in index})) or "its repository is empty"
        raise ServerError(f"{client.url}: {model}: the server has no such model", hint)
    ready = sorted((entry.version for entry in entries if entry.state == "READY"), key=int)
    if not ready:
        reasons = "; ".join(_state(entry) for entry in entries)
        raise ServerError(
            f"{client.url}: {model}: no version is served: {reasons}", "load it, or fix what keeps it from loading"
        )
    if version and version not in ready:
        known = "; ".join(_state(entry) for entry in entries if entry.version == version) or "it has no such version"
        hint = f"served: version {', '.join(ready)}"
        raise ServerError(f"{client.url}: {model}: version {version} is not served: {known}", hint)
    return version or ready[-1]


def _state(entry: IndexEntry) -> str:
    if not entry.version:
        return "never loaded"
    return f"version {entry.version} is {entry.state or 'not loaded'}" + (f" ({entry.reason})" if entry.reason else "")


def _tensor(entry: Mapping[str, Any]) -> InterfaceTensor:
    datatype = entry["data_type"]
    name = BY_CONFIG[datatype].name if datatype in BY_CONFIG else datatype.removeprefix("TYPE_")
    return InterfaceTensor(
        entry["name"], name, tuple(int(size) for size in entry["dims"]), bool(entry.get("optional", False))
    )


def _policy(batching: Mapping[str, Any]) -> SequencePolicy:
    return SequencePolicy(has_string_ids(batching))
