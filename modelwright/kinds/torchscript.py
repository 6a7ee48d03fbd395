"""source.kind torchscript: a TorchScript file, exported to ONNX, or served as it is by Triton's pytorch backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from modelwright import tools
from modelwright.kinds.export import TORCH, export_file_step
from modelwright.kinds.kind import Files, Kind, Verification, shipped
from modelwright.kinds.origin import source_files
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_onnxruntime
from modelwright.project.spec import ModelSpec, SourceSpec
from modelwright.project.uris import SourcePath

_EXPORT = StepFunction("torchscript", "modelwright.steps.torchscript:to_onnx")
_TAKE = StepFunction("torchscript_file", "modelwright.steps.torchscript:as_it_is")
_VERIFY = StepFunction("verify_torchscript", "modelwright.steps.torchscript:verify")
# What the backend turns into torch's types (libtorch_utils.cc). It takes BYTES as lists of texts.
_TYPES = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
_NUMBERED = re.compile(r".*?__(\d+)")


class TorchScriptSource(SourceSpec):
    kind: Literal["torchscript"]
    path: SourcePath = Field(description="A file that torch.jit.save wrote, or its URI.")
    serve_as: Literal["onnx", "pytorch"] = Field(
        "onnx",
        description="onnx: exported, and verified against the module. pytorch: the file as it is, for Triton's pytorch "
        "backend, which the local server does not have.",
    )
    threads: int = Field(1, ge=1, description="Threads to run the module with. Part of the result.")

    def check(self, spec: ModelSpec) -> None:
        if self.serve_as == "pytorch":
            check_libtorch(spec)


def check_libtorch(spec: ModelSpec) -> None:
    """Check that the pytorch backend takes the declared tensors, in their order. Raises ValueError.

    It numbers tensors by their names where all of them end in `__<number>`; inputs that are all named as arguments of
    forward are passed as these; otherwise the order of the config counts (libtorch.cc, GetNamingConvention).
    """
    for field, tensors in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        for tensor in tensors:
            if tensor.dtype not in _TYPES:
                raise ValueError(f"{field}: '{tensor.name}' is {tensor.dtype}, which the pytorch backend does not take")
            if not tensor.shape:
                raise ValueError(
                    f"{field}: '{tensor.name}' has no dimensions, and a request cannot carry that to the pytorch "
                    "backend: write shape: [1], and let the module take it so; or serve_as: onnx"
                )
        numbers = [_NUMBERED.fullmatch(tensor.name) for tensor in tensors]
        if all(numbers) and [int(found[1]) for found in numbers if found] != list(range(len(tensors))):
            names = [tensor.name for tensor in tensors]
            raise ValueError(f"{field}: the pytorch backend orders {names} by their numbers: count from 0, in order")
    for side in (spec.serving.get("input"), spec.serving.get("output")):
        if isinstance(side, list) and any(isinstance(entry, Mapping) and "reshape" in entry for entry in side):
            raise ValueError("serving: reshape cannot be verified with serve_as: pytorch: declare the module's shapes")


def _steps(recipe: Recipe, source: TorchScriptSource) -> list[Step]:
    files = source_files(recipe, "source.path", source.path)
    return [*files.steps, export_file_step(recipe, _EXPORT, files, {}, source.threads)]


def _steps_as_it_is(recipe: Recipe, source: TorchScriptSource) -> list[Step]:
    files = source_files(recipe, "source.path", source.path)
    config = {**recipe.tensors, "batched": recipe.builder.spec.batched}
    tools_ = versions(("torch",))
    take = recipe.step("torchscript", _TAKE, config=config, data=files.data, tools=tools_, needs=files.needs)
    return [*files.steps, take]


def _in_torch(spec: ModelSpec, source: TorchScriptSource) -> Verification:
    return Verification(_VERIFY, config={"threads": source.threads, "torch": tools.version("torch")})


def _other_form(source: TorchScriptSource) -> Kind[TorchScriptSource] | None:
    return _AS_IT_IS if source.serve_as == "pytorch" else None


def scaffold() -> Files:
    """A builder with a small real TorchScript file."""
    from importlib.resources import files

    folder = files("modelwright.kinds") / "scaffolds" / "torchscript"
    return {**shipped("torchscript")(), "model.pt": (folder / "model.pt").read_bytes()}


KIND = Kind(
    name="torchscript",
    source=TorchScriptSource,
    summary="a TorchScript file",
    takes="`path`: a file of torch.jit.save; `serve_as: pytorch` publishes it as it is",
    verified="in the target's onnxruntime, against the module; as it is: in PyTorch",
    steps=_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    other_form=_other_form,
    needs=(TORCH,),
    backend="onnxruntime",
    scaffold={"": scaffold},
)

_AS_IT_IS = Kind(
    name="torchscript",
    source=TorchScriptSource,
    summary=KIND.summary,
    takes=KIND.takes,
    verified=KIND.verified,
    steps=_steps_as_it_is,
    version_step="torchscript",
    verification=_in_torch,
    needs=(TORCH,),
    backend="pytorch",
)
