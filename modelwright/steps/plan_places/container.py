"""Builds a plan in NVIDIA's container on this machine: `docker compose run plan-builder`."""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelwright.errors import StepError
from modelwright.facts.plan import PlanRequest
from modelwright.project.plan_places import COMPOSE_SERVICE, PlanPlaces
from modelwright.steps.context import StepContext
from modelwright.steps.plan_local import DEVICES, visible_device
from modelwright.steps.plan_places.arrival import arrived
from modelwright.steps.plan_places.log import BuildersLog, guarded
from modelwright.steps.plan_places.request import seal_request

_POLL_S = 1.0
_STARTED = "plan builder: started"  # the first line of start.sh: what came before is the pull of the image


def build(inside: Path, out: Path, request: PlanRequest, context: StepContext) -> None:
    """Build the plan of a request. `plan_folders.accept` says what it is."""
    plan_from_container(inside, out, request, context.plan_places, context.say)


def plan_from_container(
    inside: Path, out: Path, request: PlanRequest, settings: PlanPlaces, say: Callable[[str], None]
) -> None:
    """Send the folder of a request to the container; the folder `out` is its result, checked against its list.

    Raises StepError where the container ends without a complete result, and after `settings.timeout_s`.
    """
    sealed = seal_request(inside)
    image = settings.image_for(request.release)
    where = f"container {image}"
    log = BuildersLog(say)
    with _result_folder(out.parent) as result:
        _make_readable(inside)
        variables = {"PLAN_BUILDER_IMAGE": image, "PLAN_REQUEST": str(inside.resolve()), "PLAN_RESULT": str(result)}
        with guarded(*_commands(settings.compose_file, request.compute_capability), variables) as process:
            _follow(process, settings.timeout_s, log, where)
            code = process.wait()
        arrived(result, out, sealed.digest, code=code, log=log, where=where)


def _compose() -> list[str]:
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if docker and shutil.which("docker-compose"):
        return ["docker-compose"]
    raise StepError("neither docker compose nor docker-compose works here", "install Docker and its compose plugin")


@contextmanager
def _result_folder(parent: Path) -> Iterator[Path]:
    """A folder that the container can write to, whichever user that is; nobody else can reach it."""
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=parent) as name:
        result = Path(name) / "result"
        result.mkdir()
        result.chmod(0o777)
        yield result


def _make_readable(folder: Path) -> None:
    """The container's user may be another one than ours."""
    for path in (folder, *folder.rglob("*")):
        mode, needed = path.stat().st_mode, 0o555 if path.is_dir() else 0o444
        if mode & needed != needed:
            path.chmod(mode | needed)


def _commands(file: Path, compute_capability: str) -> tuple[list[str], list[str]]:
    """The command that removes the container, and the one that runs it."""
    name = f"modelwright-plan-{secrets.token_hex(6)}"
    command = [
        *_compose(),
        "--file",
        str(file),
        "--project-directory",
        str(file.parent),
        "run",
        "--rm",
        "-T",
        "--no-deps",
    ]
    command += ["--name", name, "--user", f"{os.getuid()}:{os.getgid()}"]
    if device := visible_device(compute_capability):  # the container sees all GPUs, in CUDA's order
        command += ["-e", f"{DEVICES}={device}"]
    return ["docker", "rm", "--force", name], [*command, COMPOSE_SERVICE]


def _follow(process: subprocess.Popen[bytes], timeout_s: float, log: BuildersLog, where: str) -> None:
    """Pass on what the container prints until it ends. Raises StepError after `timeout_s`; a pull has as long again."""
    assert process.stdout is not None
    deadline, rest = time.monotonic() + timeout_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline:
                hint = "raise tensorrt.timeout in modelwright.toml, or lower the variant's builder level"
                raise log.died(f"{where}: the plan builder did not end within {timeout_s:g} s", hint)
            if not selector.select(_POLL_S):
                log.quiet("the plan builder works")
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in [*lines, *([rest] if not chunk else [])]:
                text = line.decode("utf-8", "replace")
                log.line(text)
                if text.startswith(_STARTED):
                    deadline = time.monotonic() + timeout_s
            if not chunk:
                return
