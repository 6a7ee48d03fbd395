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
from modelwright.facts.made import Made, OnnxSignature, OnnxTensor, TensorRtBuild
from modelwright.facts.part import Facts
from modelwright.facts.plan import ANSWERS, PLAN, TIMING_CACHE, PlanCheck, PlanRequest, PlanSidecar, PlanTensor
from modelwright.steps import plan_local
from modelwright.steps.context import StepContext
from modelwright.steps.plan_errors import RefusedGraphError, refused_text
from modelwright.steps.plan_folders import accept, accept_check, write_request
from modelwright.steps.plan_layers import layers_before
from modelwright.steps.plan_session import save_session
from modelwright.steps.tensorrt_requests import profiles_of, signature_of
from modelwright.variants.techniques.tensorrt import TensorRtOptions

_NEEDS_ONE = "8.9"  # what a check is for where model.yaml names no GPU: TensorRT for RTX knows it


class GraphChecked(Facts):
    """What is known of a graph that no plan was built of."""

    check: PlanCheck


def run(context: StepContext, out: Path) -> Made:
    """Build the plans of a version, one after the other."""
    options = context.options(TensorRtOptions)
    place = context.config["place"]
    signature = signature_of(context)
    (out / "version").mkdir()
    builds: dict[str, TensorRtBuild] = {}
    for capability in place["compute_capabilities"]:
        file = options.files.get(capability, PLAN)
        with located(f"{context.builder.spec.name}: tensorrt ({place['name']}, {capability})"):
            sidecar = _built(context, signature, capability, out, file)
            signature = as_built(signature, sidecar)
        builds[file] = TensorRtBuild.of(sidecar, place["name"])
    first = next(iter(builds.values()))
    save_session(out, signature, first.profiles)
    return Made(signature=signature, tensorrt=first, plans=builds if len(builds) > 1 else {})


def check(context: StepContext, out: Path) -> GraphChecked:
    """Let TensorRT for RTX try what `run` would do: parse the graph, take the profiles, build an engine."""
    options = context.options(TensorRtOptions)
    signature = signature_of(context)
    wanted = options.compute_capabilities or (_NEEDS_ONE,)
    with located(f"{context.builder.spec.name}: tensorrt (checked without a GPU)"), _folders(out) as (inside, outside):
        request = _request(context, signature, wanted[0])
        write_request(inside, request, _graph(context))
        plan_local.check(inside, outside, wanted, context)
        with _layers_named(_graph(context)):
            found = accept_check(outside)
    return GraphChecked(check=found)


def _graph(context: StepContext) -> Path:
    return context.inputs["source"] / "version" / "model.onnx"


def as_built(signature: OnnxSignature, sidecar: PlanSidecar) -> OnnxSignature:
    """The graph's inputs and outputs, with the dims that the plan itself has: the server compares the config with it.

    Raises StepError for a plan with another data type.
    """
    known = {tensor.name: tensor for tensor in (*sidecar.inputs, *sidecar.outputs)}

    sides = {"inputs": signature.inputs, "outputs": signature.outputs}
    built = {side: tuple(_as_built(item, known.get(item.name)) for item in tensors) for side, tensors in sides.items()}
    return signature.model_copy(update=built)


def _as_built(tensor: OnnxTensor, own: PlanTensor | None) -> OnnxTensor:
    if own is None:
        return tensor
    if own.dtype != tensor.dtype:
        raise StepError(f"'{tensor.name}' is {own.dtype} in the plan, and {tensor.dtype} in the graph")
    if len(own.dims) != len(tensor.dims):
        raise StepError(f"'{tensor.name}' has dims {list(own.dims)} in the plan, and {list(tensor.dims)} in the graph")
    # A name says which dimensions are equal, and stays where the plan leaves the size open, too.
    dims = tuple(
        size if size >= 0 else dim if isinstance(dim, str) else -1
        for size, dim in zip(own.dims, tensor.dims, strict=True)
    )
    return tensor.model_copy(update={"dims": dims})


def _request(context: StepContext, signature: OnnxSignature, capability: str) -> PlanRequest:
    options, builder, graph = context.options(TensorRtOptions), context.builder, _graph(context)
    return PlanRequest(
        model=builder.name,
        release=context.target.name,
        tensorrt=context.config.get("place", {}).get("tensorrt", ""),
        compute_capability=capability,
        onnx=sha256_file(graph),
        weights={name: sha256_file(graph.parent / name) for name in signature.external},
        profiles=profiles_of(context, signature),
        options=options.plan_options,
    )


def _built(context: StepContext, signature: OnnxSignature, capability: str, out: Path, file: str) -> PlanSidecar:
    """Have one plan built, and put it and its answers into `out`."""
    request, graph = _request(context, signature, capability), _graph(context)
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
