"""Files beside config.pbtxt that are neither warm-up nor environments: labels, initial states."""

from __future__ import annotations

import pytest

from modelwright.config.model_files import is_ours, recorded
from tests.conftest import ONNX_YAML, PYTHON_YAML, Sandbox

LABELS_YAML = ONNX_YAML.replace("_size: 8", "_size: 8, output: [{name: y, label_filename: LABELS}]")
STATES_YAML = PYTHON_YAML.replace(
    "_size: 8",
    """_size: 8, sequence_batching: {oldest: {max_candidate_sequences: 4},
    state: [{input_name: a, output_name: b, data_type: TYPE_FP32, dims: [2],
             initial_state: [{name: i, data_type: TYPE_FP32, dims: [2], data_file: first.bin}]}]}""",
)


def test_labels_named_in_serving_are_published_and_removed(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(yaml=LABELS_YAML.replace("LABELS", "names/y.txt"))
    (folder / "names").mkdir()
    (folder / "names/y.txt").write_text("a\nb\n")
    sandbox.build()
    published = sandbox.root / "model_repository/doubled/names/y.txt"
    assert published.read_text() == "a\nb\n"
    assert 'label_filename: "names/y.txt"' in sandbox.config("doubled")
    (folder / "model.yaml").write_text(ONNX_YAML)
    assert sandbox.build()["doubled"].status == "config"
    assert not published.parent.exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("none.txt", "serving.output[0].label_filename: there is no file 'none.txt'"),
        ("../x.txt", "serving.output[0].label_filename: '../x.txt' cannot name a label file"),
        ("config.pbtxt", "'config.pbtxt' cannot name a label file"),
        ("configs/cpu.pbtxt", "'configs/cpu.pbtxt' cannot name a label file"),
        ("1/labels.txt", "'1/labels.txt' cannot name a label file"),
        ("data.py", "outputs: 'y' has 2 classes, data.py has"),
    ],
)
def test_labels_that_cannot_be(sandbox: Sandbox, labels: str, message: str) -> None:
    sandbox.onnx_builder(yaml=LABELS_YAML.replace("LABELS", labels))
    assert message in sandbox.error()


@pytest.mark.parametrize("where", ["outputs", "serving"])
@pytest.mark.server
def test_a_python_model_may_have_labels(sandbox: Sandbox, where: str) -> None:
    """It is verified in a server of its own, where no label file lies."""
    if where == "outputs":
        yaml = PYTHON_YAML.replace("outputs: [{name: y,", "outputs: [{name: y, labels: l.txt,")
    else:
        yaml = PYTHON_YAML.replace("_size: 8", "_size: 8, output: [{name: y, label_filename: l.txt}]")
    folder = sandbox.python_builder(yaml=yaml)
    (folder / "l.txt").write_text("a\nb\n")
    assert sandbox.cli("build", "--replay").exit_code == 0
    assert "plus_one/l.txt" in sandbox.published()


@pytest.mark.server
def test_initial_states_come_from_the_builders_folder(sandbox: Sandbox) -> None:
    folder = sandbox.python_builder(yaml=STATES_YAML)
    (folder / "initial_state").mkdir()
    (folder / "initial_state/first.bin").write_bytes(bytes(7))
    assert "initial_state[0].data_file: TYPE_FP32 [2] needs 8 bytes, the file has 7" in sandbox.error()
    (folder / "initial_state/first.bin").write_bytes(bytes(8))
    sandbox.build()
    published = sandbox.root / "model_repository/plus_one/initial_state/first.bin"
    assert published.read_bytes() == bytes(8)
    (folder / "model.yaml").write_text(PYTHON_YAML)
    sandbox.build()
    assert not published.parent.exists()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("labels.txt", True),
        ("configs/cpu.pbtxt", True),
        ("warmup/a/b", True),
        ("1x/labels.txt", True),
        ("config.pbtxt", False),
        ("1/model.onnx", False),
        ("12", False),
        ("../m/labels.txt", False),
        ("a/../1/model.onnx", False),
        ("/labels.txt", False),
        ("./labels.txt", False),
        ("a//b", False),
        ("", False),
        (".", False),
        ("a\0", False),
    ],
)
def test_names_that_may_be_removed(name: str, ours: bool) -> None:
    assert is_ours(name) is ours


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ('name: "m"\n\n# Made with it: ["labels.txt", "configs/cpu.pbtxt"]\n', ["labels.txt", "configs/cpu.pbtxt"]),
        ('# Made with it: ["labels.txt", "../x", 5, null]\n', ["labels.txt"]),
        ('# Made with it: ["labels.txt"]\nname: "m"\n', []),
        ("# Made with it: [\n", []),
        ('# Made with it: "labels.txt"\n', []),
        ('name: "m"\n', []),
        ("", []),
    ],
    ids=["two", "others", "not at the end", "cut", "no list", "none", "empty"],
)
def test_what_a_config_says_was_made_with_it(config: str, names: list[str]) -> None:
    assert recorded(config) == names
