from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from modelwright.errors import StepError
from modelwright.onnx.check import read_signature
from modelwright.onnx.runtime import load_session, run_session
from modelwright.onnx.signature import Value
from modelwright.project.spec import Tolerance
from modelwright.steps.export import onnx_from_torch, run_torch
from modelwright.triton.releases import release
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.samples import unstacked

pytestmark = pytest.mark.torch
NEWEST, OLDEST = release("26.07"), release("23.10")


@dataclass(frozen=True)
class Spec:
    name: str
    dtype: str
    shape: tuple[int | str, ...]


X, Y = Spec("x", "FP32", (4,)), Spec("y", "FP32", (4,))


def rows(*shape: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(0).random(shape, dtype=np.float32)}


class Module(nn.Module):  # type: ignore[misc]
    """A forward from a function, so that each case says only what it computes."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.function(x)


class Pair(nn.Module):  # type: ignore[misc]
    """Two inputs, in an order that differs from the spec's, and two named results."""

    def forward(self, mask: Any, ids: Any) -> Any:
        kept = ids * mask
        return {"total": kept.sum(dim=1, keepdim=True), "kept": kept}


class Classifier(nn.Module):  # type: ignore[misc]
    """What the exporter calls `embedding` and `relu` inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 8)
        self.score = nn.Linear(8, 3)
        self.eval()

    def forward(self, ids: Any) -> Any:
        return torch.softmax(self.score(torch.relu(self.words(ids)).mean(dim=1)), dim=-1)


IDS = Spec("ids", "INT64", ("sequence",))


def tokens(count: int = 5, length: int = 7) -> dict[str, Any]:
    return {"ids": np.random.default_rng(0).integers(0, 50, (count, length))}


CLOSE = Tolerance(atol=1e-5, rtol=1e-5)


def export(module: nn.Module, samples: Any, inputs: Any, outputs: Any, folder: Path, **options: Any) -> Path:
    path = folder / "model.onnx"
    target = options.pop("target", NEWEST)
    onnx_from_torch(module, samples, inputs, outputs, path, target, **{"batched": True, **options})
    return path


def check(path: Path, module: nn.Module, samples: Any, inputs: Any, outputs: Any) -> None:
    expected = run_torch(module, samples, inputs, outputs, batched=True)
    compare_outputs(
        unstacked(expected), unstacked(run_session(load_session(path), samples)), dict.fromkeys(expected, CLOSE)
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier, with its result as `p`."""
    return export(Classifier(), tokens(), [IDS], [Spec("p", "FP32", (3,))], tmp_path_factory.mktemp("exported"))


class Several(Classifier):
    """The same, with a result for each of several names."""

    def forward(self, ids: Any) -> Any:
        result = super().forward(ids)
        return tuple(result + number for number in range(6))


class TestNames:
    def test_an_output_may_be_called_like_an_inner_tensor(self, tmp_path: Path) -> None:
        names = ("embedding", "relu", "softmax", "words.weight", "output", "val_0")
        module, outputs = Several(), [Spec(name, "FP32", (3,)) for name in names]
        path = export(module, tokens(), [IDS], outputs, tmp_path)
        check(path, module, tokens(3, 11), [IDS], outputs)

    def test_an_input_may_be_called_like_an_inner_tensor(self, tmp_path: Path) -> None:
        module, inputs, outputs = Classifier(), [Spec("embedding", "INT64", ("sequence",))], [Spec("ids", "FP32", (3,))]
        samples = {"embedding": tokens()["ids"]}
        check(export(module, samples, inputs, outputs, tmp_path), module, samples, inputs, outputs)

    def test_weights_keep_the_names_they_have_in_the_module(self, exported: Path) -> None:
        weights = {tensor.name for tensor in onnx.load(exported).graph.initializer}
        assert {"words.weight", "score.weight", "score.bias"} <= weights


class TestSignature:
    def test_it_is_the_specs(self, exported: Path) -> None:
        found = read_signature(exported)
        assert found.inputs == (Value("ids", "tensor", TensorProto.INT64, ("batch", "sequence")),)
        assert found.outputs == (Value("p", "tensor", TensorProto.FLOAT, ("batch", 3)),)

    def test_without_a_batch_dimension(self, tmp_path: Path) -> None:
        module, inputs, outputs = Module(lambda x: x * 2), [Spec("x", "FP32", (-1, 3))], [Spec("y", "FP32", (-1, 3))]
        samples = rows(2, 5, 3)
        path = export(module, samples, inputs, outputs, tmp_path, batched=False)
        assert read_signature(path).inputs[0].dims == (-1, 3)
        expected = run_torch(module, samples, inputs, outputs, batched=False)
        assert expected["y"].shape == (2, 5, 3)
        np.testing.assert_array_equal(run_session(load_session(path), {"x": samples["x"][1]})["y"], expected["y"][1])

    def test_fixed_shapes_without_a_batch_dimension(self, tmp_path: Path) -> None:
        path = export(Module(lambda x: x + 1), rows(2, 4), [X], [Y], tmp_path, batched=False)
        assert read_signature(path).outputs[0].dims == (4,)

    def test_several_inputs_go_by_name_and_results_of_a_dict_too(self, tmp_path: Path) -> None:
        inputs = [Spec("ids", "INT64", ("n",)), Spec("mask", "INT64", ("n",))]
        outputs = [Spec("kept", "INT64", ("n",)), Spec("total", "INT64", (1,))]
        samples = {"ids": np.arange(12).reshape(3, 4), "mask": np.ones((3, 4), np.int64)}
        samples["mask"][:, 2:] = 0
        path = export(Pair().eval(), samples, inputs, outputs, tmp_path)
        assert run_session(load_session(path), samples)["total"].tolist() == [[1], [9], [17]]
        check(path, Pair().eval(), samples, inputs, outputs)

    @pytest.mark.parametrize(
        "function",
        [lambda x: (x, x + 1), lambda x: (x + 1, x + 1), lambda x: [(y := x * 2), y]],
        ids=["an-input", "twice-computed", "the-same-twice"],
    )
    def test_results_that_share_a_tensor(self, tmp_path: Path, function: Any) -> None:
        outputs = [Y, Spec("z", "FP32", (4,))]
        path = export(Module(function), rows(3, 4), [X], outputs, tmp_path)
        check(path, Module(function), rows(3, 4), [X], outputs)


class TestSizes:
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_any_number_of_samples_gives_a_dynamic_batch(self, tmp_path: Path, count: int) -> None:
        module = nn.Sequential(nn.Flatten(), nn.Linear(4, 4)).eval()
        path = export(module, rows(count, 4), [X], [Y], tmp_path)
        for size in (1, 2, 3, 17):
            check(path, module, rows(size, 4), [X], [Y])

    def test_samples_of_length_one(self, tmp_path: Path) -> None:
        outputs = [Spec("p", "FP32", (3,))]
        path = export(Classifier(), tokens(1, 1), [IDS], outputs, tmp_path)
        check(path, Classifier(), tokens(4, 9), [IDS], outputs)

    def test_a_length_the_module_itself_refuses_is_left_out(self, tmp_path: Path) -> None:
        module = nn.Conv1d(1, 1, 6).eval()
        inputs, outputs = [Spec("x", "FP32", (1, "n"))], [Spec("y", "FP32", (1, -1))]
        path = export(module, rows(3, 1, 9), inputs, outputs, tmp_path)
        check(path, module, rows(2, 1, 20), inputs, outputs)

    @pytest.mark.parametrize(
        ("function", "match"),
        [
            (lambda x: x.reshape(2, -1), "'x': its batch dimension is fixed at 2 by the code"),
            (lambda x: x * 2 if x.shape[0] == 2 else x, "'x': its batch dimension is fixed at 2"),
            (lambda x: x[:2] * 1.5, r"works only at the size it was traced at|'y': its batch dimension is fixed at 2"),
        ],
        ids=["reshape", "if", "slice"],
    )
    def test_a_batch_size_that_leaks_into_the_graph(self, tmp_path: Path, function: Any, match: str) -> None:
        with pytest.raises(StepError, match=match):
            export(Module(function), rows(5, 4), [X], [Y], tmp_path)

    def test_a_length_that_leaks_into_the_graph(self, tmp_path: Path) -> None:
        inputs, outputs = [Spec("x", "FP32", ("n",))], [Spec("y", "FP32", ("n",))]
        with pytest.raises(StepError, match="'x': its dimension 0 is fixed at 6 by the code"):
            export(Module(lambda x: x.reshape(-1, 6)), rows(5, 6), inputs, outputs, tmp_path)

    def test_an_output_declared_dynamic_that_is_not(self, tmp_path: Path) -> None:
        with pytest.raises(StepError, match="'y': its dimension 0 is fixed at 4 by the code, the spec says dynamic"):
            export(Module(lambda x: x + 1), rows(5, 4), [X], [Spec("y", "FP32", (-1,))], tmp_path)


class TestOpset:
    @pytest.mark.parametrize(
        ("target", "opset", "expected"),
        [(NEWEST, None, (20, 10)), (OLDEST, None, (19, 9)), (NEWEST, 18, (18, 10)), (NEWEST, 23, (23, 10))],
        ids=["default", "an-old-release", "older", "newest-of-the-exporter"],
    )
    def test_it_follows_the_release(self, tmp_path: Path, target: Any, opset: Any, expected: Any) -> None:
        path = export(nn.Linear(4, 4).eval(), rows(2, 4), [X], [Y], tmp_path, target=target, opset=opset)
        found = read_signature(path)
        assert (found.opset, found.ir_version) == expected

    @pytest.mark.parametrize(
        ("target", "opset", "match"),
        [
            (OLDEST, 20, r"opset 20 is above 19, the limit of onnxruntime 1\.16\.0 for Triton 23\.10"),
            (NEWEST, 24, "opset 24 is above 23, the limit of torch's dynamo exporter"),
            (NEWEST, 9, "torch writes opset 18 or later"),
        ],
        ids=["release", "exporter", "too-old"],
    )
    def test_what_cannot_be(self, tmp_path: Path, target: Any, opset: int, match: str) -> None:
        with pytest.raises(StepError, match=match):
            export(nn.Linear(4, 4).eval(), rows(2, 4), [X], [Y], tmp_path, target=target, opset=opset)


def branch_on_values(x: Any) -> Any:
    return x if x.sum() > 0 else -x


class TestFailures:
    @pytest.mark.parametrize(
        ("function", "match"),
        [
            (
                branch_on_values,
                r"forward decides by the value of a tensor, .*\(test_export\.py:\d+: return x if x\.sum\(\) > 0.*\n.*where",
            ),
            (lambda x: torch.from_numpy(x.numpy() + 1), r"cannot trace forward: .*numpy.*\n.*keep NumPy"),
            (lambda x: torch.linalg.svd(x)[1][:, None] + x, "cannot write this module as ONNX: No ONNX function.*svd"),
            (lambda x: x @ x, r"forward fails on x \[2, 4\]: RuntimeError: .*\(test_export\.py:"),
            (lambda x: {"z": x}, r"forward returns no \['y'\], only \['z'\]"),
            (lambda x: (x, x), r"forward returns 2 tensors, the spec has 1 outputs: \['y'\]"),
            (lambda x: len(x), "forward returns int"),
            (lambda x: x[:, :3], r"'y' has shape \[2, 3\], the spec says \[batch, 4\]"),
            (lambda x: x.double(), "'y' is FP64, the spec says FP32"),
            (lambda x: x.bfloat16(), "'y' is BF16, the spec says FP32"),
        ],
        ids=[
            "if-on-values",
            "numpy",
            "no-onnx-operator",
            "shapes",
            "dict",
            "count",
            "int",
            "shape",
            "dtype",
            "bfloat16",
        ],
    )
    def test_a_forward_that_cannot_be_exported(self, tmp_path: Path, function: Any, match: str) -> None:
        with pytest.raises(StepError, match=match) as caught:
            export(Module(function), rows(5, 4), [X], [Y], tmp_path)
        assert len(str(caught.value)) < 500

    def test_single_values_that_are_declared_as_a_vector(self, tmp_path: Path) -> None:
        with pytest.raises(StepError, match=r"output 'y' has shape \[2\]") as error:
            onnx_from_torch(
                Module(lambda x: x.sum(1)), rows(3, 4), [X], [Spec("y", "FP32", (1,))], tmp_path / "m.onnx", NEWEST,
                batched=True,
            )  # fmt: skip
        assert error.value.hint == "write shape: [] for single values"

    def test_training_mode(self, tmp_path: Path) -> None:
        module = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).eval()
        module[1].train()
        with pytest.raises(StepError, match=r"^1 is in training mode\n.*return module\.eval"):
            export(module, rows(5, 4), [X], [Y], tmp_path)

    def test_not_a_module(self, tmp_path: Path) -> None:
        with pytest.raises(StepError, match=r"expected a torch\.nn\.Module, got function"):
            export(branch_on_values, rows(5, 4), [X], [Y], tmp_path)

    @pytest.mark.parametrize(
        ("samples", "inputs", "match"),
        [
            ({"a": np.zeros((2, 4), np.float32)}, [X], r"samples has no 'x', only \['a'\]"),
            ({"x": np.zeros((2, 4))}, [X], r"samples\['x'\] is float64, the spec says FP32"),
            ({"x": np.zeros((2, 5), np.float32)}, [X], r"has shape \[2, 5\], expected \[N, 4\]"),
            ({"x": np.zeros((0, 4), np.float32)}, [X], r"has shape \[0, 4\]"),
            ({"x": np.array([[b"a"]])}, [Spec("x", "BYTES", (1,))], "is BYTES, which torch has not"),
        ],
        ids=["name", "dtype", "shape", "none", "strings"],
    )
    def test_samples_that_do_not_fit(self, tmp_path: Path, samples: Any, inputs: Any, match: str) -> None:
        with pytest.raises(StepError, match=match):
            export(Module(lambda x: x), samples, inputs, [Y], tmp_path)

    def test_lengths_that_disagree(self, tmp_path: Path) -> None:
        inputs = [Spec("ids", "INT64", ("n",)), Spec("mask", "INT64", ("n",))]
        samples = {"ids": np.zeros((2, 4), np.int64), "mask": np.zeros((2, 5), np.int64)}
        with pytest.raises(StepError, match=r"samples\['mask'\]: 'n' is 5, elsewhere 4"):
            export(Pair().eval(), samples, inputs, [Spec("total", "INT64", (1,))], tmp_path)


class TestRepeatable:
    def test_another_process_and_folder_write_the_same_file(self, exported: Path, tmp_path: Path) -> None:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        code = (
            "import importlib.util, sys\n"
            "from pathlib import Path\n"
            f"spec = importlib.util.spec_from_file_location('cases', {str(copied(folder))!r})\n"
            "cases = sys.modules['cases'] = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(cases)\n"
            "outputs = [cases.Spec('p', 'FP32', (3,))]\n"
            "cases.export(cases.Classifier(), cases.tokens(), [cases.IDS], outputs, Path('.'))\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=folder, env={"PYTHONHASHSEED": "99"}, capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")  # and nothing is printed
        assert (folder / "model.onnx").read_bytes() == exported.read_bytes()

    def test_nothing_of_this_machine_is_in_the_file(self, exported: Path) -> None:
        content = exported.read_bytes()
        assert not any(word in content for word in (b"test_export", b"site-packages", b"pytorch", b"Classifier"))


def copied(folder: Path) -> Path:
    """This file in another folder: stack traces and paths would now differ."""
    path = folder / "moved_cases.py"
    path.write_text(f"# a line that moves all the others\n{Path(__file__).read_text()}")
    return path


def test_the_module_and_the_samples_are_left_alone(tmp_path: Path) -> None:
    module, samples = Module(lambda x: x.add_(1)), rows(5, 4)
    before = samples["x"].copy()
    run_torch(module, samples, [X], [Y], batched=True)
    np.testing.assert_array_equal(samples["x"], before)
