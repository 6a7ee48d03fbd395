"""`new --from` a file of PyTorch or an archive of TorchServe: what it says, and that the builder builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Sandbox
from tests.kinds import torch_models as models

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")]


def new(sandbox: Sandbox, name: str, file: Path) -> str:
    result = sandbox.cli("new", name, "--from", str(file))
    assert result.exit_code == 0, result.output
    return result.output


def test_a_builder_around_each_file_builds(sandbox: Sandbox, tmp_path: Path) -> None:
    import torch

    module = models.net()
    said = new(sandbox, "traced", models.save_scripted(tmp_path / "net.pt", module))
    assert "Saw a TorchScript file: forward(image: Tensor) -> Tensor, 4 weights" in said
    assert "shapes are those that it was traced with: image [1, 8, 8]" in said
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)]
    torch.jit.save(torch.jit.script(torch.nn.Sequential(*layers).eval()), tmp_path / "scripted.pt")
    said = new(sandbox, "scripted", tmp_path / "scripted.pt")
    assert "shapes are those that ran, by its first layer's weights: input [1, 8, 8]" in said
    said = new(sandbox, "program", models.save_program(tmp_path / "net.pt2", module, torch.export.Dim.DYNAMIC))
    assert "Saw a program of torch.export: image FP32" in said
    labels = json.dumps({str(number): f"digit {number}" for number in range(10)})
    content: dict[str, bytes | str] = {"net.pt": (tmp_path / "net.pt").read_bytes(), "index_to_name.json": labels}
    archive = models.write_mar(tmp_path / "net.mar", content, serializedFile="net.pt", handler="image_classifier")
    said = new(sandbox, "archive", archive)
    assert "labels.txt has the 10 names of index_to_name.json" in said
    assert "clients do what the handler image_classifier did before the model" in said
    outcomes = sandbox.build("scripted", "program", "archive")
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(
        ("scripted", "program", "archive"), "new"
    )
    assert 'label_filename: "labels.txt"' in sandbox.config("archive")
    assert "max_batch_size: 8" in sandbox.config("program")


def test_what_is_left_to_a_person_is_listed(sandbox: Sandbox, tmp_path: Path) -> None:
    import torch

    weights = {f"model.{name}": tensor for name, tensor in models.net().state_dict().items()}
    torch.save({"pytorch-lightning_version": "2.6.0", "state_dict": weights}, tmp_path / "last.ckpt")
    said = new(sandbox, "checkpoint", tmp_path / "last.ckpt")
    assert "Saw a PyTorch checkpoint of Lightning 2.6.0: 4 weights, model.conv.weight [4, 1, 3, 3]" in said
    assert "Left to you: the module in train.py" in said
    code = (sandbox.root / "builders/checkpoint/train.py").read_text()
    assert "removeprefix('model.')" in code
    compile(code, "train.py", "exec")
    torch.save({"epoch": 3, "model": models.net().state_dict()}, tmp_path / "epoch3.pt")
    assert "Saw a PyTorch checkpoint: 4 weights, conv.weight" in new(sandbox, "nested", tmp_path / "epoch3.pt")
    assert '["model"]' in (sandbox.root / "builders/nested/train.py").read_text()
    torch.save({'"]; exit() #': models.net().state_dict()}, tmp_path / "code.pt")
    assert "no builder is made" in sandbox.error("new", "code", "--from", str(tmp_path / "code.pt"))
    content: dict[str, bytes | str] = {"w.ckpt": (tmp_path / "last.ckpt").read_bytes(), "model.py": models.MODEL_PY}
    parts = {"serializedFile": "w.ckpt", "modelFile": "model.py", "handler": "digits_handler"}
    archive = models.write_mar(tmp_path / "w.mar", content | {"digits_handler.py": models.HANDLER_PY}, **parts)
    said = new(sandbox, "archive", archive)
    assert "Left to you: source.handler: ignore, if Triton need not run digits_handler.py: class DigitsHandler" in said
    assert "Left to you: source.trusted: true, if you trust whoever made model.py" in said
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    assert "is a pickle of a whole module (torch.nn" in sandbox.error("new", "m", "--from", str(tmp_path / "module.pt"))
