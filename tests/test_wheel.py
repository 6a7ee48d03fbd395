"""The wheel in an environment of its own: alone it lints and adopts; with its extra it builds, serves and infers."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from modelwright import Project
from modelwright.cli.main import COMMANDS
from modelwright.onnx.example import sobel_onnx
from modelwright.operations.init import init_project
from tests.conftest import ROOT, default_sigint
from tests.ports import free_ports
from tests.server.models import shared_environment
from tests.waiting import PATIENCE_S

UV = str(Path(sys.executable).parent / "uv")


def variables(environment: Path) -> dict[str, str]:
    """Of a shell where only this environment and the system are on PATH."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"PATH": f"{environment / 'bin'}:/usr/bin:/bin"}


def run(environment: Path, folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=variables(environment), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Arguments of every command, in a project with the model `edges`: what it can do alone, or says that it needs.
ARGUMENTS: dict[str, str] = {
    "init": "{other}", "build": "", "plan": "", "status": "", "versions": "edges", "diff": "edges 1 1", "history": "",
    "rollback": "edges", "promote": "edges 1 --url {url}", "retire": "edges 1 --dry-run", "restore": "edges 1",
    "gc": "--keep 1 --dry-run", "fsck": "", "sign": "", "sbom": "edges", "serve": "", "infer": "edges", "verify": "",
    "push": "{remote}", "pull": "{remote}", "track": "push edges", "diff-remote": "{remote}", "lint": "", "lock": "",
    "update": "", "new": "mine --kind onnx", "preview": "edges", "adopt": "model_repository", "export-schema": "",
    "doctor": "", "load": "run edges", "bench": "edges", "pick": "edges --objective latency",
    "rollout": "edges 1 --canary {url}",
}  # fmt: skip
NEEDS_MORE = {
    "build": "build", "bench": "build", "serve": "client", "infer": "client", "verify": "client", "promote": "client",
    "load": "load", "rollout": "load", "sign": "signing", "track": "mlflow",
}  # fmt: skip
# In one process: a start for each command would take as long as all of them.
RUN_ALL = """
import json, sys
from click.testing import CliRunner
from modelwright.cli.main import main
def run(command):
    done = CliRunner().invoke(main, command, prog_name="modelwright")
    ended = done.exception is None or isinstance(done.exception, SystemExit)
    return done.output if ended else repr(done.exception)
print(json.dumps({command[0]: run(command) for command in json.load(sys.stdin)}))
"""
BIG = {"aiohttp", "grpcio", "numpy", "onnx", "onnxruntime", "pygments", "torch", "tritonclient"}
ENSEMBLE = """platform: "ensemble"
max_batch_size: 0
input [{ name: "image", data_type: TYPE_FP32, dims: [ -1, 1, -1, -1 ] }]
output [{ name: "edges", data_type: TYPE_FP32, dims: [ -1, 1, -1, -1 ] }]
ensemble_scheduling { step [
  { model_name: "plain" model_version: -1 input_map { key: "image" value: "image" } output_map { key: "image" value: "same" } },
  { model_name: "sobel" model_version: -1 input_map { key: "image" value: "same" } output_map { key: "edges" value: "edges" } }
] }
"""
PLAIN = """backend: "python"
max_batch_size: 0
input [{ name: "image", data_type: TYPE_FP32, dims: [ -1, 1, -1, -1 ] }]
output [{ name: "image", data_type: TYPE_FP32, dims: [ -1, 1, -1, -1 ] }]
"""
SOBEL = """backend: "onnxruntime"
max_batch_size: 0
input [{ name: "image", data_type: TYPE_FP32, dims: [ -1, 1, -1, -1 ] }]
output [{ name: "edges", data_type: TYPE_FP32, dims: [ -1, 1, -1, -1 ] }]
"""


def repository_of_three(root: Path) -> Path:
    """A Python model, an ONNX file and the ensemble of both; nothing of it was built by Modelwright."""
    files = {
        "all/config.pbtxt": ENSEMBLE,
        "plain/config.pbtxt": PLAIN,
        "plain/1/model.py": "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n",
        "sobel/config.pbtxt": SOBEL,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "all/1").mkdir()
    (root / "sobel/1").mkdir()
    (root / "sobel/1/model.onnx").write_bytes(sobel_onnx())
    return root


def run_on_terminal(environment: Path, folder: Path, *command: str) -> str:
    """Where tables and progress are drawn with what the wheel alone does not bring."""
    here, there = pty.openpty()
    done = subprocess.run(command, cwd=folder, env=variables(environment), stdout=there, stderr=there)
    os.close(there)
    with os.fdopen(here, "rb") as terminal:
        text = terminal.read1(100_000).decode()
    assert done.returncode == 0, text
    return text


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(folder, folder, UV, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it depends on, without any extra."""
    folder = tmp_path_factory.mktemp("bare")
    return installed(folder, str(wheel))


def installed(folder: Path, requirement: str) -> Path:
    run(folder, folder, UV, "venv", "--quiet", "--python", sys.executable, "env")
    pins = ("--constraint", str(ROOT / "constraints.txt"))
    run(folder, folder, UV, "pip", "install", "--quiet", "--python", "env/bin/python", *pins, requirement)
    return folder / "env"


def test_the_wheel_alone_lints_and_adopts(bare: Path, tmp_path: Path) -> None:
    packages = json.loads(run(bare, tmp_path, UV, "pip", "list", "--quiet", "--python", str(bare), "--format", "json"))
    assert BIG.isdisjoint(package["name"] for package in packages)
    models = repository_of_three(tmp_path / "models")
    assert run(bare, tmp_path, "modelwright", "lint", "models").startswith("clean: 3 models for ")
    run(bare, tmp_path, "modelwright", "init", "project")
    adopted = run_on_terminal(bare, tmp_path / "project", "modelwright", "adopt", str(models))
    assert re.findall(r"^(\w+) +adopted", adopted, re.MULTILINE) == ["all", "plain", "sobel"]
    (models / "sobel/config.pbtxt").write_text(SOBEL.replace('"edges"', '"corners"'))
    found = subprocess.run(["modelwright", "lint", "models"], cwd=tmp_path, env=variables(bare), capture_output=True)
    assert found.returncode == 1
    assert b"model.onnx has no output 'corners'" in found.stdout  # the file was read


@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 1)])
def test_the_github_action_lints(bare: Path, tmp_path: Path, strict: str, code: int) -> None:
    models = repository_of_three(tmp_path / "with space/models")
    with (models / "sobel/config.pbtxt").open("a") as config:
        config.write("dynamic_batching { }\n")  # a warning: max_batch_size is 0
    (tmp_path / "modelwright").symlink_to(bare)  # what its step before makes
    given = {"path": "with space/models", "target": "26.07", "strict": strict, "sarif": "lint.sarif"}
    done = run_step("Lint", given, tmp_path, variables(bare) | {"RUNNER_TEMP": str(tmp_path)})
    assert done.returncode == code, done.stdout + done.stderr
    assert "::warning file=with space/models/sobel/config.pbtxt,line=" in done.stdout
    assert json.loads((tmp_path / "lint.sarif").read_text())["version"] == "2.1.0"


def run_step(name: str, inputs: dict[str, str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A step of action.yml as GitHub runs it: `shell: bash` is these arguments, inputs without a value are defaults."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = (step for step in action["runs"]["steps"] if step.get("name") == name)
    values = {key: str(given["default"]) for key, given in action["inputs"].items()} | inputs
    given = {key: values[text.removeprefix("${{ inputs.").removesuffix(" }}")] for key, text in step["env"].items()}
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(bash, cwd=folder, env=env | given, capture_output=True, text=True)


def test_every_command_of_the_wheel_alone_works_or_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    assert set(ARGUMENTS) == set(COMMANDS)
    init_project(tmp_path / "project")
    Project.find(tmp_path / "project").build()
    places = {"other": str(tmp_path / "other"), "remote": str(tmp_path / "remote"), "url": "http://127.0.0.1:1"}
    commands = [[name, *text.format(**places).split()] for name, text in ARGUMENTS.items()]
    done = subprocess.run(
        [str(bare / "bin/python"), "-c", RUN_ALL],
        cwd=tmp_path / "project",
        env=variables(bare),
        input=json.dumps(commands),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout)
    needs = {
        name: re.search(r"^  hint: .*install .*'modelwright\[(\w+)\]'$", text, re.MULTILINE)
        for name, text in outputs.items()
    }
    assert {name: found[1] for name, found in needs.items() if found} == NEEDS_MORE, outputs
    assert [name for name, text in outputs.items() if "Error(" in text] == []


def test_the_wheel_holds_what_init_writes(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    starter = {path.name for path in (ROOT / "modelwright/starter").iterdir()}
    assert {f"modelwright/starter/{name}" for name in (*starter, "locustfile.py")} <= names
    assert {"modelwright/templates/config.pbtxt.j2", "modelwright/schemas/model.schema.json"} <= names


@pytest.mark.server
def test_who_installs_the_wheel_has_a_served_model_in_four_commands(wheel: Path, tmp_path: Path) -> None:
    env, project = installed(tmp_path, f"{wheel}[build]"), tmp_path / "models"
    assert "Next:\n  cd models\n  modelwright build  " in run(env, tmp_path, "modelwright", "init", "models")
    (project / ".modelwright").mkdir()
    (project / ".modelwright/server").symlink_to(shared_environment().root.parent)  # a download of 100 MB, made once
    assert "\n  modelwright infer edges  " in run(env, project, "modelwright", "build")
    http, grpc, metrics = map(str, free_ports(3))
    ports = ("--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
    serve = subprocess.Popen(
        ["modelwright", "serve", *ports],
        cwd=project,
        env=variables(env),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=default_sigint,
    )
    try:
        assert serve.stdout is not None
        lines = list(iter_until(serve.stdout, "Ctrl-C stops it"))
        assert "  edges version 1\n" in lines
        answer = run(env, project, "modelwright", "infer", "edges", "--url", f"http://127.0.0.1:{http}")
        assert answer.startswith("edges edges: float32 [1, 1, 24, 24] [")
        serve.send_signal(signal.SIGINT)
        assert serve.wait(PATIENCE_S) == 128 + signal.SIGINT
        serve.stdout.close()
    finally:
        serve.kill()  # a test that fails leaves no server behind


def iter_until(lines: Iterable[str], last: str) -> Iterator[str]:
    for line in lines:
        yield line
        if last in line:
            return
