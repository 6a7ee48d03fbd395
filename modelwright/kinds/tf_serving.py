"""source.kind tf_serving: a base directory of TensorFlow Serving, whose versions keep their numbers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from modelwright.environments.tensorflow import TENSORFLOW
from modelwright.kinds.in_tensorflow import check_is_folder, convert_step
from modelwright.kinds.kind import Kind, Verification
from modelwright.kinds.origin import source_files
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.tensorflow import SignatureField, TagsField, ThreadsField
from modelwright.project.spec import ModelSpec, SourceSpec
from modelwright.project.uris import SourcePath

_CONVERT = StepFunction("tf_serving", "modelwright.steps.tf_serving:run")
_VERIFY = StepFunction("verify_numbered", "modelwright.steps.tf_serving:verify")


class TfServingSource(SourceSpec):
    needs_tensors: ClassVar[bool] = False  # the signature declares them

    kind: Literal["tf_serving"]
    path: SourcePath = Field(
        description="A base directory of this folder, or its URI: numbered folders, each a SavedModel."
    )
    signature: SignatureField = ""
    tags: TagsField = ("serve",)
    threads: ThreadsField = 1


def _steps(recipe: Recipe, source: TfServingSource) -> list[Step]:
    check_is_folder(recipe, source.path)
    files = source_files(recipe, "source.path", source.path, folder=True)
    config = {"signature": source.signature, "tags": source.tags}
    return [*files.steps, convert_step(recipe, "onnx", _CONVERT, files, config, source.threads)]


def _verification(spec: ModelSpec, source: TfServingSource) -> Verification:
    return Verification(_VERIFY)


KIND = Kind(
    name="tf_serving",
    source=TfServingSource,
    summary="a base directory of TensorFlow Serving",
    takes="`path`: a base directory of TensorFlow Serving, a URI too; its versions keep their numbers",
    verified="each version in the target's onnxruntime, against TensorFlow",
    steps=_steps,
    version_step="onnx",
    verification=_verification,
    environment=TENSORFLOW,
    backend="onnxruntime",
    numbered=True,
)
