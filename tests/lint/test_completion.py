"""What backends complete that the local server does not have, and a Python model's code at the edges of what text says.

The facts are those of the backends' sources, which `lint/completion.py` names; no recorded case holds them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.lint.engine import lint
from modelwright.lint.examples import write
from modelwright.lint.python_code import PythonCode
from modelwright.lint.rule import ExampleFiles, TensorRtPlan, Zip
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.triton.releases import release
from tests.lint.cases.completion import AUTO
from tests.lint.trees import MODEL_PY

INPUT = 'input [ { name: "x", data_type: TYPE_FP32, dims: [ 4 ] } ]'
OUTPUT = 'output [ { name: "y", data_type: TYPE_FP32, dims: [ 4 ] } ]'
UNTYPED = 'input [ { name: "x", dims: [ 4 ] } ]'
FLAT = 'input [ { name: "x", data_type: TYPE_FP32, dims: [ 1 ], reshape { shape: [ ] } } ]'
COUNT = 'batch_input [ { kind: BATCH_ELEMENT_COUNT, target_name: "n", data_type: TYPE_FP32, source_input: "w" } ]'
WARMUP = (
    'model_warmup [ { name: "s", batch_size: 4, inputs { key: "x" value { data_type: TYPE_FP32, dims: [ 4 ], '
    "zero_data: true } } } ]"
)
PARTS = {
    "MW202": f"{UNTYPED}\n{OUTPUT}",
    "MW203": 'input [ { name: "x", data_type: TYPE_FP32 } ]\n' + OUTPUT,
    "MW205": f"{FLAT}\n{OUTPUT}",
    "MW425": f"{INPUT}\n{OUTPUT}\n{WARMUP}",
    "MW908": f"{INPUT}\n{OUTPUT}\ndynamic_batching {{ }}",
}
ABOUT_COMPLETION = {*PARTS, "MW005", "MW117", "MW206", "MW211", "MW424", "MW806"}
HEADS = {
    "tensorrt": 'platform: "tensorrt_plan"',
    "savedmodel": 'platform: "tensorflow_savedmodel"',
    "graphdef": 'platform: "tensorflow_graphdef"',
    "pytorch": 'backend: "pytorch"',
    "openvino": 'backend: "openvino"',
    "dali": 'backend: "dali"',
    "vllm": 'backend: "vllm"',
    "python": 'backend: "python"',
}
COMPLETING = ("tensorrt", "savedmodel", "openvino", "dali", "vllm", "python")


def found(root: Path, text: str, files: ExampleFiles | None = None, *, auto_complete: bool = True) -> set[str]:
    """What lint says about completion, of a model with this config and a model.py that completes it."""
    write({"m/1/model.py": AUTO, "m/config.pbtxt": text, **(files or {})}, root)
    report = lint(RepositoryTree.read(root), Options(release("24.10"), auto_complete))
    assert not report.crashes
    return {item.rule.id for item in report.findings} & ABOUT_COMPLETION


@pytest.mark.parametrize("kind", HEADS)
def test_a_backend_that_completes_makes_rules_silent(kind: str, tmp_path: Path) -> None:
    heard = {rule: found(tmp_path / rule, f"{HEADS[kind]}\n{text}") for rule, text in PARTS.items()}
    assert heard == {rule: set() if kind in COMPLETING else {rule} for rule in PARTS}


@pytest.mark.parametrize("kind", HEADS)
def test_without_auto_completion_every_backend_needs_all(kind: str, tmp_path: Path) -> None:
    for rule, text in PARTS.items():
        assert rule in found(tmp_path / rule, f"{HEADS[kind]}\n{text}", auto_complete=False)


@pytest.mark.parametrize(
    ("kind", "expected"), [("tensorrt", {"MW211"}), ("openvino", {"MW211"}), ("dali", set()), ("vllm", set())]
)
def test_only_some_backends_add_to_what_is_whole(kind: str, expected: set[str], tmp_path: Path) -> None:
    assert found(tmp_path, f"{HEADS[kind]}\nmax_batch_size: 4\n{INPUT}\n{OUTPUT}\n{COUNT}") == expected


@pytest.mark.parametrize("kind", ["tensorrt", "dali"])
def test_a_max_batch_size_that_is_written_stays(kind: str, tmp_path: Path) -> None:
    assert found(tmp_path, f"{HEADS[kind]}\nmax_batch_size: 2\n{INPUT}\n{OUTPUT}\n{WARMUP}") == {"MW425"}


@pytest.mark.parametrize(
    ("dims", "expected"), [("2", set()), ("8, 2", set()), ("", set()), ("3", {"MW806"}), ("8, 2, 1", {"MW806"})]
)
def test_dims_of_a_plan_may_have_the_batch_dimension_where_no_batch_size_is_given(
    dims: str, expected: set[str], tmp_path: Path
) -> None:
    config = f'{HEADS["tensorrt"]}\ninput [ {{ name: "x", data_type: TYPE_FP32, dims: [ {dims} ] }} ]\n{OUTPUT}'
    made = '{"made": {"tensorrt": {"profiles": [{"inputs": {"x": {"min": [1, 2], "opt": [8, 2], "max": [8, 2]}}}]}}}'
    files: ExampleFiles = {"m/1/model.plan": TensorRtPlan("10.5.0.18"), "m/1/manifest.json": made}
    assert found(tmp_path, config, files) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("model.plan", set()),
        ("model.savedmodel/saved_model.pb", set()),
        ("model.xml", set()),
        ("model.graphdef", {"MW005"}),
        ("model.pt", {"MW005"}),
    ],
)
def test_a_lone_file_is_completed_where_its_backend_can(file: str, expected: set[str], tmp_path: Path) -> None:
    write({f"m/1/{file}": Zip(("m/constants.pkl",)) if file.endswith("pt") else b"ftrt"}, tmp_path)
    for auto_complete, rules in ((True, expected), (False, {"MW005"})):
        report = lint(RepositoryTree.read(tmp_path), Options(release("24.10"), auto_complete))
        assert {item.rule.id for item in report.findings} & ABOUT_COMPLETION == rules


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_pytorch_model_lists_its_tensors(side: str, tmp_path: Path) -> None:
    config = f"{HEADS['pytorch']}\n{OUTPUT if side == 'input' else INPUT}"
    assert found(tmp_path / "library", config) == {"MW117"}
    assert found(tmp_path / "python", f'{config}\nruntime: "model.py"') == set()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (AUTO, True),
        (MODEL_PY, False),
        (f"import typing as t\n\n\nclass Base(object):\n    x: t.Any = 1\n\n\n{MODEL_PY}", False),
        (MODEL_PY.replace("TritonPythonModel:", "TritonPythonModel(Other):"), True),
        (MODEL_PY.replace("TritonPythonModel:", "TritonPythonModel(metaclass=Meta):"), True),
        (MODEL_PY.replace("TritonPythonModel:", "TritonPythonModel(TritonPythonModel):"), False),
        (f"try:\n    import fast\nexcept ImportError:\n    fast = None\n\n\n{MODEL_PY}", False),
        (f"{MODEL_PY}\n\nTritonPythonModel = wrapped(TritonPythonModel)\n", True),
        (f"if fast:\n    class TritonPythonModel:\n        pass\n\n\n{MODEL_PY}", True),
        (f"{MODEL_PY}\n    def initialize(self, args):\n        setattr(self, 'name', args)\n", False),
        (f"{MODEL_PY}\n\nexec(more)\n", True),
        ("class TritonPythonModel", True),
        ("\0", True),
    ],
)
def test_what_the_text_of_a_model_says_of_completion(code: str, expected: bool) -> None:
    assert PythonCode(code.encode()).may_complete is expected


def test_a_file_that_cannot_be_read_may_complete(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_bytes(b"#" * 1_000_001)
    assert [PythonCode.read(tmp_path / name).may_complete for name in ("gone.py", "large.py", ".")] == [True] * 3


@pytest.mark.parametrize(("file", "expected"), [("model.pt2", set()), ("model.pt", {"MW106"})])
def test_a_package_of_aotinductor_is_a_model_of_the_pytorch_backend(
    tmp_path: Path, file: str, expected: set[str]
) -> None:
    text = f'backend: "pytorch"\nplatform: "torch_aoti"\n{INPUT}\n{OUTPUT}'
    write({f"m/1/{file}": Zip(("m/archive_format", "m/data/aotinductor/model/a.so")), "m/config.pbtxt": text}, tmp_path)
    report = lint(RepositoryTree.read(tmp_path), Options(release("26.07"), True))
    assert {item.rule.id for item in report.findings if item.rule.severity.value == "error"} == expected
