"""Runs the plan builder against stand-ins of the real bindings: `python -m tests.tensorrt.run_bindings MODEL OUT CASE RESULT`.

A process of its own, with the bindings of one TensorRT version on its path, and libraries without content in place of
TensorRT's. Prints what came out, and each call that was made, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import tensorrt_bindings

from modelwright import gpus
from modelwright.errors import ModelwrightError
from modelwright.facts.plan import PlanOptions, PlanProfile, PlanRequest, ShapeRange
from tests.tensorrt.signatures import Bindings


class _Memory(bytes):
    """IHostMemory: Python reads it as bytes."""

    def __enter__(self) -> _Memory:
        return self

    def __exit__(self, *error: object) -> None: ...


def _plan(*arguments: Any) -> _Memory:
    return _Memory(b"ftrt" + bytes(24))


def _nothing(*arguments: Any) -> None:
    """What TensorRT returns when it cannot build."""


_LAYERS = {"Layers": [{"Name": "mul", "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP16 format"}]}]}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "every option": {
        "workspace_bytes": 1 << 28,
        "builder_level": 5,
        "version_compatible": True,
        "hardware_compatibility": "ampere_plus",
        "sparsity": True,
        "tf32": True,
    },
    "same compute capability": {"hardware_compatibility": "same_compute_capability"},
    "refused": {},
    "not built": {},
}


def main() -> None:
    onnx, out, case = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    bindings = Bindings(tensorrt_bindings, _values(tensorrt_bindings, case))
    sys.modules["tensorrt"] = bindings.module
    shapes = ShapeRange(min=(1, 2), opt=(4, 2), max=(8, 2))
    request = PlanRequest(
        model="m",
        release="26.07",
        tensorrt="",
        compute_capability="8.9",
        onnx="",
        profiles=(PlanProfile(inputs={"x": shapes}),) * 2,
        options=PlanOptions(**CASES[case]),
    )
    from polygraphy.backend import trt

    from modelwright.steps import plan_builder

    asked = out / "asked"
    runner = mock.create_autospec(trt.TrtRunner, instance=False)
    runner.return_value.__enter__.return_value = runner.return_value
    runner.return_value.infer.side_effect = lambda feed: {"y": feed["x"] * 2}
    result: dict[str, Any] = {}
    with (
        mock.patch.object(plan_builder, "visible_gpus", return_value=(gpus.Gpu(0, "NVIDIA L4", "8.9"),)),
        mock.patch.object(trt, "TrtRunner", runner),
    ):
        try:
            made = plan_builder.build_plan(request, onnx, out, out / "earlier.cache", asked)
            result["sidecar"] = made.as_json()
        except ModelwrightError as error:
            result["error"] = error.message
            result["nodes"] = [node.as_json() for node in getattr(error, "nodes", ())]
    result["calls"] = sorted(set(bindings.calls))
    result["runner"] = [str(call)[:60] for call in runner.mock_calls]
    Path(sys.argv[4]).write_text(json.dumps(result, default=str))


def _values(real: Any, case: str) -> dict[str, Any]:
    """What the stand-ins answer: a network with an input x and an output y."""
    names = ["x", "y"]
    side = [real.TensorIOMode.INPUT, real.TensorIOMode.OUTPUT]
    error = case == "refused"
    return {
        "OnnxParser.parse_from_file": not error,
        "OnnxParser.supports_model_v2": not error,
        "OnnxParser.num_errors": int(error),
        "ParserError.node_name": "uniq",
        "ParserError.node_operator": "Unique",
        "ParserError.code": real.ErrorCode.UNSUPPORTED_NODE,
        "ParserError.desc": "false",
        "INetworkDefinition.num_inputs": 1,
        "INetworkDefinition.num_outputs": 1,
        "ITensor.name": "x",
        "ITensor.shape": (-1, 2),
        "ITensor.is_shape_tensor": False,
        "IOptimizationProfile.get_shape": [(1, 2), (4, 2), (8, 2)],
        "Builder.build_serialized_network": _nothing if case == "not built" else _plan,
        "ITimingCache.serialize": _plan,
        "INetworkDefinition.__iter__": lambda network: iter(()),
        "ICudaEngine.num_io_tensors": 2,
        "ICudaEngine.get_tensor_name": lambda index: names[index],
        "ICudaEngine.get_tensor_mode": lambda name: side[names.index(name)],
        "ICudaEngine.get_tensor_shape": lambda name: (-1, 2),
        "ICudaEngine.get_tensor_dtype": lambda name: real.DataType.HALF,
        "ICudaEngine.device_memory_size_v2": 4096,
        "ICudaEngine.device_memory_size": 4096,
        "EngineInspector.get_engine_information": json.dumps(_LAYERS),
    }


if __name__ == "__main__":
    main()
