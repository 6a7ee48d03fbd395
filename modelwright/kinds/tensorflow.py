"""source.kind tensorflow: a SavedModel, of which one signature is converted to ONNX in TensorFlow's own environment."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelwright.environments.tensorflow import TENSORFLOW
from modelwright.kinds.in_tensorflow import check_is_folder, convert_step
from modelwright.kinds.kind import Kind
from modelwright.kinds.origin import source_files
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_onnxruntime
from modelwright.project.spec import SourceSpec
from modelwright.project.uris import SourcePath

_CONVERT = StepFunction("tensorflow", "modelwright.steps.tensorflow:from_saved_model")

SignatureField = Annotated[
    str,
    Field(description="The signature to serve; needed where the SavedModel has several. serving_default, mostly."),
]
TagsField = Annotated[
    tuple[str, ...], Field(min_length=1, description="The tags of the graph in the SavedModel that is read.")
]
ThreadsField = Annotated[
    int, Field(ge=1, description="Threads of TensorFlow. Part of the result: floating-point sums depend on it.")
]


class TensorflowSource(SourceSpec):
    needs_tensors: ClassVar[bool] = False  # the signature declares them

    kind: Literal["tensorflow"]
    path: SourcePath = Field(
        description="A SavedModel of this folder, or its URI (s3://, gs://, az://): the folder of saved_model.pb."
    )
    signature: SignatureField = ""
    tags: TagsField = ("serve",)
    threads: ThreadsField = 1


def _steps(recipe: Recipe, source: TensorflowSource) -> list[Step]:
    check_is_folder(recipe, source.path)
    files = source_files(recipe, "source.path", source.path, folder=True)
    config = {"signature": source.signature, "tags": source.tags}
    return [*files.steps, convert_step(recipe, "onnx", _CONVERT, files, config, source.threads)]


KIND = Kind(
    name="tensorflow",
    source=TensorflowSource,
    summary="a TensorFlow SavedModel",
    takes="`path`: a SavedModel, a URI too; `signature` where it has several; by tf2onnx, in an environment of its own",
    verified="in the target's onnxruntime, against TensorFlow",
    steps=_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    environment=TENSORFLOW,
    backend="onnxruntime",
)
