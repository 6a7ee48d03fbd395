"""spec.serving + what the artefact says about its tensors → ModelConfig, the protobuf message behind config.pbtxt.

`serving` is read by protobuf's own JSON parser, so every field of ModelConfig works, by its own name.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from modelwright.dtypes import BY_CONFIG, BY_NAME
from modelwright.errors import ConfigError
from modelwright.spec import Builder, EnsembleSource, PrebuiltSource, TensorSpec
from modelwright.suggest import did_you_mean

_DERIVED = {
    "name": "it is the builder's name",
    "platform": "it follows from source.kind",
    "backend": "it follows from source.kind",
    "ensemble_scheduling": "it follows from source.steps",
}
_BACKENDS = {"torch": "onnxruntime", "huggingface": "onnxruntime", "onnx": "onnxruntime", "python": "python"}


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


@cache
def schema() -> ModuleType:
    """tritonclient's model_config_pb2, loaded by itself: its package would import grpc, and planning needs none."""
    name = "tritonclient.grpc.model_config_pb2"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("modelwright._model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tensors_of(builder: Builder, facts: Mapping[str, Any]) -> Tensors:
    """Inputs and outputs: as the ONNX file declares them, checked against model.yaml, or as model.yaml does."""
    spec = builder.spec
    if isinstance(spec.source, PrebuiltSource):
        config = _parsed(builder, spec.serving)
        return Tensors(_written(config.input), _written(config.output))
    labels = {tensor.name: Path(tensor.labels).name for tensor in spec.outputs if tensor.labels}
    if "signature" not in facts:
        return Tensors(_declared(spec.inputs, {}), _declared(spec.outputs, labels))
    signature = facts["signature"]
    inputs = _derived(builder, "inputs", signature["inputs"], spec.inputs, {})
    return Tensors(inputs, _derived(builder, "outputs", signature["outputs"], spec.outputs, labels))


def _declared(specs: Sequence[TensorSpec], labels: Mapping[str, str]) -> tuple[Tensor, ...]:
    return tuple(Tensor(spec.name, spec.dtype, tuple(spec.dims), labels.get(spec.name)) for spec in specs)


def _written(entries: Any) -> tuple[Tensor, ...]:
    """A prebuilt model's tensors, as its config has them; one that the server completes has none."""
    types = schema().DataType
    names = [types.Name(entry.data_type) if entry.data_type in types.values() else "" for entry in entries]
    dtypes = [BY_CONFIG[name].name if name in BY_CONFIG else name for name in names]
    return tuple(
        Tensor(entry.name, dtype, tuple(entry.dims)) for entry, dtype in zip(entries, dtypes, strict=True)
    )


def _derived(
    builder: Builder, field: str, actual: Sequence[Any], specs: Sequence[TensorSpec], labels: Mapping[str, str]
) -> tuple[Tensor, ...]:
    expected = {spec.name: spec for spec in specs}
    names = [tensor["name"] for tensor in actual]
    if expected and set(expected) != set(names):
        raise ConfigError(
            f"{builder.file}: {field}: the model has {sorted(names)}, model.yaml names {sorted(expected)}"
        )
    derived = []
    for tensor in actual:
        dims = tuple(-1 if isinstance(dim, str) else int(dim) for dim in tensor["dims"])
        if builder.spec.batched:
            dims = _without_batch(builder, field, tensor["name"], dims)
        found = Tensor(tensor["name"], tensor["dtype"], dims, labels.get(tensor["name"]))
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


def config_of(builder: Builder, tensors: Tensors, serving: Mapping[str, Any] | None = None) -> Any:
    """The ModelConfig of a model. `serving` stands in for the spec's own where only a part of it is wanted.

    Raises ConfigError for a field that ModelConfig does not have, a value it does not take, or one that is derived.
    """
    serving = builder.spec.serving if serving is None else serving
    if isinstance(builder.spec.source, PrebuiltSource):
        return _parsed(builder, serving)
    _check_derived(builder, serving)
    config = _parsed(builder, serving)
    _merge(builder, "input", config.input, tensors.inputs)
    _merge(builder, "output", config.output, tensors.outputs)
    config.name = builder.name
    source = builder.spec.source
    if isinstance(source, EnsembleSource):
        config.platform = "ensemble"
        for step in source.steps:
            config.ensemble_scheduling.step.add(**step.model_dump())
    else:
        config.backend = _BACKENDS[source.kind]
    return config


def check_serving(builder: Builder) -> None:
    """What can be said about `serving` before anything is built. Raises ConfigError."""
    if not isinstance(builder.spec.source, PrebuiltSource):
        _check_derived(builder, builder.spec.serving)
    _parsed(builder, builder.spec.serving)


def _check_derived(builder: Builder, serving: Mapping[str, Any]) -> None:
    for field, reason in _DERIVED.items():
        if field in serving:
            raise ConfigError(f"{builder.file}: serving.{field}: {reason}", "leave it out")


def _parsed(builder: Builder, serving: Mapping[str, Any]) -> Any:
    from google.protobuf import json_format

    message = schema().ModelConfig()
    try:
        json_format.ParseDict(dict(serving), message)
    except json_format.ParseError as error:
        raise _parse_error(builder, str(error)) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{builder.file}: serving: {error}") from None
    if message.max_batch_size != builder.spec.max_batch_size or message.max_batch_size < 0:
        hint = "write it as a whole number from 0: max_batch_size: 8"
        raise ConfigError(f"{builder.file}: serving.max_batch_size: {message.max_batch_size} was understood", hint)
    return message


_UNKNOWN = re.compile(r'no field named "(?P<name>[^"]*)" at "ModelConfig(?P<path>[^"]*)"', re.DOTALL)
_FIELDS = re.compile(r"Available Fields\(except extensions\): \"?(?P<fields>.*)", re.DOTALL)


def _parse_error(builder: Builder, text: str) -> ConfigError:
    """protobuf's message about a field, in terms of model.yaml."""
    unknown = _UNKNOWN.search(text)
    if not unknown:
        return ConfigError(f"{builder.file}: serving: {' '.join(text.split())}")
    fields = _FIELDS.search(text)
    # protobuf lists the names of its JSON form; the fields are written in their own.
    known = (
        [re.sub(r"([A-Z])", r"_\1", name).lower() for name in re.findall(r"\w+", fields["fields"])] if fields else []
    )
    where = f"{builder.file}: serving{unknown['path']}.{unknown['name']}: unknown field"
    return ConfigError(where, did_you_mean(unknown["name"], known))


def _merge(builder: Builder, field: str, written: Any, tensors: Sequence[Tensor]) -> None:
    """Add name, dtype and dims to what `serving.input` says of a tensor (reshape, format, …), in the model's order."""
    given = {entry.name: entry for entry in written}
    for name in given:
        if name not in {tensor.name for tensor in tensors}:
            hint = did_you_mean(name, [tensor.name for tensor in tensors])
            raise ConfigError(f"{builder.file}: serving.{field}: the model has no {field} '{name}'", hint)
    merged = []
    for tensor in tensors:
        entry = _entry(field)
        if tensor.name in given:
            entry.CopyFrom(given[tensor.name])
        entry.name = tensor.name
        entry.data_type = schema().DataType.Value(BY_NAME[tensor.dtype].config)
        del entry.dims[:]
        entry.dims.extend(tensor.dims)
        if tensor.labels:
            entry.label_filename = tensor.labels
        merged.append(entry)
    del written[:]
    written.extend(merged)


def _entry(field: str) -> Any:
    return schema().ModelInput() if field == "input" else schema().ModelOutput()
