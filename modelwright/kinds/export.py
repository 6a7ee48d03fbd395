"""What kinds that export to ONNX share: the tools, and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from modelwright.kinds.kind import Needs
from modelwright.kinds.origin import SourceFiles
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction

Exporter = Literal["dynamo", "torchscript"]
ExporterField = Annotated[
    Exporter,
    Field(
        description="torch's exporter. torchscript, the older one, takes what dynamo cannot: nn.LSTM and nn.GRU over a "
        "dynamic length, packed sequences, TorchScript modules."
    ),
]

ONNX_TOOLS = ("onnx", "onnxruntime")
EXPORT_TOOLS = ("torch", "onnxscript", *ONNX_TOOLS)

_TORCH_DETAILS = """
import torch, onnxscript
cuda = torch.version.cuda
without = f"CPU (built for CUDA {cuda}, finds no GPU)" if cuda else "CPU"
print(f"{torch.__version__}, {f'CUDA {cuda}' if torch.cuda.is_available() else without}")
"""


def exporter_options(exporter: Exporter) -> dict[str, Any]:
    """The exporter, for a step's config: the default changes no key."""
    return {} if exporter == "dynamo" else {"exporter": exporter}


def export_file_step(
    recipe: Recipe, function: StepFunction, files: SourceFiles, config: Mapping[str, Any], threads: int
) -> Step:
    """The step that exports a module which lies in files, and no code of the builder makes. `config` is what the
    source says."""
    return recipe.step(
        "onnx",
        function,
        config={
            **config,
            "threads": threads,
            **recipe.tensors,
            "batched": recipe.builder.spec.batched,
            **recipe.onnx_limits,
            **recipe.graph_options,
        },
        data={**files.data, **recipe.operators},
        tools=versions(EXPORT_TOOLS),
        needs={**files.needs, **recipe.samples},
        threads=threads,
    )


TORCH = Needs(
    name="torch",
    modules=("torch", "onnxscript"),  # the exporter is a part of torch that needs onnxscript
    install="modelwright[torch]",
    details=_TORCH_DETAILS.strip(),
)
