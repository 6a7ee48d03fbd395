"""MW1xx: the model's name, its backend, and the files that a version needs."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from modelwright.fsops import not_a_file, open_file
from modelwright.lint import spellings
from modelwright.lint.completion import ENSEMBLE, PLATFORMS
from modelwright.lint.rule import Absent, Example, Found, Onnx, Severity, Zip, rule
from modelwright.lint.templates import placeholder
from modelwright.lint.view import ConfigView, seen
from modelwright.server.backends.onnxruntime.load_check import parse_boolean, parse_integer
from modelwright.suggest import Names, did_you_mean
from modelwright.triton.accelerators import TENSORRT_PARAMETERS, TENSORRT_PRECISIONS
from modelwright.triton.file_types import (
    ANNEX_POINTER,
    COMPILED_PROGRAM,
    EMPTY,
    EXPORTED_PROGRAM,
    HTML,
    LFS_POINTER,
    OLD_PROGRAM,
    TORCHSCRIPT,
    XML,
    ZIP,
)

# Backends in NVIDIA's -py3 container (server's build.py). Others need another container, or come with the model.
STOCK_BACKENDS = (
    *("dali", "fil", "identity", "onnxruntime", "openvino", "python", "pytorch", "repeat", "square"),
    *("tensorflow", "tensorrt", "tensorrtllm", "vllm"),
)
_NO_BACKEND = 'Remove `backend`; if this is no ensemble, remove platform: "ensemble".'
_STOCK_AGENTS = ("checksum",)
_LONGEST_VALUE = 40  # in a message
_CHOICES = {"execution_mode": 1}  # {parameter: the highest number}; the lowest is 0
_GPU_CHOICES = {"cudnn_conv_algo_search": 2, "arena_extend_strategy": 1}  # read for instances on GPUs
THREAD_COUNTS = ("intra_op_thread_count", "inter_op_thread_count")  # parameters of the onnxruntime backend
_BATCHING, _BATCHING_FILE = "TRITON_BATCH_STRATEGY_PATH", "batchstrategy.so"
_MODEL_DIRECTORY = "$$TRITON_MODEL_DIRECTORY/"
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zip, zstd
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,.-]+")  # what shlex.quote does not quote, without the slash
# Backends that have a model.py of their own beside their library.
_PYTHON_RUNTIMES, _PYTHON_RUNTIME = ("pytorch", "vllm"), "model.py"
# Backends whose model file has a known name; others look for theirs in their own way.
_ONE_FILE = ("onnxruntime", "python", "tensorrt", "pytorch", "openvino")


@rule(
    "MW101",
    "name differs from the folder's name",
    Severity.ERROR,
    why="A model's name is the name of its folder. The server refuses a config with another name.",
    fix="Use the folder's name, or remove `name`: the server then takes the folder's name.",
    example=Example('name: "other"', 'name: "m"'),
)
def name_differs(view: ConfigView) -> Iterator[Found]:
    name = view.written.name
    if name and name != view.model.name:
        unfilled = placeholder(name)
        fix = f"This is the placeholder of a template. {unfilled.fix}" if unfilled else ""
        yield view.found(f"name is '{name}', the folder is '{view.model.name}'", "name", fix=fix)


@rule(
    "MW102",
    "no backend",
    Severity.ERROR,
    why="Without `backend` the server guesses it from file names in the first version, or fails.",
    fix='Write backend: "onnxruntime" (or python, tensorrt, …); an ensemble has platform: "ensemble" instead.',
    example=Example('backend: ""', 'backend: "python"', fault_files={"1/model.py": Absent(), "1/code.py": "\n"}),
)
def no_backend(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if not config.backend and config.platform != ENSEMBLE:
        if config.platform:
            what = f"no backend belongs to platform '{config.platform}'"
            yield view.found(what, "platform", fix=_in_place_of(config.platform))
        else:
            yield view.found("neither backend nor platform is given, and no file says which backend it is", "backend")


def _in_place_of(platform: str) -> str:
    """What to write for a platform that Triton does not have: its backend, or the platform's right name."""
    if "ensemble" in platform.lower():
        return 'Write platform: "ensemble".'
    near = Names(PLATFORMS).nearest(platform.lower()) if platform not in STOCK_BACKENDS else None
    meant = spellings.backend(platform, STOCK_BACKENDS)
    if meant and not (near and platform.lower().count("_")):
        return f'Write backend: "{meant}" instead of platform.'
    return f"did you mean '{near}'?" if near else ""


@rule(
    "MW103",
    "platform and backend contradict each other",
    Severity.ERROR,
    why="Each platform belongs to one backend. An ensemble has a platform and no backend.",
    fix="Remove `platform`, or write the backend that it belongs to.",
    example=Example('backend: "onnxruntime"\nplatform: "tensorrt_plan"', 'backend: "onnxruntime"', base="onnxruntime"),
)
def contradicting_platform(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if config.backend and config.platform == ENSEMBLE:
        what = f"an ensemble cannot have a backend, and '{config.backend}' is given"
        yield view.found(what, "backend", fix=_NO_BACKEND)
    elif config.backend in PLATFORMS.values() and PLATFORMS.get(config.platform) != config.backend:
        own = [f'"{platform}"' for platform, backend in PLATFORMS.items() if backend == config.backend]
        if config.platform:
            belongs = PLATFORMS.get(config.platform)
            other = f"belongs to backend '{belongs}'" if belongs else f"is not one of backend '{config.backend}'"
            yield view.found(f"platform '{config.platform}' {other}, and backend is '{config.backend}'", "platform")
        else:
            fix = f"Write platform: {' or '.join(own)}."
            yield view.found(f"backend '{config.backend}' needs a platform here", "backend", fix=fix)


@rule(
    "MW104",
    "negative max_batch_size",
    Severity.ERROR,
    why="max_batch_size is 0 for a model that does not batch, else the largest batch.",
    fix="Write 0, or the largest batch size.",
    example=Example("max_batch_size: -1", "max_batch_size: 0"),
)
def negative_max_batch_size(view: ConfigView) -> Iterator[Found]:
    if view.message.max_batch_size < 0:
        yield view.found(f"max_batch_size is {view.message.max_batch_size}", "max_batch_size")


@rule(
    "MW105",
    "unknown backend",
    Severity.ERROR,
    why="The server looks for libtriton_<backend>.so in the version, in the model's folder and in its backend "
    "directory, and fails without one. NVIDIA's container has a fixed set of backends; your own may have more.",
    fix="Use a backend of the container. If your container has this one, ignore the rule for the model.",
    example=Example('backend: "pyton"', 'backend: "python"'),
)
def unknown_backend(view: ConfigView) -> Iterator[Found]:
    backend, library = view.message.backend, f"libtriton_{view.message.backend}.so"
    runtime = view.message.runtime
    if not backend or backend in STOCK_BACKENDS or (runtime and not _is_own(backend, runtime)):
        return
    folders = ["", *(f"{number}/" for number in view.served)]
    if not any(view.model.locate(f"{folder}{library}").exists() for folder in folders):
        yield view.found(f"NVIDIA's container has no backend '{backend}'", "backend", fix=_meant(backend))


def _meant(backend: str) -> str:
    unfilled = placeholder(backend)
    if unfilled:
        return f"This is the placeholder of a template. {unfilled.fix}"
    if backend.lower() == ENSEMBLE:
        return 'An ensemble has platform: "ensemble" and no backend.'
    near = spellings.backend(backend, STOCK_BACKENDS)
    return f"did you mean '{near}'? If your container has '{backend}', ignore the rule for the model." if near else ""


@rule(
    "MW106",
    "model file missing",
    Severity.ERROR,
    why="A version without its model file fails to load. One failing version keeps the whole model from loading.",
    fix="Put the file there, or set default_model_filename to the name of the file that is there.",
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
            yield view.at(f"{number}/{name}", "this is a folder; the backend needs a file")
        if path.is_dir() and config.backend == "onnxruntime":
            path, name = path / "model.onnx", f"{config.default_model_filename}/model.onnx"
        if config.backend != "onnxruntime" and path.exists() and not path.is_file() and not path.is_dir():
            yield view.at(f"{number}/{name}", f"it {not_a_file(path)}")
        missing = str(number) in view.model.entries and not path.exists()
        if missing and not _loads_others(view):
            by_gpu = "; instances on the CPU do not read cc_model_filenames" if config.cc_model_filenames else ""
            yield view.at(f"{number}/{name}", f"the file does not exist{by_gpu}", fix=_present(view, number, name))


def _loads_others(view: ConfigView) -> bool:
    """Whether every instance may load a file of cc_model_filenames instead, as instances on GPUs do.

    TensorRT has no other instances; those of other backends are on the CPU unless the config says KIND_GPU.
    """
    config = view.message
    on_gpu = config.backend == "tensorrt" or view.instance_kinds == {"KIND_GPU"}
    return bool(config.cc_model_filenames) and config.backend != "python" and on_gpu


def _present(view: ConfigView, number: int, name: str) -> str:
    suffix = Path(name).suffix
    there = [other for other in view.model.inside(str(number)) if other.endswith(suffix)] if suffix else []
    return f"rename '{there[0]}', or set default_model_filename to it" if len(there) == 1 else ""


@rule(
    "MW107",
    "runtime not found",
    Severity.ERROR,
    why="`runtime` names the library that runs the model, relative to the version, the model's folder or the backend's "
    "own. The model does not load if the server does not find it there, or if the path leads out of that folder. "
    "Without `runtime`, the server takes the backend's own library.",
    fix="Remove `runtime`.",
    example=Example('runtime: "libtriton_other.so"', ""),
)
def runtime_missing(view: ConfigView) -> Iterator[Found]:
    runtime, backend = view.message.runtime, view.message.backend
    if view.is_ensemble or not runtime or (runtime == _PYTHON_RUNTIME and backend in _PYTHON_RUNTIMES):
        return
    for folder in [*(f"{number}/" for number in view.served), ""]:
        if view.model.locate(f"{folder}{runtime}").exists():
            if not _stays(runtime):
                yield view.found(f"'{runtime}' leads out of '{view.model.name}/{folder}'", "runtime")
            elif not _is_library(view.model.locate(f"{folder}{runtime}")):
                yield view.found(f"'{runtime}' is not a library", "runtime")
            return
    if not _is_own(backend, runtime):
        what = "neither the backend's library nor a library in the model's folder"
        yield view.found(f"'{runtime}' is {what}", "runtime")


def _stays(path: str) -> bool:
    """Whether a path that the server joins to a folder's leads to something inside it."""
    return not posixpath.normpath(path.lstrip("/")).startswith("..")


def _is_own(backend: str, path: str) -> bool:
    """Whether a path leads from a backend's folder to its library, by folders that are there for sure."""
    place = home = f"/opt/tritonserver/backends/{backend}"
    *folders, file = path.split("/")
    for folder in folders:
        place = posixpath.normpath(f"{place}/{folder}")
        if not f"{home}/".startswith(place.rstrip("/") + "/"):
            return False
    return place == home and file == f"libtriton_{backend}.so"


@rule(
    "MW108",
    "unknown repository agent",
    Severity.ERROR,
    why="An agent is a library of the server. NVIDIA's container has only `checksum`; without the library the model "
    "does not load. An empty list of agents crashes the server (seen with 24.10).",
    fix="Remove model_repository_agents, or install the agent in the container and ignore this rule.",
    example=Example("model_repository_agents { agents [ { name: 'decrypt' } ] }", ""),
)
def unknown_agent(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if config.HasField("model_repository_agents") and not config.model_repository_agents.agents:
        yield view.found("an empty list of agents crashes the server", "model_repository_agents")
    for index, agent in enumerate(config.model_repository_agents.agents):
        if agent.name not in _STOCK_AGENTS:
            path = ("model_repository_agents", "agents", index, "name")
            yield view.found(f"NVIDIA's container has no agent '{agent.name}'", *path)


@rule(
    "MW109",
    "invalid parameter value for the onnxruntime backend",
    Severity.ERROR,
    why="The backend reads some parameters as whole numbers of 32 bits or as booleans (true, on, 1, false, off, 0). "
    "The model does not load with another value. Such a thread count was seen to end the whole server, with all other "
    "models (24.10 and 26.06).",
    fix="Write a whole number, or true or false, as the parameter needs.",
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
        problem = _parameter_problem(key, parameter.string_value, "KIND_GPU" in view.instance_kinds)
        if problem:
            yield view.found(f"{key}: {problem}", "parameters", key)


def _parameter_problem(key: str, value: str, on_gpu: bool) -> str:
    number = parse_integer(value)
    value = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"
    if key in THREAD_COUNTS and number is None:
        return f"'{value}' is not a whole number of 32 bits: it can end the whole server"
    if key in _CHOICES or (on_gpu and key in _GPU_CHOICES):
        most = (_CHOICES | _GPU_CHOICES)[key]
        if number is None:
            return f"'{value}' is not a whole number of 32 bits"
        return "" if 0 <= number <= most else f"{number} is not {' or '.join(map(str, range(most + 1)))}"
    if key in ("enable_mem_arena", "enable_mem_pattern"):
        return "" if parse_boolean(value) is not None else f"'{value}' is neither true nor false"
    return ""


@rule(
    "MW110",
    "unusable custom batching library",
    Severity.ERROR,
    why="A model can bring a library that forms its batches: batchstrategy.so in the version or the model's folder, or "
    "the path in the parameter TRITON_BATCH_STRATEGY_PATH. It must be a shared library. The parameter is not allowed "
    "with a sequence batcher.",
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
            yield view.found(f"'{path}' is not a shared library", "parameters", _BATCHING)
    else:
        for file in [_BATCHING_FILE, *(f"{number}/{_BATCHING_FILE}" for number in view.served)]:
            path = view.model.locate(file)
            if view.model.has(file) and path.is_file() and not _is_library(path):
                yield view.at(file, "the file is not a shared library")


def _is_library(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


@rule(
    "MW111",
    "name that the Python backend cannot use",
    Severity.ERROR,
    why="The Python backend puts the model's path and the instance's name into a shell command without quotes, and "
    "needs ASCII. With a space, a quote, a backslash or an accented letter the model fails to load, or its load hangs "
    "for ever.",
    fix="Use letters, digits, '_', '-' and '.' in the names of Python models and their instance groups.",
    example=Example(
        'instance_group [ { name: "on cpu", kind: KIND_CPU } ]', 'instance_group [ { name: "on_cpu", kind: KIND_CPU } ]'
    ),
)
def unusable_name(view: ConfigView) -> Iterator[Found]:
    if view.message.backend != "python":
        return
    if not _PLAIN.fullmatch(view.model.name):
        yield view.found(f"the model's folder is '{view.model.name}'", "name")
    for index, group in enumerate(view.message.instance_group):
        if group.name and not _PLAIN.fullmatch(group.name.replace("/", "")):
            yield view.found(f"the instance group is '{group.name}'", "instance_group", index, "name")


@rule(
    "MW112",
    "Python model without TritonPythonModel",
    Severity.ERROR,
    why="The Python backend imports the model's file as a Python module, and needs the class TritonPythonModel in it.",
    fix="Define the class in model.py, or in the file that default_model_filename names.",
    example=Example("", "", fault_files={"1/model.py": "def execute(requests):\n    return []\n"}),
)
def no_python_model(view: ConfigView) -> Iterator[Found]:
    if view.message.backend != "python":
        return
    name = view.message.default_model_filename
    folder = name.split("/")[-2] if "/" in name else ""
    if folder in (".", "..") or folder in sys.stdlib_module_names:
        yield view.found(f"Python cannot import from the folder '{folder}' in '{name}'", "default_model_filename")
        return
    for number in view.served:
        problem = view.python_code(number).problem(view.options.target.python)
        is_ = seen(view.model_file(number, name)) if problem else None
        if is_ in (EMPTY, LFS_POINTER, ANNEX_POINTER, HTML):
            yield view.at(f"{number}/{name}", f"it is {is_.what}", fix=f"{is_.fix}.")
        elif problem:
            yield view.at(f"{number}/{name}", problem)


@rule(
    "MW113",
    "unusable Python environment",
    Severity.ERROR,
    why="EXECUTION_ENV_PATH names an environment for the Python backend: an archive made by conda-pack, or an unpacked "
    "one, which has bin/activate. This rule checks paths inside the model's folder; others are in the container.",
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
        with open_file(path) as file:
            start = file.read(512)
    except OSError:
        return "does not exist"
    return "" if start.startswith(_ARCHIVES) or start[257:262] == b"ustar" else "is not an archive"


@rule(
    "MW114",
    "invalid parameter value for the Python backend",
    Severity.ERROR,
    why="FORCE_CPU_ONLY_INPUT_TENSORS is yes or no, in lower case.",
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
    "unknown accelerator of the onnxruntime backend",
    Severity.ERROR,
    why="The backend has `openvino` on the CPU, and `tensorrt` and `cuda` on the GPU; `tensorrt` has a fixed set of "
    "parameters. It refuses anything else that an instance would use. The part about GPUs follows the backend's source "
    "code: the local server has no GPU.",
    fix="Use one of these names, or remove execution_accelerators.",
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
            yield view.found(f"unknown CPU accelerator '{entry.name}'", *where)
    for index, entry in enumerate(accelerators.gpu_execution_accelerator if "KIND_GPU" in view.instance_kinds else ()):
        where = (*path, "gpu_execution_accelerator", index)
        if entry.name not in ("tensorrt", "cuda"):
            yield view.found(f"unknown GPU accelerator '{entry.name}'", *where)
        for key in sorted(entry.parameters) if entry.name == "tensorrt" else ():
            if key not in TENSORRT_PARAMETERS:
                near = did_you_mean(key, TENSORRT_PARAMETERS)
                yield view.found(f"'tensorrt' has no parameter '{key}'", *where, "parameters", key, fix=near)
            elif key == "precision_mode" and entry.parameters[key] not in TENSORRT_PRECISIONS:
                known = ", ".join(TENSORRT_PRECISIONS)
                yield view.found(
                    f"precision_mode is '{entry.parameters[key]}', not one of {known}", *where, "parameters", key
                )


# {backend: what a file of a known type must be}. The platform torch_aoti takes packages of AOTInductor.
_PYTORCH = (TORCHSCRIPT, COMPILED_PROGRAM, EXPORTED_PROGRAM, OLD_PROGRAM, ZIP)
_WANTED = {"pytorch": ("TorchScript", _PYTORCH), "openvino": ("OpenVINO IR, which is XML", (XML,))}


@rule(
    "MW116",
    "model file of another kind",
    Severity.ERROR,
    why="The pytorch backend reads TorchScript, the openvino backend its own XML. They refuse a Git LFS pointer, a web "
    "page, or a checkpoint that holds weights and no code. onnxruntime's files and TensorRT's have rules of their own.",
    fix="Put the right file there; torch.jit.save writes TorchScript.",
    example=Example(
        "",
        "",
        base="pytorch",
        fault_files={"1/model.pt": "version https://git-lfs.github.com/spec/v1\n"},
        fixed_files={"1/model.pt": Zip(("m/constants.pkl", "m/data.pkl"))},
    ),
    unexercised="the local server has neither backend",
)
def other_kind(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if config.backend not in _WANTED or config.runtime or config.cc_model_filenames:
        return
    name, (format_, accepted) = config.default_model_filename, _WANTED[config.backend]
    if view.leaves(name):
        return
    if config.backend == "openvino" and not name.endswith(".xml"):
        return  # it reads ONNX and other formats, too
    for number in view.served:
        is_ = seen(view.model_file(number, name))
        if is_ and is_ not in accepted:
            yield view.at(f"{number}/{name}", f"it is {is_.what}, not {format_}", fix=f"{is_.fix}.")


@rule(
    "MW118",
    "model file outside the model's folder",
    Severity.WARNING,
    why="The server joins the name to the version's folder and opens what is there, wherever that is: the file of "
    "another model, or any file of the machine. It is not part of the model, so it is not copied or uploaded with it, "
    "and changes without a new version. The linter does not open it.",
    fix="Put the file into the version's folder, and name it there.",
    example=Example(
        'default_model_filename: "../../shared.onnx"',
        'default_model_filename: "model.onnx"',
        base="onnxruntime",
        files={"/shared.onnx": Onnx()},
    ),
)
def file_outside(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if config.backend not in _ONE_FILE:
        return
    named: dict[tuple[str, ...], str] = {("default_model_filename",): config.default_model_filename}
    named |= {("cc_model_filenames", key): config.cc_model_filenames[key] for key in sorted(config.cc_model_filenames)}
    for path, name in named.items():
        if view.leaves(name) and any(view.model_file(number, name).exists() for number in view.served):
            yield view.found(f"'{name}' is outside the model's folder", *path)


@rule(
    "MW117",
    "PyTorch model without inputs or outputs",
    Severity.ERROR,
    why="TorchScript does not say what a config needs, so the pytorch backend completes nothing. It refuses a model "
    "whose config lists no inputs or no outputs (ValidateInputs and ValidateOutputs in pytorch_backend's sources).",
    fix="List the inputs and outputs. Names such as INPUT__0 and OUTPUT__0 give their order.",
    example=Example("output [ ]", "", base="pytorch", files={"1/model.pt": Zip(("m/constants.pkl", "m/data.pkl"))}),
    unexercised="the local server does not have the backend",
)
def no_tensors(view: ConfigView) -> Iterator[Found]:
    config = view.message
    if config.platform in ("pytorch_libtorch", "torch_aoti") and not config.runtime and view.exists:
        for side in ("input", "output"):
            if not getattr(config, side):
                yield view.found(f"the config lists no {side}s, and the pytorch backend needs them", side)
