"""`new --from` a Hugging Face directory: what config.json says decides on the tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modelwright.bench.contenders import _context
from modelwright.project.source_lock import read_source_lock
from tests.conftest import Sandbox
from tests.steps.test_huggingface import MINILM, TINY
from tests.steps.test_huggingface import tiny as tiny  # a fixture

pytestmark = pytest.mark.torch


def made(sandbox: Sandbox, folder: Path | str) -> str:
    result = sandbox.cli("new", "m", "--from", str(folder))
    assert result.exit_code == 0, result.output
    return result.output


def test_an_encoder_with_its_tokenizer_builds_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """A real tokenizer beside a small network: `make repo` and the scaffold's test export the whole one."""
    import torch
    from transformers import BertConfig, BertModel

    folder = shutil.copytree(MINILM, tmp_path / "minilm")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig.from_pretrained(folder, **small)).save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    output = made(sandbox, folder)
    assert "Saw a Hugging Face directory: BertModel, 1 file of weights, 4.0 MB\n" in output
    assert "Note: auto_class is AutoModel: BertModel\n" in output
    assert "Note: weights in other formats than safetensors stay behind" in output
    assert "Note: golden samples are sentences" in output
    assert not (sandbox.root / "builders/m/weights/pytorch_model.bin").exists()
    assert sandbox.build()["m"].status == "new"
    assert sandbox.manifest("m").verification.samples == 4


def test_a_classifier_of_images_at_a_uri_builds_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    from modelwright.steps.onnx import huggingface_module

    torch.manual_seed(0)
    sizes = {key: value for key, value in TINY.items() if key != "vocab_size"}
    config = ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=3)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit/pytorch_model.bin").write_bytes(b"a pickle")
    uri = f"file://{tmp_path}/vit"
    assert "Saw a Hugging Face directory: ViTForImageClassification" in made(sandbox, uri)
    lock = read_source_lock(sandbox.root / "builders/m", "builders/m", uri)
    assert sorted(lock.files) == ["config.json", "model.safetensors"]
    assert sandbox.build()["m"].status == "new"
    context = _context(sandbox.project, sandbox.repository, sandbox.builders["m"])
    assert huggingface_module(context).config.num_labels == 3  # a bench finds what was fetched
    assert "dims: [ 3, 16, 16 ]" in " ".join(sandbox.config("m").split())


def test_what_config_json_does_not_say_is_left_to_a_person(sandbox: Sandbox, tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["NoSuchForPondering"]}
    (folder / "config.json").write_text(json.dumps(config))
    output = made(sandbox, folder)
    assert (
        "Left to you: inputs and outputs in model.yaml: NoSuchForPondering is not one whose tensors are known" in output
    )
    assert output.count("edit builders/m/model.yaml") == 1
    assert "edit builders/m/model.yaml  give it what is left to you" in output
