"""A container engine and a cluster that are folders: stand-ins for docker and kubectl, first on PATH.

Both run the real command of the container (`start.sh`, or the Job's script) on this machine, with its folders in place
of the container's. `python3` is a stand-in, too: it runs `fake_builder.py` in place of the plan builder's program, and
has every package that `start.sh` looks for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelwright.digest import sha256_file
from modelwright.facts.plan import ASKED, GRAPH, REQUEST, PlanProfile, PlanRequest, ShapeRange

HERE = Path(__file__).parent
_PYTHON3 = f"""#!/bin/sh
case "$*" in
  "-c import "*) exit 0 ;;
  "-m modelwright.steps.plan_places.program "*) shift 2; exec '{sys.executable}' '{HERE / "fake_builder.py"}' "$@" ;;
esac
exec '{sys.executable}' "$@"
"""


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, *programs: str) -> Path:
    """Put stand-ins in front of all other programs; without `docker` or `kubectl` there is none, as on most machines."""
    folder.mkdir(exist_ok=True)
    scripts = {"python3": _PYTHON3}
    for name in programs:
        scripts[name] = f"#!/bin/sh\nexec '{sys.executable}' -I -S '{HERE / f'fake_{name}.py'}' \"$@\"\n"
    for name, script in scripts.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    # What start.sh and the scripts of a Job call: nothing else of this machine.
    tools = (
        "sh",
        "mktemp",
        "sleep",
        "head",
        "tail",
        "tar",
        "cat",
        "mv",
        "mkdir",
        "touch",
        "rm",
        "wc",
        "env",
        "dirname",
    )
    for tool in tools:
        found = shutil.which(tool)
        if found and not (folder / tool).exists():
            (folder / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@dataclass
class Request:
    """A folder with a request, as `steps/plan_folders.py` writes it."""

    folder: Path
    request: PlanRequest


def new_request(folder: Path, *, answers: int = 3) -> Request:
    folder.mkdir()
    (folder / GRAPH).write_bytes(b"graph" * 1000)
    (folder / ASKED).mkdir()
    for index in range(answers):
        (folder / ASKED / f"{index:05}.npz").write_bytes(bytes([index]) * 100)
    profile = PlanProfile(inputs={"x": ShapeRange(min=(1, 2), opt=(4, 2), max=(8, 2))})
    request = PlanRequest(
        model="digits_trt",
        release="26.07",
        tensorrt="",
        compute_capability="8.9",
        onnx=sha256_file(folder / GRAPH),
        profiles=(profile,),
    )
    (folder / REQUEST).write_text(request.model_dump_json())
    return Request(folder, request)


class FakeCluster:
    """The folder of `fake_kubectl.py`: what it answers, and what it was told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("FAKE_CLUSTER", str(folder))

    def says(self, **answers: Any) -> None:
        """`pods`: a list, one for each look, the last one for all further looks; `jobs`, `events`: one answer each;
        `errors`: {verb: what kubectl prints before it fails}, the first `failures` times; `cut`: how many transfers are
        cut short."""
        (self.folder / "answers.json").write_text(json.dumps(answers))

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def job(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.folder / "job.json").read_text())
        return data

    def stop(self) -> None:
        """End the container's processes, as a deletion does."""
        for group in (self.folder / "groups").read_text().split():
            with suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)

    @property
    def deleted(self) -> list[str]:
        return [call[call.index("job") + 1] for call in self.calls if "delete" in call]


def pod(phase: str = "Running", **status: Any) -> dict[str, Any]:
    """A pod as the API shows it."""
    container = status.pop("container", {"running": {}} if phase == "Running" else None)
    statuses = [{"name": "builder", "state": container}] if container else []
    return {"metadata": {"name": "plan-x7k2p"}, "status": {"phase": phase, "containerStatuses": statuses, **status}}


def unschedulable(message: str) -> dict[str, Any]:
    condition: Mapping[str, str] = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return pod("Pending", conditions=[condition])
