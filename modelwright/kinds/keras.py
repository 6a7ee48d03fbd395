"""source.kind keras: a `.keras` or `.h5` file, converted to ONNX in TensorFlow's own environment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from modelwright.environments.tensorflow import TENSORFLOW
from modelwright.errors import SpecError
from modelwright.kinds.in_tensorflow import convert_step
from modelwright.kinds.kind import Kind
from modelwright.kinds.origin import is_folder, source_files
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.tensorflow import ThreadsField
from modelwright.kinds.trust import TrustedField
from modelwright.kinds.verify import in_onnxruntime
from modelwright.project.spec import SourceSpec
from modelwright.project.uris import SourcePath

_CONVERT = StepFunction("keras", "modelwright.steps.tensorflow:from_keras")


class KerasSource(SourceSpec):
    needs_tensors: ClassVar[bool] = False  # the model's layers declare them

    kind: Literal["keras"]
    path: SourcePath = Field(
        description="A .keras or .h5 file of this folder, or its URI, with a whole model of Keras 2 or 3."
    )
    trusted: TrustedField = False
    threads: ThreadsField = 1


def _steps(recipe: Recipe, source: KerasSource) -> list[Step]:
    builder = recipe.builder
    if is_folder(builder, source.path):
        where = f"{builder.file}: source.path: '{source.path}' is a folder, and a Keras model is a file"
        raise SpecError(where, "a folder with saved_model.pb in it is a SavedModel: source.kind tensorflow")
    files = source_files(recipe, "source.path", source.path)
    config = {"trusted": source.trusted}
    return [*files.steps, convert_step(recipe, "onnx", _CONVERT, files, config, source.threads)]


KIND = Kind(
    name="keras",
    source=KerasSource,
    summary="a Keras file",
    takes="`path`: a `.keras` or `.h5` file, a URI too; converted by tf2onnx in an environment of its own",
    verified="in the target's onnxruntime, against Keras",
    steps=_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    environment=TENSORFLOW,
    backend="onnxruntime",
)
