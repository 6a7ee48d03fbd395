"""TensorRT's own lines, and what becomes of them. A line with a link is from there; the others were seen with TensorRT for
RTX here (`make test-tensorrt` sees them again)."""

from __future__ import annotations

import pytest

from modelwright.facts.plan import RefusedNode
from modelwright.steps.plan_errors import RefusedGraphError, build_error, refused_text


@pytest.mark.parametrize(
    ("lines", "expected", "advice"),
    [
        (
            [  # https://github.com/marcoslucianops/DeepStream-Yolo/issues/366
                "2: [virtualMemoryBuffer.cpp::resizePhysical::160] Error Code 2: OutOfMemory (no further information)"
            ],
            "the GPU has too little free memory (TensorRT: 2: [virtualMemoryBuffer.cpp",
            "nvidia-smi",
        ),
        (
            [  # https://github.com/NVIDIA/TensorRT/issues/469
                "../rtSafe/safeRuntime.cpp (25) - Cuda Error in allocate: 2 (out of memory)",
                "Internal error: could not find any implementation for node conv1/Conv2D + Relu, try increasing the workspace size",
            ],
            "the GPU has too little free memory",
            "lower max in tensorrt.profiles",
        ),
        (
            [  # https://github.com/NVIDIA/TensorRT/issues/1917
                "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[Unsqueeze_93...Softmax_2088]}.)"
            ],
            "TensorRT has no kernel for node '{ForeignNode[Unsqueeze_93...Softmax_2088]}' within the workspace",
            "raise tensorrt.workspace_mb",
        ),
        (
            [  # https://github.com/NVIDIA/TensorRT/issues/1768
                "[optimizer.cpp::computeCosts::2011] Error Code 10: Internal Error (Could not find any implementation for node conv1.weight + Conv_9 + PWN(LeakyRelu_10).)"
            ],
            "TensorRT has no kernel for node 'conv1.weight + Conv_9 + PWN(LeakyRelu_10)' within the workspace",
            "raise tensorrt.workspace_mb",
        ),
        (
            [  # https://github.com/NVIDIA/TensorRT/issues/3898
                "1: [stdArchiveReader.cpp::StdArchiveReaderInitCommon::46] Error Code 1: Serialization (Serialization assertion stdVersionRead == "
                "serializationVersion failed.Version tag does not match. Note: Current Version: 236, Serialized Engine Version: 237)"
            ],
            "the plan was built with another TensorRT",
            "build it with the TensorRT that loads it",
        ),
        (
            [  # https://github.com/RootKit-Org/AI-Aimbot/issues/109
                "6: The engine plan file is not compatible with this version of TensorRT, expecting library version 8.5.1.7 got 8.5.3.1, please rebuild."
            ],
            "the plan was built with TensorRT 8.5.3.1, and 8.5.1.7 is here",
            "build it with the TensorRT that loads it",
        ),
        (
            [  # https://github.com/deepinsight/insightface/issues/2882
                "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is generated on an "
                "incompatible device, expecting compute 8.9 got compute 8.6, please rebuild.)"
            ],
            "the plan was built for a GPU of compute capability 8.6, and the GPU here has 8.9",
            "build it on a GPU of the compute capability",
        ),
        (
            [
                "IOptimizationProfile::isValid: Error Code 4: API Usage Error (Invalid optimization profiles for input tensors x, "
                "please ensure that the optimization profiles satisfy MIN<=OPT<=MAX.)",
                "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insufficient for CUDA runtime version)",
            ],
            "TensorRT refuses the optimisation profiles (TensorRT: IOptimizationProfile::isValid",
            "min ≤ opt ≤ max",
        ),
        (
            ["Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insufficient for CUDA runtime version)"],
            "CUDA does not work here",
            "nvidia-smi",
        ),
        (["Something new", "and more"], "TensorRT fails: Something new; and more", "log"),
    ],
    ids=[
        "memory",
        "memory first",
        "no kernel",
        "workspace",
        "version tag",
        "version",
        "GPU",
        "profile",
        "driver",
        "unknown",
    ],
)
def test_what_tensorrt_says_becomes_what_to_do(lines: list[str], expected: str, advice: str) -> None:
    error = build_error(lines)
    assert error.message.startswith(expected)
    assert advice in error.hint


def test_nodes_are_listed_up_to_three() -> None:
    nodes = [RefusedNode(name=f"n{index}", operator="Unique", reason="UNSUPPORTED_NODE: false") for index in range(5)]
    text = refused_text(nodes, (), ["in a.b"])
    assert text == (
        "TensorRT does not take the operator Unique of the graph: node 'n0' (Unique, in a.b): UNSUPPORTED_NODE; "
        "node 'n1' (Unique): UNSUPPORTED_NODE; node 'n2' (Unique): UNSUPPORTED_NODE and 2 more"
    )


def test_a_node_keeps_what_tensorrt_says_of_it() -> None:
    node = RefusedNode(
        name="", operator="Resize", reason="UNSUPPORTED_NODE_ATTR: This version does not support antialias"
    )
    assert refused_text([node], ()).endswith(
        "a node without a name (Resize): UNSUPPORTED_NODE_ATTR: This version does not support antialias"
    )


def test_a_graph_that_names_no_node_has_tensorrts_lines() -> None:
    assert refused_text((), ["not an ONNX file"]) == "TensorRT does not take the graph: not an ONNX file"


def test_int8_that_tensorrt_does_not_take_has_advice_of_its_own() -> None:
    node = RefusedNode(
        name="q", operator="DequantizeLinear", reason="INVALID_NODE: Non-zero zero point is not supported."
    )
    assert "activations: symmetric" in RefusedGraphError([node], ()).hint
    assert "another way" in RefusedGraphError([RefusedNode(name="u", operator="Unique", reason="")], ()).hint
