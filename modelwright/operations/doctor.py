"""What works on this machine, what does not, and how to fix it.

Each check looks at one thing and returns rows. They run in parallel: most of the time goes into starting programs.
Libraries are imported in a Python process of their own: an installed library may not work, and this process must not
load torch.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from modelwright import __version__, extras, tools
from modelwright.environments.interpreters import Interpreter
from modelwright.environments.own import find as find_environment
from modelwright.errors import ProjectError, ProjectNotFoundError, ServerError
from modelwright.kinds.kind import Needs
from modelwright.kinds.registry import Registered, registered
from modelwright.programs import Ran, run_program
from modelwright.project.project import ProjectConfig, find
from modelwright.project.spec import Builder
from modelwright.server import environment
from modelwright.server.environment import Host, unsupported_reason
from modelwright.server.interpreters import usable
from modelwright.server.native import NativeServer, find_native
from modelwright.text import counted, size
from modelwright.tracking.outbox import Outbox
from modelwright.triton.releases import Release
from modelwright.variants import registry as techniques
from modelwright.variants.placement import place
from modelwright.variants.places import NoPlace, PlanMachine, WantedPlans
from modelwright.variants.places_kubernetes import KUBERNETES, problems
from modelwright.variants.techniques.tensorrt import RTX

State = Literal["ok", "missing", "broken", "optional"]

_IMPORT_TIMEOUT_S = 30.0  # a cold disk can take torch this long
_TOOL_TIMEOUT_S = 5.0  # a docker client waits longer for an engine that hangs
_OLDEST_PYTHON = (3, 10)
_LEAST_FREE_BYTES = 1_000_000_000  # the server's environment takes 0.3 GB, its download and a build as much again
_DOCKER = "only needed here for: docker compose up triton"


@dataclass(frozen=True)
class Row:
    """The result of one check.

    `missing`: not installed, and this project uses it. `broken`: installed, and does not work. `optional`: not
    installed, and not used. `needed`: a build on the CPU or the local server does not work without it. An `ok` row with
    a fix is a warning.
    """

    what: str
    state: State
    detail: str
    fix: str = ""
    needed: bool = False


def installed_version(module: str) -> str | None:
    """The version of a module's distribution, '' where that has another name, None where there is no such module."""
    return tools.version(module) or ("" if find_spec(module) else None)


@dataclass(frozen=True)
class Machine:
    """The machine that is examined, and how to ask it: tests replace the functions."""

    folder: Path  # where to look for the project
    run: Callable[[Sequence[str], float, Mapping[str, str] | None], Ran] = run_program
    installed: Callable[[str], str | None] = installed_version  # import name → version
    interpreters: Callable[[Release, str | None], tuple[list[Interpreter], list[str]]] = usable
    registered: Callable[[], Registered] = registered  # the source kinds that there are
    plans: PlanMachine = field(default_factory=PlanMachine)  # what places of TensorRT plans ask
    host: Host = field(default_factory=Host.current)
    python: tuple[int, int, int] = sys.version_info[:3]
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
    device: Callable[[Path], int] = lambda path: path.stat().st_dev
    writable: Callable[[Path], bool] = lambda path: os.access(path, os.W_OK | os.X_OK)

    @cached_property
    def _found(self) -> ProjectConfig | ProjectError:
        try:
            return find(self.folder)
        except ProjectError as error:
            return error

    @property
    def project(self) -> ProjectConfig | None:
        return self._found if isinstance(self._found, ProjectConfig) else None

    @property
    def project_error(self) -> ProjectError | None:
        return self._found if isinstance(self._found, ProjectError) else None

    @cached_property
    def builders(self) -> list[Builder]:
        """The project's builders, as far as they can be read."""
        from modelwright.operations.scaffold import readable_builders

        return readable_builders(self.project) if self.project else []

    @property
    def kinds(self) -> frozenset[str]:
        """The source kinds of the project's builders."""
        return frozenset(builder.spec.source.kind for builder in self.builders)

    @property
    def techniques(self) -> frozenset[str]:
        """The techniques of variants that every build makes: those on request can wait for what they need."""
        variants = [variant for builder in self.builders for variant in builder.spec.variants if not variant.on_request]
        return frozenset(step.name for variant in variants for step in variant.steps)


def examine(machine: Machine) -> list[Row]:
    """Look at everything; install nothing."""
    _ = machine.builders  # read once, before threads ask for it
    with ThreadPoolExecutor(len(_CHECKS)) as pool:
        return [row for rows in pool.map(lambda check: check(machine), _CHECKS) for row in rows]


def failing(rows: Sequence[Row]) -> bool:
    """Whether a build on the CPU, or the local server, cannot work."""
    return any(row.needed and row.state in ("missing", "broken") for row in rows)


# --- the checks -------------------------------------------------------------------------------------------------------


def _python(machine: Machine) -> list[Row]:
    version = ".".join(map(str, machine.python))
    if machine.python < _OLDEST_PYTHON:
        return [Row("python", "broken", version, "make the environment with Python 3.10 or later", needed=True)]
    return [Row("python", "ok", f"{version}, {sys.prefix}", needed=True)]


def _modelwright(machine: Machine) -> list[Row]:
    return [Row("modelwright", "ok", __version__, needed=True)]


def _project(machine: Machine) -> list[Row]:
    project, error = machine.project, machine.project_error
    if project:
        target = project.target
        return [Row("project", "ok", f"{project.root}, for Triton {target.name} (onnxruntime {target.onnxruntime})")]
    assert error is not None
    if isinstance(error, ProjectNotFoundError):
        return [Row("project", "missing", f"{error.message}; what depends on one was not looked at", error.hint)]
    return [Row("project", "broken", error.message, error.hint, needed=True)]


def _onnxruntime(machine: Machine) -> list[Row]:
    rows = _libraries(machine, "onnxruntime", ("onnxruntime",), extras.install("build"), needed=True)
    version, project = machine.installed("onnxruntime"), machine.project
    if rows[0].state == "ok" and project and version != project.target.onnxruntime:
        wanted = project.target.onnxruntime
        detail = f"{version}, but Triton {project.target.name} has {wanted}: models are verified with another one"
        return [Row("onnxruntime", "ok", detail, f"pip install onnxruntime=={wanted}", needed=True)]
    return rows


def _onnx(machine: Machine) -> list[Row]:
    return _libraries(machine, "onnx", ("onnx",), extras.install("build"), needed=True)


def _client(machine: Machine) -> list[Row]:
    return _libraries(machine, "tritonclient", ("tritonclient",), extras.install("client"), needed=True)


def _kinds(machine: Machine) -> list[Row]:
    """What source kinds need beside Modelwright's own dependencies, and the kinds that other distributions bring."""
    known = machine.registered()
    rows = [
        _needs_row(
            machine, needs, any(name in machine.kinds for name, kind in known.kinds.items() if needs in kind.needs)
        )
        for needs in dict.fromkeys(needs for kind in known.kinds.values() for needs in kind.needs)
    ]
    rows += [Row(f"kind {name}", "ok", distribution) for name, distribution in known.distributions.items()]
    return rows + [Row("kind", "broken", error.message, error.hint) for error in known.problems]


def _environments(machine: Machine) -> list[Row]:
    """The environments of their own in which steps of the project's kinds run."""
    kinds = machine.registered().kinds
    project, rows = machine.project, []
    for wanted in dict.fromkeys(kind.environment for kind in kinds.values() if kind.environment):
        users = [name for name, kind in kinds.items() if kind.environment == wanted]
        made = find_environment(project.environments, wanted) if project else None
        if made:
            rows.append(Row(wanted.name, "ok", f"in an environment of its own, for Python {made.python_version}"))
            continue
        if machine.kinds.isdisjoint(users):
            continue
        detail = f"its own environment is not made yet, for source.kind {', '.join(users)}"
        fix = f"the first build of such a model makes it, once: {wanted.size}"
        if not wanted.preferred_python:
            fix = f"install a Python from 3.{wanted.minors.start} to 3.{wanted.minors.stop - 1}"
        rows.append(Row(wanted.name, "missing", detail, fix))
    return rows


def _techniques(machine: Machine) -> list[Row]:
    """What techniques of variants need beside that."""
    of_kinds = {needs for kind in machine.registered().kinds.values() for needs in kind.needs}
    found = [technique for technique in map(techniques.find, techniques.names()) if technique.needs]
    wanted = dict.fromkeys(needs for technique in found for needs in technique.needs if needs not in of_kinds)
    users = {needs: {technique.name for technique in found if needs in technique.needs} for needs in wanted}
    return [_needs_row(machine, needs, not machine.techniques.isdisjoint(users[needs])) for needs in wanted]


def _needs_row(machine: Machine, needs: Needs, needed: bool) -> Row:
    fix = f"pip install '{needs.install}'"
    row = _libraries(machine, needs.name, needs.modules, fix, needed, needs.details)[0]
    absent = [name.replace("_", "-") for name in needs.suggested if machine.installed(name) is None]
    if row.state == "ok" and absent:
        return replace(row, detail=f"{row.detail}; without {' and '.join(absent)}", fix=fix)
    return row


def _tensorrt(machine: Machine) -> list[Row]:
    fix = "pip install 'modelwright[tensorrt]'; its libraries come from NVIDIA's own package index"
    row = _libraries(machine, "tensorrt", ("tensorrt",), fix, needed=False)[0]
    if row.state == "optional":
        row = Row("tensorrt", "optional", "not installed: no TensorRT plans from this machine", fix)
    check = _libraries(machine, "tensorrt check", RTX.modules, f"pip install '{RTX.install}'", needed=False)[0]
    return [row, *(_plans(machine, machine.project) if machine.project else []), check]


def _mlflow(machine: Machine) -> list[Row]:
    """MLflow, and what it has not recorded yet."""
    tracks = machine.project is not None and machine.project.tracking.mlflow
    row = _libraries(machine, "mlflow", ("mlflow",), "pip install 'modelwright[mlflow]'", needed=tracks)[0]
    if machine.project is None or not tracks or row.state != "ok":
        return [row]
    waiting = len(Outbox.of(machine.project.state).waiting())
    where = f"{row.detail}; builds are recorded in {machine.project.tracking.shown}"
    if waiting:
        return [replace(row, detail=f"{where}: {counted(waiting, 'record')} waiting", fix="modelwright track")]
    return [replace(row, detail=where)]


def _plans(machine: Machine, project: ProjectConfig) -> list[Row]:
    """Where TensorRT plans are built, or why nowhere; and what a cluster lacks that is to build them."""
    found = place(WantedPlans(project.target), project.plan_places, machine.plans)
    if isinstance(found, NoPlace):
        state: State = "optional" if project.plan_places.plan_builder in ("auto", "none") else "missing"
        return [Row("tensorrt plans", state, f"not built: {found.text}", "docs/tensorrt.md says what each place needs")]
    row = Row("tensorrt plans", "ok", f"{found.name}: {found.why}")
    if found.name != KUBERNETES:
        return [row]
    lacks = problems(project.plan_places.kubernetes, machine.plans.run)
    return [row, *(Row("tensorrt plans", "broken", f"{KUBERNETES}: {what}", fix) for what, fix in lacks)]


def _server(machine: Machine) -> list[Row]:
    """The server that is there; else the local server's environment: made and working, or whether it can be made."""
    if machine.project is not None:
        try:
            native = find_native(machine.project.target)
        except ServerError as error:
            return [Row("server", "broken", error.message, error.hint, needed=True)]
        if native is not None:
            return [_native_row(native, machine.project.target)]
    reason = unsupported_reason(machine.host)
    if reason:
        fix = "serve with the stock container: docker compose up triton"
        return [Row("local server", "broken", f"not on this machine: {reason}", fix, needed=True)]
    project = machine.project
    if project is None:
        return [Row("local server", "optional", "runs on this machine; a project says which release to install")]
    made = environment.find(project.server, project.target)
    if made is None:
        return [_server_to_be_made(machine, project)]
    fix = f"rm -r {project.shown(made.root)}; modelwright serve makes it again"
    for command in made.trials:
        ran = machine.run(command, _IMPORT_TIMEOUT_S, made.variables())
        if ran.code not in (0, 1) or "Error" in ran.error or "error while loading" in ran.error:
            return [Row("local server", "broken", ran.last_line, fix, needed=True)]
    target = project.target
    versions = f"tritonserver {environment.SERVER_VERSION}, onnxruntime {target.onnxruntime}"
    models = f"Python models find Python {made.python_version} and numpy {target.numpy}, nothing else"
    if not made.python_version.startswith(f"{target.python}."):
        models = f"{models} (the container has Python {target.python})"
    return [Row("local server", "ok", f"{versions}; {models}", needed=True)]


def _native_row(native: NativeServer, target: Release) -> Row:
    version = native.version or "of a version that it does not say"
    detail = f"tritonserver {version}, {native.found}: {native.program}; backends: {', '.join(native.backend_names())}"
    if native.version in ("", target.server):
        return Row("server", "ok", detail, needed=True)
    other = f"{detail}; the repository is for Triton {target.name} ({target.server})"
    return Row("server", "ok", other, "use the release that the repository is for, or set triton in modelwright.toml")


def _uv(machine: Machine) -> list[Row]:
    """uv makes a requirements.lock; a build from one does not need it."""
    version = machine.installed("uv")
    if version is not None:
        return [Row("uv", "ok", version)]
    ran = machine.run(["uv", "--version"], _TOOL_TIMEOUT_S, None)
    if ran.code == 0:
        return [Row("uv", "ok", f"{ran.output.strip().removeprefix('uv ')}, on PATH")]
    detail = "not installed: requirements of Python models cannot be locked here; what is locked builds"
    return [Row("uv", "optional", detail, "pip install 'modelwright[lock]'")]


def _server_to_be_made(machine: Machine, project: ProjectConfig) -> Row:
    fit, refused = machine.interpreters(project.target, None)
    if not fit:
        detail = f"no Python here can run it: {'; '.join(refused)}"
        fix = "install a Python with a shared libpython, 3.12 for instance; or docker compose up triton"
        return Row("local server", "broken", detail, fix, needed=True)
    detail = f"not made yet; will be for Python {fit[0].full_version}"
    return Row("local server", "missing", detail, "modelwright serve or make repo makes it: a download of 100 MB, once")


def _docker(machine: Machine) -> list[Row]:
    engine = machine.run(["docker", "info", "--format", "{{.ServerVersion}}"], _TOOL_TIMEOUT_S, None)
    if engine.code is None and engine.error.startswith("no docker"):
        return [Row("docker", "optional", "not installed", f"install Docker Engine; {_DOCKER}")]
    version = engine.output.strip()
    if engine.code != 0 or not version:
        return [
            Row("docker", "broken", f"the client is here, no engine: {engine.last_line}", f"start Docker; {_DOCKER}")
        ]
    return [Row("docker", "ok", f"engine {version}")]


def _compose(machine: Machine) -> list[Row]:
    for command in (["docker", "compose", "version", "--short"], ["docker-compose", "version", "--short"]):
        ran = machine.run(command, _TOOL_TIMEOUT_S, None)
        if ran.code == 0:
            return [Row("compose", "ok", f"{' '.join(command[:-2])} {ran.output.strip()}")]
    return [Row("compose", "optional", "neither docker compose nor docker-compose", f"install its plugin; {_DOCKER}")]


def _gpu(machine: Machine) -> list[Row]:
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader"]
    ran = machine.run(query, _TOOL_TIMEOUT_S, None)
    if ran.code is None and ran.error.startswith("no nvidia-smi"):
        return [Row("gpu", "optional", "no NVIDIA driver here; models build and run on the CPU")]
    if ran.code != 0 or not ran.output.strip():
        return [Row("gpu", "broken", ran.last_line, "make nvidia-smi work: check the driver and the device")]
    names = [_gpu_text(line) for line in ran.output.strip().splitlines()]
    return [Row("gpu", "ok", "; ".join(names))]


def _gpu_text(line: str) -> str:
    name, capability, memory, driver = (part.strip() for part in line.split(","))
    return f"{name}, compute capability {capability}, {memory}, driver {driver}"


def _disk(machine: Machine) -> list[Row]:
    """Room, the right to write, and one filesystem: a version is published by renaming it into the repository."""
    project = machine.project
    if project is None:
        return []
    state, staging, repository = map(_nearest, (project.state, project.staging, project.repository))
    rows = [
        _folder_row(machine, name, folder)
        for name, folder in ((project.shown(project.state), state), (project.shown(project.repository), repository))
    ]
    if machine.device(staging) != machine.device(repository):
        detail = f"{project.shown(project.staging)} and {project.shown(project.repository)} are on two filesystems"
        fix = "publishing is a rename: put both on one, by paths.repository in modelwright.toml"
        rows.append(Row("publishing", "broken", detail, fix, needed=True))
    if machine.device(_nearest(project.history)) != machine.device(repository):
        detail = f"{project.shown(project.history)} and {project.shown(project.repository)} are on two filesystems"
        fix = "a version retires by a rename: put both on one, by paths.history in modelwright.toml"
        rows.append(Row("history", "broken", detail, fix, needed=True))
    return rows


def _folder_row(machine: Machine, name: str, folder: Path) -> Row:
    if not machine.writable(folder):
        return Row(name, "broken", f"{folder} is not writable for this user", f"chown or chmod {folder}", needed=True)
    free = machine.free_bytes(folder)
    detail = f"writable, {size(free)} free"
    if free < _LEAST_FREE_BYTES:
        return Row(name, "broken", detail, "free some space: a build and the local server need 1 GB", needed=True)
    return Row(name, "ok", detail, needed=True)


def _nearest(path: Path) -> Path:
    """The folder itself, or the one in which it would be made."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _libraries(
    machine: Machine, what: str, names: tuple[str, ...], fix: str, needed: bool, details: str = ""
) -> list[Row]:
    """Libraries that are wanted together: all installed, and all importable.

    `details` is a program that imports them and prints what the row says; without it, the row has their versions.
    """
    absent = [name for name in names if machine.installed(name) is None]
    if absent:
        gone = "not installed" if len(names) == 1 else f"not installed: {', '.join(absent)}"
        return [Row(what, "missing" if needed else "optional", gone, fix, needed)]
    ran = _import(machine, details or f"import {', '.join(names)}")
    if ran.code != 0:
        return [Row(what, "broken", ran.last_line, f"pip install --force-reinstall {' '.join(names)}", needed)]
    if details:
        return [Row(what, "ok", ran.output.strip().rpartition("\n")[2], needed=needed)]
    versions = [str(machine.installed(name)) for name in names]
    if len(names) > 1:
        versions = [f"{name} {version}".rstrip() for name, version in zip(names, versions, strict=True)]
    return [Row(what, "ok", ", ".join(versions), needed=needed)]


def _import(machine: Machine, code: str) -> Ran:
    # Warnings of a library about itself would hide the result.
    return machine.run([sys.executable, "-W", "ignore", "-c", code], _IMPORT_TIMEOUT_S, None)


_CHECKS: tuple[Callable[[Machine], list[Row]], ...] = (
    _python, _modelwright, _project, _onnxruntime, _onnx, _client, _kinds, _environments, _techniques, _uv, _server,
    _disk, _docker, _compose, _gpu, _tensorrt, _mlflow,
)  # fmt: skip
