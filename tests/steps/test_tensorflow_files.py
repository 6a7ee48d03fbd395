"""What is no SavedModel, base directory or Keras file is told before TensorFlow is started."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import pytest

from modelwright.errors import StepError
from modelwright.progress import told_to
from modelwright.steps.tensorflow import check_keras_file, check_saved_model
from modelwright.steps.tensorflow_names import renumber
from modelwright.steps.tensorflow_process import run_program
from modelwright.steps.tf_serving import version_folders
from tests.conftest import Sandbox

SAVED = "saved_model.pb"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param(["notes.txt"], "has no saved_model.pb: it is no SavedModel", id="another-folder"),
        pytest.param(["1/saved_model.pb", "12/saved_model.pb"], "(?s)versions 1, 12.*kind tf_serving", id="tf-serving"),
        pytest.param(["model/saved_model.pb"], "did you mean its folder 'model'", id="one-above"),
        pytest.param(["frozen.pb"], "frozen.pb is a frozen graph of TensorFlow 1", id="frozen"),
        pytest.param(["checkpoint", "ckpt-1.index"], "is a checkpoint", id="checkpoint"),
    ],
)
def test_a_folder_without_a_saved_model_says_what_it_is(tmp_path: Path, files: list[str], reason: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(StepError, match=reason):
        check_saved_model(tmp_path)


def test_versions_of_a_base_directory_are_its_numbered_folders(tmp_path: Path) -> None:
    for name in ("3", "0012", "tmp", ".cache"):
        (tmp_path / name).mkdir()
    assert list(version_folders(tmp_path)) == [3, 12]
    (tmp_path / "12").mkdir()
    with pytest.raises(StepError, match="'12' and '0012' are the same version"):
        version_folders(tmp_path)


def test_a_base_directory_without_versions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="has no numbered folders"):
        version_folders(tmp_path)
    (tmp_path / SAVED).touch()
    with pytest.raises(StepError, match=r"(?s)is a SavedModel.*kind tensorflow"):
        version_folders(tmp_path)


def keras_file(path: Path, config: str = "{}", member: str = "model.weights.h5") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr(member, "number" * 9)
    return path


def test_a_keras_file_with_code_needs_trust(tmp_path: Path) -> None:
    file = keras_file(tmp_path / "m.keras", '{"layers": [{"class_name": "Lambda"}]}')
    with pytest.raises(StepError, match=r"(?s)a Keras file with a Lambda layer.*source.trusted: true"):
        check_keras_file(file, "source.path", trusted=False)
    check_keras_file(file, "source.path", trusted=True)


def test_a_keras_file_whose_members_leave_it_is_refused(tmp_path: Path) -> None:
    file = keras_file(tmp_path / "m.keras", member="../../outside.txt")
    with pytest.raises(StepError, match=r"has a member that leaves the archive: \.\./\.\./outside\.txt"):
        check_keras_file(file, "source.path", trusted=True)


def test_a_damaged_keras_file_is_refused(tmp_path: Path) -> None:
    file = keras_file(tmp_path / "m.keras")
    file.write_bytes(file.read_bytes().replace(b"number" * 9, b"cipher" * 9))
    with pytest.raises(StepError, match="damaged"):
        check_keras_file(file, "source.path", trusted=False)
    file.write_text("<html>not found</html>")
    with pytest.raises(StepError, match="not a file of Keras: it is a web page"):
        check_keras_file(file, "source.path", trusted=False)


def test_a_frozen_graph_is_named_when_the_build_is_planned(sandbox: Sandbox) -> None:
    yaml = "source: {kind: tensorflow, path: frozen.pb}\nsamples: data:samples\nserving: {max_batch_size: 8}"
    sandbox.onnx_builder("graph", yaml)
    (sandbox.root / "builders/graph/frozen.pb").write_bytes(b"")
    output = sandbox.error("build")
    assert "'frozen.pb' is a file, and a SavedModel is a folder: a frozen graph of TensorFlow 1" in output


def test_a_download_is_announced_with_its_size_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    told: list[str] = []
    with told_to(told.append), pytest.raises(StepError, match="pip cannot install TensorFlow's packages"):
        run_program(tmp_path / "environments", {}, (), tmp_path, print)
    assert "a download of 330 MB, 1.2 GB on disk" in told[0]


def test_new_from_a_saved_model_downloads_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / SAVED).touch()
    said = " ".join(sandbox.cli("new", "net", "--from", str(tmp_path / "saved")).output.split())
    assert "Saw a SavedModel of TensorFlow" in said
    assert "a build makes it, once: a download of 330 MB" in said
    assert not (sandbox.root / ".modelwright/environments").exists()


def counted_graph(first: int, second: int, constant: str) -> onnx.ModelProto:
    """What tf2onnx makes of one model in two processes: other numbers, and another of two equal constants."""
    weight = onnx.numpy_helper.from_array(np.ones(2, np.float32), f"{constant}__{first}")
    bias = onnx.numpy_helper.from_array(np.zeros(2, np.float32), f"const_fold_opt__{second}")
    nodes = [
        onnx.helper.make_node("Mul", ["image", weight.name], [f"Mul__{second}:0"], name=f"Mul__{second}"),
        onnx.helper.make_node("Add", [f"Mul__{second}:0", bias.name], ["digit"], name="Add"),
    ]
    image, digit = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("image", "digit")
    )
    held = [weight, bias] if first < second else [bias, weight]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "main", [image], [digit], held))


def test_names_that_tf2onnx_counts_follow_from_the_graph() -> None:
    graphs = [counted_graph(20, 41, "const_axes"), counted_graph(15, 9, "const_starts")]
    for graph in graphs:
        renumber(graph)
    assert graphs[0] == graphs[1]
    onnx.checker.check_model(graphs[0], full_check=True)
    assert [tensor.name for tensor in graphs[0].graph.initializer] == ["constant__0", "constant__2"]
