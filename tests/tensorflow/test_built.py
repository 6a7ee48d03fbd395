"""Real models of TensorFlow and Keras: built, verified against TensorFlow, and served by the real server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelwright.build.outcome import Outcome
from modelwright.facts.compared_with import ComparedWith
from modelwright.server.session import serve
from modelwright.triton.client import connect
from tests.conftest import Sandbox
from tests.tensorflow.conftest import STATE

pytestmark = [pytest.mark.tensorflow, pytest.mark.server]

IMAGES = """
    import numpy as np


    def images():
        return np.load("digits.npz")


    def samples():
        return {"image": images()["image"][1200:1232]}


    def evaluate(infer):
        from pathlib import Path

        data = images()
        answer = infer({"image": data["image"][1200:]})
        digit = next(iter(answer.values())).argmax(-1)
        return {"accuracy": float((digit == data["digit"][1200:]).mean())}
"""
ROWS = """
    import numpy as np


    def samples():
        return {"rows": np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)}
"""
WORDS = """
    import numpy as np


    def samples():
        return {"word": np.array([["cat"], ["dog"], ["cow"], [""]])}
"""
DIGITS_YAML = """
    source: {kind: KIND, path: PATH}
    files: [digits.npz]
    samples: data:samples
    evaluate: data:evaluate
    gates: {accuracy: {min: 0.9}}
    serving: {max_batch_size: 64, dynamic_batching: {}}
"""


MLMODELS = {
    "keras_logged": "flavors: {keras: {data: data, keras_backend: tensorflow, save_exported_model: false}}",
    "module_logged": "flavors: {tensorflow: {saved_model_dir: tf2model, model_type: tf2-module}}",
}


def logged(models: Path) -> None:
    """Folders as MLflow writes them, with a Keras model and with a module."""
    for name, text in MLMODELS.items():
        (models / name).mkdir()
        (models / name / "MLmodel").write_text(text)
    (models / "keras_logged/data").mkdir()
    (models / "keras_logged/data/keras_module.txt").write_text("keras")
    shutil.copyfile(models / "digits.keras", models / "keras_logged/data/model.keras")
    shutil.copytree(models / "two", models / "module_logged/tf2model")


def builder(sandbox: Sandbox, models: Path, model: str, path: str, yaml: str, data: str) -> None:
    folder = sandbox.write(model, model_yaml=yaml, data_py=data)
    source = models / path
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / path)
    shutil.copyfile(models / "digits.npz", folder / "digits.npz")


@pytest.fixture(scope="module")
def built(models: Path, sandbox_factory: Callable[[], Sandbox]) -> tuple[Sandbox, dict[str, Outcome]]:
    """One project with a model of each kind, built."""
    sandbox = sandbox_factory()
    (sandbox.root / ".modelwright/environments").symlink_to(STATE)
    of_keras = DIGITS_YAML.replace("KIND", "keras").replace("PATH", "digits.keras")
    builder(sandbox, models, "of_keras", "digits.keras", of_keras, IMAGES)
    saved = DIGITS_YAML.replace("KIND", "tensorflow").replace("PATH", "digits")
    builder(sandbox, models, "saved", "digits", saved, IMAGES)
    scores = (
        "source: {kind: tensorflow, path: two, signature: scores}\nsamples: data:samples\nserving: {max_batch_size: 8}"
    )
    builder(sandbox, models, "scores", "two", scores, ROWS)
    words = "source: {kind: tensorflow, path: words}\nsamples: data:samples\nserving: {max_batch_size: 8}"
    builder(sandbox, models, "words", "words", words, WORDS)
    served = "source: {kind: tf_serving, path: served}\nsamples: data:samples\nserving: {max_batch_size: 8, version_policy: {all: {}}}"
    builder(sandbox, models, "served", "served", served, ROWS)
    logged(models)
    of_mlflow = DIGITS_YAML.replace("KIND", "mlflow").replace("PATH", "keras_logged")
    builder(sandbox, models, "keras_logged", "keras_logged", of_mlflow, IMAGES)
    module = scores.replace("kind: tensorflow, path: two", "kind: mlflow, path: module_logged")
    builder(sandbox, models, "module_logged", "module_logged", module, ROWS)
    return sandbox, sandbox.build()


def test_every_model_agrees_with_tensorflow(built: tuple[Sandbox, dict[str, Outcome]]) -> None:
    sandbox, outcomes = built
    assert {name: str(outcome.error) for name, outcome in outcomes.items() if outcome.error} == {}
    for outcome in outcomes.values():
        assert outcome.compared_with is ComparedWith.SOURCE
        assert outcome.max_abs_error is not None
        assert outcome.max_abs_error < 1e-5
    assert outcomes["of_keras"].metrics["accuracy"] > 0.9
    assert outcomes["keras_logged"].metrics == outcomes["of_keras"].metrics
    assert "module_logged" in outcomes
    assert sandbox.build()["saved"].status == "unchanged"


def test_tensors_are_those_of_the_signature(built: tuple[Sandbox, dict[str, Outcome]]) -> None:
    config = built[0].config("of_keras")
    assert 'name: "image"' in config
    assert "dims: [8, 8, 1]" in " ".join(config.split()).replace("[ ", "[").replace(" ]", "]")
    assert 'name: "probabilities"' in config
    scores = built[0].config("scores")
    assert 'name: "scores"' in scores
    assert 'name: "best"' in scores


def test_versions_of_tensorflow_serving_keep_their_numbers(built: tuple[Sandbox, dict[str, Outcome]]) -> None:
    sandbox, outcomes = built
    assert outcomes["served"].published == (3, 12)
    assert sorted(sandbox.repository.versions("served")) == [3, 12]
    assert sandbox.manifest("served", 3).verification.compared_with is ComparedWith.SOURCE


def test_the_server_answers_as_tensorflow_does(built: tuple[Sandbox, dict[str, Outcome]], tmp_path: Path) -> None:
    sandbox = built[0]
    project = sandbox.project
    rows = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    with (
        serve(project.server, project.target, project.repository, log=tmp_path / "log", say=print) as served,
        connect(served.grpc, served.request_timeout_s) as client,
    ):
        assert served.refused == {}
        for version, scale in (("3", 1), ("12", 2)):
            answer = client.infer("served", {"rows": rows}, version=version)
            np.testing.assert_allclose(answer["scores"], rows @ (scale * weights - 3), rtol=1e-5, atol=1e-5)
        answer = client.infer("words", {"word": np.array([[b"dog"], [b"bird"]], dtype=object)})
        assert answer["id"].ravel().tolist() == [2, -1]
    assert sandbox.cli("build", "--replay").exit_code == 0


def test_the_same_model_gives_the_same_bytes(
    built: tuple[Sandbox, dict[str, Outcome]], sandbox_factory: Callable[[], Sandbox]
) -> None:
    other = sandbox_factory()
    (other.root / ".modelwright/environments").symlink_to(STATE)
    shutil.copytree(built[0].root / "builders/words", other.root / "builders/words")
    assert other.build()["words"].error is None
    assert other.manifest("words").version_digest == built[0].manifest("words").version_digest
