"""Optimisation profiles of a TensorRT plan: which shapes its inputs may have, from what model.yaml says of dimensions.

TensorRT chooses kernels for the shapes in `opt`, and refuses those below `min` or above `max`. A dynamic dimension must
be given; the batch follows from serving.max_batch_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from modelwright.errors import SpecError
from modelwright.facts.made import OnnxTensor
from modelwright.facts.plan import PlanProfile, ShapeRange
from modelwright.project.spec import ModelSpec, StrictModel, TensorName
from modelwright.suggest import did_you_mean

Size = Annotated[int, Field(ge=1, strict=True)]
_EXAMPLE = "{min: 1, opt: 64, max: 256}"


class SizeRange(StrictModel):
    """The sizes of a dimension that a plan takes. `opt` is the one it is made fast for."""

    min: Size
    opt: Size
    max: Size

    @model_validator(mode="after")
    def _ordered(self) -> SizeRange:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min ≤ opt ≤ max is needed, got {self.min}, {self.opt}, {self.max}")
        return self


def _range(value: Any) -> Any:
    """8 is short for a dimension of that size only."""
    return {"min": value, "opt": value, "max": value} if type(value) is int else value


Range = Annotated[SizeRange, BeforeValidator(_range)]


class ProfileSpec(StrictModel):
    """One optimisation profile."""

    batch: Range | None = Field(None, description="Rows of a request; without it 1 to serving.max_batch_size.")
    dims: dict[str, Range] = Field({}, description="By the dimension's name under inputs: {sequence: {min, opt, max}}.")
    inputs: dict[TensorName, tuple[Range, ...]] = Field(
        {}, description="By input, a range for each dimension, batch left out: for dimensions without a name."
    )


@dataclass(frozen=True)
class Dimension:
    """One dimension of an input: of fixed size, or dynamic, with a name where it has one."""

    size: int | None
    name: str = ""


@dataclass(frozen=True)
class Shaped:
    """An input of the graph, batch left out."""

    name: str
    axes: tuple[Dimension, ...]


def shaped_inputs(spec: ModelSpec, inputs: Sequence[OnnxTensor] | None = None) -> tuple[Shaped, ...] | None:
    """The inputs of the graph, with the sizes and names of dimensions that model.yaml adds.

    Without `inputs`, before the graph is made: as model.yaml declares them; None where it leaves something open.
    """
    changed = {entry.get("name") for entry in _entries(spec) if entry.get("reshape") is not None}
    declared = {tensor.name: tensor.shape for tensor in spec.inputs if tensor.name not in changed}
    if inputs is not None:
        return tuple(_shaped(tensor, declared.get(tensor.name), spec.batched) for tensor in inputs)
    if not spec.inputs or changed or any(dim == -1 for shape in declared.values() for dim in shape):
        return None
    return tuple(Shaped(name, tuple(map(_axis, shape))) for name, shape in declared.items())


def _entries(spec: ModelSpec) -> Iterator[Mapping[str, Any]]:
    given = spec.serving.get("input")
    yield from (entry for entry in (given if isinstance(given, list) else []) if isinstance(entry, Mapping))


def _shaped(tensor: OnnxTensor, declared: Sequence[int | str] | None, batched: bool) -> Shaped:
    own = tensor.dims[1:] if batched else tensor.dims
    if declared is None or len(declared) != len(own):
        return Shaped(tensor.name, tuple(map(_axis, own)))
    return Shaped(tensor.name, tuple(_merged(_axis(dim), _axis(said)) for dim, said in zip(own, declared, strict=True)))


def _axis(dim: int | str) -> Dimension:
    return Dimension(None, dim) if isinstance(dim, str) else Dimension(dim if dim >= 0 else None)


def _merged(own: Dimension, declared: Dimension) -> Dimension:
    """model.yaml may give a size to a dynamic dimension, and a name."""
    if own.size is not None:
        return own
    return Dimension(declared.size, declared.name or own.name)


def resolved(
    profiles: Sequence[ProfileSpec], inputs: Sequence[Shaped], spec: ModelSpec, where: str
) -> tuple[PlanProfile, ...]:
    """Profiles with the shape of every input, batch included: one from max_batch_size where none is given.

    Raises SpecError for a dynamic dimension without a range, an unknown name, and a batch beyond max_batch_size.
    `where` names `profiles` in messages.
    """
    given = profiles or (ProfileSpec(),)
    return tuple(
        _Resolver(profile, inputs, spec, f"{where}[{index}]" if profiles else where).profile()
        for index, profile in enumerate(given)
    )


@dataclass(frozen=True)
class _Resolver:
    given: ProfileSpec
    inputs: Sequence[Shaped]
    spec: ModelSpec
    where: str

    def profile(self) -> PlanProfile:
        self._check_names()
        batch = [self._batch()] if self.spec.batched else []
        self._check_complete()
        shapes = {item.name: [*batch, *self._ranges(item)] for item in self.inputs}
        return PlanProfile(
            inputs={
                name: ShapeRange(
                    min=tuple(part.min for part in ranges),
                    opt=tuple(part.opt for part in ranges),
                    max=tuple(part.max for part in ranges),
                )
                for name, ranges in shapes.items()
            }
        )

    def _batch(self) -> SizeRange:
        most = self.spec.max_batch_size
        if self.given.batch is None:
            return SizeRange(min=1, opt=_usual_batch(self.spec), max=most)
        if self.given.batch.max > most:
            raise SpecError(
                f"{self.where}.batch: max is {self.given.batch.max}, and serving.max_batch_size {most}",
                "the server makes no larger batches: lower max, or raise max_batch_size",
            )
        return self.given.batch

    def _check_names(self) -> None:
        if self.given.batch is not None and not self.spec.batched:
            hint = "write the range of the first dimension under inputs, or set serving.max_batch_size"
            raise SpecError(f"{self.where}.batch: serving.max_batch_size is 0, so requests have no batch", hint)
        names = {axis.name for item in self.inputs for axis in item.axes if axis.size is None and axis.name}
        for name in self.given.dims:
            if name not in names:
                what = f"the dynamic dimensions are {', '.join(sorted(names))}" if names else "no dimension is dynamic"
                hint = did_you_mean(name, names) if names else "remove it"
                raise SpecError(f"{self.where}.dims: '{name}' is not the name of a dimension: {what}", hint)
        inputs = {item.name: item for item in self.inputs}
        for name, ranges in self.given.inputs.items():
            if name not in inputs:
                hint = did_you_mean(name, inputs)
                raise SpecError(f"{self.where}.inputs: the model has no input '{name}'", hint)
            self._check_shape(inputs[name], ranges)

    def _check_shape(self, item: Shaped, ranges: Sequence[SizeRange]) -> None:
        where = f"{self.where}.inputs.{item.name}"
        if len(ranges) != len(item.axes):
            batch = ", batch left out" if self.spec.batched else ""
            raise SpecError(f"{where}: {len(ranges)} dimensions, and the input has {len(item.axes)}{batch}")
        for number, (axis, sizes) in enumerate(zip(item.axes, ranges, strict=True)):
            if axis.size is not None and (sizes.min, sizes.max) != (axis.size, axis.size):
                raise SpecError(f"{where}[{number}]: this dimension is always {axis.size}", f"write {axis.size}")

    def _check_complete(self) -> None:
        """Every dynamic dimension has a range."""
        open_named = {
            axis.name: [
                other.name for other in self.inputs if axis in other.axes and other.name not in self.given.inputs
            ]
            for item in self.inputs
            if item.name not in self.given.inputs
            for axis in item.axes
            if axis.size is None and axis.name and axis.name not in self.given.dims
        }
        if open_named:
            dims = ", ".join(f"{name}: {_EXAMPLE}" for name in open_named)
            what = ", ".join(f"'{name}' (of {', '.join(users)})" for name, users in open_named.items())
            raise SpecError(
                f"{self.where}: {what} is dynamic, and a plan takes only the sizes that it was built for",
                f"write, with your sizes: profiles: [{{dims: {{{dims}}}}}]",
            )
        for item in self.inputs:
            if item.name in self.given.inputs:
                continue
            if any(axis.size is None and not axis.name for axis in item.axes):
                ranges = ", ".join(_EXAMPLE if axis.size is None else str(axis.size) for axis in item.axes)
                raise SpecError(
                    f"{self.where}: a dimension of '{item.name}' is dynamic and has no name; a plan takes only the"
                    " sizes that it was built for",
                    f"give it a name under inputs, or write: profiles: [{{inputs: {{{item.name}: [{ranges}]}}}}]",
                )

    def _ranges(self, item: Shaped) -> list[SizeRange]:
        if item.name in self.given.inputs:
            return list(self.given.inputs[item.name])
        return [
            self.given.dims[axis.name]
            if axis.size is None
            else SizeRange.model_construct(min=axis.size, opt=axis.size, max=axis.size)
            for axis in item.axes
        ]


def _usual_batch(spec: ModelSpec) -> int:
    """What a plan is made fast for: the largest preferred batch size, or else the largest batch."""
    batching = spec.serving.get("dynamic_batching")
    preferred = batching.get("preferred_batch_size") if isinstance(batching, Mapping) else None
    sizes = [size for size in preferred if type(size) is int] if isinstance(preferred, list) else []
    return max((size for size in sizes if 1 <= size <= spec.max_batch_size), default=spec.max_batch_size)
