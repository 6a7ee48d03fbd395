"""The step that makes `version/model.plan`: the graph goes to where TensorRT and a GPU are, and a plan comes back.

Beside the plan lies what it answered to all that its verification will ask, so that nothing but the build needs a GPU:
`answers/<compute capability>/`, and `session.json`, which says what inputs and outputs it has.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from modelwright.digest import sha256_file
from modelwright.errors import StepError, located
from modelwright.facts.made import Made, TensorRtBuild
from modelwright.facts.part import Facts
from modelwright.facts.plan import ANSWERS, PLAN, TIMING_CACHE, PlanCheck, PlanRequest, PlanSidecar
from modelwright.onnx.check import read_signature
from modelwright.steps import plan_local
from modelwright.steps.context import StepContext
from modelwright.steps.onnx import made
from modelwright.steps.plan_errors import RefusedGraphError, refused_text
from modelwright.steps.plan_folders import accept, accept_check, write_request
from modelwright.steps.plan_layers import layers_before
from modelwright.steps.plan_session import save_session
from modelwright.steps.tensorrt_requests import profiles_of
from modelwright.variants.techniques.tensorrt import TensorRtOptions

_NEEDS_ONE = "8.9"  # what a check is for where model.yaml names no GPU: TensorRT for RTX knows it


class GraphChecked(Facts):
    """What is known of a graph that no plan was built of."""

    check: PlanCheck


def run(context: StepContext, out: Path) -> Made:
    """Build the plans of a version, one after the other."""
    options = context.options(TensorRtOptions)
    place = context.config["place"]
    facts = made(read_signature(_graph(context)), _graph(context), context)
    (out / "version").mkdir()
    builds: dict[str, TensorRtBuild] = {}
    for capability in place["compute_capabilities"]:
        file = options.files.get(capability, PLAN)
        with located(f"{context.builder.spec.name}: tensorrt ({place['name']}, {capability})"):
            sidecar = _built(context, facts, capability, out, file)
        builds[file] = TensorRtBuild.of(sidecar, place["name"])
    assert facts.signature is not None
    save_session(out, facts.signature, next(iter(builds.values())).profiles)
    several = builds if len(builds) > 1 else {}
    return facts.model_copy(update={"tensorrt": next(iter(builds.values())), "plans": several})


def check(context: StepContext, out: Path) -> GraphChecked:
    """Let TensorRT for RTX try what `run` would do: parse the graph, take the profiles, build an engine."""
    options = context.options(TensorRtOptions)
    facts = made(read_signature(_graph(context)), _graph(context), context)
    wanted = options.compute_capabilities or (_NEEDS_ONE,)
    with located(f"{context.builder.spec.name}: tensorrt (checked without a GPU)"), _folders(out) as (inside, outside):
        request = _request(context, facts, wanted[0])
        write_request(inside, request, _graph(context))
        plan_local.check(inside, outside, wanted, context)
        with _layers_named(_graph(context)):
            found = accept_check(outside)
    return GraphChecked(check=found)


def _graph(context: StepContext) -> Path:
    return context.inputs["source"] / "version" / "model.onnx"


def _request(context: StepContext, facts: Made, capability: str) -> PlanRequest:
    options, builder, graph = context.options(TensorRtOptions), context.builder, _graph(context)
    assert facts.signature is not None
    return PlanRequest(
        model=builder.name,
        release=context.target.name,
        tensorrt=context.config.get("place", {}).get("tensorrt", ""),
        compute_capability=capability,
        onnx=sha256_file(graph),
        weights={name: sha256_file(graph.parent / name) for name in facts.signature.external},
        profiles=profiles_of(context, graph),
        options=options.plan_options,
    )


def _built(context: StepContext, facts: Made, capability: str, out: Path, file: str) -> PlanSidecar:
    """Have one plan built, and put it and its answers into `out`."""
    request, graph = _request(context, facts, capability), _graph(context)
    cache = _timing_cache(context, request)
    with _folders(out) as (inside, outside):
        write_request(inside, request, graph, context.inputs["asked"] / "asked", cache)
        _builder(context.config["place"]["builder"])(inside, outside, request, context)
        with _layers_named(graph):
            sidecar = accept(request, inside, outside)
        (outside / PLAN).rename(out / "version" / file)
        if (outside / ANSWERS).is_dir():
            (out / ANSWERS).mkdir(exist_ok=True)
            (outside / ANSWERS).rename(out / ANSWERS / capability)
        if (outside / TIMING_CACHE).is_file():
            cache.parent.mkdir(parents=True, exist_ok=True)
            (outside / TIMING_CACHE).replace(cache)
    context.say(f"{file}: TensorRT {sidecar.tensorrt}, {sidecar.gpu}, {sidecar.layers} layers, {sidecar.build_s:.1f} s")
    return sidecar


def _builder(reference: str) -> Callable[[Path, Path, PlanRequest, StepContext], None]:
    module, _, function = reference.partition(":")
    loaded: Callable[[Path, Path, PlanRequest, StepContext], None] = getattr(import_module(module), function)
    return loaded


def _timing_cache(context: StepContext, request: PlanRequest) -> Path:
    """Measured times of kernels, kept between builds: they hold for one TensorRT and one kind of GPU."""
    version = request.tensorrt or f"triton-{request.release}"
    return context.cache / "tensorrt" / f"{version}-{request.compute_capability}.timing"


@contextmanager
def _folders(out: Path) -> Iterator[tuple[Path, Path]]:
    """A request's two folders, beside the step's: on its filesystem, so that files can be linked and renamed."""
    work = Path(tempfile.mkdtemp(prefix="plan-", dir=out.parent))
    try:
        (work / "out").mkdir()
        yield work / "in", work / "out"
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _layers_named(graph: Path) -> Iterator[None]:
    """Say of nodes that TensorRT refuses where they come from in the source."""
    try:
        yield
    except RefusedGraphError as error:
        layers: Sequence[str] = layers_before(graph, [node.name for node in error.nodes])
        raise StepError(refused_text(error.nodes, (), layers), error.hint) from None
