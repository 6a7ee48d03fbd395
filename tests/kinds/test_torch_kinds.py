"""Kinds torchscript, pt2 and torchserve: built, served by the real server, and what goes wrong with their files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.facts.compared_with import ComparedWith
from tests.conftest import Sandbox
from tests.kinds import torch_models as models

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")]


def builder(sandbox: Sandbox, model: str, source: str, labels: str = "") -> Path:
    yaml = models.MODEL_YAML.format(source=source, labels=f", labels: {labels}" if labels else "")
    return sandbox.write(model, model_yaml=yaml, data_py=models.DATA_PY)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.pt (traced), weights.pth, lightning.ckpt, module.pt (a pickle), net.pt2, fixed.pt2."""
    import torch

    folder, module = tmp_path_factory.mktemp("files"), models.net()
    models.save_scripted(folder / "net.pt", module)
    torch.save(module.state_dict(), folder / "weights.pth")
    inside = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"pytorch-lightning_version": "2.6.0", "epoch": 1, "state_dict": inside}, folder / "lightning.ckpt")
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), folder / "module.pt")
    models.save_program(folder / "net.pt2", module, torch.export.Dim.DYNAMIC)
    return folder


@pytest.fixture(scope="module")
def built(sandbox_factory: Callable[[], Sandbox], files: Path) -> Sandbox:
    sandbox = sandbox_factory()
    shutil.copy(files / "net.pt", builder(sandbox, "script", "{kind: torchscript, path: net.pt}"))
    shutil.copy(files / "net.pt", builder(sandbox, "as_it_is", "{kind: torchscript, path: net.pt, serve_as: pytorch}"))
    shutil.copy(files / "net.pt2", builder(sandbox, "program", "{kind: pt2, path: net.pt2}"))
    folder = builder(sandbox, "served", "{kind: torchserve, path: net.mar}", labels="labels.txt")
    (folder / "labels.txt").write_text("".join(f"digit {number}\n" for number in range(10)))
    content: dict[str, bytes | str] = {
        "net.pt": (files / "net.pt").read_bytes(),
        "index_to_name.json": '{"0": "zero", "1": ["n1", "one"]}',
    }
    models.write_mar(folder / "net.mar", content, serializedFile="net.pt", handler="image_classifier")
    source = "{kind: torchserve, path: weights.mar, trusted: true, handler: ignore}"
    folder = builder(sandbox, "weights", source)
    content = {"weights.ckpt": (files / "lightning.ckpt").read_bytes(), "model.py": models.MODEL_PY}
    content |= {"digits_handler.py": models.HANDLER_PY, "requirements.txt": "pillow\n", "notes.md": "by hand"}
    parts = {"serializedFile": "weights.ckpt", "modelFile": "model.py", "requirementsFile": "requirements.txt"}
    models.write_mar(folder / "weights.mar", content, handler="digits_handler.py", **parts)
    outcomes = sandbox.build()
    assert {name: str(outcome.error or "") for name, outcome in outcomes.items() if outcome.status != "new"} == {}
    return sandbox


@pytest.mark.server
def test_all_are_served_as_the_module_answers(built: Sandbox) -> None:
    """The traced file, the program and both archives hold the same weights, and so does each published model."""
    result = built.cli("verify")
    assert result.exit_code == 0, result.output
    words = [line.split() for line in result.output.splitlines()]
    replays = {(row[0], row[2].partition(":")[0]): row[3] for row in words if len(row) > 3 and row[1] == "1"}
    here = {name for (name, _), verdict in replays.items() if verdict == "ok"}
    assert here == {"script", "program", "served", "weights"}
    assert replays["as_it_is", "http"] == replays["as_it_is", "grpc"] == "not"  # "not served here"
    for model in here:
        verified = built.manifest(model).verification
        assert verified.compared_with is ComparedWith.SOURCE
        assert verified.max_abs_error["logits"] < 1e-5
    golden = [built.root / "model_repository" / model / "1" / "golden.npz" for model in (*here, "as_it_is")]
    assert_same_answers(golden)


def assert_same_answers(golden: list[Path]) -> None:
    import numpy as np

    from modelwright.verification.golden import load_golden

    _, first = load_golden(golden[0])
    assert len(first) == 6
    for path in golden[1:]:
        _, others = load_golden(path)
        for one, other in zip(first, others, strict=True):
            np.testing.assert_allclose(one["logits"], other["logits"], atol=1e-5)


def test_a_file_that_is_served_as_it_is_says_that_it_was_not_run_here(built: Sandbox, files: Path) -> None:
    folder = built.root / "model_repository" / "as_it_is"
    assert (folder / "1" / "model.pt").read_bytes() == (files / "net.pt").read_bytes()
    assert 'backend: "pytorch"' in built.config("as_it_is")
    verified = built.manifest("as_it_is").verification
    assert verified.compared_with is ComparedWith.ITSELF
    assert verified.notes[0].startswith("not run here: the local server has no pytorch backend")
    assert built.cli("lint").output.startswith("clean: 5 models")


def test_what_torchserve_did_around_a_model_is_noted(built: Sandbox) -> None:
    notes = built.manifest("served").verification.notes
    assert any("resize an RGB image's shorter side to 256" in note for note in notes)
    assert 'label_filename: "labels.txt"' in built.config("served")
    notes = built.manifest("weights").verification.notes
    assert notes == (
        "digits_handler.py: class DigitsHandler(BaseHandler) with preprocess, postprocess: this code does not run in "
        "Triton",
        "requirements.txt: its packages are not installed",
        "files of the archive that are not used: notes.md",
    )


def test_a_choice_by_value_stays_one_in_the_graph(sandbox: Sandbox) -> None:
    """A scripted module keeps its `if`, where a traced one has lost it."""
    import torch

    class Sign(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool(x.sum() > 0):
                return x * 2
            return x - 1

    yaml = """
    source: {kind: torchscript, path: sign.pt}
    inputs: [{name: x, dtype: FP32, shape: [3]}]
    outputs: [{name: y, dtype: FP32, shape: [3]}]
    samples: data:samples
    """
    data = (
        "import numpy as np\ndef samples():\n    return {'x': np.array([[1, 2, 3], [-1, -2, -3]], dtype=np.float32)}\n"
    )
    torch.jit.save(torch.jit.script(Sign()), sandbox.write("sign", model_yaml=yaml, data_py=data) / "sign.pt")
    assert sandbox.build()["sign"].status == "new"


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(sandbox: Sandbox, source: str, **fields: Any) -> str:
    """What a build says of a builder with this source; its files are `fields["files"]`, {name: content}."""
    folder = builder(sandbox, "bad", source)
    for name, content in fields.get("files", {}).items():
        (folder / name).write_bytes(content)
    if "yaml" in fields:
        text = (folder / "model.yaml").read_text()
        for old, new in fields["yaml"].items():
            text = text.replace(old, new)
        (folder / "model.yaml").write_text(text)
    return " ".join(sandbox.error().split())


def test_serve_as_pytorch_refuses_what_the_backend_cannot_call(sandbox: Sandbox, files: Path) -> None:
    source = "{kind: torchscript, path: net.pt, serve_as: pytorch}"
    content = {"net.pt": (files / "net.pt").read_bytes()}
    error = refused(sandbox, source, files=content, yaml={"name: logits": "name: OUTPUT__1"})
    assert "the pytorch backend orders ['OUTPUT__1'] by their numbers: count from 0" in error
    error = refused(sandbox, source, files=content, yaml={"dtype: FP32, shape: [10]": "dtype: UINT64, shape: [10]"})
    assert "'logits' is UINT64, which the pytorch backend does not take" in error
    two = "inputs: [{name: mask, dtype: FP32, shape: [1]}, "
    data = models.DATA_PY.replace("return {", 'return {"mask": np.zeros((6, 1), np.float32), ').encode()
    error = refused(sandbox, source, files=content | {"data.py": data}, yaml={"inputs: [": two})
    assert "inputs ['mask', 'image']: forward takes ['image']" in error
    assert "Triton's pytorch backend does not load" in refused(sandbox, "{kind: pt2, path: a.pt2, serve_as: pytorch}")


def test_a_program_with_a_fixed_batch_says_how_to_export_it(sandbox: Sandbox, files: Path) -> None:
    import torch

    folder = sandbox.root / "builders" / "bad"
    source = "{kind: pt2, path: fixed.pt2}"
    builder(sandbox, "bad", source)
    models.save_program(folder / "fixed.pt2", models.net(), None)
    error = refused(sandbox, source)
    assert "its batch dimension is fixed at 4 in the program, max_batch_size is 8" in error
    assert "dynamic_shapes={'image': {0: Dim.DYNAMIC}}" in error
    models.save_program(folder / "fixed.pt2", models.net(), torch.export.Dim("batch", min=1, max=6))
    assert "its batch dimension is at most 6 in the program, max_batch_size is 8" in refused(sandbox, source)


def test_archives_are_refused_with_a_reason(sandbox: Sandbox, files: Path) -> None:
    source, path = "{kind: torchserve, path: a.mar}", builder(sandbox, "bad", "{}") / "a.mar"
    weights = (files / "weights.pth").read_bytes()
    script = (files / "net.pt").read_bytes()
    models.write_mar(path, {"net.pt": script}, serializedFile="net.pt", handler="digits_handler:DigitsHandler")
    assert "the archive has a handler of its own, which is not carried" in refused(sandbox, source)
    models.write_mar(path, {"m.onnx": b"\x08\x01"}, serializedFile="m.onnx", handler="base_handler")
    assert "a.mar: m.onnx is no TorchScript file, and MAR-INF/MANIFEST.json names no modelFile" in refused(
        sandbox, source
    )
    models.write_mar(path, {}, serializedFile="../../secret.pt", handler="base_handler")
    assert "serializedFile: '../../secret.pt' leaves the archive" in refused(sandbox, source)
    models.write_mar(path, {"../out.pt": weights}, serializedFile="out.pt", handler="base_handler")
    assert "'../out.pt' in the archive leaves the folder" in refused(sandbox, source)
    assert not (sandbox.root / "builders" / "out.pt").exists()
    parts = {"serializedFile": "w.pth", "modelFile": "model.py", "handler": "base_handler"}
    models.write_mar(path, {"w.pth": weights, "model.py": models.MODEL_PY}, **parts)
    assert "model.py: is Python code of the archive, which can run any code" in refused(sandbox, source)
    other = models.MODEL_PY.replace("Linear(4 * 36, 10)", "Linear(4 * 36, 12)").replace("self.conv", "self.first")
    models.write_mar(path, {"w.pth": weights, "model.py": other}, **parts)
    error = refused(sandbox, "{kind: torchserve, path: a.mar, trusted: true}")
    assert "lacks 'first.bias', 'first.weight' and has 'conv.bias', 'conv.weight', which the module does not" in error
    path.write_bytes(path.read_bytes()[:900])
    assert "a.mar: a damaged archive" in refused(sandbox, source)
