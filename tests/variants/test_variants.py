"""Variants: several models of one model.yaml, their steps, their gates."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from modelwright.errors import ModelwrightError
from modelwright.operations.doctor import Machine, examine
from modelwright.operations.status import status
from modelwright.programs import Ran
from modelwright.project.reader import read_builders
from modelwright.variants.registry import LOOKUPS
from tests.conftest import TORCH_YAML, Sandbox

YAML = """
source: {kind: onnx, path: model.onnx}
samples: data:samples
serving: {max_batch_size: 8}
"""

EVALUATE_PY = """
import numpy as np


def samples():
    return {"x": np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)}


def evaluate(infer):
    y = infer(samples())["y"]
    return {"accuracy": float(1 - np.abs(y - 2 * samples()["x"]).max() / 10)}


def against_source(infer, source):
    return {"gap": float(np.abs(infer(samples())["y"] - source(samples())["y"]).max())}
"""


def with_variants(
    sandbox: Sandbox, *variants: str, evaluate: str = "evaluate: data:evaluate", model: str = "doubled"
) -> None:
    lines = "\n".join(f"  - {variant}" for variant in variants)
    folder = sandbox.onnx_builder(model, yaml=f"{YAML.strip()}\n{evaluate}\nvariants:\n{lines}\n")
    (folder / "data.py").write_text(EVALUATE_PY)


def test_each_variant_is_a_model_of_its_own(sandbox: Sandbox) -> None:
    with_variants(
        sandbox,
        "{name: doubled_tidy, description: Written again, steps: [onnx, tidy], serving: {max_batch_size: 4}}",
        "{name: doubled_int8, steps: [{shift: {by: 0.1}}], gates: {accuracy: {max_drop: 0.05}}}",
    )
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(
        ("doubled", "doubled_tidy", "doubled_int8"), "new"
    ), outcomes
    assert "max_batch_size: 4" in sandbox.config("doubled_tidy")
    assert "max_batch_size: 8" in sandbox.config("doubled")
    manifest = sandbox.manifest("doubled_int8")
    assert manifest.verification.precision == "int8"
    assert manifest.verification.plain_metrics == {"accuracy": 1.0}
    assert manifest.metrics["accuracy"] == pytest.approx(0.99)
    assert manifest.verification.max_abs_error["y"] == pytest.approx(0.1, rel=1e-3)
    assert manifest.verification.instruction_set
    shifted = next(step for step in manifest.lineage if step.step == "shift")
    assert shifted.facts["plain"] == {"accuracy": 1.0}
    assert shifted.facts["by"] == 0.1
    assert sandbox.manifest("doubled").verification.precision == ""
    assert all(outcome.status == "unchanged" for outcome in sandbox.build().values())


def test_steps_that_variants_share_run_once(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: one, steps: [tidy]}", "{name: two, steps: [tidy], serving: {dynamic_batching: {}}}")
    sandbox.build()
    kept = [
        json.loads(path.read_text())["payload"]["step"]
        for path in (sandbox.root / ".modelwright/store").glob("*/*/artifact.json")
    ]
    assert kept.count("onnx_file") == 1
    assert kept.count("tidy") == 1
    assert kept.count("samples") == 1
    assert kept.count("baseline") == 1


def test_a_plan_says_which_steps_are_shared(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: one, steps: [tidy]}")
    output = sandbox.cli("plan").output
    assert "run   doubled samples: never built" in output
    assert "same  one samples: the same as doubled samples" in output
    assert "8 steps: 7 to run, 1 shared, 0 up to date" in output


def test_status_gives_a_shared_step_the_reason_of_the_step_that_makes_it(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: one, steps: [tidy]}", "{name: two, steps: [tidy], serving: {dynamic_batching: {}}}")
    sandbox.build()
    shutil.rmtree(sandbox.root / ".modelwright/store")
    reasons = {item.reason for item in status(sandbox.project)}
    assert reasons == {"its artifact is not in the store any more"}


def test_a_note_of_the_verification_names_the_model(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: one, steps: [ort_tensorrt], serving: {instance_group: [{kind: KIND_GPU}]}}")
    result = sandbox.cli("build")
    assert "Warning: one: verified in onnxruntime on the CPU" in result.output


def test_the_lines_between_errors_go_where_the_errors_go(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: one, steps: [shift]}", "{name: two, steps: [shift]}")
    assert not sandbox.cli("build").stdout.endswith("\n\n")


def test_a_plain_model_keeps_its_keys_when_variants_appear(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=YAML)
    (sandbox.root / "builders/doubled/data.py").write_text(EVALUATE_PY)
    before = {planned.step.id: planned.key for planned in plan(sandbox) if planned.step.model == "doubled"}
    with_variants(sandbox, "{name: doubled_tidy, steps: [tidy], evaluate: 'data:evaluate'}", evaluate="")
    after = {planned.step.id: planned.key for planned in plan(sandbox) if planned.step.model == "doubled"}
    assert before == after


def plan(sandbox: Sandbox):  # type: ignore[no-untyped-def]
    from modelwright.api import Project

    return Project(sandbox.project).plan(everything=True)


def test_an_entry_of_the_builders_own_name_changes_the_plain_model(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: doubled, steps: [tidy]}")
    assert list(sandbox.build()) == ["doubled"]
    assert [step.step for step in sandbox.manifest("doubled").lineage][-2:] == ["tidy", "verify"]


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("accuracy: {min: 0.995}", "accuracy is 0.99, the gate asks for at least 0.995"),
        ("accuracy: {min: 1.5}", "the gate asks for at least 1.5; the plain model misses it, too: 1"),
        ("accuracy: {max_drop: 0.005}", "accuracy is 0.99, the plain model's 1: it falls by 0.01, allowed 0.005"),
        ("accuracy: {max_drop: 0.005, relative: true}", "it falls by 0.01 (1.00%), allowed 0.50% of it"),
        ("tolerance: {atol: 0.05}, accuracy: {min: 0.9}", "'y' differs by 1.0e-01 from the source, allowed 5.0e-02"),
        ("size: {max_ratio: 0.5}, accuracy: {min: 0.9}", "times the plain model's size, the gate allows 0.5"),
        ("size: {max_mb: 0.0001}, accuracy: {min: 0.9}", "MB, the gate allows 0.0001 MB"),
        ("latency: {max_ratio: 0.0001}, accuracy: {min: 0.9}", "times the plain model's time, the gate allows 0.0001"),
    ],
)
def test_a_variant_that_misses_a_gate_is_not_published(sandbox: Sandbox, gate: str, says: str) -> None:
    with_variants(sandbox, f"{{name: doubled_int8, steps: [{{shift: {{by: 0.1}}}}], gates: {{{gate}}}}}")
    outcomes = sandbox.build()
    assert outcomes["doubled"].status == "new"
    assert outcomes["doubled_int8"].status == "failed"
    assert says in str(outcomes["doubled_int8"].error)
    assert not (sandbox.root / "model_repository/doubled_int8").exists()
    if says.startswith("accuracy"):
        assert "worst samples: " in str(outcomes["doubled_int8"].error)
        assert "layers that hurt most: the_sum (0.1)" in str(outcomes["doubled_int8"].error)


def test_gates_that_hold_pass(sandbox: Sandbox) -> None:
    gates = (
        "accuracy: {max_drop: 0.02}, size: {max_ratio: 3}, latency: {max_ratio: 1000, batch: 2}, tolerance: {atol: 0.2}"
    )
    with_variants(sandbox, f"{{name: doubled_int8, steps: [{{shift: {{by: 0.1}}}}], gates: {{{gates}}}}}")
    assert sandbox.build()["doubled_int8"].status == "new"
    assert sandbox.manifest("doubled_int8").verification.latency_ratio is not None


def test_evaluate_can_ask_the_plain_model(sandbox: Sandbox) -> None:
    with_variants(
        sandbox,
        "{name: moved, steps: [{shift: {by: 0.1}}], evaluate: 'data:against_source', gates: {gap: {max: 0.2}}}",
        evaluate="",
    )
    assert sandbox.build()["moved"].metrics["gap"] == pytest.approx(0.1, rel=1e-3)
    assert sandbox.manifest("moved").verification.plain_metrics == {"gap": 0.0}
    assert sandbox.manifest("doubled").metrics == {}


def test_golden_samples_are_the_variants_own(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: moved, steps: [{shift: {by: 0.1}}], gates: {accuracy: {min: 0.5}}}")
    sandbox.build()
    from modelwright.verification.golden import load_golden

    _, answers = load_golden(sandbox.root / "model_repository/moved/1/golden.npz")
    assert answers[0]["y"].tolist() == pytest.approx([2.1, 4.1])
    allowed = sandbox.manifest("moved").verification.golden
    assert allowed is not None
    assert allowed.tolerance["y"].atol == pytest.approx(1.21)  # a tenth of the largest answer


def test_models_on_request_are_built_when_they_are_named(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: doubled_tidy, on_request: true, steps: [tidy]}")
    assert {name: outcome.status for name, outcome in sandbox.build().items()} == {
        "doubled": "new",
        "doubled_tidy": "on request",
    }
    assert {item.model: item.state for item in status(sandbox.project)} == {
        "doubled": "up to date",
        "doubled_tidy": "on request",
    }
    assert "doubled_tidy" in sandbox.cli("build").output
    assert sandbox.cli("build", "--all").exit_code == 0
    assert {item.model: item.state for item in status(sandbox.project)}["doubled_tidy"] == "up to date"


def test_naming_a_builder_with_all_takes_its_variants(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: doubled_tidy, on_request: true, steps: [tidy]}")
    sandbox.onnx_builder("other")
    output = sandbox.cli("plan", "--all", "doubled").output
    assert "doubled_tidy tidy" in output
    assert "other" not in output


def test_what_cannot_be_made_here_is_skipped_with_the_reason(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: moved, steps: [{shift: {here: 'no'}}], gates: {accuracy: {min: 0.5}}}")
    result = sandbox.cli("build")
    assert result.exit_code == 0, result.output
    assert "Skipped: moved: there is no machine that shifts" in result.output
    assert sandbox.cli("build", "--require-all").exit_code == 1
    assert "there is no machine that shifts" in sandbox.cli("plan").output
    assert {item.model: item.state for item in status(sandbox.project)}["moved"] == "skipped"


def test_what_can_be_checked_of_a_skipped_model_is(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: moved, steps: [{shift: {here: checked}}], gates: {accuracy: {min: 0.5}}}")
    outcome = sandbox.build()["moved"]
    assert (outcome.status, outcome.ran) == ("skipped", True)
    assert not (sandbox.root / "model_repository/moved").exists()


def test_an_ensemble_of_a_skipped_model_is_skipped_too(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: moved, steps: [{shift: {here: 'no'}}], gates: {accuracy: {min: 0.5}}}")
    sandbox.ensemble_builder(
        yaml="""
        source: {kind: ensemble, steps: [{model_name: moved, input_map: {x: x}, output_map: {y: y}}]}
        inputs: [{name: x, dtype: FP32, shape: [2]}]
        outputs: [{name: y, dtype: FP32, shape: [2]}]
        samples: data:samples
        serving: {max_batch_size: 8}
        """
    )
    outcome = sandbox.build()["both"]
    assert (outcome.status, outcome.reason) == ("skipped", "it runs moved, which cannot be made here")


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ("{name: v, steps: [quantize_all]}", "variants[0].steps[0]: unknown technique 'quantize_all'"),
        ("{name: v, steps: [{shift: {buy: 1}}]}", "variants[0].steps[0].shift.buy: unknown field"),
        ("{name: v, steps: [{shift: {by: much}}]}", "variants[0].steps[0].shift.by: input should be a valid number"),
        ("{name: v, steps: []}", "variants[0].steps: "),
        ("{name: v, steps: [tidy, tidy]}", "tidy stands there twice"),
        ("{name: v, steps: [[tidy]]}", "a step is a name, or a name with options"),
        ("{name: v, steps: [{shift: {}, tidy: {}}]}", "a step is a name, or a name with options"),
        ("{name: v, step: [tidy]}", "variants[0].step: unknown field"),
        ("{name: v, steps: [{onnx: {opset: 17}}]}", "onnx takes no options here"),
        ("{name: v, steps: [tidy], gates: {accuracy: {relative: true, min: 1}}}", "relative: is for max_drop"),
        ("{name: v, steps: [tidy], gates: {accuracy: {}}}", "give min, max or both"),
        ("{name: v, steps: []}", "variants[0].steps: is empty: give at least 1"),
        ("{name: a/b, steps: [tidy]}", "Triton cannot serve a model named 'a/b'"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_line(sandbox: Sandbox, variant: str, says: str) -> None:
    with_variants(sandbox, variant)
    error = read_builders(sandbox.project, LOOKUPS).faulty["doubled"]
    assert isinstance(error, ModelwrightError)
    assert says in error.message
    assert "model.yaml:" in error.message


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ("{name: v, steps: [shift]}", "shift changes the answers, so it needs a gate"),
        ("{name: v, steps: [tidy, onnx]}", "tidy works on the graph that onnx makes"),
        (
            "{name: v, steps: [{stretch: {entry: 'data:samples'}}], gates: {accuracy: {min: 0}}}",
            "stretch changes a torch module",
        ),
        ("{name: v, steps: [tidy, {stretch: {entry: 'data:samples'}}]}", "write it before tidy"),
        (
            "{name: v, steps: [{stretch: {entry: 'data:nothing'}}]}",
            "stretch.entry: builders/doubled/data.py has no function",
        ),
        (
            "{name: v, steps: [tidy], serving: {max_batch: 3}}",
            "variant v: builders/doubled/model.yaml: serving.max_batch",
        ),
    ],
)
def test_a_chain_that_does_not_work_fails_that_variant_alone(sandbox: Sandbox, variant: str, says: str) -> None:
    with_variants(sandbox, variant)
    outcomes = sandbox.build()
    assert outcomes["doubled"].status == "new"
    assert outcomes["v"].status == "failed"
    assert says in str(outcomes["v"].error)


def test_the_plain_model_cannot_be_held_against_itself(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=f"{YAML.strip()}\ngates: {{size: {{max_ratio: 0.5}}}}\n")
    assert "write it in the gates of a variant" in sandbox.error()


def test_a_source_without_a_graph_has_no_variants(sandbox: Sandbox) -> None:
    from tests.conftest import PYTHON_YAML

    sandbox.python_builder(yaml=f"{PYTHON_YAML}\nvariants: [{{name: v, steps: [tidy]}}]\n")
    assert "source.kind python has no ONNX graph to start from" in sandbox.cli("plan").output


def test_two_models_of_one_name_are_refused(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: other, steps: [tidy]}")
    sandbox.onnx_builder("other")
    assert "the name 'other' is taken by" in sandbox.cli("plan").output


STRETCH_PY = """
def twice(module):
    module.scale.data *= 2
    return module


def half(module):
    module.scale.data /= 2
    return module
"""


@pytest.mark.torch
def test_techniques_on_the_module_come_before_the_export(sandbox: Sandbox) -> None:
    variants = """
evaluate: data:evaluate
variants:
  - {name: wide, steps: [{stretch: {entry: 'stretch:twice'}}, onnx, tidy], gates: {accuracy: {min: -9}}}
  - {name: same, steps: [{stretch: {entry: 'stretch:half', teacher: scaled}}], gates: {accuracy: {min: -9}}}
"""
    folder = sandbox.torch_builder(yaml=TORCH_YAML + variants)
    (folder / "data.py").write_text(EVALUATE_PY)
    (folder / "stretch.py").write_text(STRETCH_PY)
    outcomes = sandbox.build()
    assert {outcome.status for outcome in outcomes.values()} == {"new"}, outcomes
    accuracy = {name: outcome.metrics["accuracy"] for name, outcome in outcomes.items()}
    assert len(set(accuracy.values())) == 3, accuracy
    assert sandbox.manifest("wide").verification.plain_metrics == {"accuracy": pytest.approx(accuracy["scaled"])}
    assert [step.step for step in sandbox.manifest("wide").lineage] == [
        "samples", "torch", "source", "baseline", "stretch", "onnx", "tidy", "verify",
    ]  # fmt: skip


@pytest.mark.torch
def test_a_teacher_is_a_model_of_the_same_file(sandbox: Sandbox) -> None:
    variants = """
evaluate: data:evaluate
variants:
  - {name: a, steps: [{stretch: {entry: 'stretch:half', teacher: nobody}}], gates: {accuracy: {min: -9}}}
  - {name: b, steps: [{stretch: {entry: 'stretch:half', teacher: b}}], gates: {accuracy: {min: -9}}}
  - {name: c, steps: [{stretch: {entry: 'stretch:half'}}]}
  - {name: d, steps: [{stretch: {entry: 'stretch:half', teacher: e}}], gates: {accuracy: {min: -9}}}
  - {name: e, steps: [tidy]}
"""
    folder = sandbox.torch_builder(yaml=TORCH_YAML + variants)
    (folder / "data.py").write_text(EVALUATE_PY)
    (folder / "stretch.py").write_text(STRETCH_PY)
    output = sandbox.cli("plan").output
    assert "stretch.teacher: 'nobody' is no model of this file" in output
    assert "stretch.teacher: 'b' is itself" in output
    assert "stretch.teacher: 'e' differs from the plain model in its graph alone" in output
    assert "stretch makes another model, so it needs the gate of a metric" in output


@pytest.mark.parametrize("on_request", [False, True])
def test_a_technique_whose_extra_is_missing_says_which_one_to_install(sandbox: Sandbox, on_request: bool) -> None:
    with_variants(sandbox, f"{{name: v, steps: [far], on_request: {str(on_request).lower()}}}")
    error = sandbox.build("v")["v"].error
    assert error is not None
    assert error.message == "builders/doubled/model.yaml: variant v: far needs no_such_module: not installed"
    assert error.hint == "pip install 'modelwright[far]'"
    rows = {row.what: row for row in examine(Machine(sandbox.root, run=lambda *_: Ran(0)))}
    assert rows["far things"].state == ("optional" if on_request else "missing")
    assert rows["far things"].fix == "pip install 'modelwright[far]'"


def test_a_faulty_file_is_the_fault_of_all_its_models(sandbox: Sandbox) -> None:
    with_variants(sandbox, "{name: v, steps: [tidy]}", '{on_request: true, name: "w", steps: [tiddy]}')
    sandbox.onnx_builder("other", yaml=YAML)
    faulty = read_builders(sandbox.project, LOOKUPS).faulty
    assert set(faulty) == {"doubled", "v", "w"}
    result = sandbox.cli("build", "w")
    assert (result.exit_code, "unknown technique 'tiddy'" in result.output) == (1, True)
    assert sandbox.cli("build").output.count("unknown technique 'tiddy'") == 1
    assert sandbox.cli("plan").output.count("unknown technique 'tiddy'") == 1
    assert {item.model: item.state for item in status(sandbox.project)} == {
        "doubled": "faulty",
        "v": "faulty",
        "w": "faulty",
        "other": "up to date",
    }


def test_a_change_that_lets_the_server_batch_measures_the_variants_again(sandbox: Sandbox) -> None:
    """Where requests have one row, a model whose rows move each other is measured row by row."""
    gate = "gates: {accuracy: {max_drop: 0.05}}"
    with_variants(sandbox, f"{{name: doubled_int8, steps: [{{shift: {{by: 0.1}}}}], {gate}}}")

    def configs(rows: int) -> dict[str, object]:
        file = sandbox.root / "builders/doubled/model.yaml"
        file.write_text(re.sub("max_batch_size: .", f"max_batch_size: {rows}", file.read_text()))
        steps = [planned.step for planned in plan(sandbox)]
        return {step.name: step.config for step in steps if step.model == "doubled_int8"}

    eight, four, one = configs(8), configs(4), configs(1)
    assert eight == four
    assert {name for name in one if one[name] != four[name]} == {"baseline", "shift", "verify"}


@pytest.mark.parametrize(
    ("variant", "rows", "where"),
    [
        ("{steps: [tidy], gates: {latency: {max_ratio: 2, batch: 64}}", 8, "gates.latency.batch: 64 rows"),
        ("{steps: [tidy], gates: {latency: {max_ratio: 2, batch: 8}}", 0, "gates.latency.batch: 8 rows"),
        ("{steps: [{optimise: {batch: 9}}]", 8, "optimise.batch: 9 rows"),
    ],
)
def test_requests_that_the_server_does_not_take_are_not_measured(
    sandbox: Sandbox, variant: str, rows: int, where: str
) -> None:
    with_variants(sandbox, f"{variant}, name: doubled_fast, serving: {{max_batch_size: {rows}}}}}")
    found = sandbox.cli("plan").output
    assert f"variant doubled_fast: {where}, and serving.max_batch_size is {rows}\n" in found
