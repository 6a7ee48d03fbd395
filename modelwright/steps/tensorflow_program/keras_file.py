"""Keras files: `.keras`, a zip archive, and `.h5`. Read by what wrote them: Keras 3, or tf-keras for 2."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from modelwright.errors import StepError, one_line
from modelwright.steps.tensorflow_program.faults import explained_keras
from modelwright.steps.tensorflow_program.function import Function, unique


def load(path: Path, *, trusted: bool) -> Function:
    """The function of a Keras model: inputs and outputs have the names of its layers. Raises StepError."""
    old = _version(path).startswith("2.")
    try:
        model = _load_model(path, trusted, old=old)
    except Exception as error:
        message, hint = explained_keras(error) or (
            f"Keras cannot load it: {one_line(error)}",
            "the step's log has more",
        )
        raise StepError(message, hint) from error
    if not getattr(model, "inputs", None):
        raise StepError(
            "the model does not say what its inputs are: it is a subclass that was never called",
            "model.export(folder) in its own code saves a SavedModel, for source.kind tensorflow",
        )
    return _function(model)


def _version(path: Path) -> str:
    """The version of Keras that wrote a file; '' where it does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        import h5py

        with h5py.File(path) as file:
            found = file.attrs.get("keras_version", "")
            if "model_config" not in file.attrs:
                raise StepError(
                    "holds weights and no model", "save the whole model where its code is: model.save('model.keras')"
                )
            return found.decode() if isinstance(found, bytes) else str(found)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        raise StepError("is damaged, or no file of Keras", "copy or save it again") from None


def _load_model(path: Path, trusted: bool, *, old: bool) -> Any:
    if old:
        import tf_keras

        return tf_keras.models.load_model(str(path), compile=False, safe_mode=not trusted)
    import keras

    return keras.saving.load_model(str(path), compile=False, safe_mode=not trusted)


def _function(model: Any) -> Function:
    import tensorflow as tf

    tensors = [*model.inputs]
    names = unique([_plain(name) for name in getattr(model, "input_names", [tensor.name for tensor in tensors])])
    specs = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in zip(names, tensors, strict=True)
    }
    answered: list[str] = []

    def call(**given: Any) -> dict[str, Any]:
        flat = [given[name] for name in names]
        structure = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", tensors))
        # A Sequential takes its one input as it is.
        packed = tf.nest.pack_sequence_as(structure, flat) if isinstance(structure, dict) or len(names) > 1 else flat[0]
        answer = model(packed, training=False)
        answered[:] = _output_names(model, answer)
        return dict(zip(answered, tf.nest.flatten(answer), strict=True))

    concrete = tf.function(call, autograph=False).get_concrete_function(**specs)
    outputs = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in concrete.structured_outputs.items()}
    return Function(model, concrete, specs, outputs)


def _output_names(model: Any, answer: Any) -> list[str]:
    if isinstance(answer, dict):
        return [str(name) for name in sorted(answer)]
    names = getattr(model, "output_names", None)
    if names is None:
        names = [tensor._keras_history.operation.name for tensor in model.outputs]
    return unique([_plain(name) for name in names])


def _plain(name: str) -> str:
    return name.partition(":")[0]
