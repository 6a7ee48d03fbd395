"""Scalers that compute in float64 and give float32, as scikit-learn does in front of trees.

skl2onnx's own compute in float32, or in float64 with constants that were rounded to float32. Numbers that lie on the
threshold of a tree, as measurements with two decimals often do, then fall on its other side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def exact_scalers() -> tuple[dict[type, Callable[..., None]], dict[type, Callable[..., None]]]:
    """(converters, shape calculators), for `convert_sklearn`."""
    from skl2onnx.common._registration import get_shape_calculator
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    converters = {
        StandardScaler: _converter("mean_", "scale_"),
        RobustScaler: _converter("center_", "scale_"),
        MaxAbsScaler: _converter("", "scale_"),
        MinMaxScaler: _min_max,
    }
    return converters, dict.fromkeys(converters, get_shape_calculator("SklearnScaler"))


def _converter(offset: str, scale: str) -> Callable[..., None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        graph = _Nodes(scope, operator, container)
        fitted = operator.raw_operator
        value = graph.wide()
        for op_type, name in (("Sub", offset), ("Div", scale)):
            numbers = getattr(fitted, name, None) if name else None
            if numbers is not None:
                value = graph.add(op_type, value, numbers)
        graph.finish(value)

    return convert


def _min_max(scope: Any, operator: Any, container: Any) -> None:
    import numpy as np

    graph = _Nodes(scope, operator, container)
    fitted = operator.raw_operator
    value = graph.add("Add", graph.add("Mul", graph.wide(), fitted.scale_), fitted.min_)
    if fitted.clip:
        low, high = fitted.feature_range
        value = graph.add("Min", graph.add("Max", value, np.array(low)), np.array(high))
    graph.finish(value)


class _Nodes:
    """Adds nodes for one scaler."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._operator, self._container = scope, operator, container

    def wide(self) -> str:
        """The input, all of its columns, in float64."""
        from onnx import TensorProto
        from skl2onnx.operator_converters.common import concatenate_variables

        inputs = self._operator.inputs
        joined = concatenate_variables(self._scope, inputs, self._container)
        return self._node("Cast", [joined], self._new(), to=TensorProto.DOUBLE)

    def add(self, op_type: str, value: str, numbers: Any) -> str:
        """A node with a constant."""
        from onnx import TensorProto

        constant = self._new()
        shape = list(numbers.shape)
        self._container.add_initializer(constant, TensorProto.DOUBLE, shape, numbers.ravel().tolist())
        return self._node(op_type, [value, constant], self._new())

    def finish(self, value: str) -> None:
        """The output, of the type that the next step was told of."""
        from skl2onnx.common.data_types import guess_proto_type

        output = self._operator.outputs[0]
        self._node("Cast", [value], output.full_name, to=guess_proto_type(output.type))

    def _new(self) -> str:
        name: str = self._scope.get_unique_variable_name("scaled")
        return name

    def _node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = self._scope.get_unique_operator_name(op_type)
        self._container.add_node(op_type, inputs, output, name=name, op_version=13, **attributes)
        return output
