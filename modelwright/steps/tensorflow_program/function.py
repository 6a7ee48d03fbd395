"""A model's function in TensorFlow, with the names of its tensors, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.errors import StepError
from modelwright.triton.dtypes import BY_NUMPY


@dataclass(frozen=True)
class Function:
    """`concrete` takes its inputs by name and returns {output: tensor}."""

    owner: Any  # keeps what it uses alive: the SavedModel, the Keras model
    concrete: Any
    inputs: Mapping[str, Any]  # name → TensorSpec
    outputs: Mapping[str, Any]  # name → TensorSpec

    @property
    def described_inputs(self) -> list[dict[str, Any]]:
        return [described(name, spec.dtype, spec.shape) for name, spec in self.inputs.items()]

    @property
    def described_outputs(self) -> list[dict[str, Any]]:
        return [described(name, spec.dtype, spec.shape) for name, spec in self.outputs.items()]


def described(name: str, dtype: Any, shape: Any) -> dict[str, Any]:
    """A tensor as Modelwright writes it: {name, dtype, dims}; dims are None where the rank is unknown."""
    dims = None if shape.rank is None else [-1 if dim is None else int(dim) for dim in shape.as_list()]
    return {"name": name, "dtype": triton_name(dtype), "dims": dims}


def triton_name(dtype: Any) -> str:
    """ "FP32" of tf.float32; TensorFlow's own name for what Triton does not have."""
    import tensorflow as tf

    if dtype == tf.string:
        return "BYTES"
    known = BY_NUMPY.get(dtype.name)
    return known.name if known else dtype.name


def check_dense(specs: Mapping[str, Any], side: str) -> None:
    """Refuse what is no plain tensor. Raises StepError."""
    import tensorflow as tf

    for name, spec in specs.items():
        if not isinstance(spec, tf.TensorSpec):
            kind = type(spec).__name__.removesuffix("Spec")
            raise StepError(
                f"{side} '{name}' is a {kind}, and a server passes plain tensors", "make it dense in the model"
            )
        if triton_name(spec.dtype) not in {known.name for known in BY_NUMPY.values()}:
            raise StepError(f"{side} '{name}' is {spec.dtype.name}, which Triton does not have", "cast it in the model")


def unique(names: Sequence[str]) -> list[str]:
    """The names, each once: y, y_1, …"""
    found: list[str] = []
    for name in names:
        wanted, count = name, 0
        while wanted in found:
            count += 1
            wanted = f"{name}_{count}"
        found.append(wanted)
    return found
