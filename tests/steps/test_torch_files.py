"""PyTorch's files: those that are loaded, and those that are damaged, of another kind, or would run code."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from modelwright.errors import StepError
from modelwright.steps.torch_files import (
    check_program,
    load_exported_program,
    load_torchscript,
    load_weights,
    module_of_program,
    put_weights,
)
from tests.kinds import torch_models as models

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 90387630\n"


class Touch:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_scripted(tmp_path_factory.mktemp("script") / "net.pt", models.net())


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    return models.save_program(tmp_path_factory.mktemp("program") / "net.pt2", models.net(), torch.export.Dim.DYNAMIC)


def test_weights_of_a_trainers_checkpoint_go_into_a_module(tmp_path: Path) -> None:
    import torch

    trained, other = models.net(1), models.net(2)
    inside = {f"model.{name}": tensor for name, tensor in trained.state_dict().items()}
    torch.save({"pytorch-lightning_version": "2.6.0", "state_dict": inside}, tmp_path / "a.ckpt")
    put_weights(other, load_weights(tmp_path / "a.ckpt", "source.path"), "source.path")
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(other(image), trained(image))


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    import torch

    torch.save(models.net().state_dict() | {"fc.weight": torch.zeros(3, 144)}, tmp_path / "w.pth")
    weights = load_weights(tmp_path / "w.pth", "w.pth")
    with pytest.raises(StepError, match=r"'fc.weight' has shape \[3, 144\] in the file, \[10, 144\] in the module"):
        put_weights(models.net(), weights, "w.pth")
    with pytest.raises(StepError, match=r"lacks 'weight' and has 'conv.bias', 'conv.weight', 'fc.bias' and 1 more"):
        put_weights(torch.nn.Linear(1, 1, bias=False), weights, "w.pth")


def test_a_pickle_is_loaded_when_it_is_trusted(tmp_path: Path) -> None:
    import torch

    file, made = tmp_path / "module.pt", tmp_path / "made"
    torch.save({"weight": torch.zeros(2), "hook": Touch(made)}, file)
    with pytest.raises(StepError, match=r"a pickle of more than tensors \((pathlib|__builtin__)") as caught:
        load_weights(file, "source.path")
    assert "source.trusted: true" in caught.value.hint
    assert not made.exists()
    assert list(load_weights(file, "source.path", trusted=True)) == ["weight"]
    assert made.exists()
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(StepError, match=r"torch.nn.modules.linear.Linear"):
        load_weights(file, "source.path")
    assert set(load_weights(file, "source.path", trusted=True)) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a Git LFS pointer, not the file, expected TorchScript"),
        (b"", "is empty, expected TorchScript"),
        (b"<!DOCTYPE html><html>", "is a web page"),
    ],
    ids=["a pointer", "empty", "a web page"],
)
def test_a_file_of_another_kind(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(StepError, match=message):
        load_torchscript(tmp_path / "a.pt", "source.path")


def test_each_format_says_which_one_it_got(script: Path, program: Path, tmp_path: Path) -> None:
    import torch

    torch.save(models.net().state_dict(), tmp_path / "w.pth")
    with pytest.raises(StepError, match="is a PyTorch checkpoint, expected TorchScript"):
        load_torchscript(tmp_path / "w.pth", "source.path")
    with pytest.raises(StepError, match="is a TorchScript file, expected weights") as caught:
        load_weights(script, "source.path")
    assert caught.value.hint == "source.kind torchscript takes it"
    with pytest.raises(StepError, match=r"is a program of torch.export, expected TorchScript"):
        load_torchscript(program, "source.path")
    with pytest.raises(StepError, match=r"is a TorchScript file, expected a program of torch.export"):
        load_exported_program(script, "source.path")


def test_torchscript_that_this_torch_cannot_read(script: Path, tmp_path: Path) -> None:
    newer = models.edited(script, tmp_path / "newer.pt", {"/version": b"99\n"})
    with pytest.raises(StepError, match="version 99, but the maximum supported version for reading is 10") as caught:
        load_torchscript(newer, "source.path")
    assert caught.value.hint.startswith("a newer torch saved it")
    with zipfile.ZipFile(script) as archive:
        code = next(name for name in archive.namelist() if b"torch.relu" in archive.read(name) and name.endswith(".py"))
        text = archive.read(code).replace(b"torch.relu", b"torch.relu99")
    with pytest.raises(StepError, match=r"Unknown builtin op: aten::relu99") as caught:
        load_torchscript(models.edited(script, tmp_path / "op.pt", {code: text}), "source.path")
    assert "an operator that this torch does not have" in caught.value.hint


def test_damage_is_seen_before_torch_reads_on(script: Path, tmp_path: Path) -> None:
    """torch checks no checksums: it would load the weights as they are."""
    content = script.read_bytes()
    with zipfile.ZipFile(script) as archive:
        entry = max(archive.infolist(), key=lambda item: item.file_size)
    at = content.index(b"PK", entry.header_offset + 4) - 400
    (tmp_path / "a.pt").write_bytes(content[:at] + b"damaged" + content[at + 7 :])
    with pytest.raises(StepError, match="its checksum is wrong"):
        load_torchscript(tmp_path / "a.pt", "source.path")
    (tmp_path / "a.pt").write_bytes(content[:2000])
    with pytest.raises(StepError, match="a zip archive that is cut short, expected TorchScript"):
        load_torchscript(tmp_path / "a.pt", "source.path")


def test_an_archive_that_grows_out_of_bounds(script: Path, tmp_path: Path) -> None:
    """Zeros shrink a thousandfold, weights do not."""
    import torch

    torch.save(models.net().state_dict(), tmp_path / "w.pth")
    for file, load in ((tmp_path / "w.pth", load_weights), (script, load_torchscript)):
        with zipfile.ZipFile(file) as before, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as after:
            for entry in before.infolist():
                after.writestr(entry.filename, before.read(entry))
            with after.open(before.namelist()[0].partition("/")[0] + "/data/99", "w", force_zip64=True) as bomb:
                for _ in range(300):
                    bomb.write(bytes(1_000_000))
        with pytest.raises(StepError, match="no model shrinks like that"):
            load(tmp_path / "bomb.pt", "source.path")


def test_a_program_takes_its_tensors_by_name_or_in_order(program: Path) -> None:
    import torch

    loaded, declared = load_exported_program(program, "source.path")
    module, image = module_of_program(loaded, declared), torch.rand(3, 1, 8, 8)
    assert not module.training
    assert torch.equal(module(image), module(image=image))
    torch.testing.assert_close(module(image), models.net()(image))


def test_a_program_that_would_run_code_is_not_loaded(program: Path, tmp_path: Path) -> None:
    """torch.export.load evaluates sizes and guards as Python, and reads pickles."""
    import io

    import torch

    made = tmp_path / "made"
    with zipfile.ZipFile(program) as archive:
        document = json.loads(archive.read("net/models/model.json"))
    call = f"__import__('pathlib').Path('{made}').touch()"
    pickled = io.BytesIO()
    torch.save((Touch(made),), pickled)
    operator = json.loads(json.dumps(document))
    operator["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"
    size = json.dumps(document).replace("Symbol('", f"Symbol({call} or '")
    hostile = {
        "a guard is no comparison": {"models/model.json": json.dumps(document | {"guards_code": [call]}).encode()},
        "a size is no arithmetic": {"models/model.json": size.encode()},
        "an operator is not one of PyTorch's": {"models/model.json": json.dumps(operator).encode()},
        "is a pickle of more than tensors": {"data/sample_inputs/model.pt": pickled.getvalue()},
        "is compiled code": {"data/aotinductor/model/a.so": b"\x7fELF"},
    }
    for message, edit in hostile.items():
        file = models.edited(program, tmp_path / "hostile.pt2", edit)
        with pytest.raises(StepError) as caught:
            load_exported_program(file, "source.path")
        assert message in caught.value.message or "AOTInductor" in caught.value.message
        assert not made.exists()
    assert check_program(program, "source.path").risks == ()
    file = models.edited(program, tmp_path / "hostile.pt2", hostile["is a pickle of more than tensors"])
    load_exported_program(file, "source.path", trusted=True)
    assert made.exists()
