"""SavedModels: a folder with saved_model.pb, which says what signatures there are."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.steps.tensorflow_program.function import Function, check_dense, described

FILE = "saved_model.pb"
_DEFAULT, _KERAS_EXPORT = "serving_default", "serve"  # model.export of Keras writes the same function under both
_INTERNAL = "__saved_model"  # __saved_model_init_op, __saved_model_train_op


def inspect(folder: Path) -> dict[str, Any]:
    """{"graphs": [{"tags", "signatures": {name: {"inputs", "outputs"}}}]}. Loads no weights."""
    return {
        "graphs": [
            {"tags": list(graph.meta_info_def.tags), "signatures": _signatures(graph)} for graph in _read(folder)
        ]
    }


def load_signature(folder: Path, signature: str, tags: Sequence[str]) -> Function:
    """The function of a signature. Raises StepError that lists what there is instead."""
    import tensorflow as tf

    graphs = {tuple(sorted(graph.meta_info_def.tags)): graph for graph in _read(folder)}
    graph = graphs.get(tuple(sorted(tags)))
    if graph is None:
        known = "; ".join("[" + ", ".join(found) + "]" for found in graphs)
        raise StepError(
            f"has no graph with tags [{', '.join(tags)}], only with {known}", f"source.tags: {list(min(graphs))}"
        )
    chosen = _chosen(signature, _signatures(graph))
    loaded = tf.saved_model.load(str(folder), tags=list(tags))
    concrete = loaded.signatures[chosen]
    inputs = dict(concrete.structured_input_signature[1])
    # A graph of TensorFlow 1 has tensors there in place of their descriptions.
    outputs = {
        name: tf.TensorSpec(value.shape, value.dtype) if tf.is_tensor(value) else value
        for name, value in concrete.structured_outputs.items()
    }
    check_dense(inputs, "input")
    check_dense(outputs, "output")
    if not inputs:
        raise StepError(f"signature '{chosen}' takes no inputs", "a request carries at least one: choose another one")
    return Function(loaded, concrete, inputs, outputs)


def _chosen(signature: str, known: dict[str, Any]) -> str:
    names = list(known)
    if not names:
        raise StepError(
            "has no signatures: nothing says what its inputs are",
            "save it with one: tf.saved_model.save(model, folder, signatures=function.get_concrete_function(…))",
        )
    if signature and signature not in names:
        close = get_close_matches(signature, names, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"source.signature: one of {', '.join(names)}"
        raise StepError(f"has no signature '{signature}', only {', '.join(names)}", hint)
    if not signature and set(names) == {_DEFAULT, _KERAS_EXPORT} and known[_DEFAULT] == known[_KERAS_EXPORT]:
        return _DEFAULT
    if not signature and len(names) > 1:
        listed = "; ".join(f"{name}{_shown(known[name])}" for name in names)
        raise StepError(f"has {len(names)} signatures: {listed}", f"choose one: source.signature: {names[0]}")
    return signature or names[0]


def _shown(tensors: dict[str, Any]) -> str:
    sides = [", ".join(tensor["name"] for tensor in tensors[side]) for side in ("inputs", "outputs")]
    return f" ({sides[0]} → {sides[1]})"


def _read(folder: Path) -> list[Any]:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / FILE).read_bytes())
    except DecodeError:
        raise StepError(f"{FILE} is damaged, or no SavedModel", "copy the whole folder again") from None
    if not saved.meta_graphs:
        raise StepError(
            f"{FILE} holds no graph", "it may be cut short, or a frozen graph of TensorFlow 1: save it as a SavedModel"
        )
    return list(saved.meta_graphs)


def _signatures(graph: Any) -> dict[str, Any]:
    """Those with inputs and outputs, in order of their names."""
    found = {}
    for name, entry in sorted(graph.signature_def.items()):
        if not name.startswith(_INTERNAL) and entry.outputs:
            found[name] = {"inputs": _side(entry.inputs), "outputs": _side(entry.outputs)}
    return found


def _side(tensors: Any) -> list[dict[str, Any]]:
    import tensorflow as tf

    return [
        described(name, tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape))
        for name, info in sorted(tensors.items())
    ]
