"""Python models that call other models of the project: business logic scripting, BLS."""

from __future__ import annotations

import pytest

from modelwright.build.workspace import open_workspace
from tests.conftest import DATA_PY, PYTHON_YAML, Sandbox

CALLER_PY = """
import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self._pins = json.loads(parameters["pins"]["string_value"])[args["model_version"]]

    def execute(self, requests):
        answers = []
        for request in requests:
            call = pb_utils.InferenceRequest(
                model_name="plus_one",
                model_version=self._pins["plus_one"],
                requested_output_names=["y"],
                inputs=[pb_utils.get_input_tensor_by_name(request, "x")],
            )
            reply = call.exec()
            if reply.has_error():
                raise pb_utils.TritonModelException(reply.error().message())
            y = pb_utils.get_output_tensor_by_name(reply, "y").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y * 10)]))
        return answers
"""
UNPINNED_PY = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        x = [pb_utils.get_input_tensor_by_name(request, "x") for request in requests]
        calls = [pb_utils.InferenceRequest(model_name="plus_one", requested_output_names=["y"], inputs=[t]) for t in x]
        replies = [call.exec() for call in calls]
        if any(reply.has_error() for reply in replies):
            raise pb_utils.TritonModelException(replies[0].error().message())
        y = [pb_utils.get_output_tensor_by_name(reply, "y").as_numpy() for reply in replies]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array * 10)]) for array in y]
"""
CALLER_YAML = PYTHON_YAML.replace("kind: python", "kind: python, calls: [plus_one]")
CALLER_DATA = DATA_PY + "\n\ndef reference(samples):\n    return {'y': (samples['x'] + 1) * 10}\n"


def caller(sandbox: Sandbox, yaml: str = CALLER_YAML, code: str = CALLER_PY) -> None:
    sandbox.python_builder()
    sandbox.write("caller", model_yaml=yaml, data_py=CALLER_DATA, model_py=code)


@pytest.mark.server
def test_a_called_model_is_tried_and_published_with_the_one_that_calls_it(sandbox: Sandbox) -> None:
    caller(sandbox)
    outcomes = sandbox.build("caller")
    assert {name: outcome.status for name, outcome in outcomes.items()} == {"caller": "new", "plus_one": "new"}
    assert outcomes["caller"].warnings == ()
    made = sandbox.manifest("caller").made
    assert made.composing_models == {"plus_one": sandbox.manifest("plus_one").version_digest}
    assert "caller/1/calls.json" in sandbox.published()


@pytest.mark.server
def test_a_model_that_never_reads_its_pins_is_warned_of(sandbox: Sandbox) -> None:
    caller(sandbox, code=UNPINNED_PY)
    (warning,) = sandbox.build("caller")["caller"].warnings
    assert "model.py never reads the parameter `pins`, so it runs the newest version of plus_one" in warning


@pytest.mark.server
def test_a_call_that_is_not_declared(sandbox: Sandbox) -> None:
    caller(sandbox, yaml=PYTHON_YAML, code=UNPINNED_PY)
    message = " ".join(sandbox.cli("build", "caller").output.split())
    assert "Model 'plus_one' is not ready." in message
    assert (
        "hint: declare in builders/caller/model.yaml that model.py calls plus_one: source: {kind: python, calls: ["
        in message
    )


def test_what_is_called_counts_for_the_key_and_without_calls_the_key_is_what_it_was(sandbox: Sandbox) -> None:
    caller(sandbox)
    steps = {step.id: step for step in open_workspace(sandbox.project).steps}
    assert steps["caller", "python"].needs == {"plus_one": ("plus_one", "python")}
    plain = steps["plus_one", "python"].key_content({})
    assert plain["config"] == {"model": "model.py", "files": {}, "requirements": [], "python": "3.12"}
    assert plain["inputs"] == {}
    assert steps["plus_one", "verify"].function.name == "verify_served"
