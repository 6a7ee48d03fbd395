"""`serving` and the tensors of the artifact → ModelConfig, the protobuf message behind config.pbtxt.

`serving` is checked against ModelConfig's own descriptors and read by protobuf's JSON parser, so every field works,
under its own name. Fields that follow from the model are filled in here; `serving` may not contradict them.
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
ENVIRONMENTS = "environments"  # the only key of `serving` that is not a field of ModelConfig: see environments.py
SERVING = "serving"  # its name in messages
_ENSEMBLE = "ensemble"  # the platform of models that only pass tensors on


@dataclass(frozen=True)
class ConfigTensor:
    """One input or output as in config.pbtxt: dims without the batch dimension, -1 where dynamic."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    labels: str | None = None


@dataclass(frozen=True)
class ConfigTensors:
    inputs: tuple[ConfigTensor, ...]
    outputs: tuple[ConfigTensor, ...]


def tensors_of(builder: Builder, made: Made | None = None) -> ConfigTensors:
    """Inputs and outputs: those of the ONNX file, checked against model.yaml, or those of model.yaml.

    `made` is None before anything is built.
    """
    spec = builder.spec
    if kind_of(builder).whole_config:
        config = parse_serving(builder, spec.serving)
        return ConfigTensors(_written(config.input), _written(config.output))
    labels = {tensor.name: Path(tensor.labels).name for tensor in spec.outputs if tensor.labels}
    signature = made.signature if made else None
    if signature is None:
        return ConfigTensors(_declared(spec.inputs, {}), _declared(spec.outputs, labels))
    inputs = _derived(builder, "inputs", signature.inputs, spec.inputs, {})
    return ConfigTensors(inputs, _derived(builder, "outputs", signature.outputs, spec.outputs, labels))


def _declared(specs: Sequence[TensorSpec], labels: Mapping[str, str]) -> tuple[ConfigTensor, ...]:
    return tuple(ConfigTensor(spec.name, spec.dtype, tuple(spec.dims), labels.get(spec.name)) for spec in specs)


def _written(entries: Any) -> tuple[ConfigTensor, ...]:
    """The tensors of a config that is given whole. It has none if the server completes it."""
    types = schema().DataType
    names = [types.Name(entry.data_type) if entry.data_type in types.values() else "" for entry in entries]
    dtypes = [BY_CONFIG[name].name if name in BY_CONFIG else name for name in names]
    return tuple(
        ConfigTensor(entry.name, dtype, tuple(entry.dims)) for entry, dtype in zip(entries, dtypes, strict=True)
    )


def _derived(
    builder: Builder, field: str, actual: Sequence[OnnxTensor], specs: Sequence[TensorSpec], labels: Mapping[str, str]
) -> tuple[ConfigTensor, ...]:
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
        found = ConfigTensor(tensor.name, tensor.dtype, dims, labels.get(tensor.name))
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


def _agreed(builder: Builder, field: str, found: ConfigTensor, spec: TensorSpec) -> ConfigTensor:
    """The tensor with model.yaml's dims, which may give a size to a dynamic dimension of an input.

    Raises ConfigError if model and model.yaml contradict each other.
    """
    where = f"{builder.file}: {field}: '{found.name}'"
    if found.dtype != spec.dtype:
        raise ConfigError(f"{where} is {found.dtype} in the model, {spec.dtype} in model.yaml")
    narrows = field == "inputs"
    same = len(found.dims) == len(spec.dims) and all(
        actual == wanted or (narrows and actual == -1) for actual, wanted in zip(found.dims, spec.dims, strict=True)
    )
    if not same:
        raise ConfigError(f"{where} has shape {list(found.dims)} in the model, {list(spec.shape)} in model.yaml")
    return ConfigTensor(found.name, found.dtype, tuple(spec.dims), found.labels)


def config_of(
    builder: Builder, tensors: ConfigTensors, serving: Mapping[str, Any] | None = None, where: str = SERVING
) -> Any:
    """The ModelConfig of a model, with `serving` in place of the spec's own if given.

    Raises ConfigError for an unknown field, an invalid value, or a field that follows from the model. `where` is the
    name of `serving` in messages.
    """
    config = parse_serving(builder, builder.spec.serving if serving is None else serving, where)
    kind = kind_of(builder)
    if kind.whole_config:
        return config  # it came with the model
    _merge(builder, f"{where}.input", config.input, tensors.inputs)
    _merge(builder, f"{where}.output", config.output, tensors.outputs)
    config.name = builder.name
    config.backend, config.platform = kind.backend, kind.platform
    for step in kind.ensemble_steps(builder.spec.source):
        config.ensemble_scheduling.step.add(**step.model_dump())
    return config


def parse_serving(builder: Builder, serving: Mapping[str, Any], where: str = SERVING) -> Any:
    """`serving` alone as a ModelConfig, as far as it can be checked before anything is built. Raises ConfigError."""
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
        raise ConfigError(f"{builder.file}: {where}.max_batch_size: parsed as {message.max_batch_size}", hint)
    return message


def _check_derived(builder: Builder, serving: Mapping[str, Any], where: str) -> None:
    for field, reason in _DERIVED.items():
        if field in serving:
            raise ConfigError(f"{builder.file}: {where}.{field}: {reason}", "remove it")
    scheduling = serving.get("ensemble_scheduling")
    if kind_of(builder).platform != _ENSEMBLE:
        if scheduling is not None:
            hint = "write source: {kind: ensemble, steps: …}"
            raise ConfigError(f"{builder.file}: {where}.ensemble_scheduling: only an ensemble has it", hint)
        return
    if isinstance(scheduling, Mapping) and "step" in scheduling:
        reason = "it follows from source.steps"
        raise ConfigError(f"{builder.file}: {where}.ensemble_scheduling.step: {reason}", "remove it")
    for field in ("dynamic_batching", "sequence_batching"):
        if serving.get(field) is not None:
            hint = "write it in the serving of the models that it runs"
            raise ConfigError(f"{builder.file}: {where}.{field}: an ensemble does not batch", hint)


def _merge(builder: Builder, where: str, written: Any, tensors: Sequence[ConfigTensor]) -> None:
    """Add name, dtype and dims to the entries of `serving.input` (reshape, format, …), in the model's order."""
    side = where.rpartition(".")[2]
    given: dict[str, Any] = {}
    for entry in written:
        if entry.name not in {tensor.name for tensor in tensors}:
            hint = did_you_mean(entry.name, [tensor.name for tensor in tensors])
            raise ConfigError(f"{builder.file}: {where}: the model has no {side} '{entry.name}'", hint)
        if entry.name in given:
            raise ConfigError(
                f"{builder.file}: {where}: '{entry.name}' is given twice", "put its fields into one entry"
            )
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


def _fill(entry: Any, tensor: ConfigTensor, where: str) -> None:
    """Set the fields that follow from the model. Raises ConfigError if the entry contradicts them."""
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
            raise ConfigError(f"{where}: {difference}", "it follows from the model: remove it here")
    for field in derived:
        entry.ClearField(field)
    entry.MergeFrom(wanted)
