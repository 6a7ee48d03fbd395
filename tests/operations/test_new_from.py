"""`modelwright new NAME --from FILE`: it builds at once, or says what cannot be served, and why."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import ROOT, Sandbox
from tests.operations.test_scaffold import snapshot
from tests.triton.test_file_types import POINTER, zipped
from tests.web import WebFiles

FP32, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
Tensor = tuple[str, int, Sequence[Any]]


def graph(
    nodes: Sequence[Any], inputs: Sequence[Tensor], outputs: Sequence[Tensor], **initializers: Any
) -> onnx.ModelProto:
    values = [[helper.make_tensor_value_info(*tensor) for tensor in side] for side in (inputs, outputs)]
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()]
    body = helper.make_graph(list(nodes), "g", *values, weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


X: Tensor = ("x", FP32, ["batch", 3])
IMAGE: Tensor = ("x", FP32, ["batch", 3, "height", "width"])
TABLE = np.ones((7, 2), np.float32)

BUILDS: dict[str, tuple[onnx.ModelProto, int, str]] = {
    "rows": (graph([node("Relu", "x", "y")], [X], [("y", FP32, ["batch", 3])]), 8, "rows answer alike"),
    "images": (graph([node("Relu", "x", "y")], [IMAGE], [("y", FP32, IMAGE[2])]), 8, "rows answer alike"),
    "labels": (graph([node("ArgMax", "x", "y", axis=1, keepdims=0)], [X], [("y", INT64, ["batch"])]), 8, "rows answer"),
    "strings": (
        graph([node("Identity", "x", "y")], [("x", STRING, ["n", 2])], [("y", STRING, ["n", 2])]), 8, "rows answer",
    ),
    "a fixed first dimension": (
        graph([node("Relu", "x", "y")], [("x", FP32, [1, 3])], [("y", FP32, [1, 3])]), 0, "the first dimension of 'x' is 1",
    ),
    "a scalar": (
        graph([node("Mul", "x rate", "y")], [("x", FP32, ["n"]), ("rate", FP32, [])], [("y", FP32, ["n"])]),
        0,
        "'rate' has no dimensions",
    ),
    "rows of another name": (
        graph([node("Relu", "x", "y")], [("x", FP32, ["batch", 3])], [("y", FP32, ["boxes", 3])]),
        0,
        "'y' has 'boxes' rows, a request 'batch'",
    ),
    "rows that depend on their neighbours": (
        graph(
            [node("ReduceMean", "x", "mean", axes=[0], keepdims=1), node("Sub", "x mean", "y")],
            [X],
            [("y", FP32, ["batch", 3])],
        ),
        0,
        "of a batch of",
    ),
    "ids of a table": (
        graph([node("Gather", "table ids", "y")], [("ids", INT64, ["batch", "length"])], [("y", FP32, ["batch", "length", 2])], table=TABLE),
        8,
        "rows answer alike",
    ),
    "a past and a sequence": (
        graph(
            [node("Concat", "past x", "all", axis=1), node("Add", "all bias", "y")],
            [
                ("x", FP32, ["batch", "sequence"]), ("past", FP32, ["batch", "past"]),
                ("bias", FP32, ["batch", "past + sequence"]),
            ],
            [("y", FP32, ["batch", "past + sequence"])],
        ),
        8,
        "rows answer alike",
    ),
    "sides that are multiples of 32": (
        graph(
            [node("Reshape", "x shape", "tiles"), node("ReduceMax", "tiles", "y", axes=[2, 3], keepdims=0)],
            [("x", FP32, ["batch", 1, 32, "width"])],
            [("y", FP32, ["batch", 1])],
            shape=np.array([0, 1, -1, 1024]),
        ),
        8,
        "rows answer alike",
    ),
    "an output of another shape than the file declares": (
        graph(
            [node("Shape", "x", "s"), node("Concat", "one s", "shape", axis=0), node("Reshape", "x shape", "y")],
            [("x", FP32, [1, "n"])],
            [("y", FP32, [1, "n"])],
            one=np.array([1]),
        ),
        0,
        "the first dimension of 'x' is 1",
    ),
}  # fmt: skip


def saved(folder: Path, model: onnx.ModelProto, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "net.onnx", **options)
    return folder / "net.onnx"


def spec(sandbox: Sandbox) -> Any:
    return yaml.safe_load((sandbox.root / "builders/m/model.yaml").read_text())


def new_from(sandbox: Sandbox, file: Path) -> str:
    result = sandbox.cli("new", "m", "--from", str(file))
    assert result.exit_code == 0, result.output
    return result.output


def refused(sandbox: Sandbox, file: Path | str, *more: str) -> str:
    """The message of a `new` that must fail and leave nothing."""
    before = snapshot(sandbox.root / "builders")
    result = sandbox.cli("new", "m", "--from", str(file), *more)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert snapshot(sandbox.root / "builders") == before
    assert not list((sandbox.root / "builders").glob(".new-*"))
    return result.output


@pytest.mark.parametrize("case", BUILDS)
def test_it_builds_at_once(sandbox: Sandbox, tmp_path: Path, case: str) -> None:
    model, batch, why = BUILDS[case]
    output = new_from(sandbox, saved(tmp_path / "from", model))
    assert "Saw an ONNX file: opset 17; " in output
    assert f"Note: max_batch_size is {batch}: " in output
    assert why in output
    assert spec(sandbox)["serving"]["max_batch_size"] == batch
    outcome = sandbox.build("m")["m"]
    assert (outcome.status, outcome.error) == ("new", None)
    assert sandbox.manifest("m").verification.samples == 4


def test_what_is_written_passes_the_linter_and_its_formatter(sandbox: Sandbox, tmp_path: Path) -> None:
    for number, (model, _, _) in enumerate(BUILDS.values()):
        sandbox.cli("new", f"m{number}", "--from", str(saved(tmp_path / "from", model)))
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run([*ruff, str(sandbox.root / "builders")], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_tensors_are_those_of_onnxruntime_and_only_names_that_people_gave(sandbox: Sandbox, tmp_path: Path) -> None:
    image = ("x", FP32, ["batch", 3, "height", "unk__12"])
    new_from(
        sandbox,
        saved(
            tmp_path / "from",
            graph([node("Relu", "x", "y")], [image], [("y", FP32, ["batch", 3, "height", "unk__13"])]),
        ),
    )
    tensors = spec(sandbox)
    assert tensors["inputs"] == [{"name": "x", "dtype": "FP32", "shape": [3, "height", -1]}]
    assert tensors["outputs"] == [{"name": "y", "dtype": "FP32", "shape": [3, "height", -1]}]


def test_dynamic_dimensions_get_two_sizes_and_ids_the_size_of_their_table(sandbox: Sandbox, tmp_path: Path) -> None:
    new_from(sandbox, saved(tmp_path / "from", BUILDS["ids of a table"][0]))
    data = (sandbox.root / "builders/m/data.py").read_text()
    assert "SIZES = (32, 32, 64, 64)" in data
    assert "random.integers(0, 7, (length,), dtype=np.int64))  # rows of 'table'" in data


def with_weights(folder: Path, model: onnx.ModelProto) -> Path:
    model = copy.deepcopy(model)  # saving moves its data
    return saved(folder, model, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)


WEIGHTS = graph(
    [node("Add", "x a", "s"), node("Mul", "s b", "t"), node("Sub", "t c", "y")],
    [X],
    [("y", FP32, ["batch", 3])],
    **{name: np.full(3, 2, np.float32) for name in "abc"},
)


def test_weights_come_along(sandbox: Sandbox, tmp_path: Path) -> None:
    assert "its weights are in a, b, c" in new_from(sandbox, with_weights(tmp_path / "from", WEIGHTS))
    assert sandbox.build("m")["m"].status == "new"
    assert {"m/1/a", "m/1/b", "m/1/c"} <= set(sandbox.published())


def test_all_weights_that_are_missing_are_named_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    file = with_weights(tmp_path / "from", WEIGHTS)
    for name in "ac":
        (file.parent / name).unlink()
    assert "keeps weights in 2 files that are not there: a, c\n  hint: copy them beside the graph" in refused(
        sandbox, file
    )
    for name in "ac":
        (file.parent / name).write_bytes(POINTER)
    assert "weights: a, c: a Git LFS pointer, not the file\n  hint: git lfs pull" in refused(sandbox, file)


SEQUENCE = graph([node("SplitToSequence", "x", "y", axis=0)], [X], [])
SEQUENCE.graph.output.append(helper.make_tensor_sequence_value_info("y", FP32, None))
UNSERVABLE: dict[str, tuple[onnx.ModelProto, str]] = {
    "a sequence": (SEQUENCE, r"'y' is a sequence, which Triton cannot serve\n  hint: return a tensor"),
    "an opset that is too new": (
        helper.make_model(BUILDS["rows"][0].graph, opset_imports=[helper.make_opsetid("", 999)], ir_version=8),
        "opset 999 is above",
    ),
    "no inputs": (graph([node("Identity", "c", "y")], [], [("y", FP32, [2])], c=np.ones(2, np.float32)), "has no inputs"),
    "an unknown operator": (graph([node("Nonsense", "x", "y")], [X], [("y", FP32, [3])]), "onnxruntime does not load it"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSERVABLE)
def test_what_cannot_be_served_is_refused_with_the_reason(sandbox: Sandbox, tmp_path: Path, case: str) -> None:
    model, message = UNSERVABLE[case]
    assert re.search(message, refused(sandbox, saved(tmp_path / "from", model)))


FILES: dict[str, tuple[bytes, str]] = {
    "a pointer": (POINTER, "is a Git LFS pointer, not the file, of which no builder is made\n  hint: git lfs pull"),
    "a web page": (b"<html></html>", r"is a web page \(HTML\), of which no builder is made"),
    "a checkpoint": (zipped("archive/data.pkl"), "is a PyTorch checkpoint that cannot be read: its pickle is damaged"),
    "TorchScript": (zipped("m/data.pkl", "m/constants.pkl"), "is a TorchScript file that cannot be read: its pickle"),
    "safetensors": (
        (2).to_bytes(8, "little") + b"{}",
        "is a safetensors file, .*\n  hint: name the directory that it lies in",
    ),
    "a plan": (b"ftrt" + bytes(40), "is a TensorRT plan, of which no builder is made"),
    "an empty file": (b"", "is empty, of which no builder is made"),
    "nothing that is known": (b"\0\1\2" * 9, "not a whole ONNX model"),
    "an ONNX file that is cut short": (
        BUILDS["rows"][0].SerializeToString()[:40],
        "not a whole ONNX model: .*cut short",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_another_file_is_named(sandbox: Sandbox, tmp_path: Path, case: str) -> None:
    data, message = FILES[case]
    (tmp_path / "net.onnx").write_bytes(data)
    assert re.search(message, refused(sandbox, tmp_path / "net.onnx"))


def test_a_folder_gets_a_hint(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    assert f"--from {folder}: is an empty folder\n  hint: --from takes " in refused(sandbox, folder)
    (folder / "notes.txt").touch()
    assert f"{folder}: is a folder with notes.txt: it is not known what that is" in refused(sandbox, folder)
    saved(folder, BUILDS["rows"][0])
    assert f"hint: name the file: --from '{folder}/net.onnx'" in refused(sandbox, folder)


def test_a_model_repository_is_for_adopt(sandbox: Sandbox, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    (repository / "m").mkdir(parents=True)
    (repository / "m/config.pbtxt").touch()
    assert re.search(
        rf"is a Triton model repository with m\n  hint: .*modelwright .*adopt {repository}",
        refused(sandbox, repository),
    )
    assert re.search(
        rf"is a model of a Triton repository\n  hint: .*modelwright .*adopt {repository} m\b",
        refused(sandbox, repository / "m"),
    )


def test_what_is_no_file_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    assert "nowhere.onnx: there is no such file" in refused(sandbox, tmp_path / "nowhere.onnx")
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: is no regular file" in refused(sandbox, tmp_path / "pipe")


def test_names_that_terminals_and_files_cannot_show_are_escaped(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[31mb"
    folder.mkdir()
    (folder / "c\x1b]0;d").touch()
    assert r"a\x1b[31mb: is a folder with c\x1b]0;d: it is" in refused(sandbox, folder)
    file = saved(tmp_path / "from", BUILDS["rows"][0])
    file = file.rename(file.with_name(os.fsdecode(b"caf\xe9.onnx")))
    assert sandbox.cli("new", "cafe", "--from", str(file)).exit_code == 0
    assert "caf?" in (sandbox.root / "builders/cafe/model.yaml").read_text()


def test_a_folder_that_cannot_be_copied_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "bert"):  # the project lies in the first one
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
        os.mkfifo(folder / "model.safetensors")
    assert re.search(r"the builder would lie in it\n  hint: .*of its own", refused(sandbox, tmp_path))
    assert "bert/model.safetensors: is no regular file" in refused(sandbox, tmp_path / "bert")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("../w", "lie outside its folder: '../w'\n  hint: .*save_as_external_data"),
        ("data.py", "in 'data.py', a name that a builder uses itself\n  hint: .*save_as_external_data"),
    ],
)
def test_weights_in_files_that_no_builder_can_have(sandbox: Sandbox, tmp_path: Path, place: str, message: str) -> None:
    file = saved(tmp_path / "from", BUILDS["rows"][0])
    model = onnx.load(file)
    weights = model.graph.initializer.add(name="w", dims=[1], data_type=FP32, data_location=1)
    weights.external_data.add(key="location", value=place)
    file.write_bytes(model.SerializeToString())
    (tmp_path / "from" / place).write_bytes(bytes(4))
    assert re.search(message, refused(sandbox, file))


def test_another_kind_and_a_name_that_is_taken_are_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    file = saved(tmp_path / "from", BUILDS["rows"][0])
    assert re.search(
        "--kind torch: .*net.onnx is an ONNX file: opset 17; 1 input, 1 output\n  hint: .* of kind onnx is made",
        refused(sandbox, file, "--kind", "torch"),
    )
    sandbox.onnx_builder("m")
    assert "builders/m exists\n  hint: nothing was written" in refused(sandbox, file)


def test_a_model_that_takes_no_generated_sample_is_left_to_a_person(sandbox: Sandbox, tmp_path: Path) -> None:
    model = graph(
        [node("Reshape", "x shape", "y")], [("x", FP32, ["n"])], [("y", FP32, [7, 11])], shape=np.array([7, 11])
    )
    output = new_from(sandbox, saved(tmp_path / "from", model))
    assert "Note: no generated samples ran: onnxruntime fails on inputs x [32]" in output
    assert "Left to you: write your own samples into data.py" in output
    assert re.search(r"edit \S*builders/m/data.py +give it what is left to you", output)
    data = sandbox.root / "builders/m/data.py"
    data.write_text(data.read_text().replace("32, 32, 32, 32", "77, 77, 77, 77"))
    assert sandbox.build("m")["m"].status == "new"


def test_names_that_yaml_and_python_have_other_ideas_of(sandbox: Sandbox, tmp_path: Path) -> None:
    names = ["no", "input.1", 'a "quoted", one', "x:0", "é"]
    inputs = [(name, FP32, ["batch", "class"]) for name in names]
    outputs = [(f"{name} out", FP32, ["batch", "class"]) for name in names]
    nodes = [helper.make_node("Relu", [name], [f"{name} out"]) for name in names]
    new_from(sandbox, saved(tmp_path / "from", graph(nodes, inputs, outputs)))
    assert [tensor["name"] for tensor in spec(sandbox)["inputs"]] == names
    assert sandbox.build("m")["m"].status == "new"
    assert json.dumps(names[2]) in (sandbox.root / "builders/m/data.py").read_text()


def test_a_uri_stands_in_model_yaml_and_is_fetched_once(sandbox: Sandbox, tmp_path: Path) -> None:
    file = with_weights(tmp_path / "from", WEIGHTS)
    with WebFiles({f"/models/{path.name}": path.read_bytes() for path in file.parent.iterdir()}) as web:
        uri = web.url("/models/net.onnx")
        output = sandbox.cli("new", "m", "--from", uri).output
        assert "Saw an ONNX file: opset 17; 1 input, 1 output\nWrote builders/m/\n  data.py\n  model.yaml\n" in output
        assert spec(sandbox)["source"] == {"kind": "onnx", "path": uri}
        web.requests.clear()
        assert sandbox.build("m")["m"].status == "new"
        assert web.requests == []
        assert {"m/1/a", "m/1/b", "m/1/c"} <= set(sandbox.published())


def test_what_lies_at_a_uri_is_named_as_a_file_is(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "net").mkdir(parents=True)
    (folder / "net/config.pbtxt").touch()
    saved(folder / "graphs", BUILDS["rows"][0])
    (folder / "x.pt").write_bytes(zipped("archive/data.pkl"))
    uri = f"file://{folder}"
    assert f"--from {uri}/x.pt: is a PyTorch checkpoint" in refused(sandbox, f"{uri}/x.pt")
    assert f"hint: name the file: --from {uri}/graphs/net.onnx" in refused(sandbox, f"{uri}/graphs")
    (folder / "graphs/net.onnx").unlink()
    assert re.search(r"repository with net\n  hint: download it first; then .*adopt FOLDER", refused(sandbox, uri))
    assert f"Error: --from {uri}/none.onnx: is not there" in refused(sandbox, f"{uri}/none.onnx")
    assert "ftp://example.com/net.onnx: the scheme ftp is not known" in refused(sandbox, "ftp://example.com/net.onnx")
    assert not list((sandbox.root / ".modelwright/cache").glob("looking-*"))
    assert not list((sandbox.root / ".modelwright/cache/sources").iterdir())
