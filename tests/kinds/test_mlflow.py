"""source.kind mlflow: by a folder that MLflow wrote, and by a registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.kinds.mlmodel import FILE, of_detail, parse_mlmodel
from modelwright.steps.sources.mlflow_child import fetched
from tests.conftest import DATA_PY, Sandbox, doubling_onnx
from tests.ports import free_port
from tests.wheels import make_wheel, only_index

MLMODEL = """\
flavors:
  onnx: {data: model.onnx, onnx_version: 1.21.0}
  python_function: {loader_module: mlflow.onnx}
signature:
  inputs: '[{"name": "x", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]'
  outputs: '[{"name": "y", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]'
"""
PYTHON = "flavors: {{python_function: {{loader_module: {}}}}}\n"
PICKLED = PYTHON.replace("{}", "mlflow.pyfunc.model, python_model: {}, artifacts: {}")
COLUMNS = """signature: {inputs: '[{"name": "x", "type": "double"}]'}\n"""
YAML = "source: {kind: mlflow, path: saved}\nsamples: data:samples\nserving: {max_batch_size: 8}\n"
TENSORS = "inputs: [{name: x, dtype: FP32, shape: [2]}]\noutputs: [{name: y, dtype: FP32, shape: [2]}]\n"
TRUSTED = YAML.replace("saved}", "saved, trusted: true}") + TENSORS


def saved(sandbox: Sandbox, mlmodel: str = MLMODEL, yaml: str = YAML) -> Path:
    """A builder around a folder as MLflow writes it, with a real graph."""
    folder = sandbox.write("net", model_yaml=yaml, data_py=DATA_PY)
    (folder / "saved").mkdir(exist_ok=True)
    (folder / "saved" / FILE).write_text(mlmodel)
    doubling_onnx(folder / "saved/model.onnx")
    return folder


def test_a_folder_with_a_graph_is_published_as_it_is(sandbox: Sandbox) -> None:
    folder = saved(sandbox, yaml=YAML + TENSORS)
    assert sandbox.build()["net"].status == "new"
    version = sandbox.root / "model_repository/net/1/model.onnx"
    assert version.read_bytes() == (folder / "saved/model.onnx").read_bytes()
    doubling_onnx(folder / "saved/model.onnx", 3.0)
    assert sandbox.build()["net"].version == 2


@pytest.mark.parametrize(
    ("mlmodel", "yaml", "message"),
    [
        ("flavors: [", YAML, "saved/MLmodel: damaged: while parsing"),
        ("- 1", YAML, "saved/MLmodel: damaged: it names no flavors"),
        (MLMODEL.replace("[-1, 2]", "[-1, 2"), YAML, "signature.inputs: damaged"),
        ("flavors: {spark: {}}", YAML, "has no flavour that is taken: it has spark\n  hint: taken are onnx, sklearn"),
        (MLMODEL, YAML.replace("saved}", "saved, flavor: pytorch}"), "has no flavour pytorch: it has onnx, python_fun"),
        (MLMODEL, YAML + TENSORS.replace("x,", "z,"), "inputs: its signature has no 'z', but 'x'"),
        (
            MLMODEL,
            YAML + TENSORS.replace("[2]", "[3]"),
            "inputs: its signature says that 'x' is FP32 [2], and model.yaml FP32 [3]",
        ),
        (MLMODEL.replace("data: model.onnx", "data: ../model.yaml"), YAML, "names the file '../model.yaml', which is not"),
        (MLMODEL.replace("data: model.onnx", "data: other.onnx"), YAML, "names the file 'other.onnx', which is not"),
        ("flavors: {tensorflow: {data: ../x}}", YAML, "names the folder '../x', which is not in it"),
        (PYTHON.format("mlflow.spark"), YAML, "its python_function is loaded by mlflow.spark, and not as a PythonModel"),
        (PYTHON.format("mlflow.pyfunc.model, model_code_path: x.py"), YAML, "it is a model from code, which asks MLflow"),
        (PYTHON.format("mlflow.pyfunc.model") + COLUMNS, YAML, "its signature has columns of a data frame"),
        (PICKLED.format("../x", "{}"), TRUSTED, "names the file '../x', which is not in the folder"),
        (PICKLED.format("model.onnx", "{a: 1}"), TRUSTED, "MLmodel: artifacts: damaged"),
        (PICKLED.format("model.onnx", "{a: {path: /etc/hosts}}"), TRUSTED, "names '/etc/hosts', which is not in the"),
        (PYTHON.format("mlflow.pyfunc.model"), YAML, "its signature does not name the inputs as tensors"),
        (
            PYTHON.format("mlflow.pyfunc.model"),
            YAML.replace("saved}", "saved, requirements: [mlflow==3.1]}") + TENSORS,
            "requirements: mlflow==3.1: MLflow is not vendored",
        ),
        (MLMODEL, YAML.replace("saved}", "saved, requirements: [safe]}"), "requirements are of the flavour python_func"),
        ("flavors: {keras: {data: .}}", YAML, "'.' has none of model.keras, model.h5, model"),
        (MLMODEL, YAML.replace("path: saved", "path: nowhere"), "nowhere"),
        (MLMODEL, YAML.replace("path: saved", "model: models:/net"), "'models:/net' names no model of a registry"),
        (MLMODEL, YAML.replace("path: saved", "model: 'runs:/1/../x'"), "'runs:/1/../x' names no model of a registry"),
        (MLMODEL, YAML.replace("path: saved", "trusted: yes"), "give either model or path"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_publishes_nothing(sandbox: Sandbox, mlmodel: str, yaml: str, message: str) -> None:
    saved(sandbox, mlmodel, yaml)
    assert message in sandbox.error()


def test_custom_objects_of_keras_are_not_loaded(sandbox: Sandbox) -> None:
    folder = saved(sandbox, "flavors: {keras: {data: data}}") / "saved/data"
    folder.mkdir()
    for name in ("model.keras", "custom_objects.cloudpickle"):
        (folder / name).write_bytes(b"")
    assert "its custom objects are a pickle, which is not loaded: custom_objects.cloudpickle" in sandbox.error()


def test_a_lock_keeps_what_counts_of_an_mlmodel() -> None:
    model = parse_mlmodel(MLMODEL, "here")
    kept = of_detail(model.as_detail(), "lock")
    assert (kept.flavors, kept.inputs, kept.outputs) == (model.flavors, model.inputs, model.outputs)
    assert kept.inputs[0].dims == (-1, 2)


def test_new_from_a_folder_builds(sandbox: Sandbox) -> None:
    folder = saved(sandbox) / "saved"
    (sandbox.root / "given").mkdir()
    for file in folder.iterdir():
        file.rename(sandbox.root / "given" / file.name)
    (folder.parent / "model.yaml").unlink()
    done = sandbox.cli("new", "taken", "--from", str(sandbox.root / "given"))
    assert done.exit_code == 0, done.output
    assert "Saw an MLflow model of the flavours onnx, python_function, taken as onnx" in done.output
    assert sandbox.build("taken")["taken"].status == "new"


# --- with MLflow ------------------------------------------------------------------------------------------------------

LOGGED = """
import sys
import mlflow, numpy as np, onnx
from mlflow.models import infer_signature
uri, folder = sys.argv[1:3]
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
mlflow.set_experiment(experiment_id=mlflow.create_experiment("logged", artifact_location=f"file://{folder}/files"))
x = np.zeros((3, 2), np.float32)
with mlflow.start_run():
    for file in sys.argv[3:]:
        mlflow.onnx.log_model(onnx.load(file), name="net", registered_model_name="net", signature=infer_signature({"x": x}, {"y": x}), pip_requirements=[])
client = mlflow.MlflowClient()
client.set_registered_model_alias("net", "champion", "1")
client.set_registered_model_alias("net", "latest-tested", "2")
"""
SAVED = """
import sys
import mlflow, numpy as np, torch
from sklearn.linear_model import LogisticRegression
from mlflow.models import infer_signature
folder = sys.argv[1]
random = np.random.default_rng(0)
x, y = random.random((64, 2), dtype=np.float32), np.tile([0, 1], 32)
x[:, 0] += y
mlflow.sklearn.save_model(LogisticRegression().fit(x, y), f"{folder}/skops", pip_requirements=[])
mlflow.sklearn.save_model(LogisticRegression().fit(x, y), f"{folder}/pickled", serialization_format="pickle", pip_requirements=[])
module = torch.nn.Linear(2, 2)
torch.nn.init.eye_(module.weight)
torch.nn.init.zeros_(module.bias)
mlflow.pytorch.save_model(module, f"{folder}/torch", serialization_format="pickle", pip_requirements=[])
"""


def run_mlflow(code: str, *arguments: str) -> None:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry in which MLflow itself logged two versions of a model."""
    folder = tmp_path_factory.mktemp("registry")
    graphs = [folder / "one.onnx", folder / "two.onnx"]
    for factor, graph in enumerate(graphs, start=2):
        doubling_onnx(graph, float(factor))
    uri = f"sqlite:///{folder}/mlflow.db"
    run_mlflow(LOGGED, uri, str(folder), *map(str, graphs))
    return uri


def move(registry: str, alias: str, version: int) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(registry, registry).set_registered_model_alias("net", alias, str(version))


@pytest.mark.mlflow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of MLflow's own libraries
def test_an_alias_stays_what_it_was_until_it_is_updated(sandbox: Sandbox, registry: str) -> None:
    toml = sandbox.root / "modelwright.toml"
    toml.write_text(f'{toml.read_text()}\n[tracking]\nuri = "{registry}"\n')
    done = sandbox.cli("new", "net", "--from", "models:/net@champion")
    assert done.exit_code == 0, done.output
    assert sandbox.build()["net"].version == 1
    lock = sandbox.root / "builders/net/source.lock"
    assert "\nresolved: models:/net/1\n" in lock.read_text()
    move(registry, "champion", 2)
    (sandbox.project.store).rename(sandbox.root / "gone")  # built again, from nothing: the same
    assert sandbox.build()["net"].status == "unchanged"
    done = sandbox.cli("update", "net")
    assert "models:/net@champion: version 1 → 2" in done.output
    assert sandbox.build()["net"].version == 2
    sandbox.write("net", model_yaml=YAML.replace("path: saved", "model: models:/net@nope"))
    assert "the model net has no alias 'nope': it has @champion, @latest-tested" in sandbox.error()
    for uri, message in (
        ("models:/other/1", "there is no model 'other' in the registry: net"),
        ("models:/net/7", "the model net has no version 7: it has 1, 2"),
    ):
        with pytest.raises(Exception, match=message):
            fetched(uri, registry, str(sandbox.root))
    toml.write_text(toml.read_text().replace(registry, f"http://127.0.0.1:{free_port()}"))
    assert "the registry does not answer" in sandbox.error()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    run_mlflow(SAVED, str(folder))
    return folder


ESTIMATOR_YAML = YAML + (
    "inputs: [{name: x, dtype: FP32, shape: [2]}]\n"
    "outputs: [{name: label, dtype: INT64, shape: []}, {name: probabilities, dtype: FP32, shape: [2]}]\n"
)


@pytest.mark.mlflow
@pytest.mark.torch
def test_estimators_and_modules_are_converted_and_no_pickle_is_loaded_untrusted(
    sandbox_factory: Callable[[], Sandbox], folders: Path
) -> None:
    sandbox = sandbox_factory()

    def builder(name: str, yaml: str, saved_as: str, trusted: bool = False) -> Any:
        folder = sandbox.write(
            name, model_yaml=yaml.replace("saved}", "saved, trusted: true}" if trusted else "saved}"), data_py=DATA_PY
        )
        if not (folder / "saved").exists():
            shutil.copytree(folders / saved_as, folder / "saved")
        return sandbox.build(name)[name]

    assert builder("skops", ESTIMATOR_YAML, "skops").error is None
    refused = builder("pickled", ESTIMATOR_YAML, "pickled").error
    assert "is a pickle, which can run any code when it is loaded" in str(refused)
    assert builder("pickled", ESTIMATOR_YAML, "pickled", trusted=True).error is None
    refused = builder("module", YAML + TENSORS, "torch").error
    assert "a pickle, which can run any code when it is loaded" in str(refused)
    assert "if you trust whoever made it: source.trusted: true" in str(refused)
    assert builder("module", YAML + TENSORS, "torch", trusted=True).error is None


SCALER = """
import mlflow, numpy as np

class Scaler(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        import safe

        assert safe.VERSION == "2.0"
        self.factor = float(open(context.artifacts["factor"]).read()) * context.model_config["more"]

    def predict(self, context, model_input, params=None):
        x, words = model_input["x"], model_input["word"]
        return {"y": x.astype(np.float64) * self.factor, "loud": np.char.upper(words.astype(str))}
"""
SAVE_SCALER = """
import sys, types
import mlflow, numpy as np
from mlflow.models import infer_signature
folder = sys.argv[1]
sys.path.insert(0, folder)
sys.modules["safe"] = types.ModuleType("safe")
sys.modules["safe"].VERSION = "2.0"
from scaler import Scaler
with open(f"{folder}/factor.txt", "w") as file:
    file.write("3")
given = {"x": np.ones((3, 2), np.float32), "word": np.array([["a"], ["b"], ["c"]])}
answer = {"y": given["x"], "loud": given["word"]}
common = {"artifacts": {"factor": f"{folder}/factor.txt"}, "signature": infer_signature(given, answer), "model_config": {"more": 2}}
mlflow.pyfunc.save_model(f"{folder}/model", python_model=Scaler(), code_paths=[f"{folder}/scaler.py"], pip_requirements=["safe>=1", "mlflow", "numpy"], **common)
answers = mlflow.pyfunc.load_model(f"{folder}/model").predict(given)
assert answers["y"].tolist() == [[6.0, 6.0]] * 3 and answers["loud"].tolist() == [["A"], ["B"], ["C"]]
class Plain(mlflow.pyfunc.PythonModel):
    def predict(self, model_input):
        return model_input
mlflow.pyfunc.save_model(f"{folder}/compiled", python_model=Plain(), pip_requirements=[], **common)
logging = Scaler()
logging.log = mlflow.log_metric
mlflow.pyfunc.save_model(f"{folder}/logging", python_model=logging, pip_requirements=[], **common)
"""
SCALER_DATA = """
import numpy as np

def samples():
    return {"x": np.arange(6, dtype=np.float32).reshape(3, 2), "word": np.array([["a"], ["ä"], [""]], object)}

def reference(inputs):
    return {"y": inputs["x"] * 6, "loud": np.array([[b"A"], ["Ä".encode()], [b""]], object)[: len(inputs["x"])]}
"""


@pytest.mark.mlflow
@pytest.mark.server
def test_a_python_model_is_served_without_mlflow(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_index(monkeypatch, tmp_path / "index")
    make_wheel(tmp_path / "index", "safe", "2.0")
    (tmp_path / "scaler.py").write_text(SCALER)
    run_mlflow(SAVE_SCALER, str(tmp_path))
    done = sandbox.cli("new", "scaler", "--from", str(tmp_path / "model"))
    assert "of its requirements.txt these are not vendored: mlflow, numpy" in done.output
    file = sandbox.root / "builders/scaler/model.yaml"
    file.with_name("data.py").write_text(SCALER_DATA)
    file.write_text(file.read_text() + "reference: data:reference\n")
    assert "is a PythonModel, a pickle, which can run any code when it is loaded" in sandbox.error()
    file.write_text(file.read_text().replace("kind: mlflow", "kind: mlflow, trusted: true"))
    outcome = sandbox.build()["scaler"]
    assert outcome.status == "new", outcome.error
    manifest = sandbox.manifest("scaler")
    assert manifest.made.requirements == ("safe==2.0",)
    assert manifest.verification.max_abs_error == {"y": 0.0, "loud": 0.0}
    assert sandbox.build()["scaler"].status == "unchanged"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    is_target = python == sandbox.project.target.python
    for saved_as, message in (
        ("logging", "the model refers to mlflow.tracking.fluent, and MLflow itself is not vendored"),
        ("compiled", "needs cloudpickle to be loaded" if is_target else f"holds code that Python {python} compiled"),
    ):
        shutil.rmtree(file.parent / "mlflow_model")
        shutil.copytree(tmp_path / saved_as, file.parent / "mlflow_model")
        assert message in sandbox.error()
