"""MW1xx: the model's name, its backend, and the files that a version must hold."""

from __future__ import annotations

import ast
import re
import sys
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
    backend = view.message.backend
    if not backend or backend in STOCK_BACKENDS or view.message.runtime:
        return
    library = f"libtriton_{backend}.so"
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
    if not any(view.model.locate(f"{folder}{runtime}").is_file() for folder in folders):
        yield view.found(f"'{runtime}' is neither the backend's library nor a file of the model", "runtime")


@rule(
    "MW108",
    "unknown repository agent",
    Severity.ERROR,
    why="An agent is a library of the server's. The stock container has `checksum` alone; without the library the "
    "model does not load.",
    fix="Leave model_repository_agents out, or install the agent in the container and ignore this rule.",
    example=Example("model_repository_agents { agents [ { name: 'decrypt' } ] }", ""),
)
def unknown_agent(view: ConfigView) -> Iterator[Found]:
    for index, agent in enumerate(view.message.model_repository_agents.agents):
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
    "custom batching library missing",
    Severity.ERROR,
    why="TRITON_BATCH_STRATEGY_PATH names a library that decides on batches. It must be there, and a sequence "
    "batcher takes none.",
    fix="Give the library's path, or leave the parameter out.",
    example=Example(
        'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "/opt/none.so" } }\ndynamic_batching { }',
        "dynamic_batching { }",
    ),
)
def batching_library(view: ConfigView) -> Iterator[Found]:
    key = "TRITON_BATCH_STRATEGY_PATH"
    config = view.message
    if key not in config.parameters or view.is_ensemble:
        return
    if config.HasField("sequence_batching"):
        yield view.found(f"{key} with sequence_batching", "parameters", key)
    elif not Path(config.parameters[key].string_value).exists():
        path = config.parameters[key].string_value
        yield view.found(f"{key}: there is no '{path}' on this machine", "parameters", key)


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
        if group.name and not _PLAIN.fullmatch(group.name):
            yield view.found(f"an instance group is called '{group.name}'", "instance_group", index, "name")


@rule(
    "MW112",
    "Python model without TritonPythonModel",
    Severity.ERROR,
    why="The Python backend imports the file by its name, which must be a plain one, and looks for the class "
    "TritonPythonModel in it.",
    fix="Define the class in the file that default_model_filename names, model.py for most.",
    example=Example("", "", fault_files={"1/model.py": "def execute(requests):\n    return []\n"}),
)
def no_python_model(view: ConfigView) -> Iterator[Found]:
    if view.message.backend != "python":
        return
    name = view.message.default_model_filename
    if "/" in name:
        yield view.found(f"'{name}' is no plain file name", "default_model_filename")
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
        ast.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it does not parse: {error or type(error).__name__}"
    return ""
