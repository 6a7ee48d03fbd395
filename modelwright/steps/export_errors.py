"""What goes wrong in torch's exporters, as a sentence and the builder's own line.

torch's messages hold symbols (`Eq(u0, 1)`, `s85`), graphs and advice about its own functions. The step's log has them.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError

if TYPE_CHECKING:
    from torch import nn

_MOST_CHARS = 200  # of a message of torch's that is passed on
_ON_VALUES = "use torch.where or torch.cond in place of a Python `if`, and tensors in place of numbers"
_PLAIN_TORCH = "keep NumPy and Python side effects out of forward"
_OTHERS = "express the operation with others, or serve the module from a python model"
TORCHSCRIPT_OPSET = 20  # the highest that it can write (torch.onnx._constants)
TORCHSCRIPT_HINT = "write exporter: torchscript under source"


def forward_failed(error: Exception, shapes: str) -> StepError:
    """The module itself fails on its samples."""
    return StepError(f"forward fails on {shapes}: {type(error).__name__}: {first_line(error)}{_raised_at(error)}")


def trace_failed(error: Exception, module: nn.Module, names: Sequence[str], batched: bool) -> StepError:
    """torch.export fails. `names` are the inputs, in the order that they were traced in."""
    text = str(error)
    layer = next(_recurrent_parts(module), None)
    fixed = re.search(r"\[(\d+)\]\.size\(\)\[(\d+)\].*?constant \((\d+)\)", text, re.DOTALL)
    if fixed:
        tensor, axis, size = (int(group) for group in fixed.groups())
        if layer is not None and not (batched and axis == 0):
            return _recurrent_length(names[tensor], axis, size, batched, layer)
        return fixed_size(names[tensor], axis, size, batched)
    place = _named_line(text) or _raised_at(error)
    if "data-dependent" in text:
        number = re.search(r"extract specialized (\w+)", text)
        does = f"makes a Python {number[1]} of the value of a tensor" if number else "decides by the value of a tensor"
        return StepError(f"forward {does}, which a graph cannot{place}", _ON_VALUES)
    reason = f"torch.export cannot trace forward: {first_line(error)}{place}"
    if layer is not None and not layer.proj_size:
        return StepError(reason, f"{TORCHSCRIPT_HINT}: it takes nn.{type(layer).__name__} as it is")
    return StepError(reason, _hint_for(_operator(text), _PLAIN_TORCH))


def operator_without_translation(error: Exception) -> StepError:
    """The dynamo exporter has no ONNX for an operation. Its own summary lists the innermost exception first."""
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    lines = [line.strip() for line in text.partition("## Exception summary")[2].splitlines() if line.strip()]
    reason = re.sub(r"^<class '[^']+'>: ", "", lines[0]) if lines else first_line(error)
    return StepError(f"torch cannot write this module as ONNX: {_cut(reason)}", _hint_for(_operator(reason), _OTHERS))


def torchscript_failed(error: Exception, module: nn.Module) -> StepError:
    """The TorchScript exporter fails."""
    text = re.sub(r"\s*(Please feel free|\[Caused by) .*", "", str(error))  # a report to torch, and the graph
    hint = _OTHERS if any(_recurrent_parts(module)) else f"leave exporter out, which means dynamo; or {_OTHERS}"
    return StepError(
        f"torch's TorchScript exporter cannot write this module: {_cut(_line(text))}{_raised_at(error)}", hint
    )


def torchscript_module() -> StepError:
    """torch.export does not take TorchScript."""
    return StepError("the module is TorchScript, which torch's dynamo exporter does not take", TORCHSCRIPT_HINT)


def number_of_a_tensor(line: str) -> StepError:
    """A graph that is recorded from one run would hold a number that another run has otherwise."""
    return StepError(
        f"forward makes a Python number of the value of a tensor ({line}): the TorchScript exporter would keep that of"
        " one sample for all",
        _ON_VALUES,
    )


def fixed_size(name: str, axis: int, size: int, batched: bool) -> StepError:
    """The code has a dimension as a number that the builder calls dynamic."""
    return StepError(
        f"'{name}': its {_dimension(axis, batched)} is fixed at {size} by the code, the spec says dynamic",
        "take sizes from the tensor (x.shape[0], flatten(1)); or declare a fixed size",
    )


def _recurrent_length(name: str, axis: int, size: int, batched: bool, layer: nn.RNNBase) -> StepError:
    """The dynamo exporter repeats a recurrent layer's operations for each element of a sequence."""
    kind = f"nn.{type(layer).__name__}"
    fixed = "declare a fixed length"
    return StepError(
        f"'{name}': its {_dimension(axis, batched)} is fixed at {size}, because torch's dynamo exporter unrolls {kind}"
        " over the sequence",
        fixed if layer.proj_size else f"{TORCHSCRIPT_HINT}: it writes {kind} for any length; or {fixed}",
    )


def works_at_one_size(what: str) -> StepError:
    """The exported file was run at other sizes than the traced ones."""
    return StepError(
        f"the export works only at the size it was traced at: {_cut(what)}",
        "take sizes from the tensors (x.shape[0]) and keep Python numbers out of reshape and expand",
    )


def answers_otherwise(what: str) -> StepError:
    """The exported file was run at the size that was traced."""
    return StepError(
        f"the export answers otherwise than the module: {_cut(what)}",
        "a choice by value may be recorded as it was: try the other exporter; or it hangs on values that are nearly"
        " equal, as the order of boxes with the same score does",
    )


def user_line() -> str:
    """Where the builder's own code calls torch, "model.py:12: if x.sum() > 0:"; "" where a library does."""
    import torch

    package = Path(torch.__file__).parent
    between = (str(Path(__file__).parent), f"{package}/_compile.py", f"{package}/_dynamo/")  # torch's, around a mode
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(between)]
    return "" if not frames or "site-packages" in frames[-1].filename else _shown(frames[-1])


def first_line(error: Exception) -> str:
    """The first line of an exception's message, cut to a readable length."""
    return _cut(_line(str(error)) or type(error).__name__)


def _line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"


def _dimension(axis: int, batched: bool) -> str:
    return "batch dimension" if batched and axis == 0 else f"dimension {axis - batched}"


def _recurrent_parts(module: nn.Module) -> Iterator[nn.RNNBase]:
    from torch import nn

    return (part for part in module.modules() if isinstance(part, nn.RNNBase))


def _operator(text: str) -> str:
    """ "fake_quantize_per_tensor_affine", of the message that names it; "" where it names none."""
    found = re.search(r"\baten[.:]{1,2}(\w+)", text)
    return found[1].removesuffix("_cachemask") if found else ""


def _hint_for(operator: str, otherwise: str) -> str:
    if operator and _torchscript_knows(operator):
        return f"{TORCHSCRIPT_HINT}: it knows {operator}; or {otherwise}"
    return otherwise


def _torchscript_knows(operator: str) -> bool:
    """torch does not say in public what its exporters know; a torch that moved the table knows nothing here."""
    try:
        from torch.onnx._internal.torchscript_exporter import registration

        registry: Any = registration.registry
        return bool(registry.is_registered_op(f"aten::{operator}", TORCHSCRIPT_OPSET))
    except (ImportError, AttributeError):
        return False


def _named_line(text: str) -> str:
    """The line of forward that torch.export's message names at its end."""
    found = re.search(r'raised this error:\s+File "([^"]+)", line (\d+)[^\n]*\n\s*([^\n]+)', text)
    return f" ({Path(found[1]).name}:{found[2]}: {found[3]})" if found else ""


def _raised_at(error: Exception) -> str:
    """The innermost line outside installed packages; the name without its folder keeps messages the same anywhere."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith(str(Path(__file__).parent))
    ]
    return f" ({_shown(own[-1])})" if own and own[-1].line else ""


def _shown(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
