"""An ONNX model as its server sees it, held against the session that onnxruntime made of it.

    view = served_view(builder, session)      # raises where the server would refuse the model
    view.run(request)                         # a request as a client sends it → the response as a client gets it

Clients and the model can see different shapes: see `ConfigTensor`. A sequence batcher adds control tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.config.model_config import ConfigTensor, ConfigTensors, config_of, graph_level, tensors_of_model
from modelwright.errors import ConfigError, located
from modelwright.facts.made import OnnxTensor
from modelwright.onnx.runtime import load_session, prepared_run, run_session, session_values
from modelwright.project.operators import operator_libraries
from modelwright.project.spec import Builder
from modelwright.server.backends.onnxruntime.load_check import LoadCheckError, validate
from modelwright.suggest import did_you_mean
from modelwright.triton.arrays import datatype_of
from modelwright.triton.dtypes import BY_CONFIG, BY_NAME
from modelwright.triton.model_config_pb2 import data_type_name
from modelwright.triton.shapes import reshaped

if TYPE_CHECKING:
    import numpy as np

    from modelwright.triton.tensors import Tensors

    Array = np.ndarray[Any, Any]

# A sample of a sequence model is a sequence of one request, under this correlation id.
CORRELATION_ID = 1
_VALUES = (("fp32_false_true", "float32"), ("int32_false_true", "int32"), ("bool_false_true", "bool"))


@dataclass(frozen=True)
class ServedView:
    """A model in onnxruntime that takes and gives what a client of the server sends and gets."""

    session: Any  # onnxruntime.InferenceSession
    config: Any  # the ModelConfig
    tensors: ConfigTensors

    @property
    def batched(self) -> bool:
        return bool(self.config.max_batch_size)

    @property
    def scalars(self) -> frozenset[str]:
        """Outputs that the builder's code handles without dimensions."""
        return frozenset(tensor.name for tensor in self.tensors.outputs if tensor.scalar)

    @property
    def dims(self) -> dict[str, tuple[int | str, ...]]:
        """Per input the dims that clients see, without the batch; dynamic ones by their names, where the model has
        any: dimensions of one name have one size."""
        shapes = {node.name: tuple(node.shape)[int(self.batched) :] for node in self.session.get_inputs()}
        found: dict[str, tuple[int | str, ...]] = {}
        for tensor in self.tensors.inputs:
            names = shapes.get(tensor.name, ())
            named = tensor.reshape is None and len(names) == len(tensor.dims)
            found[tensor.name] = tuple(
                name if dim == -1 and isinstance(name, str) else dim
                for dim, name in zip(tensor.dims, names if named else tensor.dims, strict=True)
            )
        return found

    def run(self, request: Tensors) -> Tensors:
        """One request, with the batch dimension where the model has one. Raises StepError, or ConfigError for an
        answer that does not fit its reshape."""
        outputs = run_session(self.session, self.feed(request), self._wanted)
        return {tensor.name: self._to_client(tensor, outputs[tensor.name]) for tensor in self.tensors.outputs}

    def prepared(self, request: Tensors) -> Callable[[], Any]:
        """A run of one request that may be timed: what is done once for a request has been done. Raises as `run`."""
        run_session(self.session, self.feed(request), self._wanted)
        return prepared_run(self.session, self.feed(request), self._wanted)

    def feed(self, request: Tensors) -> Tensors:
        """What onnxruntime is given for a request. Raises ConfigError for one that does not fit the model."""
        self._check(request)
        rows = len(next(iter(request.values()))) if self.batched else 0
        feed = {tensor.name: self._to_model(tensor, _c_strings(request[tensor.name])) for tensor in self.tensors.inputs}
        return feed | control_values(self.config, rows)

    @property
    def _wanted(self) -> list[str]:
        return [tensor.name for tensor in self.tensors.outputs]

    def _check(self, request: Tensors) -> None:
        """Names, types and shapes, before onnxruntime sees them."""
        known = {tensor.name: tensor for tensor in self.tensors.inputs}
        for name in request:
            if name not in known:
                raise ConfigError(f"the samples have '{name}': no such input", did_you_mean(name, known))
        for name, tensor in known.items():
            if name not in request:
                raise ConfigError(f"the samples have no '{name}', which the model needs", f"inputs: {', '.join(known)}")
            array, dtype = request[name], BY_NAME[tensor.dtype].numpy
            if datatype_of(array) != tensor.dtype:
                hint = f".astype('{dtype}') makes it one"
                raise ConfigError(f"the samples' '{name}' is {array.dtype}, the model takes {tensor.dtype}", hint)
            shape = array.shape[int(self.batched) :]
            fits = len(shape) == len(tensor.dims) and all(
                dim in (-1, size) for dim, size in zip(tensor.dims, shape, strict=True)
            )
            if not fits:
                hint = "samples are (N, *shape): the first axis counts them"
                if not self.batched and len(shape) + 1 == len(tensor.dims):
                    hint = "with serving.max_batch_size 0 each sample carries the batch dimension: (N, rows, *shape)"
                raise ConfigError(
                    f"a sample of '{name}' has shape {list(shape)}, the model takes {list(tensor.dims)}", hint
                )

    def _to_model(self, tensor: ConfigTensor, array: Array) -> Array:
        rank = next((len(node.shape) for node in self.session.get_inputs() if node.name == tensor.name), None)
        if not self.batched and rank == 0:  # the backend passes dims [1] on as a scalar
            return array.reshape(())
        if tensor.reshape is None:
            return array
        return array.reshape(self._shape(tensor, array, tensor.dims, tensor.reshape))

    def _to_client(self, tensor: ConfigTensor, array: Array) -> Array:
        if not self.batched and array.ndim == 0:
            return array.reshape(tensor.dims)
        if tensor.reshape is None:
            return array
        return array.reshape(self._shape(tensor, array, tensor.reshape, tensor.dims))

    def _shape(
        self, tensor: ConfigTensor, array: Array, before: Sequence[int], after: Sequence[int]
    ) -> tuple[int, ...]:
        batch = array.shape[: int(self.batched)]
        try:
            return (*batch, *reshaped(array.shape[len(batch) :], before, after))
        except ValueError as error:
            raise ConfigError(f"'{tensor.name}': {error}", "correct dims and reshape in `serving`") from None


def _c_strings(array: Array) -> Array:
    """Strings up to their first NUL: the onnxruntime backend gives the model C strings."""
    if array.dtype != object or not any(b"\0" in item for item in array.flat):
        return array
    cut = array.copy()
    cut.ravel()[:] = [item.partition(b"\0")[0] for item in array.flat]  # a copy is contiguous: this writes into it
    return cut


# A graph that gives the same answers as a model which onnxruntime's CPU cannot run. It lies beside that model, and is
# run as it is, since fusions leave out its rounding.
EMULATED = "emulated.onnx"
_AS_IT_IS = 2  # of optimization.graph.level


def served_session(builder: Builder, file: Path) -> Any:
    """An onnxruntime session of an ONNX file, with the graph level and the custom operators that `serving` names.

    Raises SpecError for a library that is not here, StepError for a file that onnxruntime does not load.
    """
    libraries = operator_libraries(builder).values()
    level = _AS_IT_IS if file.name == EMULATED else graph_level(builder)
    return load_session(file, graph_level=level, libraries=libraries)


def served_view(builder: Builder, session: Any) -> ServedView:
    """The model as `builder` serves it. Raises ConfigError where model.yaml and the model contradict each other, and
    where the server would refuse the config."""
    inputs, outputs = session_values(session)
    tensors = tensors_of_model(builder, tuple(map(OnnxTensor.of, inputs)), tuple(map(OnnxTensor.of, outputs)))
    config = config_of(builder, tensors)
    with located(str(builder.file)):
        check_served(config, session)
    return ServedView(session, config, tensors)


def check_served(config: Any, session: Any) -> None:
    """Hold a ModelConfig against the model, as the server does when it loads it. Raises ConfigError."""
    from google.protobuf import json_format

    data: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    defaults: dict[str, Any] = {"max_batch_size": 0, "input": [], "output": []}
    try:
        validate(defaults | data, session)
    except LoadCheckError as error:
        raise ConfigError(
            f"the server would refuse the model: {error}",
            "inputs, outputs and serving in model.yaml must say what the model has",
        ) from None


def control_values(config: Any, rows: int) -> Tensors:
    """{control: value} of what the sequence batcher adds to a request that is a whole sequence: it starts, it ends, it
    is ready. `rows` is 0 for a model without a batch dimension."""
    import numpy as np

    shape = (rows, 1) if rows else (1,)
    values: Tensors = {}
    for entry in config.sequence_batching.control_input:
        for control in entry.control:
            value, dtype = _control_value(control)
            values[entry.name] = np.full(shape, value, dtype)
    return values


def _control_value(control: Any) -> tuple[Any, str]:
    for field, dtype in _VALUES:
        false_true = getattr(control, field)
        if len(false_true) == 2:
            return false_true[1], dtype
    name = data_type_name(control.data_type)
    dtype = BY_CONFIG[name].numpy if name in BY_CONFIG else "uint64"
    return (str(CORRELATION_ID).encode() if dtype == "object" else CORRELATION_ID), dtype
