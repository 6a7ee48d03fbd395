"""What kinds that TensorFlow reads share: the key of a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.environments.folders import digest
from modelwright.environments.tensorflow import TENSORFLOW
from modelwright.errors import SpecError
from modelwright.kinds.export import ONNX_TOOLS
from modelwright.kinds.origin import SourceFiles
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction

_SHOWN = ("tensorflow-cpu", "tf2onnx", "keras", "tf-keras")  # that a plan names where they change


def convert_step(
    recipe: Recipe, name: str, function: StepFunction, files: SourceFiles, config: Mapping[str, Any], threads: int
) -> Step:
    """The step that makes an ONNX model of `files` in TensorFlow's environment. `config` is what the source says."""
    wanted = TENSORFLOW.identity
    pinned = dict(pin.split("==") for pin in TENSORFLOW.pins)
    tools = {shown: pinned[shown] for shown in _SHOWN} | {"python": wanted["python"] or None}
    return recipe.step(
        name,
        function,
        config={
            **config,
            "environment": digest(wanted),
            "batched": recipe.builder.spec.batched,
            **recipe.tensors,
            **recipe.onnx_limits,
            **recipe.graph_options,
        },
        data=files.data,
        tools=versions(ONNX_TOOLS) | tools,
        needs={**files.needs, **recipe.samples},
        threads=threads,
    )


def check_is_folder(recipe: Recipe, path: str) -> None:
    """Raise SpecError for a file in place of a SavedModel's folder, which says what it may be."""
    file = recipe.builder.folder / path
    if not file.is_file():
        return
    where = f"{recipe.builder.file}: source.path: '{path}' is a file, and a SavedModel is a folder"
    if file.name == "saved_model.pb":
        raise SpecError(where, "name the folder in which it lies, with its variables")
    if file.suffix == ".pb":
        raise SpecError(
            f"{where}: a frozen graph of TensorFlow 1, by its name",
            "it does not say what its inputs are: python -m tf2onnx.convert --graphdef FILE --inputs … --outputs …"
            " makes an ONNX file of it, for source.kind onnx",
        )
    if file.suffix in (".keras", ".h5", ".hdf5"):
        raise SpecError(where, "source.kind keras takes it")
    raise SpecError(where, "name the folder that has saved_model.pb in it")
