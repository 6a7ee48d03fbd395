"""The folders that go to a plan builder and come back: written, served and read again.

A folder that was cut short on its way, or a builder that died, must not become a version: digests cover what goes in,
and the record of what was made is written last.
"""

from __future__ import annotations

import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from modelwright.digest import sha256_file
from modelwright.errors import ModelwrightError, StepError, one_line
from modelwright.facts.part import DamagedError, Part, validated
from modelwright.facts.plan import (
    ANSWERS,
    ASKED,
    CHECK,
    FAILED,
    GRAPH,
    PLAN,
    REQUEST,
    SIDECAR,
    TIMING_CACHE,
    PlanCheck,
    PlanFailure,
    PlanRequest,
    PlanSidecar,
)
from modelwright.steps.plan_errors import RefusedGraphError
from modelwright.triton.plans import PlanHeader, loads, read_plan, same_version, tensorrt_in

P = TypeVar("P", bound=Part)

PROGRAM = "modelwright.steps.plan_program"  # python -m PROGRAM IN OUT


def write_request(
    folder: Path, request: PlanRequest, onnx: Path, asked: Path | None = None, timing_cache: Path | None = None
) -> None:
    """Put a request together, ready to be copied to another machine. Files are links where that is possible."""
    folder.mkdir(parents=True, exist_ok=True)
    _take(onnx, folder / GRAPH)
    for name in request.weights:
        _take(onnx.parent / name, folder / name)
    if asked is not None:
        for file in sorted(asked.glob("*.npz")):
            _take(file, folder / ASKED / file.name)
    if timing_cache is not None and timing_cache.is_file():
        shutil.copyfile(timing_cache, folder / TIMING_CACHE)
    _write(folder / REQUEST, request)


def serve(inside: Path, out: Path, check_for: Sequence[str] | None = None) -> int:
    """Build what the folder `inside` asks for, into `out`; `check_for` only tries it for these compute capabilities.

    Returns 0, or 1 with the reason in `out`/failed.json.
    """
    from modelwright.steps.plan_builder import build_plan, check_graph

    out.mkdir(parents=True, exist_ok=True)
    try:
        request = _read(inside / REQUEST, PlanRequest)
        _check_files(inside, request)
        if check_for is not None:
            _write(out / CHECK, check_graph(request, inside / GRAPH, check_for))
            return 0
        asked = inside / ASKED if (inside / ASKED).is_dir() else None
        sidecar = build_plan(request, inside / GRAPH, out, inside / TIMING_CACHE, asked)
    except RefusedGraphError as error:
        _write(out / FAILED, PlanFailure(message=error.message, hint=error.hint, nodes=error.nodes))
        return 1
    except ModelwrightError as error:
        _write(out / FAILED, PlanFailure(message=error.message, hint=error.hint))
        return 1
    except Exception as error:  # whoever sent the folder must learn of it, wherever this runs
        traceback.print_exc(file=sys.stdout)
        reason = f"{type(error).__name__}: {one_line(error)}"
        _write(out / FAILED, PlanFailure(message=f"the plan builder fails: {reason}", hint="its log has a traceback"))
        return 1
    _write(out / SIDECAR, sidecar)
    return 0


def accept(request: PlanRequest, inside: Path, out: Path) -> PlanSidecar:
    """What came back for a request, once it is complete and is what was asked for.

    Raises StepError for a failure, a builder that died half-way, a plan that was damaged on its way, and one of another
    TensorRT or for another GPU; RefusedGraphError where TensorRT does not take the graph.
    """
    _raise_failure(out)
    if not (out / SIDECAR).is_file():
        raise StepError(
            "the plan builder stopped before it was done: it wrote neither a plan's record nor a reason",
            "its output is above; a machine that ran out of memory says so in its own log",
        )
    sidecar = _read(out / SIDECAR, PlanSidecar)
    try:
        header = read_plan(out / PLAN)
    except OSError as error:
        raise StepError(f"{PLAN}: {error.strerror}") from None
    if not isinstance(header, PlanHeader):
        raise StepError(f"{PLAN}: it is {header.what}", f"{header.fix}")
    if sha256_file(out / PLAN) != sidecar.plan:
        raise StepError(f"{PLAN} is not what the builder made: its SHA-256 is another", "build it again")
    if header.version and not same_version(header.version, sidecar.tensorrt):
        raise StepError(
            f"{PLAN} was built with TensorRT {header.version}, its record says {sidecar.tensorrt}", "build it again"
        )
    if request.tensorrt and not same_version(sidecar.tensorrt, request.tensorrt):
        raise StepError(f"the plan was built with TensorRT {sidecar.tensorrt}, asked for was {request.tensorrt}")
    runtime = tensorrt_in(request.release)
    if loads(sidecar.tensorrt, request.options.version_compatible, runtime) is False:
        raise StepError(
            f"the plan was built with TensorRT {sidecar.tensorrt}, and Triton {request.release} loads those of"
            f" {runtime}",
            "build it in an image of that month: tensorrt.image in modelwright.toml",
        )
    if sidecar.compute_capability != request.compute_capability:
        raise StepError(
            f"the plan was built on {sidecar.gpu}, of compute capability {sidecar.compute_capability}; asked for was"
            f" {request.compute_capability}",
            "choose the GPU where it is built",
        )
    if sidecar.profiles != request.profiles:
        raise StepError("the plan has other profiles than were asked for", "build it again")
    wanted = {file.name for file in (inside / ASKED).glob("*.npz")}
    missing = wanted - {file.name for file in (out / ANSWERS).glob("*.npz")}
    if missing:
        raise StepError(f"the plan answered {len(wanted) - len(missing)} of {len(wanted)} requests", "build it again")
    return sidecar


def accept_check(out: Path) -> PlanCheck:
    """What a check found. Raises as `accept` does."""
    _raise_failure(out)
    if not (out / CHECK).is_file():
        raise StepError("TensorRT for RTX stopped before it was done, without a reason", "the step's log may have one")
    return _read(out / CHECK, PlanCheck)


def _raise_failure(out: Path) -> None:
    if (out / FAILED).is_file():
        failure = _read(out / FAILED, PlanFailure)
        if failure.nodes:
            raise RefusedGraphError(failure.nodes, ())
        raise StepError(failure.message, failure.hint)


def _check_files(inside: Path, request: PlanRequest) -> None:
    for name, digest in {GRAPH: request.onnx, **request.weights}.items():
        path = inside / name
        if not path.is_file():
            raise StepError(f"{name}: the request names it, and it is not there", "send the folder again")
        if sha256_file(path) != digest:
            raise StepError(f"{name}: its SHA-256 is not that of the request: cut short or damaged", "send it again")


def _take(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _write(path: Path, part: Part) -> None:
    """Whole or not at all: a reader takes the file as the sign that all others are there."""
    beside = path.with_suffix(".tmp")
    beside.write_text(part.model_dump_json(indent=1), encoding="utf-8")
    beside.replace(path)


def _read(path: Path, kind: type[P]) -> P:
    import json

    try:
        return validated(kind, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise StepError(f"{path.name}: it is not there", "send the folder again") from None
    except (DamagedError, ValueError) as error:
        raise StepError(f"{path.name}: damaged: {one_line(error)}", "send it again") from None
