"""MLmodel, the file that says what an MLflow model is: its flavours, and the tensors of its signature.

It is YAML and runs no code. A lock keeps what counts of it as one line of JSON, so that planning needs no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from modelwright.errors import SpecError

FILE = "MLmodel"
DETAIL = "mlmodel"  # of a source.lock
_AGAIN = "log the model again, or copy the whole folder"
# numpy's names, which a signature has, and Triton's
_TYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float16": "FP16", "float32": "FP32",
    "float64": "FP64", "str": "STRING", "object": "STRING",
}  # fmt: skip


@dataclass(frozen=True)
class SignatureTensor:
    name: str  # "" where the signature has none
    dtype: str  # Triton's; "" for one that it does not have
    dims: tuple[int, ...]  # with the batch dimension; -1: any size


@dataclass(frozen=True)
class MlModel:
    flavors: Mapping[str, Mapping[str, Any]]
    inputs: Sequence[SignatureTensor] = ()  # none for a signature of columns, and without one
    outputs: Sequence[SignatureTensor] = ()
    signature: Mapping[str, Any] = field(default_factory=dict)

    def as_detail(self) -> str:
        """For a lock. `of_detail` reads it."""
        return json.dumps({"flavors": self.flavors, "signature": self.signature}, sort_keys=True, default=str)


def parse_mlmodel(text: str, where: str) -> MlModel:
    """Raises SpecError for what is no such file; `where` is how messages call it."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecError(f"{where}: damaged: {' '.join(str(error).split())[:200]}", _AGAIN) from None
    return _of(data, where)


def of_detail(text: str, where: str) -> MlModel:
    """From a lock. Raises SpecError for one that was edited."""
    try:
        return _of(json.loads(text), where)
    except (ValueError, RecursionError):
        raise SpecError(f"{where}: {DETAIL} is damaged", "modelwright update writes it again") from None


def _of(data: Any, where: str) -> MlModel:
    flavors = data.get("flavors") if isinstance(data, Mapping) else None
    if not isinstance(flavors, Mapping) or not all(isinstance(item, Mapping) for item in flavors.values()):
        raise SpecError(f"{where}: damaged: it names no flavors", _AGAIN)
    signature = data.get("signature") or {}
    if not isinstance(signature, Mapping):
        raise SpecError(f"{where}: damaged: signature is not one", _AGAIN)
    sides = [_tensors(signature.get(side), f"{where}: signature.{side}") for side in ("inputs", "outputs")]
    kept = {side: signature[side] for side in ("inputs", "outputs") if signature.get(side)}
    return MlModel({str(name): item for name, item in flavors.items()}, sides[0], sides[1], kept)


def _tensors(text: Any, where: str) -> tuple[SignatureTensor, ...]:
    if not text:
        return ()
    try:
        entries = json.loads(text)
        if not all(entry.get("type") == "tensor" for entry in entries):
            return ()  # columns of a data frame
        return tuple(_tensor(entry) for entry in entries)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        raise SpecError(f"{where}: damaged", _AGAIN) from None


def _tensor(entry: Mapping[str, Any]) -> SignatureTensor:
    spec = entry["tensor-spec"]
    return SignatureTensor(
        str(entry.get("name") or ""), _TYPES.get(str(spec["dtype"]), ""), tuple(int(size) for size in spec["shape"])
    )
