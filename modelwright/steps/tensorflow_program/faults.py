"""What TensorFlow, Keras and tf2onnx say of a model that does not work, cut to what matters; and what can be done."""

from __future__ import annotations

import re

from modelwright.errors import one_line

_SAFE = re.compile(r"safe_mode|unsafe deserialization|arbitrary code", re.IGNORECASE)
_CLASS = re.compile(r"(?:Could not locate (?:class|function)|Unknown (?:layer|object|\w+)):? '?(\w[\w>]*)'?")
_OP = re.compile(r"Op type not registered '(\w+)'")
SAVE = "model.export(folder) where its code is saves a SavedModel, which needs no classes: source.kind tensorflow"


def explained(error: Exception) -> tuple[str, str] | None:
    """(message, hint) of an exception that TensorFlow raises for a model's own faults; None for another one."""
    text = str(error)
    if found := _OP.search(text):
        return (
            f"it uses the operation {found[1]}, which TensorFlow itself does not have",
            "it comes from a library of its own, and neither ONNX nor a stock server knows it: save a model without it",
        )
    if re.search(r"DATA_LOSS|data loss|Unable to open table|TensorBundle|variables", text) and "variables" in text:
        return f"its variables are damaged or not there: {one_line(error)}", "copy the whole folder again"
    if "exceeds maximum protobuf size" in text:
        return "it has more than 2 GB of weights", "convert it with tf2onnx --large_model, and use source.kind onnx"
    return None


def explained_keras(error: Exception) -> tuple[str, str] | None:
    """The same for what Keras raises when it loads a file."""
    text = str(error)
    if _SAFE.search(text):
        return (
            "holds a Lambda layer, which is Python code that runs when it is loaded",
            f"{SAVE}; or, if you trust whoever made it: source.trusted: true",
        )
    if found := _CLASS.search(text):
        return f"it has an object of a class that only its own code knows: {found[1]}", SAVE
    if isinstance(error, (OSError, KeyError)):
        return f"is damaged, or no file of Keras: {one_line(error)}", "copy or save it again"
    return None


def unsupported(names: list[str], more: int) -> tuple[str, str]:
    """For operations that tf2onnx leaves as they are."""
    listed = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    return (
        f"tf2onnx cannot convert {listed}",
        "move what uses them out of the served function, into the client or a Python model before it; or replace them"
        " by operations that ONNX has, and save the model again",
    )
