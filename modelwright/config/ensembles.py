"""Checks the tensors of an ensemble by the rules that the server applies when it loads one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelwright.config.model_config import ConfigTensor, ConfigTensors
from modelwright.errors import ConfigError
from modelwright.kinds.kind import EnsembleStep
from modelwright.kinds.registry import kind_of
from modelwright.project.spec import Builder
from modelwright.suggest import did_you_mean


@dataclass(frozen=True)
class _Flow:
    """A tensor of the ensemble: who writes it, and its type, batch dimension included; None if not known yet."""

    writer: str
    dtype: str | None
    dims: tuple[int, ...] | None


def check_ensemble(
    builder: Builder, builders: Mapping[str, Builder], tensors: Mapping[str, ConfigTensors | None], own: ConfigTensors
) -> None:
    """Check steps against the composing models: names, types, shapes, batch sizes, one writer each, no cycle.

    `tensors` has each composing model's inputs and outputs, None if it is not built yet and does not declare them.
    Raises ConfigError naming the step and the tensor.
    """
    steps = kind_of(builder).ensemble_steps(builder.spec.source)
    for index, step in enumerate(steps):
        _check_batch(builder, builders[step.model_name], index)
        _check_names(builder, tensors[step.model_name], step, index)
    flows = _writers(builder, builders, steps, tensors, own)
    _check_readers(builder, builders, steps, tensors, own, flows)
    _check_order(builder, steps, own)


def _where(builder: Builder, index: int) -> str:
    return f"{builder.file}: source.steps[{index}]"


def _check_batch(builder: Builder, composing: Builder, index: int) -> None:
    if kind_of(composing).whole_config and "max_batch_size" not in composing.spec.serving:
        return  # the server may complete it
    own, theirs = builder.spec.max_batch_size, composing.spec.max_batch_size
    if own > theirs:
        raise ConfigError(
            f"{_where(builder, index)}: max_batch_size is {own} here and {theirs} in {composing.name}",
            f"lower serving.max_batch_size to {theirs}, or raise that model's",
        )


def _check_names(builder: Builder, tensors: ConfigTensors | None, step: EnsembleStep, index: int) -> None:
    if tensors is None:
        return
    inputs = [tensor.name for tensor in tensors.inputs]
    outputs = [tensor.name for tensor in tensors.outputs]
    for field, given, known in (("input_map", step.input_map, inputs), ("output_map", step.output_map, outputs)):
        for name in given:
            if name not in known:
                where = f"{_where(builder, index)}.{field}: {step.model_name} has no tensor '{name}'"
                raise ConfigError(where, did_you_mean(name, known))
    for name in inputs:
        if name not in step.input_map:
            hint = f"map it: {name}: <a tensor of the ensemble>"
            raise ConfigError(
                f"{_where(builder, index)}.input_map: input '{name}' of {step.model_name} is missing", hint
            )


def _writers(
    builder: Builder,
    builders: Mapping[str, Builder],
    steps: Sequence[EnsembleStep],
    tensors: Mapping[str, ConfigTensors | None],
    own: ConfigTensors,
) -> dict[str, _Flow]:
    flows = {tensor.name: _flow("the ensemble's inputs", tensor, builder) for tensor in own.inputs}
    for index, step in enumerate(steps):
        known = {tensor.name: tensor for tensor in _outputs(tensors[step.model_name])}
        for name, target in step.output_map.items():
            if target in flows:
                where = f"{_where(builder, index)}.output_map: '{target}' is already written by {flows[target].writer}"
                raise ConfigError(where, "write to another tensor: each tensor of an ensemble has one writer")
            writer = f"steps[{index}] ({step.model_name})"
            tensor = known.get(name)
            flows[target] = _flow(writer, tensor, builders[step.model_name]) if tensor else _Flow(writer, None, None)
    return flows


def _check_readers(
    builder: Builder,
    builders: Mapping[str, Builder],
    steps: Sequence[EnsembleStep],
    tensors: Mapping[str, ConfigTensors | None],
    own: ConfigTensors,
    flows: Mapping[str, _Flow],
) -> None:
    read = set()
    for index, step in enumerate(steps):
        known = {tensor.name: tensor for tensor in _inputs(tensors[step.model_name])}
        for name, target in step.input_map.items():
            where = f"{_where(builder, index)}.input_map.{name}"
            if target not in flows:
                raise ConfigError(f"{where}: nothing writes '{target}'", did_you_mean(target, flows))
            read.add(target)
            if name in known:
                _check_match(
                    where, target, flows[target], _flow(step.model_name, known[name], builders[step.model_name])
                )
    for tensor in own.outputs:
        where = f"{builder.file}: outputs: '{tensor.name}'"
        if tensor.name not in flows:
            raise ConfigError(f"{where}: no step writes it", did_you_mean(tensor.name, flows))
        _check_match(where, tensor.name, flows[tensor.name], _flow("the ensemble", tensor, builder))
    for tensor in own.inputs:
        if tensor.name not in read:
            raise ConfigError(f"{builder.file}: inputs: '{tensor.name}': no step reads it", "map it in an input_map")


def _check_match(where: str, name: str, written: _Flow, wanted: _Flow) -> None:
    if written.dtype is None or written.dims is None or wanted.dims is None:
        return
    if written.dtype != wanted.dtype:
        raise ConfigError(f"{where}: '{name}' is {written.dtype} from {written.writer}, expected {wanted.dtype}")
    fits = len(written.dims) == len(wanted.dims) and all(
        -1 in (a, b) or a == b for a, b in zip(written.dims, wanted.dims, strict=True)
    )
    if not fits:
        raise ConfigError(
            f"{where}: '{name}' has shape {list(written.dims)} from {written.writer}, expected {list(wanted.dims)}",
            "these shapes include the batch dimension if max_batch_size > 0",
        )


def _check_order(builder: Builder, steps: Sequence[EnsembleStep], own: ConfigTensors) -> None:
    """Check that every step can run: one after the other, each when its inputs are written. Raises ConfigError."""
    written = {tensor.name for tensor in own.inputs}
    waiting = dict(enumerate(steps))
    while waiting:
        ready = [index for index, step in waiting.items() if written.issuperset(step.input_map.values())]
        if not ready:
            names = ", ".join(f"steps[{index}] ({step.model_name})" for index, step in waiting.items())
            raise ConfigError(
                f"{builder.file}: source: the steps form a cycle: {names}", "each waits for an output of another one"
            )
        for index in ready:
            written |= set(waiting.pop(index).output_map.values())


def _flow(writer: str, tensor: ConfigTensor, owner: Builder) -> _Flow:
    batch = (-1,) if owner.spec.batched else ()
    return _Flow(writer, tensor.dtype, (*batch, *tensor.dims))


def _inputs(tensors: ConfigTensors | None) -> tuple[ConfigTensor, ...]:
    return tensors.inputs if tensors else ()


def _outputs(tensors: ConfigTensors | None) -> tuple[ConfigTensor, ...]:
    return tensors.outputs if tensors else ()
