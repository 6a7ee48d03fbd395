"""Starts the program that reads TensorFlow models, in TensorFlow's environment; that one is made on first use."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import modelwright
from modelwright.environments.folders import clean_variables
from modelwright.environments.own import OwnEnvironment, ensure
from modelwright.environments.tensorflow import TENSORFLOW
from modelwright.errors import StepError
from modelwright.progress import tell
from modelwright.triton.tensors import Tensors, load_tensors, save_tensors

ASKED, ANSWERS, MODEL = "asked", "answers", "model.onnx"

# This package by its folder alone: what lies beside it must not be found in place of the environment's packages.
_BOOT = """
import importlib.util, pathlib, sys
root, inside, out = map(pathlib.Path, sys.argv[1:4])
find = importlib.util.spec_from_file_location
spec = find("modelwright", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["modelwright"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from modelwright.steps.tensorflow_program.main import main
sys.exit(main(inside, out))
"""


def run_program(
    environments: Path,
    request: Mapping[str, Any],
    asked: Sequence[Tensors],
    scratch: Path,
    say: Callable[[str], Any],
) -> tuple[dict[str, Any], list[Tensors]]:
    """(what the program learnt, the answers to each group of samples); it leaves model.onnx in `scratch`/out.

    Raises StepError with the program's reason.
    """

    def announce(text: str) -> None:
        say(text)
        tell(text)  # a download of hundreds of megabytes is not for a log alone

    environment = ensure(environments, TENSORFLOW, announce)
    inside, out = scratch / "in", scratch / "out"
    (inside / ASKED).mkdir(parents=True)
    (inside / "request.json").write_text(json.dumps(dict(request)), encoding="utf-8")
    for number, group in enumerate(asked):
        save_tensors(inside / ASKED / f"{number}.npz", group)
    code = _run(environment, inside, out, say)
    result = out / "result.json"
    if not result.is_file():
        raise _failure(out, code)
    answers = [load_tensors(out / ANSWERS / f"{number}.npz") for number in range(len(asked))]
    return json.loads(result.read_text(encoding="utf-8")), answers


def inspected(environments: Path, request: Mapping[str, Any], say: Callable[[str], Any]) -> dict[str, Any]:
    """What a model says of itself: its signatures, or its tensors. Raises StepError."""
    with tempfile.TemporaryDirectory() as scratch:
        return run_program(environments, {**request, "action": "inspect"}, (), Path(scratch), say)[0]


def _run(environment: OwnEnvironment, inside: Path, out: Path, say: Callable[[str], Any]) -> int:
    command = [str(environment.python), "-c", _BOOT, str(Path(modelwright.__file__).parent), str(inside), str(out)]
    variables = clean_variables() | {
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(inside),  # a keras.json of the user could choose other defaults
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # tf2onnx walks through sets
        "PYTHONNOUSERSITE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",  # they change the order of sums by the CPU
    }
    with subprocess.Popen(
        command,
        cwd=inside,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                say(line.rstrip("\n"))
            return process.wait()
        finally:
            process.kill()


def _failure(out: Path, code: int) -> StepError:
    try:
        reason = json.loads((out / "failed.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = f"it was ended by signal {-code}" if code < 0 else f"exit code {code}"
        return StepError(
            f"TensorFlow's process stopped without a reason: {what}",
            "the step's log has its last words; signal 9 is often a machine without memory",
        )
    return StepError(str(reason["message"]), str(reason["hint"]))
