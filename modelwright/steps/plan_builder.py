"""Builds a TensorRT plan through Polygraphy, asks it, and says what it is: this runs where TensorRT and a GPU are.

Networks are strongly typed: the graph says what is computed in float16 or int8, and TensorRT 11 knows no other way. The
same code builds with TensorRT for RTX where there is no GPU, to find out whether TensorRT takes a graph at all; only
the configuration has another class there. A process uses one of the two: Polygraphy decides when it is imported.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelwright.digest import sha256_file
from modelwright.errors import StepError, one_line
from modelwright.facts.plan import (
    ANSWERS,
    PLAN,
    TIMING_CACHE,
    PlanCheck,
    PlanOptions,
    PlanProfile,
    PlanRequest,
    PlanSidecar,
    PlanTensor,
    RefusedNode,
)
from modelwright.gpus import Gpu, visible_gpus
from modelwright.steps.plan_errors import RefusedGraphError, build_error
from modelwright.triton.plans import same_version
from modelwright.triton.tensors import Tensors, load_tensors, save_tensors

_FOR_RTX = "POLYGRAPHY_USE_TENSORRT_RTX"
# TensorRT's DataType → Triton's. What is not here, such as FP8, cannot be an input or output of a Triton model.
_DTYPES = {"FLOAT": "FP32", "HALF": "FP16", "BF16": "BF16", "BOOL": "BOOL"}
# The inspector's "Row major linear FP16 format", "Channel major FP16 format where …".
_FORMAT_TYPE = re.compile(r"\b(FP32|FP16|BF16|FP8|FP4|INT8|INT4|INT32|INT64|UINT8|BOOL)\b", re.IGNORECASE)


def build_plan(
    request: PlanRequest, onnx: Path, out: Path, timing_cache: Path | None = None, asked: Path | None = None
) -> PlanSidecar:
    """Build the plan of a request on the first GPU that is visible, and answer what is `asked`.

    Writes `out`/model.plan, `out`/answers and `out`/timing.cache, which starts from `timing_cache`. Raises StepError,
    and RefusedGraphError where TensorRT does not take the graph.
    """
    gpu = _gpu(request)
    trt = _library(for_rtx=False)
    _check_version(request, trt.__version__)
    started = time.perf_counter()
    with _errors_collected() as errors:
        network = _network(onnx, errors)
        _check_inputs(network[1], request.profiles)
        plan = _engine_bytes(network, _config(trt, request, timing_cache), out / TIMING_CACHE, errors)
        build_s = time.perf_counter() - started
        (out / PLAN).write_bytes(plan)
        engine = _loaded(plan, errors)
        answered = _answer(engine, request.profiles, asked, out / ANSWERS, errors) if asked else 0
        layers = _layers(trt, engine)
    inputs, outputs = _engine_tensors(trt, engine)
    return PlanSidecar(
        tensorrt=trt.__version__,
        compute_capability=gpu.compute_capability,
        gpu=gpu.name,
        plan=sha256_file(out / PLAN),
        size_bytes=len(plan),
        profiles=request.profiles,
        inputs=inputs,
        outputs=outputs,
        layers=sum(layers.values()) or None,
        layers_by_type=dict(sorted(layers.items())),
        memory_bytes=_memory_bytes(engine),
        build_s=round(build_s, 3),
        version_compatible=request.options.version_compatible,
        hardware_compatibility=request.options.hardware_compatibility,
        answered=answered,
    )


def check_graph(request: PlanRequest, onnx: Path, capabilities: Sequence[str]) -> PlanCheck:
    """Build an engine of TensorRT for RTX for a request, without a GPU; the engine is thrown away.

    Raises what `build_plan` raises for a graph, profiles or options that TensorRT does not take.
    """
    trt = _library(for_rtx=True)
    known = [text for text in capabilities if hasattr(trt.ComputeCapability, f"SM{text.replace('.', '')}")]
    chosen = known or [_newest(trt)]
    started = time.perf_counter()
    with _errors_collected() as errors:
        network = _network(onnx, errors)
        _check_inputs(network[1], request.profiles)
        engine = _engine_bytes(network, _rtx_config(trt, request, chosen), None, errors)
        inputs, outputs = _network_tensors(network[1])
        layers = _network_layers(network[1])
    return PlanCheck(
        version=trt.__version__,
        compute_capabilities=tuple(chosen),
        inputs=inputs,
        outputs=outputs,
        layers=sum(layers.values()),
        layers_by_type=dict(sorted(layers.items())),
        size_bytes=len(engine),
        build_s=round(time.perf_counter() - started, 3),
    )


# --- what builds ------------------------------------------------------------------------------------------------------


def _library(*, for_rtx: bool) -> Any:
    """TensorRT, or TensorRT for RTX, and Polygraphy on top of it."""
    os.environ[_FOR_RTX] = str(int(for_rtx))
    try:
        from polygraphy import config
        from polygraphy.logger import G_LOGGER

        if for_rtx:
            import tensorrt_rtx as trt
        else:
            import tensorrt as trt
    except ImportError as error:
        extra = "tensorrt-check" if for_rtx else "tensorrt"
        raise StepError(f"it cannot be imported: {one_line(error)}", f"pip install 'modelwright[{extra}]'") from None
    if bool(config.USE_TENSORRT_RTX) is not for_rtx:
        raise StepError(f"Polygraphy was imported with {_FOR_RTX}={int(not for_rtx)} in this process")
    G_LOGGER.colors = False
    return trt


def _gpu(request: PlanRequest) -> Gpu:
    gpus = visible_gpus()
    if not gpus:
        raise StepError(
            "CUDA shows no GPU here", "nvidia-smi says what is wrong; a container needs --gpus all and NVIDIA's toolkit"
        )
    if gpus[0].compute_capability != request.compute_capability:
        raise StepError(
            f"the GPU here, {gpus[0].name}, has compute capability {gpus[0].compute_capability}; the plan is wanted for"
            f" {request.compute_capability}, and loads on no other",
            "build it on a GPU of that kind; CUDA_VISIBLE_DEVICES chooses among several",
        )
    return gpus[0]


def _check_version(request: PlanRequest, found: str) -> None:
    if request.tensorrt and not same_version(request.tensorrt, found):
        raise StepError(
            f"TensorRT {found} is here, and the plan is wanted of {request.tensorrt}, the one that was planned with",
            "build again, which plans with what is installed now",
        )


def _network(onnx: Path, errors: list[str]) -> tuple[Any, Any, Any]:
    """(builder, network, parser). Weights beside the graph are read with it."""
    from polygraphy.backend.trt import network_from_onnx_path
    from polygraphy.exception import PolygraphyException

    try:
        network: tuple[Any, Any, Any] = network_from_onnx_path(str(onnx), strongly_typed=True)
    except PolygraphyException as error:
        raise RefusedGraphError(_refused(onnx), errors or [one_line(error)]) from None
    return network


def _refused(onnx: Path) -> tuple[RefusedNode, ...]:
    """All nodes that TensorRT does not take: the parser stops at the first."""
    from polygraphy.backend.trt import create_network, get_trt_logger
    from polygraphy.mod.trt_importer import lazy_import_trt

    trt = lazy_import_trt()
    _, network = create_network(strongly_typed=True)
    parser = trt.OnnxParser(network, get_trt_logger())
    parser.supports_model_v2(onnx.read_bytes(), str(onnx))
    found = (parser.get_error(index) for index in range(parser.num_errors))
    nodes = {
        (error.node_name(), error.node_operator()): RefusedNode(
            name=error.node_name(),
            operator=error.node_operator(),
            reason=f"{_member(error.code())}: {_plain(error.desc())}",
        )
        for error in found
        if error.node_operator()
    }
    return tuple(nodes.values())


def _plain(text: str) -> str:
    """TensorRT's words on one line, without what CUDA says of itself where there is no driver."""
    lines = (" ".join(line.split()) for line in text.splitlines() if "catchCudaError" not in line)
    return "; ".join(filter(None, lines))


def _check_inputs(network: Any, profiles: Sequence[PlanProfile]) -> None:
    """The parser may drop an input that nothing reads; profiles name what the graph has."""
    names = {network.get_input(index).name for index in range(network.num_inputs)}
    for number, profile in enumerate(profiles):
        unknown = sorted(profile.inputs.keys() - names)
        if unknown:
            raise StepError(
                f"profile {number}: TensorRT's network has no input '{unknown[0]}', only {', '.join(sorted(names))}",
                "remove inputs that nothing in the model reads",
            )


def _profiles(request: PlanRequest) -> list[Any]:
    from polygraphy.backend.trt import Profile

    made = []
    for profile in request.profiles:
        built = Profile()
        for name, shapes in profile.inputs.items():
            built.add(name, shapes.min, shapes.opt, shapes.max)
        made.append(built)
    return made


def _settings(trt: Any, options: PlanOptions) -> dict[str, Any]:
    """Arguments that both kinds of configuration take."""
    settings: dict[str, Any] = {}
    if options.workspace_bytes is not None:
        settings["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace_bytes}
    if options.builder_level is not None:
        settings["builder_optimization_level"] = options.builder_level
    if options.sparsity:
        settings["sparse_weights"] = True
    return settings


def _config(trt: Any, request: PlanRequest, timing_cache: Path | None) -> Any:
    from polygraphy.backend.trt import CreateConfig

    options = request.options
    settings = _settings(trt, options)
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.upper()
        if not hasattr(trt.HardwareCompatibilityLevel, level):
            raise StepError(
                f"TensorRT {trt.__version__} has no hardware_compatibility: {options.hardware_compatibility}",
                "10.13 and later have it; or leave it out",
            )
        settings["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, level)
    if options.version_compatible:
        settings["version_compatible"] = True
    if timing_cache is not None and timing_cache.is_file():
        settings["load_timing_cache"] = str(timing_cache)
    return CreateConfig(tf32=options.tf32, profiles=_profiles(request), **settings)


def _rtx_config(trt: Any, request: PlanRequest, capabilities: Sequence[str]) -> Any:
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    pairs = [tuple(map(int, text.split("."))) for text in capabilities]
    return CreateConfigRTX(compute_capabilities=pairs, profiles=_profiles(request), **_settings(trt, request.options))


def _newest(trt: Any) -> str:
    """The newest compute capability that TensorRT for RTX knows: "12.0"."""
    numbers = [int(name[2:]) for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return f"{max(numbers) // 10}.{max(numbers) % 10}"


def _engine_bytes(network: Any, config: Any, timing_cache: Path | None, errors: list[str]) -> bytes:
    from polygraphy.backend.trt import engine_bytes_from_network
    from polygraphy.exception import PolygraphyException

    saved = str(timing_cache) if timing_cache else None
    try:
        return bytes(engine_bytes_from_network(network, config=config, save_timing_cache=saved))
    except PolygraphyException as error:
        raise build_error(errors or [one_line(error)]) from None


# --- what was built ---------------------------------------------------------------------------------------------------


def _loaded(plan: bytes, errors: list[str]) -> Any:
    from polygraphy.backend.trt import engine_from_bytes
    from polygraphy.exception import PolygraphyException

    try:
        return engine_from_bytes(plan)
    except PolygraphyException as error:
        raise build_error(errors or [one_line(error)]) from None


def _engine_tensors(trt: Any, engine: Any) -> tuple[tuple[PlanTensor, ...], tuple[PlanTensor, ...]]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs, outputs = (
        tuple(
            _tensor(name, engine.get_tensor_dtype(name), engine.get_tensor_shape(name))
            for name in names
            if engine.get_tensor_mode(name) == mode
        )
        for mode in (trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT)
    )
    return inputs, outputs


def _network_tensors(network: Any) -> tuple[tuple[PlanTensor, ...], tuple[PlanTensor, ...]]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    made = tuple(tuple(_tensor(item.name, item.dtype, item.shape) for item in side) for side in (inputs, outputs))
    return made[0], made[1]


def _tensor(name: str, dtype: Any, shape: Any) -> PlanTensor:
    own = _member(dtype)
    return PlanTensor(name=name, dtype=_DTYPES.get(own, own), dims=tuple(int(dim) for dim in shape))


def _member(value: Any) -> str:
    """The name of an enumeration's value: "HALF". `name` is a method for some of TensorRT 10's."""
    return str(value).rpartition(".")[2]


def _network_layers(network: Any) -> Counter[str]:
    """{data type of the first output: layers}, before TensorRT fuses them."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    types = (_member(layer.get_output(0).dtype) for layer in layers if layer.num_outputs)
    return Counter(_DTYPES.get(name, name) for name in types)


def _layers(trt: Any, engine: Any) -> Counter[str]:
    """{data type of the first output: layers}, as TensorRT's inspector has them; empty where it says something else."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text)["Layers"]
        formats = [layer["Outputs"][0]["Format/Datatype"] for layer in layers if layer["Outputs"]]
    except (ValueError, KeyError, TypeError, IndexError):
        return Counter()
    found = (_FORMAT_TYPE.search(text) for text in formats)
    return Counter(match[1].upper() if match else "other" for match in found)


def _memory_bytes(engine: Any) -> int | None:
    for name in ("device_memory_size_v2", "device_memory_size"):  # the first one from 10.1 on
        value = getattr(engine, name, None)
        if value is not None:
            return int(value)
    return None


# --- what it is asked -------------------------------------------------------------------------------------------------


def _answer(engine: Any, profiles: Sequence[PlanProfile], asked: Path, out: Path, errors: list[str]) -> int:
    """Run the plan on every file of `asked`. Returns how many there were."""
    from polygraphy.backend.trt import TrtRunner
    from polygraphy.exception import PolygraphyException

    out.mkdir()
    files = sorted(asked.glob("*.npz"))
    try:
        with TrtRunner(engine) as runner:
            for file in files:
                inputs = load_tensors(file)
                runner.set_profile(best_profile(profiles, inputs))
                answers = runner.infer(inputs)
                save_tensors(out / file.name, {name: array.copy() for name, array in answers.items()})
    except (PolygraphyException, OSError) as error:
        raise build_error(errors or [one_line(error)]) from None
    return len(files)


def best_profile(profiles: Sequence[PlanProfile], inputs: Tensors) -> int:
    """The profile that takes these shapes, and is tuned for the nearest ones. Raises StepError where there is none."""
    distances = {
        number: distance
        for number, profile in enumerate(profiles)
        if (distance := _distance(profile, inputs)) is not None
    }
    if not distances:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise StepError(f"no profile takes {shapes}", "widen min and max of a profile under tensorrt.profiles")
    return min(distances, key=lambda number: distances[number])


def _distance(profile: PlanProfile, inputs: Tensors) -> int | None:
    """How far shapes are from those that a profile is tuned for; None where it does not take them."""
    total = 0
    for name, shapes in profile.inputs.items():
        actual = inputs[name].shape
        if len(actual) != len(shapes.opt):
            return None
        for size, least, opt, most in zip(actual, shapes.min, shapes.opt, shapes.max, strict=True):
            if not least <= size <= most:
                return None
            total += abs(size - opt)
    return total


class _Collector(logging.Handler):
    """Keeps what TensorRT reports as errors, and prints all that Polygraphy says."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        sys.stdout.write(f"{text}\n")
        if record.levelno == logging.ERROR:  # Polygraphy's own CRITICAL says only that something went wrong
            self.errors.append(" ".join(text.split()).removeprefix("[E] "))


@contextlib.contextmanager
def _errors_collected() -> Iterator[list[str]]:
    """What TensorRT logs as errors meanwhile: its functions return None when they fail, and the log says why."""
    from polygraphy.logger import G_LOGGER

    G_LOGGER.use_python_logging_system = True
    logger, collector = G_LOGGER.python_logger, _Collector()
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield collector.errors
    finally:
        logger.removeHandler(collector)
        G_LOGGER.use_python_logging_system = False
