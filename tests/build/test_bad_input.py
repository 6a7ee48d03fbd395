"""What a user gets wrong: a message that names the place and the fix, exit code 1, nothing published."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import (
    DATA_PY,
    ENSEMBLE_YAML,
    ONNX_YAML,
    PYTHON_MODEL_PY,
    PYTHON_YAML,
    TORCH_YAML,
    TRAIN_PY,
    Sandbox,
    doubling_onnx,
)

SPECS = {
    "no YAML: line and column": (
        "source: {kind: torch\nsamples: x",
        "builders/m/model.yaml:2:8: not valid YAML: did not find expected ',' or '}'",
    ),
    "a tab": ("source:\n\tkind: torch\n", "builders/m/model.yaml:2:1: not valid YAML"),
    "a key twice": (
        "samples: a:b\nsamples: c:d\n",
        "builders/m/model.yaml:2:1: not valid YAML: 'samples' is given twice",
    ),
    "an alias": ("a: &x [1]\nb: *x\n", "builders/m/model.yaml:1:4: not valid YAML: aliases (*name) are not supported"),
    "nested without end": (
        "[" * 100_000,
        "builders/m/model.yaml:1:101: not valid YAML: nested more than 100 levels deep",
    ),
    "nested, block style": (
        "- " * 100_000,
        "builders/m/model.yaml:1:201: not valid YAML: nested more than 100 levels deep",
    ),
    "nested, but short": ("[" * 4_000, "builders/m/model.yaml:2:1: not valid YAML"),
    "a list as a key": ("? [a, b]\n: c\n", "builders/m/model.yaml:1:3: not valid YAML: a key must be a plain word"),
    "a Python object": ("a: !!python/object/apply:os.system [x]\n", "could not determine a constructor for the tag"),
    "a control character": ("a: \0", "builders/m/model.yaml: not valid YAML: "),
    "no mapping": ("- a\n", "builders/m/model.yaml: fields are needed (name: value), got a list"),
    "an empty file": ("", "builders/m/model.yaml: it is empty"),
    "nothing but comments": ("# later\n", "builders/m/model.yaml: fields are needed (name: value), got nothing but"),
    "a pointer of Git LFS": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12\n",
        "builders/m/model.yaml: it is a Git LFS pointer, not the file\n  hint: git lfs pull",
    ),
    "a web page": ("<!doctype html><html></html>", "builders/m/model.yaml: it is a web page (HTML)"),
    "an unknown field": (
        TORCH_YAML.replace("samples:", "sample:"),
        "builders/m/model.yaml:5: sample: unknown field\n  hint: did you mean 'samples'?",
    ),
    "an unknown field, deep": (
        TORCH_YAML.replace("entry:", "entri:"),
        "builders/m/model.yaml:2: source.entri: unknown field\n  hint: did you mean 'entry'?",
    ),
    "an unknown kind": (
        TORCH_YAML.replace("kind: torch", "kind: pytorch"),
        "builders/m/model.yaml:2: source.kind: unknown kind 'pytorch'\n  hint: did you mean 'torch'?",
    ),
    "a missing field": (TORCH_YAML.replace("samples: data:samples", ""), "builders/m/model.yaml:1: samples: missing"),
    "an unknown dtype": (
        TORCH_YAML.replace("FP32", "FLOAT32"),
        "inputs[0].dtype: 'FLOAT32' is no Triton data type",
    ),
    "a shape of zero": (
        TORCH_YAML.replace("[2]", "[0]"),
        "inputs[0].shape: a dimension is a number from 1, -1, or a name",
    ),
    "a name Triton cannot take": (
        "name: a/b\n" + TORCH_YAML,
        "model.yaml:1: name: Triton cannot serve a model named 'a/b': use letters, digits, '_', '-' and '.'",
    ),
    "a hidden name": ("name: .a\n" + TORCH_YAML, "Triton cannot serve a model named '.a'"),
    "a path that leaves the folder": (
        TORCH_YAML.replace("shape: [2]}]\nsamples", "shape: [2], labels: ../labels.txt}]\nsamples"),
        "outputs[0].labels: '../labels.txt' leaves the builder's folder",
    ),
    "an absolute path": (ONNX_YAML.replace("model.onnx", "/etc/passwd"), "'/etc/passwd' leaves the builder's folder"),
    "a URL without a digest": (
        ONNX_YAML.replace("path: model.onnx", "url: 'https://x.example/m'"),
        "sha256 is needed with url",
    ),
    "two tensors of one name": (
        TORCH_YAML.replace("[{name: x,", "[{name: x, dtype: FP32, shape: [1]}, {name: x,"),
        "two tensors are named 'x'",
    ),
    "a gate without evaluate": (
        TORCH_YAML + "gates: {accuracy: {min: 1}}\n",
        "gates.accuracy: a metric needs an evaluate entry",
    ),
    "a gate without a bound": (
        TORCH_YAML + "evaluate: data:evaluate\ngates: {accuracy: {}}\n",
        "gates.accuracy: give min, max or both",
    ),
    "a missing module": (
        TORCH_YAML.replace("train:train", "trian:train"),
        "builders/m/model.yaml: source.entry: there is no trian.py in its folder\n  hint: did you mean 'train'?",
    ),
    "a missing function": (
        TORCH_YAML.replace("train:train", "train:trein"),
        "builders/m/model.yaml: source.entry: builders/m/train.py has no function 'trein'\n  hint: did you mean 'train'?",
    ),
    "an unknown objective": (
        TORCH_YAML + "slo: {p99: 20}\n",
        "builders/m/model.yaml:7: slo.p99: unknown field\n  hint: did you mean 'p99_ms'?",
    ),
    "an unknown margin": (
        TORCH_YAML + "slo: {margins: {p99_ms: 0.1}}\n",
        "builders/m/model.yaml:7: slo.margins.p99_ms: unknown field\n  hint: did you mean 'p99'?",
    ),
    "an objective of nothing": (
        TORCH_YAML + "slo: {p99_ms: 0}\n",
        "builders/m/model.yaml:7: slo.p99_ms: input should be greater than 0, got 0",
    ),
    "a margin of everything": (
        TORCH_YAML + "slo: {margins: {throughput: 1}}\n",
        "builders/m/model.yaml:7: slo.margins.throughput: input should be less than 1, got 1",
    ),
    "an unknown serving field": (
        TORCH_YAML.replace("max_batch_size: 8", "max_batch_size: 8, dynamic_batchin: {}"),
        "builders/m/model.yaml: serving.dynamic_batchin: unknown field\n  hint: did you mean 'dynamic_batching'?",
    ),
    "a serving field of the wrong type": (
        TORCH_YAML.replace("max_batch_size: 8", "max_batch_size: many"),
        "builders/m/model.yaml: serving.max_batch_size: expected a whole number, got 'many'",
    ),
    "a batch size that is no whole number": (
        TORCH_YAML.replace("max_batch_size: 8", "max_batch_size: 8.0"),
        "serving.max_batch_size: parsed as 8\n  hint: write it as a whole number from 0",
    ),
    "a batch size below zero": (
        TORCH_YAML.replace("max_batch_size: 8", "max_batch_size: -1"),
        "serving.max_batch_size: parsed as -1",
    ),
    "a batch size in camel case": (
        TORCH_YAML.replace("max_batch_size: 8", "maxBatchSize: 8"),
        "serving.maxBatchSize: unknown field\n  hint: did you mean 'max_batch_size'?",
    ),
    "a derived serving field": (
        TORCH_YAML.replace("max_batch_size: 8", "max_batch_size: 8, backend: python"),
        "serving.backend: it follows from source.kind",
    ),
}


@pytest.mark.parametrize("case", SPECS)
def test_a_faulty_model_yaml(sandbox: Sandbox, case: str) -> None:
    text, message = SPECS[case]
    folder = sandbox.torch_builder("m")
    (folder / "model.yaml").write_text(text.lstrip() if text.startswith("\nsource: {kind: onnx") else text)
    assert message in sandbox.error()


def test_two_builders_of_one_name(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("a", yaml="name: same\n" + ONNX_YAML)
    sandbox.onnx_builder("b", yaml="name: same\n" + ONNX_YAML)
    assert "builders/b/model.yaml: the name 'same' is taken by builders/a/model.yaml" in sandbox.error()


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "is a folder"),
    "link": (lambda path: path.symlink_to("nowhere"), "is a link to nothing"),
    "pipe": (os.mkfifo, "is no regular file, but a pipe, a socket or a device"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file(sandbox: Sandbox, kind: str) -> None:
    make, problem = NO_FILES[kind]
    sandbox.onnx_builder("other")
    sandbox.onnx_builder("m")
    folder = sandbox.root / "builders/m"
    (folder / "model.onnx").unlink()
    make(folder / "model.onnx")
    assert f"builders/m/model.yaml: source.path: 'model.onnx' {problem}\n" in sandbox.error("build", "m")
    (folder / "model.yaml").unlink()
    make(folder / "model.yaml")
    assert f"builders/m/model.yaml: {problem}\n" in sandbox.error("build", "m")
    assert {name: outcome.status for name, outcome in sandbox.build().items()} == {"other": "new", "m": "failed"}


def test_a_model_yml_is_pointed_out(sandbox: Sandbox) -> None:
    (sandbox.onnx_builder("a") / "model.yaml").rename(sandbox.root / "builders/a/model.yml")
    assert "builders/a/model.yml: is not read\n  hint: rename it to model.yaml" in sandbox.error()


def test_python_that_does_not_parse(sandbox: Sandbox) -> None:
    sandbox.torch_builder("m", train="def train(:\n    pass\n")
    assert "builders/m/train.py:1: invalid syntax" in sandbox.error()


def test_an_entry_that_raises_shows_its_own_code(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder("m")
    (folder / "data.py").write_text(
        "def inner():\n    raise ValueError('bad data')\n\n\ndef samples():\n    inner()\n\n\ndef evaluate(infer): ...\n"
    )
    error = sandbox.error()
    assert "builders/m/model.yaml: samples data:samples raised ValueError: bad data" in error
    assert 'File "data.py", line 6, in samples' in error
    assert 'File "data.py", line 2, in inner' in error
    assert "modelwright/" not in error.split("log:")[0]
    assert "log: .modelwright/logs/m/samples.log" in error


def test_an_entry_that_exits(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder("m")
    (folder / "data.py").write_text(DATA_PY.replace("def samples():\n", "def samples():\n    raise SystemExit(3)\n"))
    assert "samples data:samples raised SystemExit: 3" in sandbox.error()


def test_folders_in_a_temporary_one_are_no_files_of_the_builder(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder("m")
    code = (
        "    import os, tempfile\n    with tempfile.TemporaryDirectory() as name:\n        os.makedirs(name + '/a/b')\n"
    )
    (folder / "data.py").write_text(DATA_PY.replace("def samples():\n", f"def samples():\n{code}"))
    assert sandbox.build()["m"].status == "new"


def test_an_entry_that_raises_what_ctrl_c_raises(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder("m")
    (folder / "data.py").write_text(
        DATA_PY.replace("def samples():\n", "def samples():\n    raise KeyboardInterrupt\n")
    )
    assert "samples data:samples raised KeyboardInterrupt" in replace(sandbox, workers=True).error()


@pytest.mark.torch
def test_params_that_the_entry_does_not_take(sandbox: Sandbox) -> None:
    sandbox.torch_builder("m", yaml=TORCH_YAML.replace("scale: 2.0", "scal: 2.0"))
    error = sandbox.error()
    assert "raised TypeError: train() got an unexpected keyword argument 'scal'" in error
    assert "hint: its parameters and source.params must agree" in error


@pytest.mark.torch
@pytest.mark.parametrize(
    ("returned", "message", "hint"),
    [
        ("{'a': 1}", "got dict", "return the trained module"),
        ("torch.nn.Linear(1, 1).state_dict()", "got OrderedDict", "make the module, and return it after module.load_state_dict"),
        ("torch.export.export(torch.nn.ReLU().eval(), (torch.zeros(2),))", "got ExportedProgram", "program.module()"),
    ],
)  # fmt: skip
def test_an_entry_that_returns_no_module(sandbox: Sandbox, returned: str, message: str, hint: str) -> None:
    sandbox.torch_builder("m", train=f"import torch\n\n\ndef train(scale):\n    return {returned}\n")
    error = sandbox.error()
    assert f"source.entry train:train: expected an nn.Module, {message}" in error
    assert hint in error


@pytest.mark.torch
def test_an_export_that_fails(sandbox: Sandbox) -> None:
    branch = "        if x.sum().item() > 0:\n            return x\n        return x * self.scale"
    sandbox.torch_builder("m", train=TRAIN_PY.replace("        return x * self.scale", branch))
    error = sandbox.error()
    assert "builders/m/model.yaml: source: " in error
    assert "hint:" in error


@pytest.mark.torch
def test_a_module_whose_forward_raises(sandbox: Sandbox) -> None:
    sandbox.torch_builder("m", train=TRAIN_PY.replace("return x * self.scale", "raise RuntimeError('no')"))
    assert "builders/m/model.yaml: source: " in sandbox.error()


@pytest.mark.parametrize(
    "content", [b"", b"not an onnx file", b"\x08\x09" + b"\xff" * 100], ids=["empty", "text", "binary"]
)
def test_a_graph_that_does_not_load(sandbox: Sandbox, content: bytes) -> None:
    (sandbox.onnx_builder("m") / "model.onnx").write_bytes(content)
    assert "builders/m/model.yaml: source.path: " in sandbox.error()


def test_an_ir_version_above_the_targets(sandbox: Sandbox) -> None:
    doubling_onnx(sandbox.onnx_builder("m") / "model.onnx", ir=14)
    error = sandbox.error()
    assert "builders/m/model.yaml: source: " in error
    assert "14" in error
    assert "13" in error
    assert "26.07" in error


@pytest.mark.torch
def test_nan_outputs(sandbox: Sandbox) -> None:
    sandbox.torch_builder("m", yaml=TORCH_YAML.replace("2.0", ".inf").replace("scale: .inf", "scale: 1.0e+39"))
    error = sandbox.error()
    assert "'y'" in error
    assert "NaN" in error or "infinit" in error.lower()


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        pytest.param("outputs", "outputs: [{name: y, dtype: FP32, shape: [3]}]", "[2, 3]", marks=pytest.mark.torch),
        pytest.param("outputs", "outputs: [{name: y, dtype: FP16, shape: [2]}]", "FP16", marks=pytest.mark.torch),
        ("inputs", "inputs: [{name: x, dtype: FP32, shape: [3]}]", "'x' of sample 0 has shape [2], expected [3]"),
        ("inputs", "inputs: [{name: z, dtype: FP32, shape: [2]}]", "expected tensors ['z'], got ['x']"),
        ("inputs", "inputs: [{name: x, dtype: INT64, shape: [2]}]", "'x' is float32, expected INT64"),
    ],
)
def test_shapes_against_the_model_yaml(sandbox: Sandbox, field: str, wrong: str, message: str) -> None:
    right = f"{field}: [{{name: {'y' if field == 'outputs' else 'x'}, dtype: FP32, shape: [2]}}]"
    sandbox.torch_builder("m", yaml=TORCH_YAML.replace(right, wrong))
    assert message in sandbox.error()


def test_a_failed_gate(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("m", factor=2.5)
    error = sandbox.error()
    assert "Error: m: verify: accuracy is 0.125, the gate asks for at least 0.9" in error
    assert "hint: nothing was published" in error


@pytest.mark.torch
def test_rows_of_a_batch_that_depend_on_each_other(sandbox: Sandbox) -> None:
    sandbox.torch_builder("m", train=TRAIN_PY.replace("return x * self.scale", "return x * self.scale * x.sum()"))
    error = sandbox.error()
    assert re.search(
        r"m: verify: sample \d as row \d of a batch of 4, beside samples \d, \d, \d: 'y' differs by ", error
    )
    assert "hint: compute each row from its own values" in error
    assert "samples carry the batch dimension" in error


def test_a_metric_that_is_not_there(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("m", yaml=ONNX_YAML.replace("accuracy:", "f1:"))
    assert "m: verify: gates.f1: evaluate returned no such metric, only ['accuracy']" in sandbox.error()


def test_a_wrong_sha256(sandbox: Sandbox) -> None:
    digest = f"path: model.onnx, sha256: {'ab' * 32}"
    folder = sandbox.onnx_builder("m", yaml=ONNX_YAML.replace("path: model.onnx", digest))
    assert f"builders/m/model.yaml: source.sha256: expected {'ab' * 32}, got " in sandbox.error()
    (folder / "model.onnx").write_text("<!DOCTYPE html><html>Sign in</html>")
    assert ": what came is a web page (HTML)\n" in sandbox.error()


def test_a_file_url_and_its_digest(sandbox: Sandbox, tmp_path: Path) -> None:
    doubling_onnx(tmp_path / "far.onnx")
    digest = hashlib.sha256((tmp_path / "far.onnx").read_bytes()).hexdigest()
    url = f"url: 'file://{tmp_path}/far.onnx', sha256: {digest}"
    sandbox.onnx_builder("m", yaml=ONNX_YAML.replace("path: model.onnx", url))
    assert sandbox.build()["m"].status == "new"
    assert sandbox.published()["m/1/model.onnx"] == digest


def test_a_url_that_is_not_there(sandbox: Sandbox) -> None:
    url = f"url: 'file:///nowhere/m.onnx', sha256: {'ab' * 32}"
    sandbox.onnx_builder("m", yaml=ONNX_YAML.replace("path: model.onnx", url))
    assert "source.url: file:///nowhere/m.onnx: " in sandbox.error()


def test_a_url_is_fetched_within_limits(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whatever is there: what never ends is not read, and neither is more than modelwright.toml allows."""
    os.mkfifo(tmp_path / "pipe")
    doubling_onnx(tmp_path / "far.onnx")
    with (sandbox.root / "modelwright.toml").open("a") as file:
        file.write("\n[sources]\nmax_gb = 0.0000001\n")
    for place, message in {
        "/dev/zero": "is no regular file, but a pipe, a socket or a device",
        f"{tmp_path}/pipe": "is no regular file",
        str(tmp_path): "is a folder, and a file is needed",
        f"{tmp_path}/far.onnx": "far.onnx: more than 1e-07 GB\n  hint: see to the file; modelwright.toml can raise what is allowed: [sources] max_gb",
        "other/m.onnx": "'other' is another machine",
    }.items():
        url = f"url: 'file://{place}', sha256: {'ab' * 32}"
        sandbox.onnx_builder("m", yaml=ONNX_YAML.replace("path: model.onnx", url))
        error = sandbox.error()
        assert f"source.url: file://{place}" in error
        assert message in error


def test_a_link_that_leaves_the_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = sandbox.onnx_builder("m")
    (folder / "model.onnx").rename(tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    assert "source.path: 'model.onnx' is a link that leaves the builder's folder" in sandbox.error()


def test_labels_that_do_not_fit(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(
        "m", yaml=ONNX_YAML + "outputs: [{name: y, dtype: FP32, shape: [2], labels: l.txt}]\n"
    )
    (folder / "l.txt").write_text("one\ntwo\nthree\n")
    assert "outputs: 'y' has 2 classes, l.txt has 3 lines" in sandbox.error()


def test_a_fixed_batch_dimension(sandbox: Sandbox) -> None:
    doubling_onnx(sandbox.onnx_builder("m") / "model.onnx", batch=4)
    assert "'x' has the fixed shape [4, 2], and serving.max_batch_size is 8" in sandbox.error()


ENSEMBLES = {
    "an unknown member": ("model_name: doubled", "model_name: doubeld", "'doubeld' is no model of this project\n  hint: did you mean 'doubled'?"),
    "an unknown input": ("input_map: {x: x}", "input_map: {z: x}", "source.steps[0].input_map: doubled has no tensor 'z'"),
    "an unknown output": ("output_map: {y: middle}", "output_map: {z: middle}", "source.steps[0].output_map: doubled has no tensor 'z'"),
    "nothing writes it": ("input_map: {x: middle}", "input_map: {x: midle}", "nothing writes 'midle'\n  hint: did you mean 'middle'?"),
    "two writers": ("output_map: {y: middle}", "output_map: {y: y}", "'y' is already written by steps[0] (doubled)"),
    "another dtype": ("inputs: [{name: x, dtype: FP32", "inputs: [{name: x, dtype: FP16", "'x' is FP16 from the ensemble's inputs, expected FP32"),
    "another shape": ("outputs: [{name: y, dtype: FP32, shape: [2]", "outputs: [{name: y, dtype: FP32, shape: [3]", "'y' has shape [-1, 2] from steps[1] (plus_one), expected [-1, 3]"),
    "a batch that is too large": ("max_batch_size: 8", "max_batch_size: 9", "max_batch_size is 9 here and 8 in doubled"),
}  # fmt: skip


@pytest.mark.parametrize("case", ENSEMBLES)
def test_ensembles_that_do_not_fit_together(sandbox: Sandbox, case: str) -> None:
    old, new, message = ENSEMBLES[case]
    yaml = ONNX_YAML + "inputs: [{name: x, dtype: FP32, shape: [2]}]\noutputs: [{name: y, dtype: FP32, shape: [2]}]\n"
    sandbox.onnx_builder(yaml=yaml)
    sandbox.python_builder()
    assert old in ENSEMBLE_YAML
    text = ENSEMBLE_YAML.replace(old, new)
    sandbox.ensemble_builder(yaml=text)
    assert message in sandbox.error("build", "both", may_publish=("doubled", "plus_one"))


def test_ensemble_steps_that_wait_for_each_other(sandbox: Sandbox) -> None:
    sandbox.python_builder()
    step = "{{model_name: plus_one, input_map: {{x: {0}}}, output_map: {{y: {1}}}}}"
    steps = ", ".join(step.format(*tensors) for tensors in (("b", "a"), ("a", "b"), ("x", "y")))
    before, after = ENSEMBLE_YAML.index("  steps:"), ENSEMBLE_YAML.index("inputs: [")
    sandbox.ensemble_builder(yaml=ENSEMBLE_YAML[:before] + f"  steps: [{steps}]\n" + ENSEMBLE_YAML[after:])
    assert "the steps form a cycle: steps[0] (plus_one), steps[1] (plus_one)" in sandbox.error()


def test_ensembles_that_run_each_other(sandbox: Sandbox) -> None:
    sandbox.ensemble_builder("a", yaml=ENSEMBLE_YAML.replace("doubled", "b").replace("plus_one", "b"))
    sandbox.ensemble_builder("b", yaml=ENSEMBLE_YAML.replace("doubled", "a").replace("plus_one", "a"))
    assert "models run each other in a circle: a → b → a" in sandbox.error()


def test_a_python_model_cannot_call_an_ensemble_that_serves_one_version(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.python_builder()
    sandbox.ensemble_builder()
    sandbox.python_builder("caller", yaml=PYTHON_YAML.replace("kind: python", "kind: python, calls: [both]"))
    message = sandbox.error("build", "caller")
    assert "source.calls: both is an ensemble that serves one version at a time\n  hint: give both `keep: 2`" in message


CALLS = {
    "an unknown model": ("[plus_on]", "source.calls: 'plus_on' is no model of this project\n  hint: did you mean 'plus_one'?"),
    "itself": ("[caller]", "models run each other in a circle: caller → caller"),
    "no name": ("['a b']", "source.calls[0]: Triton cannot serve a model named 'a b'"),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_calls_of_a_python_model_that_do_not_work(sandbox: Sandbox, case: str) -> None:
    calls, message = CALLS[case]
    sandbox.python_builder()
    sandbox.python_builder("caller", yaml=PYTHON_YAML.replace("kind: python", f"kind: python, calls: {calls}"))
    assert message in sandbox.error("build", "caller")


@pytest.mark.server
def test_a_python_model_that_answers_wrongly(sandbox: Sandbox) -> None:
    sandbox.python_builder(code=PYTHON_MODEL_PY.replace("x + 1", "x + 1.5"))
    assert "plus_one: verify: 'y' differs by 5.0e-01 from the source" in sandbox.error()


@pytest.mark.server
def test_a_python_model_that_does_not_load(sandbox: Sandbox) -> None:
    sandbox.python_builder(code="import nowhere\n" + PYTHON_MODEL_PY)
    error = sandbox.error()
    assert (
        "plus_one: verify: model.py line 1 imports nowhere, which the stock container of Triton 26.07 does not" in error
    )
    assert "add to source.requirements in builders/plus_one/model.yaml: nowhere (the container has " in error


@pytest.mark.server
def test_a_python_model_that_leans_on_what_the_local_server_has_for_itself(sandbox: Sandbox) -> None:
    imports = "import google.protobuf\nimport onnxruntime\n"
    sandbox.python_builder(code=imports + PYTHON_MODEL_PY)
    lines = f"protobuf=={version('protobuf')}, onnxruntime=={version('onnxruntime')}"
    assert f"source.requirements in builders/plus_one/model.yaml: {lines} (" in sandbox.error()


@pytest.mark.server
def test_a_python_model_that_imports_in_a_request_what_is_not_there(sandbox: Sandbox) -> None:
    code = PYTHON_MODEL_PY.replace("        answers = []", "        import yaml\n        answers = []")
    folder = sandbox.python_builder(code=code)
    sandbox.onnx_builder()
    sandbox.ensemble_builder()
    line = (folder / "model.py").read_text().splitlines().index("        import yaml") + 1
    error = sandbox.error(may_publish=("doubled",))
    assert f"plus_one: verify: model.py line {line} imports yaml, which the stock container of Triton" in error
    assert f"builders/plus_one/model.yaml: pyyaml=={version('pyyaml')} (" in error


@pytest.mark.server
def test_a_python_model_that_imports_a_file_which_is_not_published(sandbox: Sandbox) -> None:
    folder = sandbox.python_builder(code="import helper\n" + PYTHON_MODEL_PY)
    (folder / "helper.py").write_text("")
    assert "name the file in builders/plus_one/model.yaml: source: files: {helper.py: helper.py}" in sandbox.error()


def test_a_requirement_that_is_no_package_of_an_index(sandbox: Sandbox) -> None:
    sandbox.python_builder(yaml=sandbox_yaml_with_requirements("./folder"))
    error = sandbox.error()
    assert "Error: builders/plus_one/model.yaml: source.requirements: './folder': " in error
    assert "write a name and its versions, as pip takes them: jinja2>=3.1" in error


def sandbox_yaml_with_requirements(requirement: str) -> str:
    from tests.conftest import PYTHON_YAML

    return PYTHON_YAML.replace("{kind: python}", f"{{kind: python, requirements: [{requirement}]}}")


def test_undefined_names_in_a_template(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder("m")
    (folder / "config.pbtxt.j2").write_text("name: {{ nmae }}\n")
    assert "builders/m/model.yaml: template config.pbtxt.j2:1: 'nmae' is undefined" in sandbox.error()


def test_a_template_that_says_something_else(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder("m")
    (folder / "config.pbtxt.j2").write_text('name: "m"\nbackend: "onnxruntime"\n')
    error = sandbox.error()
    assert "builders/m/model.yaml: the text that config.pbtxt.j2 renders differs" in error
    assert "    max_batch_size: expected 8, got 0\n    input[0]: missing, expected { name:" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('triton = "26.7"', "unknown Triton release '26.7'"),
        ('tritn = "26.07"', "modelwright.toml: tritn: unknown field\n  hint: did you mean 'triton'?"),
        ("triton = 26.07", "modelwright.toml: triton: a release is needed"),
        ("triton = ", "modelwright.toml: does not parse"),
        ('triton = "26.07"\n[paths]\nbuilder = "x"', "modelwright.toml: paths.builder: unknown field"),
    ],
)
def test_a_faulty_project_file(sandbox: Sandbox, text: str, message: str) -> None:
    sandbox.onnx_builder()
    (sandbox.root / "modelwright.toml").write_text(text)
    result = sandbox.cli("build")
    assert result.exit_code == 1
    assert message in result.output


def test_no_project(tmp_path: Path, sandbox: Sandbox) -> None:
    (sandbox.root / "modelwright.toml").unlink()
    result = sandbox.cli("build")
    assert result.exit_code == 1
    assert "no modelwright.toml in" in result.output


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small filesystem needs root")
def test_a_full_disk(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    before = sandbox.published()
    sandbox.onnx_builder("new", yaml=ONNX_YAML, factor=2.001)
    store = sandbox.root / ".modelwright/store"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(store)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no mounts here: {mounted.stderr.decode().strip()}")
    try:
        (store / "filler").write_bytes(b"x" * 40_000)
        error = sandbox.error()
        assert "No space left on device" in error
        assert "hint: free some space and run the same command again" in error
        assert sandbox.published() == before
    finally:
        subprocess.run(["umount", str(store)], check=True)
    assert sandbox.build()["new"].status == "new"


@pytest.mark.parametrize(
    ("returned", "found"),
    [("[{}]", "list"), ("None", "NoneType"), ("np.zeros((4, 2), np.float32)", "ndarray")],
)
def test_data_that_are_no_tensors(sandbox: Sandbox, returned: str, found: str) -> None:
    folder = sandbox.onnx_builder("m")
    (folder / "data.py").write_text(f"{DATA_PY}\n\ndef samples():\n    return {returned}\n")
    assert f"builders/m/model.yaml: samples data:samples: expected {{name: array}}, got {found}" in sandbox.error()


def test_a_file_that_is_missing_beside_the_model_is_found_before_anything_runs(sandbox: Sandbox) -> None:
    labelled = TORCH_YAML.replace("shape: [2]}]\nsamples", "shape: [2], labels: names.txt}]\nsamples")
    sandbox.torch_builder(yaml=labelled)
    result = sandbox.cli("plan")
    assert result.exit_code == 1
    assert "builders/scaled/model.yaml: outputs[0].labels: there is no file 'names.txt'" in result.output
    assert "torch: never built" not in result.output
