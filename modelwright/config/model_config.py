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
from modelwright.kinds.kind import EnsembleStep
from modelwright.kinds.registry import kind_of
from modelwright.project.spec import Builder, TensorSpec
from modelwright.suggest import did_you_mean
from modelwright.triton import messages as fields
from modelwright.triton.dtypes import BY_CONFIG, BY_NAME
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.shapes import element_counts
from modelwright.variants.registry import backend_of, complete_config

_DERIVED = {
    "name": "it is the builder's name",
    "platform": "it follows from source.kind",
    "backend": "it follows from source.kind",
}
ENVIRONMENTS = "environments"  # the only key of `serving` that is not a field of ModelConfig: see environments.py
SERVING = "serving"  # its name in messages
NEWEST = -1  # a step that runs the newest version
_ENSEMBLE = "ensemble"  # the platform of models that only pass tensors on

_FIXED_ROWS = {
    "inputs": "its first dimension must be dynamic to batch: export it so",
    # As onnxmltools does for the label of a LightGBM classifier.
    "outputs": "if it has a row for each row of a request, the file declares it wrongly: give the dimension a name"
    " there, as in graph.output[0].type.tensor_type.shape.dim[0].dim_param = 'rows'",
}


@dataclass(frozen=True)
class ConfigTensor:
    """One input or output as in config.pbtxt: dims without the batch dimension, -1 where dynamic.

    `dims` are what clients send and get, `reshape` is what the model sees instead, where that is something else. Triton
    has no tensors without dimensions: the value of a `scalar` is served as dims [1], while the builder's own code
    handles it without dimensions.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    labels: str | None = None
    reshape: tuple[int, ...] | None = None
    scalar: bool = False


@dataclass(frozen=True)
class ConfigTensors:
    inputs: tuple[ConfigTensor, ...]
    outputs: tuple[ConfigTensor, ...]

    @property
    def input_types(self) -> dict[str, str]:
        """{input: Triton's data type}."""
        return {tensor.name: tensor.dtype for tensor in self.inputs}


def tensors_of(builder: Builder, made: Made | None = None) -> ConfigTensors:
    """Inputs and outputs: those of the ONNX model, checked against model.yaml, or those of model.yaml.

    `made` is None before anything is built. Raises ConfigError if model and model.yaml contradict each other.
    """
    signature = made.signature if made else None
    if signature is not None:
        return tensors_of_model(builder, signature.inputs, signature.outputs)
    spec = builder.spec
    if kind_of(builder).whole_config:
        config = parse_serving(builder, spec.serving)
        return ConfigTensors(_written(config.input), _written(config.output))
    entries = _entries(builder)
    return ConfigTensors(
        _declared(spec.inputs, {}, entries["input"]), _declared(spec.outputs, _labels(builder), entries["output"])
    )


def tensors_of_model(builder: Builder, inputs: Sequence[OnnxTensor], outputs: Sequence[OnnxTensor]) -> ConfigTensors:
    """The tensors of an ONNX model as it is served: all inputs but the server's own controls, and the outputs that
    model.yaml names, or all. Raises ConfigError if model and model.yaml contradict each other."""
    entries, controls = _entries(builder), control_names(builder)
    for index, spec in enumerate(builder.spec.inputs):
        if spec.name in controls:
            raise ConfigError(
                f"{builder.file}: inputs[{index}]: '{spec.name}' is a control of serving.sequence_batching, which the "
                "server fills in",
                "remove it from inputs: clients do not send it",
            )
    sent = [tensor for tensor in inputs if tensor.name not in controls]
    return ConfigTensors(
        _derived(builder, "inputs", sent, builder.spec.inputs, {}, entries["input"]),
        _derived(builder, "outputs", outputs, builder.spec.outputs, _labels(builder), entries["output"]),
    )


def graph_level(builder: Builder) -> int:
    """How far the server's onnxruntime optimises the graph: `optimization.graph.level`, 0 unless given."""
    if not builder.spec.serving.get("optimization"):
        return 0
    return int(parse_serving(builder, builder.spec.serving).optimization.graph.level)


def control_names(builder: Builder) -> set[str]:
    """The inputs of the model that the server's sequence batcher fills in."""
    if not builder.spec.serving.get("sequence_batching"):
        return set()
    return {entry.name for entry in parse_serving(builder, builder.spec.serving).sequence_batching.control_input}


def _entries(builder: Builder) -> dict[str, dict[str, Any]]:
    """{side: {tensor: its entry in `serving`}}."""
    serving = builder.spec.serving
    if not serving.get("input") and not serving.get("output"):
        return {"input": {}, "output": {}}
    config = parse_serving(builder, serving)
    return {side: {entry.name: entry for entry in getattr(config, side)} for side in ("input", "output")}


def _labels(builder: Builder) -> dict[str, str]:
    return {tensor.name: Path(tensor.labels).name for tensor in builder.spec.outputs if tensor.labels}


def _declared(
    specs: Sequence[TensorSpec], labels: Mapping[str, str], entries: Mapping[str, Any]
) -> tuple[ConfigTensor, ...]:
    return tuple(
        ConfigTensor(
            spec.name,
            spec.dtype,
            tuple(spec.dims) or (1,),
            labels.get(spec.name),
            _written_reshape(entries.get(spec.name)),
            scalar=not spec.shape,
        )
        for spec in specs
    )


def _written(entries: Any) -> tuple[ConfigTensor, ...]:
    """The tensors of a config that is given whole. It has none if the server completes it."""
    types = schema().DataType
    names = [types.Name(entry.data_type) if entry.data_type in types.values() else "" for entry in entries]
    dtypes = [BY_CONFIG[name].name if name in BY_CONFIG else name for name in names]
    return tuple(
        ConfigTensor(entry.name, dtype, tuple(entry.dims), reshape=_written_reshape(entry))
        for entry, dtype in zip(entries, dtypes, strict=True)
    )


def _written_reshape(entry: Any) -> tuple[int, ...] | None:
    return tuple(entry.reshape.shape) if entry is not None and entry.HasField("reshape") else None


def _derived(
    builder: Builder,
    field: str,
    actual: Sequence[OnnxTensor],
    specs: Sequence[TensorSpec],
    labels: Mapping[str, str],
    entries: Mapping[str, Any],
) -> tuple[ConfigTensor, ...]:
    expected = {spec.name: spec for spec in specs}
    names = [tensor.name for tensor in actual]
    unknown = [name for name in expected if name not in names]
    # An input that is left out would have no value; an output that is left out is not computed.
    if unknown or (expected and field == "inputs" and len(expected) != len(names)):
        raise ConfigError(
            f"{builder.file}: {field}: the model has {sorted(names)}, model.yaml names {sorted(expected)}",
            did_you_mean(unknown[0], names) if unknown else "name every input, or leave `inputs` out",
        )
    wanted = [tensor for tensor in actual if tensor.name in expected or not expected]
    return tuple(
        _derived_tensor(
            builder, field, tensor, expected.get(tensor.name), labels.get(tensor.name), entries.get(tensor.name)
        )
        for tensor in wanted
    )


def _derived_tensor(
    builder: Builder, field: str, tensor: OnnxTensor, spec: TensorSpec | None, labels: str | None, entry: Any
) -> ConfigTensor:
    where = f"{builder.file}: {field}: '{tensor.name}'"
    if spec and tensor.dtype != spec.dtype:
        raise ConfigError(f"{where} is {tensor.dtype} in the model, {spec.dtype} in model.yaml")
    dims = tuple(-1 if isinstance(dim, str) else int(dim) for dim in tensor.dims)
    batched = builder.spec.batched
    if batched:
        dims = _without_batch(builder, where, dims, _FIXED_ROWS[field])
    reshape = _written_reshape(entry)
    if reshape is not None:
        entry_where = f"{builder.file}: serving.{field[:-1]}: '{tensor.name}'"
        served = _reshaped(entry_where, dims, reshape, spec, tuple(entry.dims), narrows=field == "inputs")
        if not batched and not reshape:
            raise ConfigError(
                f"{entry_where}: an empty reshape needs a batch dimension, and serving.max_batch_size is 0",
                "remove reshape: the server passes the one value of dims [1] on as a scalar",
            )
    else:
        served = _served(where, dims, spec, narrows=field == "inputs")
        reshape = () if batched and not dims else None
    if 0 in dims:
        raise ConfigError(
            f"{where} has a dimension of size 0 in the model: {list(tensor.dims)}; Triton serves no such tensor",
            "remove it from the file, as it never holds a value; or make the dimension dynamic",
        )
    scalar = served == (1,) and (not spec.shape if spec else reshape == () or not dims)
    return ConfigTensor(tensor.name, tensor.dtype, served, labels, reshape, scalar)


def _without_batch(builder: Builder, where: str, dims: tuple[int, ...], advice: str) -> tuple[int, ...]:
    if not dims or dims[0] != -1:
        found = f"has the fixed shape {list(dims)}" if dims else "is a scalar, one value for all rows of a batch"
        raise ConfigError(
            f"{where} {found}, and serving.max_batch_size is {builder.spec.max_batch_size}",
            f"{advice}; or set max_batch_size: 0 and write full shapes",
        )
    return dims[1:]


def _served(where: str, dims: tuple[int, ...], spec: TensorSpec | None, *, narrows: bool) -> tuple[int, ...]:
    """What clients send or get, where the model's shape is `dims`, which is () for one value a row or a model.

    model.yaml may give a size to a dynamic dimension. For an input that is what the server takes. For an output the
    config must say what the model says; the verification holds the answers to model.yaml's size.
    """
    served = dims or (1,)
    if spec is None:
        return served
    declared = tuple(spec.dims) or (1,)
    if len(declared) != len(served) or any(
        wanted != actual and not (actual == -1 if narrows else -1 in (actual, wanted))
        for actual, wanted in zip(served, declared, strict=True)
    ):
        raise ConfigError(f"{where} has shape {list(dims)} in the model, {list(spec.shape)} in model.yaml")
    return declared if narrows else served


def _reshaped(
    where: str,
    dims: tuple[int, ...],
    reshape: tuple[int, ...],
    spec: TensorSpec | None,
    written: tuple[int, ...],
    *,
    narrows: bool,
) -> tuple[int, ...]:
    """What clients send or get, where `serving` has a reshape to the model's shape `dims`."""
    fits = len(reshape) == len(dims) and all(
        wanted == actual or (narrows and actual == -1) for actual, wanted in zip(dims, reshape, strict=True)
    )
    if not fits:
        raise ConfigError(
            f"{where}: reshape to {list(reshape)}, and the model's shape is {list(dims)}",
            "reshape.shape is what the model gets or gives, without the batch dimension; dims are the client's",
        )
    declared = (tuple(spec.dims) or (1,)) if spec else ()
    if written and declared and written != declared:
        raise ConfigError(f"{where}: dims {list(written)} here, shape {list(spec.shape if spec else ())} in model.yaml")
    served = written or declared or ((1,) if not reshape else ())
    if not served:
        raise ConfigError(
            f"{where}: reshape without dims", "add the shape that clients send or get, such as dims: [-1]"
        )
    if element_counts(served) != element_counts(reshape):
        raise ConfigError(
            f"{where}: dims {list(served)} cannot become {list(reshape)}", "a reshape keeps the number of elements"
        )
    return served


def config_of(
    builder: Builder,
    tensors: ConfigTensors,
    serving: Mapping[str, Any] | None = None,
    where: str = SERVING,
    pins: Mapping[str, int] | None = None,
    steps: Sequence[EnsembleStep] | None = None,
) -> Any:
    """The ModelConfig of a model, with `serving` in place of the spec's own if given.

    `where` is the name of `serving` in messages. `pins` are the versions of composing models that the steps run, the
    newest otherwise; `steps` are those of an ensemble where they are not its own. Raises ConfigError for an unknown
    field, an invalid value, or a field that follows from the model.
    """
    config = parse_serving(builder, builder.spec.serving if serving is None else serving, where)
    kind = kind_of(builder)
    if kind.whole_config:
        return config  # it came with the model
    _merge(builder, f"{where}.input", config.input, tensors.inputs)
    _merge(builder, f"{where}.output", config.output, tensors.outputs)
    config.name = builder.name
    config.backend, config.platform = backend_of(builder), kind.platform
    complete_config(builder, config, f"{builder.file}: {where}")
    own = kind.ensemble_steps(builder.spec.source) if kind.platform == _ENSEMBLE else ()
    for step in own if steps is None else steps:
        added = config.ensemble_scheduling.step.add(**step.model_dump())
        if step.model_version == NEWEST:
            added.model_version = (pins or {}).get(step.model_name, NEWEST)
    for key, value in kind.parameters(builder.spec.source).items():
        config.parameters[key].string_value = value
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
    if tensor.reshape is not None:
        derived["reshape"] = {"shape": list(tensor.reshape)}
    wanted = type(entry)(**derived)
    for difference in fields.differences(wanted, entry):
        field = difference.partition(":")[0].partition(".")[0]
        if field in derived and (entry.HasField(field) if field == "reshape" else getattr(entry, field)):
            raise ConfigError(f"{where}: {difference}", "it follows from the model: remove it here")
    for field in derived:
        entry.ClearField(field)
    entry.MergeFrom(wanted)
