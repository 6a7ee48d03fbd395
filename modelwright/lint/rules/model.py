"""MW1xx: the model's name, its backend, and the files that a version must hold."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from modelwright.lint.completion import ENSEMBLE, PLATFORMS
from modelwright.lint.rule import Absent, Example, Found, Onnx, Severity, rule
from modelwright.lint.view import ConfigView
from modelwright.suggest import did_you_mean

# Backends in NVIDIA's -py3 container (server's build.py). Others come with containers of their own, or with the model.
STOCK_BACKENDS = (
    *("dali", "fil", "identity", "onnxruntime", "openvino", "python", "pytorch", "repeat", "square"),
    *("tensorflow", "tensorrt", "tensorrtllm", "vllm"),
)
_STOCK_AGENTS = ("checksum",)
_MAYBE_GPU = {"KIND_GPU", "KIND_AUTO"}
# Backends whose model file has a known name; others find theirs by means of their own.
_BATCHING = "TRITON_BATCH_STRATEGY_PATH"
_MODEL_DIRECTORY = "$$TRITON_MODEL_DIRECTORY/"
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zip, zstd
# What onnxruntime_backend's src/onnxruntime.cc reads; it refuses every other one.
_TENSORRT_PARAMETERS = (
    *("precision_mode", "max_workspace_size_bytes", "int8_calibration_table_name", "int8_use_native_calibration_table"),
    *("trt_max_partition_iterations", "trt_min_subgraph_size", "trt_dla_enable", "trt_dla_core"),
    *("trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix", "trt_dump_subgraphs"),
    *("trt_force_sequential_engine_build", "trt_context_memory_sharing_enable", "trt_layer_norm_fp32_fallback"),
    *("trt_timing_cache_enable", "trt_timing_cache_path", "trt_force_timing_cache", "trt_detailed_build_log"),
    *("trt_build_heuristics_enable", "trt_sparsity_enable", "trt_builder_optimization_level"),
    *("trt_auxiliary_streams", "trt_tactic_sources", "trt_extra_plugin_lib_paths", "trt_cuda_graph_enable"),
    *("trt_profile_min_shapes", "trt_profile_max_shapes", "trt_profile_opt_shapes"),
    *("trt_dump_ep_context_model", "trt_ep_context_file_path", "trt_ep_context_embed_mode"),
)
_PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,.-]+")  # what shlex.quote leaves alone, less the slash
_LARGEST_CODE = 1_000_000
_INDIRECT = re.compile(rb"import\s*\*|\bexec\b|\bglobals\b|\bsetattr\b|__getattr__|\bsys\.modules\b")
_ONE_FILE = ("onnxruntime", "python", "tensorrt", "pytorch", "openvino")


@rule(
    "MW101",
    "name differs from the folder's",
    Severity.ERROR,
    why="The server calls a model by its folder and refuses a config that calls it something else.",
    fix="Make the two equal, or leave `name` out: the server then takes the folder's.",
    example=Example('name: "other"', 'name: "m"'),
)
def name_differs(view: ConfigView) -> Iterator[Found]:
    name = view.written.name
    if name and name != view.model.name:
        yield view.found(f"the model is called '{name}', its folder '{view.model.name}'", "name")


@rule(
    "MW102",
    "no backend",
    Severity.ERROR,
    why="Without `backend` the server guesses from file names in the first version, and fails where it cannot.",
    fix='Write backend: "onnxruntime" (or python, tensorrt, …); an ensemble has platform: "ensemble" instead.',
    example=Example('backend: ""', 'backend: "python"', fault_files={"1/model.py": Absent(), "1/code.py": "\n"}),
)
def no_backend(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if not config.backend and config.platform != ENSEMBLE:
        what = (
            f"platform '{config.platform}' has no backend"
            if config.platform
            else "neither backend nor platform is given"
        )
        yield view.found(what, "platform" if config.platform else "backend")


@rule(
    "MW103",
    "platform and backend contradict each other",
    Severity.ERROR,
    why="The server knows which platform belongs to which of its own backends. An ensemble has a platform and no "
    "backend.",
    fix="Leave `platform` out, except for an ensemble.",
    example=Example('backend: "onnxruntime"\nplatform: "tensorrt_plan"', 'backend: "onnxruntime"', base="onnxruntime"),
)
def contradicting_platform(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if config.backend and config.platform == ENSEMBLE:
        yield view.found(f"an ensemble has no backend; '{config.backend}' is given", "backend")
    elif config.backend in PLATFORMS.values() and PLATFORMS.get(config.platform) != config.backend:
        yield view.found(f"backend '{config.backend}' with platform '{config.platform}'", "platform")


@rule(
    "MW104",
    "negative max_batch_size",
    Severity.ERROR,
    why="0 means that the model does not batch; less is refused.",
    fix="Write 0, or the largest batch.",
    example=Example("max_batch_size: -1", "max_batch_size: 0"),
)
def negative_max_batch_size(view: ConfigView) -> Iterator[Found]:
    if view.message.max_batch_size < 0:
        yield view.found(f"max_batch_size is {view.message.max_batch_size}", "max_batch_size")


@rule(
    "MW105",
    "unknown backend",
    Severity.ERROR,
    why="The server looks for libtriton_<backend>.so in the version, in the model, and in its backend directory, "
    "and fails where there is none. The stock container has a fixed set; a container of your own may have more.",
    fix="Use a backend that the container has. If yours has this one, ignore the rule for the model and say so.",
    example=Example('backend: "pyton"', 'backend: "python"'),
)
def unknown_backend(view: ConfigView) -> Iterator[Found]:
    backend, library = view.message.backend, f"libtriton_{view.message.backend}.so"
    if not backend or backend in STOCK_BACKENDS or view.message.runtime not in ("", library):
        return
    folders = ["", *(f"{number}/" for number in view.served)]
    if not any(view.model.locate(f"{folder}{library}").exists() for folder in folders):
        yield view.found(f"no backend of the stock container is called '{backend}'", "backend", fix=_near(backend))


def _near(backend: str) -> str:
    hint = did_you_mean(backend, STOCK_BACKENDS)
    return hint if hint.startswith("did") else ""


@rule(
    "MW106",
    "model file missing",
    Severity.ERROR,
    why="A version that is served and lacks its file fails to load, and with it the model: one failing version "
    "keeps all of them out.",
    fix="Put the file there, or name the one that is there in default_model_filename.",
    example=Example("", "", base="onnxruntime", fault_files={"1/model.onnx": Absent(), "1/net.onnx": Onnx()}),
)
def model_file_missing(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if config.backend not in _ONE_FILE:
        return
    name = config.default_model_filename
    for number in view.served:
        path = view.model_file(number, name)
        if path.is_dir() and config.backend not in ("onnxruntime", "openvino"):
            yield view.at(f"{number}/{name}", "a file is needed, this is a folder")
        if path.is_dir() and config.backend == "onnxruntime":
            path, name = path / "model.onnx", f"{config.default_model_filename}/model.onnx"
        missing = str(number) in view.model.entries and not path.exists()
        if missing and not _loads_others(view):
            yield view.at(f"{number}/{name}", "there is no such file", fix=_present(view, number, name))


def _loads_others(view: ConfigView) -> bool:
    """Whether every instance may load a file of cc_model_filenames instead: those of GPUs do, where a backend does."""
    config = view.message
    return bool(config.cc_model_filenames) and config.backend != "python" and view.instance_kinds <= _MAYBE_GPU


def _present(view: ConfigView, number: int, name: str) -> str:
    suffix = Path(name).suffix
    there = [other for other in view.model.inside(str(number)) if other.endswith(suffix)] if suffix else []
    return f"the version holds '{there[0]}': rename it, or write default_model_filename" if len(there) == 1 else ""


@rule(
    "MW107",
    "runtime that is not there",
    Severity.ERROR,
    why="`runtime` names the library that runs the model. With one that cannot be found the model does not load. "
    "Left out, the stock container picks its native library.",
    fix="Leave `runtime` out.",
    example=Example('runtime: "libtriton_other.so"', ""),
)
def runtime_missing(view: ConfigView) -> Iterator[Found]:
    config = view.message
    runtime, own = config.runtime, f"libtriton_{config.backend}.so"
    if (
        view.is_ensemble
        or not runtime
        or runtime == own
        or "/" in runtime
        or (runtime == "model.py" and config.backend == "vllm")
    ):
        return  # a path may lead anywhere in the container
    folders = ["", *(f"{number}/" for number in view.served)]
    there = any(view.model.locate(f"{folder}{runtime}").is_file() for folder in folders)
    if not there or not runtime.endswith(".so"):
        yield view.found(f"'{runtime}' is neither the backend's library nor a file of the model", "runtime")


@rule(
    "MW108",
    "unknown repository agent",
    Severity.ERROR,
    why="An agent is a library of the server's. The stock container has `checksum` alone; without the library the "
    "model does not load. An empty list of agents crashes the server (seen with 24.10).",
    fix="Leave model_repository_agents out, or install the agent in the container and ignore this rule.",
    example=Example("model_repository_agents { agents [ { name: 'decrypt' } ] }", ""),
)
def unknown_agent(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if config.HasField("model_repository_agents") and not config.model_repository_agents.agents:
        yield view.found("it lists no agent: that crashes the server", "model_repository_agents")
    for index, agent in enumerate(config.model_repository_agents.agents):
        if agent.name not in _STOCK_AGENTS:
            path = ("model_repository_agents", "agents", index, "name")
            yield view.found(f"the stock container has no agent '{agent.name}'", *path)


@rule(
    "MW109",
    "unknown parameter or value of the onnxruntime backend",
    Severity.ERROR,
    why="The backend reads a few parameters as numbers or booleans. One that it cannot read keeps the model out.",
    fix="Write a value that it takes: a whole number, or true or false.",
    example=Example(
        'parameters { key: "intra_op_thread_count" value { string_value: "two" } }',
        'parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
        base="onnxruntime",
    ),
)
def bad_parameter(view: ConfigView) -> Iterator[Found]:
    if view.message.backend != "onnxruntime":
        return
    for key, parameter in view.message.parameters.items():
        problem = _parameter_problem(key, parameter.string_value)
        if problem:
            yield view.found(f"{key}: {problem}", "parameters", key)


def _parameter_problem(key: str, value: str) -> str:
    if key in ("intra_op_thread_count", "inter_op_thread_count", "execution_mode"):
        try:
            number = int(value)
        except ValueError:
            return f"'{value}' is no whole number"
        return f"{number} is neither 0 nor 1" if key == "execution_mode" and number not in (0, 1) else ""
    if key in ("enable_mem_arena", "enable_mem_pattern", "share_session_between_instances"):
        return "" if value.lower() in ("true", "false", "0", "1") else f"'{value}' is neither true nor false"
    return ""


@rule(
    "MW110",
    "custom batching library that cannot be used",
    Severity.ERROR,
    why="A library of the model's may decide on batches: batchstrategy.so in the version or the model, or the one "
    "that the parameter TRITON_BATCH_STRATEGY_PATH names. It must be a shared library, and a sequence batcher "
    "takes no parameter for one.",
    fix="Build the library again, or remove the file or the parameter.",
    example=Example("", "", fault_files={"batchstrategy.so": "not a library"}),
)
def batching_library(view: ConfigView) -> Iterator[Found]:
    given = view.message.parameters.get(_BATCHING) if _BATCHING in view.message.parameters else None
    if view.is_ensemble:
        return
    if view.message.HasField("sequence_batching"):
        if given is not None:
            yield view.found(f"{_BATCHING} with sequence_batching", "parameters", _BATCHING)
    elif given is not None:
        path = Path(given.string_value)
        if path.is_file() and not _is_library(path):
            yield view.found(f"'{path}' is no shared library", "parameters", _BATCHING)
    else:
        for file in ["batchstrategy.so", *(f"{number}/batchstrategy.so" for number in view.served)]:
            path = view.model.locate(file)
            if path.is_file() and not _is_library(path):
                yield view.at(file, "it is no shared library")


def _is_library(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


@rule(
    "MW111",
    "name that the Python backend cannot start",
    Severity.ERROR,
    why="The Python backend puts the model's path and the instance's name into a shell command, unquoted, and its "
    "embedded interpreter takes ASCII. A blank, a quote, a backslash or an umlaut in either keeps the model out, "
    "or hangs its load for good.",
    fix="Use letters, digits, '_', '-' and '.' in the names of Python models and their instance groups.",
    example=Example(
        'instance_group [ { name: "on cpu", kind: KIND_CPU } ]', 'instance_group [ { name: "on_cpu", kind: KIND_CPU } ]'
    ),
)
def unstartable_name(view: ConfigView) -> Iterator[Found]:
    if view.message.backend != "python":
        return
    if not _PLAIN.fullmatch(view.model.name):
        yield view.found(f"the model's folder is called '{view.model.name}'", "name")
    for index, group in enumerate(view.message.instance_group):
        if group.name and not _PLAIN.fullmatch(group.name.replace("/", "")):
            yield view.found(f"an instance group is called '{group.name}'", "instance_group", index, "name")


@rule(
    "MW112",
    "Python model without TritonPythonModel",
    Severity.ERROR,
    why="The Python backend imports the file by its name and its folder's, and looks for the class "
    "TritonPythonModel in it.",
    fix="Define the class in the file that default_model_filename names, model.py for most.",
    example=Example("", "", fault_files={"1/model.py": "def execute(requests):\n    return []\n"}),
)
def no_python_model(view: ConfigView) -> Iterator[Found]:
    if view.message.backend != "python":
        return
    name = view.message.default_model_filename
    folder = name.split("/")[-2] if "/" in name else ""
    if folder in (".", "..") or folder in sys.stdlib_module_names:
        yield view.found(f"'{folder}' in '{name}' is no package to import from", "default_model_filename")
        return
    for number in view.served:
        problem = _python_problem(view.model_file(number, name), view.options.target.python)
        if problem:
            yield view.at(f"{number}/{name}", problem)


def _python_problem(path: Path, target_python: str) -> str:
    """Why a Python model's file cannot be imported; '' where that is not sure. Nothing of it is run."""
    try:
        with path.open("rb") as file:
            source = file.read(_LARGEST_CODE + 1)
    except OSError:
        return ""  # missing, which another rule says
    if len(source) > _LARGEST_CODE:
        return ""
    if b"TritonPythonModel" not in source and not _INDIRECT.search(source):
        return "it has no class TritonPythonModel"
    if sys.version_info < tuple(int(part) for part in target_python.split(".")):
        return ""  # what does not parse here may be of a later Python
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape, say: it parses all the same
            ast.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it does not parse: {error or type(error).__name__}"
    return ""


@rule(
    "MW113",
    "Python environment that cannot be used",
    Severity.ERROR,
    why="EXECUTION_ENV_PATH names an environment for the Python backend: an archive that conda-pack made, or the "
    "folder of one, which has bin/activate. The server unpacks it when the model loads. Paths outside the model "
    "are the container's, and not looked at.",
    fix="Put the archive beside config.pbtxt, and write $$TRITON_MODEL_DIRECTORY/env.tar.gz.",
    example=Example(
        'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }', ""
    ),
)
def python_environment(view: ConfigView) -> Iterator[Found]:
    key = "EXECUTION_ENV_PATH"
    if view.message.backend == "python" and key in view.message.parameters:
        value = view.message.parameters[key].string_value
        if value.startswith(_MODEL_DIRECTORY):
            problem = _environment_problem(view.model.locate(value.removeprefix(_MODEL_DIRECTORY)))
            if problem:
                yield view.found(f"'{value}' {problem}", "parameters", key)


def _environment_problem(path: Path) -> str:
    if path.is_dir():
        return "" if (path / "bin/activate").is_file() else "has no bin/activate"
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return "is not there"
    return "" if start.startswith(_ARCHIVES) or start[257:262] == b"ustar" else "is no archive"


@rule(
    "MW114",
    "parameter of the Python backend that it cannot read",
    Severity.ERROR,
    why="FORCE_CPU_ONLY_INPUT_TENSORS is yes or no, in small letters.",
    fix='Write "yes" or "no".',
    example=Example(
        'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "true" } }',
        'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "yes" } }',
    ),
)
def python_parameter(view: ConfigView) -> Iterator[Found]:
    key = "FORCE_CPU_ONLY_INPUT_TENSORS"
    if view.message.backend == "python" and key in view.message.parameters:
        value = view.message.parameters[key].string_value
        if value not in ("yes", "no"):
            yield view.found(f"{key} is '{value}'", "parameters", key)


@rule(
    "MW115",
    "accelerator that the onnxruntime backend does not have",
    Severity.ERROR,
    why="The backend knows `openvino` on the CPU, and `tensorrt` and `cuda` on the GPU; `tensorrt` has a fixed set "
    "of parameters. Anything else is refused where an instance would use it. The local server has no GPU: what "
    "concerns GPUs is read in the backend's source.",
    fix="Use one of these names, or leave execution_accelerators out.",
    example=Example(
        'optimization { execution_accelerators { cpu_execution_accelerator [ { name: "vino" } ] } }',
        'optimization { execution_accelerators { cpu_execution_accelerator [ { name: "openvino" } ] } }',
        base="onnxruntime",
    ),
)
def unknown_accelerator(view: ConfigView) -> Iterator[Found]:
    accelerators = view.message.optimization.execution_accelerators
    path = ("optimization", "execution_accelerators")
    if view.message.backend != "onnxruntime":
        return
    for index, entry in enumerate(accelerators.cpu_execution_accelerator):
        if entry.name != "openvino":
            where = (*path, "cpu_execution_accelerator", index)
            yield view.found(f"there is no CPU accelerator '{entry.name}'", *where)
    for index, entry in enumerate(accelerators.gpu_execution_accelerator if "KIND_GPU" in view.instance_kinds else ()):
        where = (*path, "gpu_execution_accelerator", index)
        if entry.name not in ("tensorrt", "cuda"):
            yield view.found(f"there is no GPU accelerator '{entry.name}'", *where)
        for key in sorted(entry.parameters) if entry.name == "tensorrt" else ():
            if key not in _TENSORRT_PARAMETERS:
                near = did_you_mean(key, _TENSORRT_PARAMETERS)
                yield view.found(f"'tensorrt' has no parameter '{key}'", *where, "parameters", key, fix=near)
            elif key == "precision_mode" and entry.parameters[key] not in _PRECISIONS:
                known = ", ".join(_PRECISIONS)
                yield view.found(
                    f"precision_mode is '{entry.parameters[key]}', not one of {known}", *where, "parameters", key
                )
