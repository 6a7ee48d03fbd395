"""spec.serving + what the artifact says about its tensors → ModelConfig, the protobuf message behind config.pbtxt.

`serving` is checked by ModelConfig's own descriptors and read by protobuf's own JSON parser, so every field works, by
its own name. What follows from the model is filled in here, and may not be written otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.errors import ConfigError
from modelwright.facts.made import Made, OnnxTensor
from modelwright.kinds.registry import kind_of
from modelwright.project.spec import Builder, TensorSpec
from modelwright.suggest import did_you_mean
from modelwright.triton import messages as fields
from modelwright.triton.dtypes import BY_CONFIG, BY_NAME
from modelwright.triton.model_config_pb2 import schema

_DERIVED = {
    "name": "it is the builder's name",
    "platform": "it follows from source.kind",
    "backend": "it follows from source.kind",
}
ENVIRONMENTS = "environments"  # the one key of `serving` that is ours: see environments.py
SERVING = "serving"  # how messages call it
_ENSEMBLE = "ensemble"  # the platform of models that only pass tensors on


@dataclass(frozen=True)
class Tensor:
    """One input or output as config.pbtxt states it: without the batch dimension, -1 where dynamic."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    labels: str | None = None


@dataclass(frozen=True)
class Tensors:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def tensors_of(builder: Builder, made: Made | None = None) -> Tensors:
    """Inputs and outputs: as the ONNX file declares them, checked against model.yaml, or as model.yaml does.

    `made` is None before anything is built.
    """
    spec = builder.spec
    if kind_of(builder).whole_config:
        config = parse_serving(builder, spec.serving)
        return Tensors(_written(config.input), _written(config.output))
    labels = {tensor.name: Path(tensor.labels).name for tensor in spec.outputs if tensor.labels}
    signature = made.signature if made else None
    if signature is None:
        return Tensors(_declared(spec.inputs, {}), _declared(spec.outputs, labels))
    inputs = _derived(builder, "inputs", signature.inputs, spec.inputs, {})
    return Tensors(inputs, _derived(builder, "outputs", signature.outputs, spec.outputs, labels))


def _declared(specs: Sequence[TensorSpec], labels: Mapping[str, str]) -> tuple[Tensor, ...]:
    return tuple(Tensor(spec.name, spec.dtype, tuple(spec.dims), labels.get(spec.name)) for spec in specs)


def _written(entries: Any) -> tuple[Tensor, ...]:
    """The tensors of a config that is given whole; one that the server completes has none."""
    types = schema().DataType
    names = [types.Name(entry.data_type) if entry.data_type in types.values() else "" for entry in entries]
    dtypes = [BY_CONFIG[name].name if name in BY_CONFIG else name for name in names]
    return tuple(Tensor(entry.name, dtype, tuple(entry.dims)) for entry, dtype in zip(entries, dtypes, strict=True))


def _derived(
    builder: Builder, field: str, actual: Sequence[OnnxTensor], specs: Sequence[TensorSpec], labels: Mapping[str, str]
) -> tuple[Tensor, ...]:
    expected = {spec.name: spec for spec in specs}
    names = [tensor.name for tensor in actual]
    if expected and set(expected) != set(names):
        raise ConfigError(
            f"{builder.file}: {field}: the model has {sorted(names)}, model.yaml names {sorted(expected)}"
        )
    derived = []
    for tensor in actual:
        dims = tuple(-1 if isinstance(dim, str) else int(dim) for dim in tensor.dims)
        if builder.spec.batched:
            dims = _without_batch(builder, field, tensor.name, dims)
        found = Tensor(tensor.name, tensor.dtype, dims, labels.get(tensor.name))
        if expected:
            found = _agreed(builder, field, found, expected[found.name])
        derived.append(found)
    return tuple(derived)


def _without_batch(builder: Builder, field: str, name: str, dims: tuple[int, ...]) -> tuple[int, ...]:
    if not dims or dims[0] != -1:
        raise ConfigError(
            f"{builder.file}: {field}: '{name}' has the fixed shape {list(dims)}, "
            f"and serving.max_batch_size is {builder.spec.max_batch_size}",
            "its first dimension must be dynamic to batch; or set max_batch_size: 0 and write full shapes",
        )
    return dims[1:]


def _agreed(builder: Builder, field: str, found: Tensor, spec: TensorSpec) -> Tensor:
    """The model.yaml's word where it narrows an input's dynamic dimension; an error where the two contradict."""
    where = f"{builder.file}: {field}: '{found.name}'"
    if found.dtype != spec.dtype:
        raise ConfigError(f"{where} is {found.dtype} in the model, {spec.dtype} in model.yaml")
    narrows = field == "inputs"
    same = len(found.dims) == len(spec.dims) and all(
        actual == wanted or (narrows and actual == -1) for actual, wanted in zip(found.dims, spec.dims, strict=True)
    )
    if not same:
        raise ConfigError(f"{where} has shape {list(found.dims)} in the model, {list(spec.shape)} in model.yaml")
    return Tensor(found.name, found.dtype, tuple(spec.dims), found.labels)


def config_of(
    builder: Builder, tensors: Tensors, serving: Mapping[str, Any] | None = None, where: str = SERVING
) -> Any:
    """The ModelConfig of a model. `serving` stands in for the spec's own where another or a part of it is wanted.

    Raises ConfigError for a field that ModelConfig does not have, a value it does not take, or one that is derived;
    `where` is how it calls what was given.
    """
    config = parse_serving(builder, builder.spec.serving if serving is None else serving, where)
    kind = kind_of(builder)
    if kind.whole_config:
        return config  # whoever made the model wrote all of it
    _merge(builder, f"{where}.input", config.input, tensors.inputs)
    _merge(builder, f"{where}.output", config.output, tensors.outputs)
    config.name = builder.name
    config.backend, config.platform = kind.backend, kind.platform
    for step in kind.ensemble_steps(builder.spec.source):
        config.ensemble_scheduling.step.add(**step.model_dump())
    return config


def parse_serving(builder: Builder, serving: Mapping[str, Any], where: str = SERVING) -> Any:
    """`serving` alone as a ModelConfig: what can be said about it before anything is built. Raises ConfigError."""
    from google.protobuf import json_format

    written = {name: value for name, value in serving.items() if name != ENVIRONMENTS}
    message = schema().ModelConfig()
    whole = kind_of(builder).whole_config
    if not whole:
        _check_derived(builder, written, where)
    fields.check(written, message.DESCRIPTOR, f"{builder.file}: {where}")
    try:
        json_format.ParseDict(written, message)
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{builder.file}: {where}: {' '.join(str(error).split())}") from None
    if message.max_batch_size != builder.spec.max_batch_size or (message.max_batch_size < 0 and not whole):
        hint = "write it as a whole number from 0: max_batch_size: 8"
        raise ConfigError(f"{builder.file}: {where}.max_batch_size: {message.max_batch_size} was understood", hint)
    return message


def _check_derived(builder: Builder, serving: Mapping[str, Any], where: str) -> None:
    for field, reason in _DERIVED.items():
        if field in serving:
            raise ConfigError(f"{builder.file}: {where}.{field}: {reason}", "leave it out")
    scheduling = serving.get("ensemble_scheduling")
    if kind_of(builder).platform != _ENSEMBLE:
        if scheduling is not None:
            hint = "write source: {kind: ensemble, steps: …}"
            raise ConfigError(f"{builder.file}: {where}.ensemble_scheduling: it is for ensembles", hint)
        return
    if isinstance(scheduling, Mapping) and "step" in scheduling:
        reason = "it follows from source.steps"
        raise ConfigError(f"{builder.file}: {where}.ensemble_scheduling.step: {reason}", "leave it out")
    for field in ("dynamic_batching", "sequence_batching"):
        if serving.get(field) is not None:
            hint = "write it in the serving of the models that it runs"
            raise ConfigError(f"{builder.file}: {where}.{field}: an ensemble does not batch", hint)


def _merge(builder: Builder, where: str, written: Any, tensors: Sequence[Tensor]) -> None:
    """Add name, dtype and dims to what `serving.input` says of a tensor (reshape, format, …), in the model's order."""
    side = where.rpartition(".")[2]
    given: dict[str, Any] = {}
    for entry in written:
        if entry.name not in {tensor.name for tensor in tensors}:
            hint = did_you_mean(entry.name, [tensor.name for tensor in tensors])
            raise ConfigError(f"{builder.file}: {where}: the model has no {side} '{entry.name}'", hint)
        if entry.name in given:
            raise ConfigError(f"{builder.file}: {where}: '{entry.name}' is given twice", "put its fields together")
        given[entry.name] = entry
    merged = []
    for tensor in tensors:
        entry = schema().ModelInput() if side == "input" else schema().ModelOutput()
        if tensor.name in given:
            entry.CopyFrom(given[tensor.name])
        _fill(entry, tensor, f"{builder.file}: {where}: '{tensor.name}'")
        merged.append(entry)
    del written[:]
    written.extend(merged)


def _fill(entry: Any, tensor: Tensor, where: str) -> None:
    """What follows from the model, which may be written too, but not otherwise."""
    derived: dict[str, Any] = {
        "name": tensor.name,
        "data_type": schema().DataType.Value(BY_NAME[tensor.dtype].config),
        "dims": list(tensor.dims),
    }
    if tensor.labels:
        derived["label_filename"] = tensor.labels
    wanted = type(entry)(**derived)
    for difference in fields.differences(wanted, entry):
        field = difference.partition(":")[0]
        if field in derived and getattr(entry, field):
            raise ConfigError(f"{where}: {difference}", "it follows from the model: leave it out here")
    for field in derived:
        entry.ClearField(field)
    entry.MergeFrom(wanted)
