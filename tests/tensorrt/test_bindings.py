"""The plan builder's calls, and those that Polygraphy makes for it, against TensorRT's own bindings of four versions.

What is held: names, the number, names and types of arguments, enumerations, and that the results are used as what they
are. What is not, because it needs TensorRT's libraries and a GPU: what the functions do, buffers of IHostMemory, errors
that they log, and TrtRunner's calls, of which only the runner's own signatures are held.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.triton.tensors import save_tensors
from tests.conftest import ROOT, doubling_onnx
from tests.tensorrt.packages import BINDINGS, compiler, environment, stubs, why_not
from tests.tensorrt.signatures import signatures

pytestmark = pytest.mark.tensorrt


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """version → the folder with its stubs."""
    if why_not():
        pytest.skip(why_not())
    if compiler() is None:
        pytest.skip("there is no C compiler, which makes the stubs that the bindings load")
    return cache(lambda version: stubs(version, tmp_path_factory.mktemp(version)))


def run(libraries: Any, version: str, case: str, folder: Path) -> dict[str, Any]:
    doubling_onnx(folder / "model.onnx")
    (folder / "asked").mkdir()
    save_tensors(folder / "asked" / "one.npz", {"x": np.ones((3, 2), dtype=np.float32)})
    (folder / "earlier.cache").write_bytes(b"measured")
    command = [sys.executable, "-m", "tests.tensorrt.run_bindings", str(folder / "model.onnx"), str(folder), case]
    done = subprocess.run(
        [*command, str(folder / "result.json")],
        cwd=ROOT,
        env=environment(version, libraries(version)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


@pytest.mark.parametrize("version", BINDINGS)
@pytest.mark.parametrize("case", ["plain", "every option"])
def test_calls_are_what_the_bindings_take(libraries: Any, version: str, case: str, tmp_path: Path) -> None:
    result = run(libraries, version, case, tmp_path)
    sidecar = result["sidecar"]
    assert sidecar["tensorrt"].startswith(version)
    assert sidecar["inputs"] == [{"name": "x", "dtype": "FP16", "dims": [-1, 2]}]
    assert sidecar["layers_by_type"] == {"FP16": 1}
    assert sidecar["memory_bytes"] == 4096
    assert sidecar["answered"] == 1
    assert {
        "Builder.create_network",
        "OnnxParser.parse_from_file",
        "IOptimizationProfile.set_shape",
        "Builder.build_serialized_network",
        "IBuilderConfig.create_timing_cache",
        "Runtime.deserialize_cuda_engine",
        "EngineInspector.get_engine_information",
    } <= set(result["calls"])
    options = {
        "IBuilderConfig.set_memory_pool_limit",
        "IBuilderConfig.builder_optimization_level =",
        "IBuilderConfig.hardware_compatibility_level =",
        "IBuilderConfig.set_flag",
    }
    assert (options & set(result["calls"]) == options) is (case == "every option")
    assert (tmp_path / "model.plan").read_bytes().startswith(b"ftrt")
    assert (tmp_path / "answers" / "one.npz").is_file()
    assert any("set_profile(0)" in call for call in result["runner"])


@pytest.mark.parametrize("version", BINDINGS)
def test_same_compute_capability_is_there_or_is_refused(libraries: Any, version: str, tmp_path: Path) -> None:
    result = run(libraries, version, "same compute capability", tmp_path)
    if version == "10.7.0":
        assert result["error"] == "TensorRT 10.7.0 has no hardware_compatibility: same_compute_capability"
    else:
        assert result["sidecar"]["hardware_compatibility"] == "same_compute_capability"


@pytest.mark.parametrize("version", BINDINGS)
def test_a_refused_node_is_read_from_the_parser(libraries: Any, version: str, tmp_path: Path) -> None:
    result = run(libraries, version, "refused", tmp_path)
    assert result["nodes"] == [{"name": "uniq", "operator": "Unique", "reason": "UNSUPPORTED_NODE: false"}]


@pytest.mark.parametrize("version", BINDINGS)
def test_a_build_that_returns_nothing_is_an_error(libraries: Any, version: str, tmp_path: Path) -> None:
    assert run(libraries, version, "not built", tmp_path)["error"].startswith("TensorRT fails: ")


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        (
            "create_network(self: t.Builder, flags: typing.SupportsInt = 0) -> t.INetworkDefinition\n\n  Text (a: b).",
            [([("flags", "typing.SupportsInt", True)], "t.INetworkDefinition")],
        ),
        ("(arg0: t.IBuilderConfig, arg1: int) -> None\n", [([("arg1", "int", False)], "None")]),
        (
            "f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: t.R, a: buffer) -> t.E\n\n2. f(self: t.R, b: t.S) -> t.E",
            [([("a", "buffer", False)], "t.E"), ([("b", "t.S", False)], "t.E")],
        ),
        (
            "name(self: t.X, a: List[Tuple[int, int]], b: str = None) -> bool",
            [([("a", "List[Tuple[int, int]]", False), ("b", "str", True)], "bool")],
        ),
        ("Prose only.", []),
    ],
    ids=["method", "property", "overloads", "nested types", "prose"],
)
def test_signatures_are_read_from_docstrings(doc: str, expected: Any) -> None:
    read = [
        ([(item.name, item.types, item.optional) for item in found.arguments], found.returns)
        for found in signatures(doc)
    ]
    assert read == expected
