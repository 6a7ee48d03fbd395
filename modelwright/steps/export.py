"""torch.nn.Module → ONNX, by torch's dynamo exporter, with dimensions that are proved to be dynamic.

The exporter's values are named after the code (`relu`, `embedding`), and one of them can clash with an input or output
of the spec; so the exporter gets names nothing else has, and the real ones are set afterwards.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelwright.errors import StepError
from modelwright.onnx.canonical import rename_values, save_canonical
from modelwright.onnx.check import check_limits, read_signature
from modelwright.onnx.runtime import load_session, run_session
from modelwright.triton.dtypes import BY_NAME, BY_NUMPY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnx import ModelProto
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from modelwright.triton.releases import Release
    from modelwright.triton.tensors import Tensors

# torch's own default: every operator is translated natively, and onnxruntime fuses its graphs best. From 23 on it emits
# Attention, which no release before 25.08 knows and the CPU does not run faster.
DEFAULT_OPSET = 20
_LARGEST_OPSET = 23  # torch.onnx._constants.ONNX_MAX_OPSET
_TRACED_ROWS = 2  # torch.export takes a size of 0 or 1 as a constant
_PROOF_ROWS = (1, 2, 3)  # with lengths of a half, a third, all of the samples'; verification runs all rows
_RUN_ROWS = 64
_QUIET_LOGGERS = (
    "torch.onnx._internal.exporter",  # "torchvision is not installed. Skipping torchvision::nms"
    "torch.fx.experimental.symbolic_shapes",  # repeats as a log what its exception says
    "onnxscript.version_converter",  # logs a traceback where it leaves the opset as it was
)


class DeclaredTensor(Protocol):
    """An input or output as the builder declares it; `shape` has no batch dimension, a str or -1 is dynamic."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int | str, ...]: ...


def onnx_from_torch(
    module: nn.Module,
    samples: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    out: Path,
    release: Release,
    *,
    batched: bool,
    opset: int | None = None,
) -> None:
    """Export an eval-mode module to the canonical ONNX file `out`, within the limits of `release`.

    `samples` holds (N, *shape) for every input. `forward` gets its inputs by name where it has parameters of all their
    names, otherwise in the spec's order; it returns a tensor, a tuple in the order of `outputs`, or a dict with their
    names. The file is run in onnxruntime at sizes other than the traced ones. Raises StepError.
    """
    wanted = _opset(release, opset)
    adapter = _adapter(module, inputs, outputs)
    _check_samples(samples, inputs)
    traced = _cut(samples, inputs, batched, _TRACED_ROWS, lambda full: max(full, 2))
    _check_results(_forward(adapter, traced), traced, inputs, outputs, batched)
    program = _exported(adapter, traced, inputs, batched)
    model = _translated(program, len(inputs), len(outputs), wanted)
    _set_signature(model, inputs, outputs, batched)
    model.ir_version = min(model.ir_version, release.max_ir)
    save_canonical(model, out)
    check_limits(read_signature(out), release)
    _prove_dynamic(adapter, samples, inputs, outputs, out, batched)


def run_torch(
    module: nn.Module,
    samples: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    *,
    batched: bool,
) -> Tensors:
    """The module's own results for all samples, (N, *shape) each: what every later form is compared with."""
    import numpy as np

    adapter = _adapter(module, inputs, outputs)
    _check_samples(samples, inputs)
    rows = _rows(samples)
    step = _RUN_ROWS if batched else 1
    parts = []
    for start in range(0, rows, step):
        part = {spec.name: samples[spec.name][start : start + step] for spec in inputs}
        feed = part if batched else {name: array[0, ...] for name, array in part.items()}
        results = _forward(adapter, feed)
        parts.append([result.numpy() if batched else result.numpy()[None] for result in results])
    return {spec.name: np.concatenate([part[i] for part in parts]) for i, spec in enumerate(outputs)}


# --- calling the module ----------------------------------------------------------------------------------------------


def _adapter(module: nn.Module, inputs: Sequence[DeclaredTensor], outputs: Sequence[DeclaredTensor]) -> nn.Module:
    """The module behind one calling convention: tensors in the spec's order in, a tuple in the spec's order out."""
    from torch import nn

    if not isinstance(module, nn.Module):
        raise StepError(f"expected a torch.nn.Module, got {type(module).__name__}", "return the trained module")
    if training := [name or "the module" for name, part in module.named_modules() if part.training]:
        raise StepError(f"{training[0]} is in training mode", "end with `return module.eval()`")
    names = [spec.name for spec in inputs]
    by_name = _takes_by_name(module, names)

    class Adapter(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
            result = self.module(**dict(zip(names, tensors, strict=True))) if by_name else self.module(*tensors)
            return _as_tuple(result, outputs)

    return Adapter().eval()


def _takes_by_name(module: nn.Module, names: Sequence[str]) -> bool:
    parameters = inspect.signature(module.forward).parameters
    return all(name in parameters and parameters[name].kind != inspect.Parameter.POSITIONAL_ONLY for name in names)


def _as_tuple(result: Any, outputs: Sequence[DeclaredTensor]) -> tuple[Tensor, ...]:
    import torch

    names = [spec.name for spec in outputs]
    if isinstance(result, Mapping):
        if missing := [name for name in names if name not in result]:
            raise StepError(
                f"forward returns no {missing}, only {list(result)}", "name them as outputs, or return them"
            )
        result = [result[name] for name in names]
    elif isinstance(result, torch.Tensor):
        result = [result]
    if not isinstance(result, tuple | list) or not all(isinstance(item, torch.Tensor) for item in result):
        raise StepError(
            f"forward returns {type(result).__name__}", "return a tensor, a tuple of them, or a dict by name"
        )
    if len(result) != len(names):
        raise StepError(f"forward returns {len(result)} tensors, the spec has {len(names)} outputs: {names}")
    return tuple(result)


def _forward(adapter: nn.Module, feed: Tensors) -> tuple[Tensor, ...]:
    import torch

    try:
        with torch.no_grad():
            results: tuple[Tensor, ...] = adapter(*_torch_tensors(feed))
    except StepError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        place = _user_frame(error)
        raise StepError(f"forward fails on {shapes}: {type(error).__name__}: {_first_line(error)}{place}") from error
    return results


def _torch_tensors(feed: Tensors) -> tuple[Tensor, ...]:
    import torch

    # A copy: torch warns about arrays it could write to, and a forward pass must not change the samples.
    return tuple(torch.from_numpy(array.copy()) for array in feed.values())


# --- sizes -----------------------------------------------------------------------------------------------------------


def _check_samples(samples: Tensors, inputs: Sequence[DeclaredTensor]) -> None:
    sizes: dict[str, int] = {}
    for spec in inputs:
        if spec.name not in samples:
            raise StepError(f"samples has no '{spec.name}', only {sorted(samples)}", "return every input of the spec")
        array = samples[spec.name]
        if BY_NAME[spec.dtype].name == "BYTES":
            raise StepError(
                f"input '{spec.name}' is BYTES, which torch has not", "tokenise in a python model before it"
            )
        if array.dtype.name != BY_NAME[spec.dtype].numpy:
            raise StepError(f"samples['{spec.name}'] is {array.dtype}, the spec says {spec.dtype}", "cast the samples")
        fits = array.ndim == len(spec.shape) + 1 and all(
            not isinstance(dim, int) or dim in (-1, size) for dim, size in zip(spec.shape, array.shape[1:], strict=True)
        )
        if not fits or not len(array):
            raise StepError(f"samples['{spec.name}'] has shape {list(array.shape)}, expected [N, {_text(spec.shape)}]")
        for dim, size in zip(("N", *spec.shape), array.shape, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise StepError(f"samples['{spec.name}']: '{dim}' is {size}, elsewhere {sizes[dim]}", "pad the samples")


def _rows(samples: Tensors) -> int:
    return len(next(iter(samples.values())))


def _dynamic_axes(spec: DeclaredTensor, batched: bool) -> dict[int, str]:
    """Axis → name of its size, among tensors; an unnamed size gets a name of its own."""
    axes = {0: "batch"} if batched else {}
    for axis, dim in enumerate(spec.shape, start=int(batched)):
        if dim == -1 or isinstance(dim, str):
            axes[axis] = dim if isinstance(dim, str) else f"{spec.name}[{axis}]"
    return axes


def _cut(samples: Tensors, inputs: Sequence[DeclaredTensor], batched: bool, rows: int, length: Any) -> Tensors:
    """Inputs of `rows` rows (unbatched: the first row) and `length(full)` long, repeated where there is not enough."""
    import numpy as np

    feed = {}
    for spec in inputs:
        array = samples[spec.name] if batched else samples[spec.name][0, ...]
        for axis in _dynamic_axes(spec, batched):
            full = array.shape[axis]
            size = rows if batched and axis == 0 else length(full)
            array = np.take(array, np.arange(size) % max(full, 1), axis=axis)
        feed[spec.name] = np.asarray(array, order="C")  # ascontiguousarray would give a scalar a dimension
    return feed


def _check_results(
    results: Sequence[Any],
    feed: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    batched: bool,
) -> None:
    """Types and shapes of results (torch or numpy) against the spec, for the sizes of the inputs in `feed`."""
    sizes = {
        name: feed[spec.name].shape[axis] for spec in inputs for axis, name in _dynamic_axes(spec, batched).items()
    }
    for spec, result in zip(outputs, results, strict=True):
        dtype = str(result.dtype).removeprefix("torch.")
        if dtype != BY_NAME[spec.dtype].numpy:
            got = BY_NUMPY[dtype].name if dtype in BY_NUMPY else dtype
            raise StepError(f"output '{spec.name}' is {got}, the spec says {spec.dtype}", "correct the spec, or cast")
        axes = _dynamic_axes(spec, batched)
        declared = ("batch", *spec.shape) if batched else spec.shape
        expected = [sizes.get(axes[axis], -1) if axis in axes else dim for axis, dim in enumerate(declared)]
        shape = list(result.shape)
        if len(shape) != len(expected) or any(e not in (-1, s) for e, s in zip(expected, shape, strict=True)):
            hint = "correct the spec's shape" + (", which leaves out the batch dimension" if batched else "")
            if spec.shape == (1,) and len(shape) == int(batched):
                hint = "write shape: [] for single values"
            raise StepError(
                f"output '{spec.name}' has shape {shape}, the spec says [{_text(declared)}], here {expected}", hint
            )


def _text(shape: Sequence[int | str]) -> str:
    return ", ".join(str(dim) for dim in shape)


# --- exporting -------------------------------------------------------------------------------------------------------


def _opset(release: Release, opset: int | None) -> int:
    limit = min(release.max_opset, _LARGEST_OPSET)
    if opset is not None and opset > limit:
        who = "torch's exporter" if limit < release.max_opset else f"onnxruntime {release.onnxruntime}"
        raise StepError(f"opset {opset} is above {limit}, the limit of {who} for Triton {release.name}", "leave it out")
    return opset or min(DEFAULT_OPSET, limit)


def _exported(adapter: nn.Module, traced: Tensors, inputs: Sequence[DeclaredTensor], batched: bool) -> ExportedProgram:
    """Trace to torch's graph, once: torch.onnx.export on a module would try two more ways after a failure."""
    import torch

    dynamic = torch.export.Dim.DYNAMIC  # unlike a named Dim it leaves room for bounds that the code sets
    shapes = tuple(dict.fromkeys(_dynamic_axes(spec, batched), dynamic) for spec in inputs)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(adapter, _torch_tensors(traced), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # forward ran on these very tensors: whatever fails now is the tracing
        raise _trace_error(error, inputs, batched) from error


def _translated(program: ExportedProgram, inputs: int, outputs: int, opset: int) -> ModelProto:
    import torch

    try:
        with _quiet():
            result = torch.onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[_placeholder("input", i) for i in range(inputs)],
                output_names=[_placeholder("output", i) for i in range(outputs)],
            )
    except torch.onnx.OnnxExporterError as error:
        raise StepError(
            f"torch cannot write this module as ONNX: {_summary(error)}",
            "express the operation with others, or serve the module from a python model",
        ) from error
    model: ModelProto = result.model_proto
    written = max(item.version for item in model.opset_import if item.domain == "")
    if written != opset:
        raise StepError(f"torch writes opset {written} or later, and cannot convert this module to {opset}")
    del model.graph.value_info[:]  # names of torch's symbols, and nothing that shape inference does not find
    return model


def _placeholder(kind: str, number: int) -> str:
    return f"modelwright::{kind}_{number}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch 2.13 says about its own insides during an export."""
    loggers = [logging.getLogger(name) for name in _QUIET_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _set_signature(
    model: ModelProto, inputs: Sequence[DeclaredTensor], outputs: Sequence[DeclaredTensor], batched: bool
) -> None:
    """Give inputs and outputs the spec's names and dimensions, and weights the names they have in the module."""
    weights = [tensor.name for tensor in model.graph.initializer if tensor.name.startswith("module.")]
    rename_values(model, {name: name.removeprefix("module.") for name in weights})
    renames = {_placeholder("input", i): spec.name for i, spec in enumerate(inputs)}
    renames |= {_placeholder("output", i): spec.name for i, spec in enumerate(outputs)}
    rename_values(model, renames)
    for spec, value in zip((*inputs, *outputs), (*model.graph.input, *model.graph.output), strict=True):
        declared = ("batch", *spec.shape) if batched else spec.shape
        shape = value.type.tensor_type.shape
        for axis, dim in enumerate(shape.dim):
            if dim.HasField("dim_value") and declared[axis] != dim.dim_value:
                raise _fixed_error(spec.name, axis, int(dim.dim_value), batched)
        del shape.dim[:]
        for size in declared:
            _add_dim(shape, size)


def _add_dim(shape: Any, size: int | str) -> None:
    if isinstance(size, str):
        shape.dim.add(dim_param=size)
    elif size == -1:
        shape.dim.add()
    else:
        shape.dim.add(dim_value=size)


def _prove_dynamic(
    adapter: nn.Module,
    samples: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    path: Path,
    batched: bool,
) -> None:
    """Run the file at sizes that were not traced. A size that the module itself refuses proves nothing."""
    session = load_session(path)
    for rows, part in zip(_PROOF_ROWS, (2, 3, 1), strict=True):
        feed = _cut(samples, inputs, batched, rows, lambda full, part=part: max(full // part, 1))
        try:
            results = run_session(session, feed)
        except StepError as error:
            if _refuses(adapter, feed):
                continue
            hint = "take sizes from the tensors (x.shape[0]) and keep Python numbers out of reshape and expand"
            raise StepError(f"the export works only at the size it was traced at: {error.message}", hint) from error
        _check_results([results[spec.name] for spec in outputs], feed, inputs, outputs, batched)


def _refuses(adapter: nn.Module, feed: Tensors) -> bool:
    try:
        _forward(adapter, feed)
    except StepError:
        return True
    return False


# --- what went wrong -------------------------------------------------------------------------------------------------


def _trace_error(error: Exception, inputs: Sequence[DeclaredTensor], batched: bool) -> StepError:
    text = str(error)
    fixed = re.search(r"\[(\d+)\]\.size\(\)\[(\d+)\].*?constant \((\d+)\)", text, re.DOTALL)
    if fixed:
        number, axis, size = (int(group) for group in fixed.groups())
        return _fixed_error(inputs[number].name, axis, size, batched)
    reason = f"torch.export cannot trace forward: {_first_line(error)}{_named_call(text)}"
    if "data-dependent" in text:
        hint = "a Python `if`, `float()` or loop depends on a tensor's values: use torch.where, or torch.cond"
        return StepError(reason, hint)
    return StepError(f"{reason}{_user_frame(error)}", "keep NumPy and Python side effects out of forward")


def _fixed_error(name: str, axis: int, size: int, batched: bool) -> StepError:
    what = "batch dimension" if batched and axis == 0 else f"dimension {axis - batched}"
    return StepError(
        f"'{name}': its {what} is fixed at {size} by the code, the spec says dynamic",
        "take sizes from the tensor (x.shape[0], flatten(1)); or declare a fixed size",
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _named_call(text: str) -> str:
    """The line of forward that torch.export's message names at its end."""
    found = re.search(r'raised this error:\s+File "([^"]+)", line (\d+)[^\n]*\n\s*([^\n]+)', text)
    return f" ({Path(found[1]).name}:{found[2]}: {found[3]})" if found else ""


def _user_frame(error: Exception) -> str:
    """The innermost line outside installed packages; the name without its folder keeps messages the same anywhere."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line})" if own else ""


def _summary(error: Exception) -> str:
    """The first line of the exporter's own summary, which lists the innermost exception first."""
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    lines = [line.strip() for line in text.partition("## Exception summary")[2].splitlines() if line.strip()]
    return re.sub(r"^<class '[^']+'>: ", "", lines[0]) if lines else _first_line(error)
