"""torch's two exporters: a module and the tensors that trace it → an ONNX graph.

`dynamo` traces what torch does and proves for every size which operations follow from it; it cannot take all modules.
`torchscript` is older, records the operations of one run, and is marked deprecated: it takes what dynamo does not, such
as nn.LSTM over a dynamic length. What it records may hold for the traced run only. So values that forward reads out of
tensors are refused here, and sizes are tried afterwards, as they are for dynamo.

The graph's inputs and outputs are named by `placeholder`: dynamo names its values after the code (`relu`,
`embedding`), and one of them can clash with a name of the builder.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from modelwright.errors import StepError
from modelwright.kinds.export import Exporter
from modelwright.steps.export_errors import (
    TORCHSCRIPT_OPSET,
    number_of_a_tensor,
    operator_without_translation,
    torchscript_failed,
    torchscript_module,
    user_line,
)
from modelwright.steps.quiet import loggers_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnx import ModelProto
    from torch import Tensor, nn
    from torch.export import ExportedProgram

Axes = Mapping[int, str]  # axis → the name of its size

# The highest opset that each can write (torch.onnx._constants).
LARGEST_OPSET: dict[Exporter, int] = {"dynamo": 23, "torchscript": TORCHSCRIPT_OPSET}
_QUIET_LOGGERS = (
    "torch.onnx._internal.exporter",  # "torchvision is not installed. Skipping torchvision::nms"
    "torch._export.serde.serialize",
    "torch.export",  # warns of what it then raises
    "torch.fx.experimental.symbolic_shapes",  # repeats as a log what its exception says
    "onnxscript.version_converter",  # logs a traceback where it leaves the opset as it was
)


def placeholder(kind: Literal["input", "output"], number: int) -> str:
    return f"modelwright::{kind}_{number}"


def traced_program(adapter: nn.Module, tensors: tuple[Tensor, ...], axes: Sequence[Axes]) -> ExportedProgram:
    """Trace to torch's graph, once: torch.onnx.export on a module would try two more ways after a failure.

    `axes` are the dynamic ones of each tensor. Raises what torch.export raises.
    """
    import torch

    if _holds_torchscript(adapter):
        raise torchscript_module()
    dynamic = torch.export.Dim.DYNAMIC  # unlike a named Dim it leaves room for bounds that the code sets
    shapes = tuple(dict.fromkeys(dims, dynamic) for dims in axes)
    with torch.no_grad(), quiet_exports():
        return torch.export.export(adapter, tensors, dynamic_shapes=(shapes,), strict=False)


def model_from_program(program: ExportedProgram, inputs: int, outputs: int, opset: int) -> ModelProto:
    """Translate torch's graph by the dynamo exporter. Raises StepError."""
    import torch

    try:
        with quiet_exports():
            result = torch.onnx.export(
                program, (), dynamo=True, verbose=False, opset_version=opset, **_names(inputs, outputs)
            )
    except torch.onnx.OnnxExporterError as error:
        raise operator_without_translation(error) from error
    model: ModelProto = result.model_proto
    written = max(item.version for item in model.opset_import if item.domain == "")
    if written != opset:
        raise StepError(f"torch writes opset {written} or later, and cannot convert this module to {opset}")
    return model


def model_from_torchscript(
    adapter: nn.Module, tensors: tuple[Tensor, ...], inputs: Sequence[Axes], outputs: Sequence[Axes], opset: int
) -> ModelProto:
    """Trace and translate by the TorchScript exporter. Raises StepError."""
    import onnx
    import torch

    _refuse_numbers(adapter, tensors)
    file = io.BytesIO()
    axes = {placeholder("input", i): dict(dims) for i, dims in enumerate(inputs)}
    axes |= {placeholder("output", i): dict(dims) for i, dims in enumerate(outputs)}
    try:
        with torch.no_grad(), quiet_exports(), warnings.catch_warnings():
            for category in (DeprecationWarning, UserWarning, torch.jit.TracerWarning):
                warnings.simplefilter("ignore", category)  # what they warn of is refused before, or tried afterwards
            # The exporter's own trace does not follow TorchScript inside a module.
            traced = torch.jit.trace(adapter, tensors, check_trace=False) if _holds_torchscript(adapter) else adapter
            torch.onnx.export(
                traced,
                tensors,
                file,
                dynamo=False,
                verbose=False,
                opset_version=opset,
                dynamic_axes=axes,
                **_names(len(inputs), len(outputs)),
            )
    except Exception as error:  # forward ran on these very tensors: whatever fails now is the exporter
        raise torchscript_failed(error, adapter) from error
    return onnx.load_model_from_string(file.getvalue())


def _holds_torchscript(module: nn.Module) -> bool:
    import torch

    return any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())


def _refuse_numbers(adapter: nn.Module, tensors: tuple[Tensor, ...]) -> None:
    """Refuse a forward that reads numbers out of tensors: the graph would hold those of the traced run.

    Run outside a trace, sizes are plain numbers; so only values of tensors pass here.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    found: list[str] = []

    class Watch(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default and (line := user_line()):
                found.append(line)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        adapter(*tensors)
    if found:
        raise number_of_a_tensor(found[0])


def _names(inputs: int, outputs: int) -> dict[str, Any]:
    return {
        "input_names": [placeholder("input", i) for i in range(inputs)],
        "output_names": [placeholder("output", i) for i in range(outputs)],
    }


@contextlib.contextmanager
def quiet_exports() -> Iterator[None]:
    """Silence what torch 2.13 says about its own insides when it exports, or loads what it exported."""
    with loggers_at(logging.ERROR, _QUIET_LOGGERS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
        warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export", UserWarning)
        yield
