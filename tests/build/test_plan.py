"""Planning: pure, explained, and without any ML framework."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from modelwright.build.plan import explain, in_order
from modelwright.facts.part import JsonObject
from modelwright.kinds.step import Step, StepFunction
from tests.conftest import ONNX_YAML, TORCH_YAML, Sandbox

HEAVY = ("torch", "onnx", "onnxruntime", "transformers", "sklearn", "tensorrt", "grpc", "tritonclient.http", "numpy")


PLANNING = (
    "project.spec", "project.reader", "build.plan", "digest", "config.model_config", "config.render",
    "repository.repository", "kinds.recipe", "build.build", "cli.main", "cli.tables", "config.ensembles",
)  # fmt: skip


def test_planning_imports_no_ml_framework() -> None:
    code = (
        "import importlib, json, sys\n"
        f"for name in {PLANNING!r}:\n"
        "    importlib.import_module(f'modelwright.{name}')\n"
        f"    found = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "    assert not found, f'{name} imports {found}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.torch
def test_a_build_that_does_nothing_imports_no_ml_framework(sandbox: Sandbox) -> None:
    sandbox.torch_builder()
    sandbox.build()
    code = (
        "import sys, json\nfrom click.testing import CliRunner\nfrom modelwright.cli.main import main\n"
        f"result = CliRunner().invoke(main, ['--project', {str(sandbox.root)!r}, 'build'])\n"
        f"print(json.dumps([result.exit_code, sorted(set({HEAVY!r}) & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, []]


BEFORE: dict[str, Any] = {
    "step": "torch",
    "revision": 1,
    "config": {"params": {"epochs": 30}},
    "code": {"train.py": "a", "data.py": "b"},
    "data": {},
    "tools": {"torch": "2.12.0"},
    "inputs": {"samples": "c"},
}
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "a parameter": ({"config": {"params": {"epochs": 40}}}, "params.epochs 30 → 40"),
    "a new parameter": ({"config": {"params": {"epochs": 30, "lr": 0.1}}}, "params.lr (none) → 0.1"),
    "code": ({"code": {"train.py": "x", "data.py": "b"}}, "train.py changed"),
    "less code": ({"code": {"train.py": "a"}}, "data.py removed"),
    "more code": ({"code": {"train.py": "a", "data.py": "b", "net.py": "c"}}, "net.py added"),
    "data": ({"data": {"table.csv": "x"}}, "table.csv added"),
    "a tool": ({"tools": {"torch": "2.13.0"}}, "torch 2.12.0 → 2.13.0"),
    "an input": ({"inputs": {"samples": "x"}}, "samples changed"),
    "the engine": ({"revision": 2}, "modelwright does this step differently now"),
    "two things": ({"config": {"params": {"epochs": 40}}, "revision": 2}, "modelwright does this step differently now; params.epochs 30 → 40"),
    "nothing": ({}, "its artifact is not in the store any more"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_a_reason_says_what_changed(case: str) -> None:
    change, reason = CHANGES[case]
    assert explain(BEFORE, {**BEFORE, **change}) == reason


def test_what_was_never_built_has_no_better_reason() -> None:
    assert explain(None, BEFORE) == "never built"


def test_needs_come_first() -> None:
    function = StepFunction("r", "module:run")
    steps = [Step("b", "y", function, needs={"x": ("a", "x")}), Step("a", "x", function), Step("c", "z", function)]
    assert [step.id for step in in_order(steps)] == [("a", "x"), ("b", "y"), ("c", "z")]


@pytest.mark.torch
def test_plan_says_what_would_run_and_why(sandbox: Sandbox) -> None:
    folder = sandbox.torch_builder()
    sandbox.onnx_builder()
    assert sandbox.cli("plan").output == (
        "run   doubled samples: never built\n"
        "maybe doubled onnx: after samples\n"
        "maybe doubled verify: after samples and onnx\n"
        "same  scaled samples: the same as doubled samples\n"
        "run   scaled torch: never built\n"
        "maybe scaled onnx: after torch and samples\n"
        "maybe scaled verify: after samples and onnx\n"
        "7 steps: 6 to run, 1 shared, 0 up to date\n"
    )
    sandbox.build()
    assert sandbox.cli("plan").output == "7 steps: 0 to run, 7 up to date\n"
    (folder / "model.yaml").write_text(TORCH_YAML.replace("scale: 2.0", "scale: 4.0"))
    assert sandbox.cli("plan").output == (
        "run   scaled torch: params.scale 2.0 → 4.0\n"
        "maybe scaled onnx: after torch\n"
        "maybe scaled verify: after onnx\n"
        "7 steps: 3 to run, 4 up to date\n"
    )
    data = json.loads(sandbox.cli("plan", "--json", "scaled").output)
    assert [entry["status"] for entry in data] == ["cached", "run", "after", "after"]


def test_planning_writes_nothing_a_server_sees(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.cli("plan")
    assert sandbox.published() == {}


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("imported module", "helper.py"),
        ("module of a package", "parts/inner.py"),
        ("package itself", "parts/__init__.py"),
    ],
)
def test_code_that_is_imported_counts_however_indirectly(sandbox: Sandbox, field: str, changed: str) -> None:
    folder = sandbox.onnx_builder()
    (folder / "parts").mkdir()
    (folder / "parts/__init__.py").write_text("")
    (folder / "parts/inner.py").write_text("VALUE = 1\n")
    (folder / "helper.py").write_text("def help():\n    from parts.inner import VALUE\n    return VALUE\n")
    (folder / "unused.py").write_text("")
    (folder / "data.py").write_text("from helper import help\nimport parts\n" + (folder / "data.py").read_text())
    sandbox.build()
    (folder / "unused.py").write_text("# changed\n")
    assert "0 to run" in sandbox.cli("plan").output
    (folder / changed).write_text((folder / changed).read_text() + "\n# changed\n")
    assert f"run   doubled samples: {changed} changed" in sandbox.cli("plan").output


def test_a_changed_target_rebuilds_what_depends_on_it(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=ONNX_YAML)
    sandbox.build()
    (sandbox.root / "modelwright.toml").write_text('triton = "25.05"\n')
    assert "run   doubled onnx: max_opset 26 → 22; max_ir 13 → 10" in sandbox.cli("plan").output


@pytest.mark.parametrize("declared", ["inputs: [{name: x, dtype: FP32, shape: [2]}]", ""])
def test_an_ensemble_of_a_model_that_does_not_declare_all_tensors(sandbox: Sandbox, declared: str) -> None:
    sandbox.onnx_builder(yaml=f"{ONNX_YAML}{declared}\n")
    sandbox.python_builder()
    sandbox.ensemble_builder()
    assert sandbox.cli("plan").exit_code == 0


def test_a_step_of_another_name_and_revision_is_said_once() -> None:
    before: JsonObject = {"step": "verify", "revision": 1}
    assert explain(before, {"step": "verify_prebuilt", "revision": 2}) == "modelwright does this step differently now"
