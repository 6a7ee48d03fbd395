"""Answers one request.

{"action": "inspect" | "convert", "form": "saved_model" | "keras", "model": path, "threads": 1,
 "signature": name or "", "tags": [...],                of a SavedModel
 "trusted": false,                                      of a Keras file
 "batched": true, "opset": 18}                          to convert
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from modelwright.errors import ModelwrightError, one_line
from modelwright.steps.tensorflow_program.faults import explained

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
RESULT, FAILED, REQUEST = "result.json", "failed.json", "request.json"


def main(inside: Path, out: Path) -> int:
    """Exit code 0, or 1 with the reason in OUT/failed.json."""
    _end_with_parent()
    out.mkdir(parents=True, exist_ok=True)
    request = json.loads((inside / REQUEST).read_text(encoding="utf-8"))
    try:
        _quieten(int(request.get("threads", 1)))
        result = _answer(request, inside, out)
    except ModelwrightError as error:
        _write(out / FAILED, {"message": error.message, "hint": error.hint})
        return 1
    except Exception as error:  # whoever asked must learn of it
        traceback.print_exc(file=sys.stdout)
        message, hint = explained(error) or (f"TensorFlow fails: {type(error).__name__}: {one_line(error)}", "")
        _write(out / FAILED, {"message": message, "hint": hint or "the step's log has all that TensorFlow says"})
        return 1
    _write(out / RESULT, result)
    return 0


def _answer(request: dict[str, Any], inside: Path, out: Path) -> dict[str, Any]:
    from modelwright.steps.tensorflow_program.saved_model import inspect

    model = Path(request["model"])
    if request["action"] == "inspect" and request["form"] == "saved_model":
        return inspect(model)
    from modelwright.steps.tensorflow_program.answers import answer
    from modelwright.steps.tensorflow_program.graph import onnx_from_function

    function = _loaded(request, model)
    if request["action"] == "convert":
        answer(function, inside / "asked", out / "answers", batched=request["batched"])
        onnx_from_function(function, request["opset"], out / "model.onnx")
    return {"inputs": function.described_inputs, "outputs": function.described_outputs}


def _loaded(request: dict[str, Any], model: Path) -> Any:
    if request["form"] == "keras":
        from modelwright.steps.tensorflow_program.keras_file import load

        return load(model, trusted=request["trusted"])
    from modelwright.steps.tensorflow_program.saved_model import load_signature

    return load_signature(model, request["signature"], request["tags"])


def _quieten(threads: int) -> None:
    """One result whatever else runs here: no GPU, a number of threads that is given, no reordered sums."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.random.set_seed(0)
    tf.config.experimental.enable_op_determinism()
    tf.get_logger().setLevel("ERROR")


def _end_with_parent() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write(path: Path, data: dict[str, Any]) -> None:
    """Whole or not at all: a reader takes the file as the sign that all others are there."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(data, indent=1), encoding="utf-8")
    beside.replace(path)
