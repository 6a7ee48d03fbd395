"""The TorchScript exporter takes what dynamo cannot, and is verified alike; messages of both are a line of the builder."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modelwright.errors import StepError
from modelwright.onnx.check import read_signature
from modelwright.onnx.runtime import load_session, run_session
from modelwright.onnx.signature import Value
from modelwright.steps.export import run_torch
from modelwright.triton.arrays import numpy_dtype
from tests.steps.test_export import OLDEST, Module, Spec, export, rows

pytestmark = pytest.mark.torch

SEQUENCE = Spec("x", "FP32", ("time", 3))


class Recurrent(nn.Module):  # type: ignore[misc]
    """All states of a recurrent layer, of any length."""

    def __init__(self, layer: Any = nn.LSTM, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = layer(3, 4, batch_first=True, **options)
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


class Packed(nn.Module):  # type: ignore[misc]
    """Sequences of different lengths in one batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.LSTM(3, 4, batch_first=True)
        self.eval()

    def forward(self, x: Any, length: Any) -> Any:
        lengths = length.cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.layer(packed)
        return nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])[0]


class Pooled(nn.Module):  # type: ignore[misc]
    """Two parts of any sequence; dynamo's exporter takes the size of a part from the traced one."""

    def forward(self, x: Any) -> Any:
        return nn.functional.adaptive_avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2)


class Unused(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any, spare: Any) -> Any:
        return x * 2


def scripted() -> Any:
    """As a file gives it: it knows less of itself than a module that was scripted in this process."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()), file)
        file.seek(0)
        return torch.jit.load(file)


def states(module: Any, samples: Any, inputs: Any, path: Path) -> None:
    """The file answers at another size as the module does."""
    outputs = [Spec("y", "FP32", ("time", 4))]
    longer = {
        name: np.concatenate([array, array], axis=1) if array.ndim > 2 else array for name, array in samples.items()
    }
    expected = run_torch(module, longer, inputs, outputs, batched=True)["y"]
    np.testing.assert_allclose(run_session(load_session(path), longer)["y"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(Recurrent(), id="LSTM"),
        pytest.param(Recurrent(nn.GRU), id="GRU"),
        pytest.param(Recurrent(nn.RNN), id="RNN"),
        pytest.param(Recurrent(nn.GRU, num_layers=2), id="two layers"),
        pytest.param(
            nn.Sequential(Recurrent(nn.LSTM, bidirectional=True), nn.Linear(8, 4)).eval(), id="both directions"
        ),
        pytest.param(scripted(), id="TorchScript"),
        pytest.param(nn.Sequential(scripted(), nn.Identity()).eval(), id="TorchScript inside"),
        pytest.param(
            Module(lambda x: torch.fake_quantize_per_tensor_affine(x.repeat(1, 1, 2)[:, :, :4], 0.1, 0, 0, 255)),
            id="quantisation",
        ),
    ],
)
def test_torchscript_takes_what_dynamo_does_not(tmp_path: Path, module: Any) -> None:
    samples, outputs = rows(4, 6, 3), [Spec("y", "FP32", ("time", 4))]
    with pytest.raises(StepError) as caught:
        export(module, samples, [SEQUENCE], outputs, tmp_path)
    assert caught.value.hint.startswith("write exporter: torchscript under source")
    assert len(str(caught.value)) < 500
    path = export(module, samples, [SEQUENCE], outputs, tmp_path, exporter="torchscript")
    signature = read_signature(path)
    assert signature.inputs == (Value("x", "tensor", 1, ("batch", "time", 3)),)
    assert signature.outputs == (Value("y", "tensor", 1, ("batch", "time", 4)),)
    states(module, samples, [SEQUENCE], path)


def test_packed_sequences(tmp_path: Path) -> None:
    inputs, outputs = [SEQUENCE, Spec("length", "INT64", ())], [Spec("y", "FP32", ("time", 4))]
    samples = rows(4, 6, 3) | {"length": np.array([6, 5, 2, 3])}
    path = export(Packed(), samples, inputs, outputs, tmp_path, exporter="torchscript")
    expected = run_torch(Packed(), samples, inputs, outputs, batched=True)["y"]
    np.testing.assert_allclose(run_session(load_session(path), samples)["y"], expected, atol=1e-5)


def test_an_input_that_forward_does_not_use_stays_an_input(tmp_path: Path) -> None:
    inputs = [Spec("spare", "INT64", ("n",)), SEQUENCE]
    samples = {"spare": np.zeros((4, 2), np.int64)} | rows(4, 6, 3)
    path = export(Unused().eval(), samples, inputs, [Spec("y", "FP32", ("time", 3))], tmp_path, exporter="torchscript")
    assert [(value.name, value.dims) for value in read_signature(path).inputs] == [
        ("spare", ("batch", "n")),
        ("x", ("batch", "time", 3)),
    ]


def test_the_limits_of_an_old_release(tmp_path: Path) -> None:
    path = export(
        Recurrent(),
        rows(4, 6, 3),
        [SEQUENCE],
        [Spec("y", "FP32", ("time", 4))],
        tmp_path,
        target=OLDEST,
        exporter="torchscript",
    )
    signature = read_signature(path)
    assert (signature.opset, signature.ir_version) == (19, 9)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        pytest.param(lambda x: x * 2 if x.sum() > 0 else x, r"makes a Python number of the value of a tensor \(test_exporters\.py:\d+: .*one sample for all\n.*torch\.where", id="a branch on values"),
        pytest.param(lambda x: x * float(x.max()), "makes a Python number of the value of a tensor", id="a number"),
        pytest.param(lambda x: sum(x[:, i] for i in range(x.shape[1]))[:, None].expand(x.shape), "works only at the size it was traced at", id="a loop over a length"),
        pytest.param(lambda x: x * 2 if x.shape[1] > 3 else x, r"traced at: on inputs x \[1, 3, 3\], 'y' differs by .* the module gives", id="a branch on a length"),
        pytest.param(lambda x: torch.from_numpy(x.numpy() * 2), r"traced at: on inputs x \[1, 3, 3\], 'y' has shape \[2, 6, 3\], the module gives \[1, 3, 3\]", id="numpy"),
        pytest.param(lambda x: torch.cumprod(x, 1), r"TorchScript exporter cannot write this module: .*aten::cumprod.*is not supported\n.*leave exporter out", id="an operator"),
    ],
)  # fmt: skip
def test_what_one_run_does_not_show_is_refused(tmp_path: Path, function: Any, match: str) -> None:
    module = Module(function)
    with pytest.raises(StepError, match=match) as caught:
        export(module, rows(4, 6, 3), [SEQUENCE], [Spec("y", "FP32", ("time", 3))], tmp_path, exporter="torchscript")
    assert len(str(caught.value)) < 600


def test_another_answer_at_the_size_that_was_traced_is_not_blamed_on_the_size(tmp_path: Path) -> None:
    """As a detector with untrained weights gives: boxes of equal scores change places."""
    calls = iter(range(100))
    module = Module(lambda x: x * float(next(calls)))
    with pytest.raises(
        StepError, match=r"^the export answers otherwise than the module: on inputs x \[3\], 'y' dif"
    ) as caught:
        export(module, rows(2, 3), [Spec("x", "FP32", (3,))], [Spec("y", "FP32", (3,))], tmp_path, batched=False, exporter="torchscript")  # fmt: skip
    assert "the order of boxes with the same score" in caught.value.hint


@pytest.mark.parametrize(
    ("function", "match"),
    [
        pytest.param(lambda x: x[:, : int(x.argmax()) % 3 + 1], r"^forward makes a Python integer of the value of a tensor, which a graph cannot \(test_exporters\.py:\d+: ", id="a number of a value"),
        pytest.param(lambda x: x if x.max() > x.min() else -x, r"^forward decides by the value of a tensor, which a graph cannot \(test_exporters\.py:\d+: ", id="a branch on a value"),
        pytest.param(lambda x: x.reshape(-1, 6, 3), "^'x': its dimension 0 is fixed at 6 by the code, the spec says dynamic", id="a length as a number"),
        pytest.param(Pooled(), r"traced at: on inputs x \[1, 3, 3\], 'y' has shape \[1, 1, 3\], the module gives \[1, 2, 3\]", id="a size that the exporter takes as a number"),
    ],
)  # fmt: skip
def test_a_symbolic_shape_is_a_sentence_and_a_line_of_the_builder(tmp_path: Path, function: Any, match: str) -> None:
    outputs = [Spec("y", "FP32", (2 if isinstance(function, nn.Module) else -1, 3))]
    with pytest.raises(StepError, match=match) as caught:
        export(Module(function), rows(4, 6, 3), [SEQUENCE], outputs, tmp_path)
    text = str(caught.value)
    assert len(text) < 500
    assert not [symbol for symbol in ("Eq(", "u0", "Dim.", "TORCH_LOGS", "unhinted") if symbol in text]


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_sample_without_values_in_a_dynamic_dimension(tmp_path: Path, exporter: Any) -> None:
    """As the past of a decoder is at the first token."""
    module = Module(lambda x: x * 2)
    outputs = [Spec("y", "FP32", ("time", 3))]
    path = export(module, {"x": np.zeros((2, 0, 3), np.float32)}, [SEQUENCE], outputs, tmp_path, exporter=exporter)
    assert read_signature(path).inputs[0].dims == ("batch", "time", 3)


def test_bfloat16_goes_through_torch(tmp_path: Path) -> None:
    inputs, outputs = [Spec("x", "BF16", (4,))], [Spec("y", "BF16", (4,))]
    samples = {"x": rows(3, 4)["x"].astype(numpy_dtype("BF16"))}
    module = Module(lambda x: x.float().mul(2).bfloat16())
    expected = run_torch(module, samples, inputs, outputs, batched=True)["y"]
    for exporter in ("dynamo", "torchscript"):
        path = export(module, samples, inputs, outputs, tmp_path, exporter=exporter)
        found = run_session(load_session(path), samples)["y"]
        assert (found.dtype.name, found.tolist()) == ("bfloat16", expected.tolist())


def test_another_process_and_folder_write_the_same_file(tmp_path: Path) -> None:
    outputs = [Spec("y", "FP32", ("time", 4))]
    path = export(Recurrent(), rows(4, 6, 3), [SEQUENCE], outputs, tmp_path, exporter="torchscript")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    code = (
        "from pathlib import Path\n"
        "from tests.steps.test_exporters import *\n"
        f"outputs = [Spec('y', 'FP32', ('time', 4))]\n"
        f"export(Recurrent(), rows(4, 6, 3), [SEQUENCE], outputs, Path({str(folder)!r}), exporter='torchscript')\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    written = (folder / path.name).read_bytes()
    assert written == path.read_bytes()
    for trace in (str(tmp_path), "site-packages", ".py", "pytorch"):
        assert trace.encode() not in written
