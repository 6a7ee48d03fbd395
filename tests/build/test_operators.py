"""Custom operators: the library of a builder's folder, or of this machine, in verification and in the server.

The library is a real one, of the package onnxruntime-extensions.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from modelwright.triton.layout import own_file
from tests.conftest import Sandbox

YAML = """
    source: {{kind: onnx, path: model.onnx}}
    samples: data:samples
    serving:
      max_batch_size: 8
      model_operations: {{op_library_filename: [{path}]}}
"""
DATA = """
    import numpy as np


    def samples():
        return {"x": np.array([["a"], ["größe"]], dtype=object)}
"""
OWN = "/models/upper/ops/libops.so"


def library() -> Path:
    found = importlib.util.find_spec("onnxruntime_extensions")
    if found is None or not found.submodule_search_locations:
        pytest.skip("onnxruntime-extensions is not installed")
    return next(Path(found.submodule_search_locations[0]).glob("_extensions_pydll*.so"))


def upper(sandbox: Sandbox, path: str = OWN, carried: Path | None = None) -> None:
    """y = upper(x), by an operator that onnxruntime does not have."""
    folder = sandbox.write("upper", model_yaml=YAML.format(path=path), data_py=DATA)
    values = [helper.make_tensor_value_info(name, TensorProto.STRING, ["batch", 1]) for name in ("x", "y")]
    node = helper.make_node("StringUpper", ["x"], ["y"], domain="ai.onnx.contrib")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "model.onnx")
    if carried:
        (folder / "ops").mkdir(exist_ok=True)
        shutil.copyfile(carried, folder / "ops/libops.so")


@pytest.mark.server
def test_the_library_of_a_builder_is_published_and_served(sandbox: Sandbox) -> None:
    upper(sandbox, carried=library())
    built = sandbox.cli("build", "--replay")
    assert built.exit_code == 0, built.output
    assert "HTTP ok, gRPC ok" in built.output
    folder = sandbox.root / "model_repository/upper"
    assert (folder / "ops/libops.so").read_bytes() == library().read_bytes()
    assert OWN in sandbox.config("upper")
    assert sandbox.cli("lint").output.startswith("clean")
    answer = json.loads(sandbox.cli("infer", "upper", "--input", 'x=[["abc"]]', "--json").stdout)
    assert answer["outputs"]["y"]["values"] == ["ABC"]


def test_a_library_of_this_machine_is_used_where_it_is(sandbox: Sandbox) -> None:
    upper(sandbox, path=str(library()))
    built = sandbox.cli("build")
    assert built.exit_code == 0, built.output
    assert not [name for name in sandbox.published() if name.endswith(".so")]
    assert "MW913" in sandbox.cli("lint").output  # it must be in the container, too


def test_another_library_builds_again(sandbox: Sandbox) -> None:
    upper(sandbox, carried=library())
    assert sandbox.build()["upper"].status == "new"
    (sandbox.root / "builders/upper/ops/libops.so").write_bytes(b"another")
    assert "libops.so: onnxruntime does not load it as a library of custom operators" in sandbox.error()


@pytest.mark.parametrize(
    ("path", "match"),
    [
        pytest.param(
            "/opt/libops.so", "'/opt/libops.so' is not on this machine, where the model is verified", id="elsewhere"
        ),
        pytest.param(
            "ops/libops.so", "'ops/libops.so' is relative, and a server looks for it in its own working", id="relative"
        ),
        pytest.param("/models/upper/libops.so", "there is no file 'libops.so'", id="not in the folder"),
    ],
)
def test_a_library_that_is_not_there(sandbox: Sandbox, path: str, match: str) -> None:
    upper(sandbox, path=path)
    output = " ".join(sandbox.error().split())
    assert match in output


def test_an_operator_without_its_library_says_where_to_name_it(sandbox: Sandbox) -> None:
    upper(sandbox)
    file = sandbox.root / "builders/upper/model.yaml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "model_operations" not in line))
    output = " ".join(sandbox.error().split())
    assert "ai.onnx.contrib:StringUpper" in output
    assert "name the library that has the operator in serving.model_operations.op_library_filename" in output


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/models/upper/libops.so", "libops.so"),
        ("/models/upper/ops/libops.so", "ops/libops.so"),
        ("/srv/repository/upper/1/libops.so", "1/libops.so"),
        ("/opt/ops/libops.so", ""),
        ("upper/libops.so", ""),
        ("/opt/supper/libops.so", ""),
    ],
)
def test_which_paths_lead_into_the_models_folder(path: str, file: str) -> None:
    assert own_file(path, "upper") == file
