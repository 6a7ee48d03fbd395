"""torch.nn.Module → ONNX, by one of torch's exporters, with dimensions that are proved to be dynamic.

The exporters get names for inputs and outputs that nothing else has, and the real ones are set afterwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelwright.errors import StepError
from modelwright.kinds.export import Exporter
from modelwright.onnx.canonical import rename_values, save_canonical
from modelwright.onnx.check import check_limits, read_signature
from modelwright.onnx.runtime import load_session, run_session
from modelwright.steps.export_errors import (
    answers_otherwise,
    fixed_size,
    forward_failed,
    trace_failed,
    works_at_one_size,
)
from modelwright.steps.exporters import (
    LARGEST_OPSET,
    model_from_program,
    model_from_torchscript,
    placeholder,
    traced_program,
)
from modelwright.triton.arrays import BF16, datatype_of, is_float, numpy_dtype, repeated
from modelwright.triton.dtypes import BY_NAME, BY_NUMPY
from modelwright.verification.samples import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from onnx import ModelProto
    from torch import Tensor, nn

    from modelwright.triton.releases import Release
    from modelwright.triton.tensors import Tensors

    Array = np.ndarray[Any, Any]

# torch's own default: every operator is translated natively, and onnxruntime fuses its graphs best. From 23 on it emits
# Attention, which no release before 25.08 knows and the CPU does not run faster.
DEFAULT_OPSET = 20
_TRACED_ROWS = 2  # torch.export takes a size of 0 or 1 as a constant
_PROOF_ROWS = (1, 2, 3)  # with lengths of a half, a third, all of the samples'; verification runs all rows
_PROOF_TOLERANCE = 0.05  # of the largest value of an output
_RUN_ROWS = 64


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
    exporter: Exporter = "dynamo",
    opset: int | None = None,
) -> None:
    """Export an eval-mode module to the canonical ONNX file `out`, within the limits of `release`.

    `samples` holds (N, *shape) for every input. `forward` gets its inputs by name where it has parameters of all their
    names, otherwise in the spec's order; it returns a tensor, a tuple in the order of `outputs`, or a dict with their
    names. The file is run in onnxruntime at sizes other than the traced ones. Raises StepError.
    """
    wanted = _opset(release, exporter, opset)
    adapter = adapted(module, inputs, outputs)
    check_samples(samples, inputs)
    traced = traced_feed(samples, inputs, batched)
    _check_results(_forward(adapter, traced), traced, inputs, outputs, batched)
    write = _by_torchscript if exporter == "torchscript" else _by_dynamo
    model = write(adapter, traced, inputs, outputs, batched, wanted)
    del model.graph.value_info[:]  # names of torch's symbols, and nothing that shape inference does not find
    _set_signature(model, inputs, outputs, batched)
    model.ir_version = min(model.ir_version, release.max_ir)
    save_canonical(model, out)
    check_limits(read_signature(out), release)
    _prove_dynamic(adapter, samples, traced, inputs, outputs, out, batched)


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

    adapter = adapted(module, inputs, outputs)
    check_samples(samples, inputs)
    rows = _rows(samples)
    step = _RUN_ROWS if batched else 1
    parts = []
    for start in range(0, rows, step):
        part = {spec.name: samples[spec.name][start : start + step] for spec in inputs}
        feed = part if batched else {name: array[0, ...] for name, array in part.items()}
        results = _forward(adapter, feed)
        arrays = [_array(result) for result in results]
        parts.append(arrays if batched else [array[None] for array in arrays])
    return {spec.name: np.concatenate([part[i] for part in parts]) for i, spec in enumerate(outputs)}


def prepared_call(
    module: nn.Module,
    feed: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    *,
    compiled: bool,
) -> Callable[[], Any]:
    """A call of the module with one feed, for inference, as `torch.compile` makes it where it is to be `compiled`."""
    import torch

    adapter = adapted(module, inputs, outputs)
    called = torch.compile(adapter, dynamic=False) if compiled else adapter
    tensors = torch_tensors({spec.name: feed[spec.name] for spec in inputs})

    def call() -> Any:
        with torch.inference_mode():
            return called(*tensors)

    return call


def traced_feed(samples: Tensors, inputs: Sequence[DeclaredTensor], batched: bool) -> Tensors:
    """Inputs of sizes that a trace takes as variable."""
    return _cut(samples, inputs, batched, _TRACED_ROWS, lambda full: max(full, 2))


def example_of(
    module: nn.Module,
    samples: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    *,
    batched: bool,
) -> tuple[Tensor, ...]:
    """The module's outputs for the first of the samples, in the order of `outputs`, with their gradients.

    What the module's own code raises passes through.
    """
    results: tuple[Tensor, ...] = adapted(module, inputs, outputs)(
        *torch_tensors(_cut(samples, inputs, batched, 1, lambda full: full))
    )
    return results


# --- calling the module ----------------------------------------------------------------------------------------------


def adapted(module: nn.Module, inputs: Sequence[DeclaredTensor], outputs: Sequence[DeclaredTensor] | None) -> nn.Module:
    """The module behind one calling convention: tensors in the spec's order in, a tuple in the spec's order out.

    Without `outputs` its results come as they are. Raises StepError for a module in training mode.
    """
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

        def forward(self, *tensors: Tensor) -> Any:
            result = self.module(**dict(zip(names, tensors, strict=True))) if by_name else self.module(*tensors)
            return result if outputs is None else _as_tuple(result, outputs)

    return Adapter().eval()


def _takes_by_name(module: nn.Module, names: Sequence[str]) -> bool:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return set(names) <= {argument.name for argument in module.forward.schema.arguments}
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
            results: tuple[Tensor, ...] = adapter(*torch_tensors(feed))
    except StepError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        raise forward_failed(error, shapes) from error
    return results


def torch_tensors(feed: Tensors) -> tuple[Tensor, ...]:

    # A copy: torch warns about arrays it could write to, and a forward pass must not change the samples.
    return tuple(_tensor(array.copy()) for array in feed.values())


def _tensor(array: Array) -> Tensor:
    import numpy as np
    import torch

    if datatype_of(array) == BF16:  # ml_dtypes' type, which torch does not know
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(tensor: Tensor) -> Array:
    import torch

    is_bfloat16 = tensor.dtype == torch.bfloat16
    array: Array = tensor.view(torch.uint16).numpy() if is_bfloat16 else tensor.numpy()
    return array.view(numpy_dtype(BF16)) if is_bfloat16 else array


# --- sizes -----------------------------------------------------------------------------------------------------------


def check_samples(samples: Tensors, inputs: Sequence[DeclaredTensor], what: str = "samples") -> None:
    """Raise StepError for arrays that are not (N, *shape) of the declared inputs. `what` is how messages call them."""
    sizes: dict[str, int] = {}
    for spec in inputs:
        if spec.name not in samples:
            raise StepError(f"{what} has no '{spec.name}', only {sorted(samples)}", "return every input of the spec")
        array = samples[spec.name]
        if BY_NAME[spec.dtype].name == "BYTES":
            raise StepError(
                f"input '{spec.name}' is BYTES, which torch has not", "tokenise in a python model before it"
            )
        if datatype_of(array) != spec.dtype:
            raise StepError(f"{what}['{spec.name}'] is {array.dtype}, the spec says {spec.dtype}", f"cast the {what}")
        fits = array.ndim == len(spec.shape) + 1 and all(
            not isinstance(dim, int) or dim in (-1, size) for dim, size in zip(spec.shape, array.shape[1:], strict=True)
        )
        if not fits or not len(array):
            raise StepError(f"{what}['{spec.name}'] has shape {list(array.shape)}, expected [N, {_text(spec.shape)}]")
        for dim, size in zip(("N", *spec.shape), array.shape, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise StepError(f"{what}['{spec.name}']: '{dim}' is {size}, elsewhere {sizes[dim]}", f"pad the {what}")


def _rows(samples: Tensors) -> int:
    return len(next(iter(samples.values())))


def dynamic_axes(spec: DeclaredTensor, batched: bool) -> dict[int, str]:
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
        for axis in dynamic_axes(spec, batched):
            full = array.shape[axis]
            size = rows if batched and axis == 0 else length(full)
            array = repeated(array, size, axis)
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
    sizes = {name: feed[spec.name].shape[axis] for spec in inputs for axis, name in dynamic_axes(spec, batched).items()}
    for spec, result in zip(outputs, results, strict=True):
        dtype = str(result.dtype).removeprefix("torch.")
        if dtype != BY_NAME[spec.dtype].numpy:
            got = BY_NUMPY[dtype].name if dtype in BY_NUMPY else dtype
            raise StepError(f"output '{spec.name}' is {got}, the spec says {spec.dtype}", "correct the spec, or cast")
        axes = dynamic_axes(spec, batched)
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


def _opset(release: Release, exporter: Exporter, opset: int | None) -> int:
    limit = min(release.max_opset, LARGEST_OPSET[exporter])
    if opset is not None and opset > limit:
        who = f"torch's {exporter} exporter" if limit < release.max_opset else f"onnxruntime {release.onnxruntime}"
        raise StepError(f"opset {opset} is above {limit}, the limit of {who} for Triton {release.name}", "leave it out")
    return opset or min(DEFAULT_OPSET, limit)


def _by_dynamo(
    adapter: nn.Module,
    traced: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    batched: bool,
    opset: int,
) -> ModelProto:
    try:
        program = traced_program(adapter, torch_tensors(traced), [dynamic_axes(spec, batched) for spec in inputs])
    except StepError:
        raise
    except Exception as error:  # forward ran on these very tensors: whatever fails now is the tracing
        raise trace_failed(error, adapter, [spec.name for spec in inputs], batched) from error
    return model_from_program(program, len(inputs), len(outputs), opset)


def _by_torchscript(
    adapter: nn.Module,
    traced: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    batched: bool,
    opset: int,
) -> ModelProto:
    there, back = ([dynamic_axes(spec, batched) for spec in specs] for specs in (inputs, outputs))
    return model_from_torchscript(adapter, torch_tensors(traced), there, back, opset)


def _set_signature(
    model: ModelProto, inputs: Sequence[DeclaredTensor], outputs: Sequence[DeclaredTensor], batched: bool
) -> None:
    """Give inputs and outputs the spec's names and dimensions, and weights the names they have in the module."""
    weights = [tensor.name for tensor in model.graph.initializer if tensor.name.startswith("module.")]
    rename_values(model, {name: name.removeprefix("module.") for name in weights})
    renames = {placeholder("input", i): spec.name for i, spec in enumerate(inputs)}
    renames |= {placeholder("output", i): spec.name for i, spec in enumerate(outputs)}
    rename_values(model, renames)
    _complete_inputs(model, inputs)
    for spec, value in zip((*inputs, *outputs), (*model.graph.input, *model.graph.output), strict=True):
        declared = ("batch", *spec.shape) if batched else spec.shape
        shape = value.type.tensor_type.shape
        for axis, dim in enumerate(shape.dim):
            if dim.HasField("dim_value") and declared[axis] != dim.dim_value:
                raise fixed_size(spec.name, axis, int(dim.dim_value), batched)
        del shape.dim[:]
        for size in declared:
            _add_dim(shape, size)


def _complete_inputs(model: ModelProto, inputs: Sequence[DeclaredTensor]) -> None:
    """Put the inputs into the spec's order, with those that forward does not use: torchscript leaves them out."""
    known = {value.name: type(value).FromString(value.SerializeToString()) for value in model.graph.input}
    del model.graph.input[:]
    for spec in inputs:
        if spec.name in known:
            model.graph.input.append(known[spec.name])
        else:
            unused = model.graph.input.add(name=spec.name)
            unused.type.tensor_type.elem_type = BY_NAME[spec.dtype].onnx
            unused.type.tensor_type.shape.SetInParent()


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
    traced: Tensors,
    inputs: Sequence[DeclaredTensor],
    outputs: Sequence[DeclaredTensor],
    path: Path,
    batched: bool,
) -> None:
    """Run the file at sizes that were not traced, and hold it against the module.

    A size that the module itself refuses proves nothing.
    """
    session = load_session(path)
    for rows, part in zip(_PROOF_ROWS, (2, 3, 1), strict=True):
        feed = _cut(samples, inputs, batched, rows, lambda full, part=part: max(full // part, 1))
        try:
            expected = [_array(result) for result in _forward(adapter, feed)]
        except StepError:
            continue
        _check_results(expected, feed, inputs, outputs, batched)
        wrong = answers_otherwise if shapes(feed) == shapes(traced) else works_at_one_size
        try:
            results = run_session(session, feed)
        except StepError as error:
            raise wrong(error.message) from error
        for spec, wanted in zip(outputs, expected, strict=True):
            if difference := _difference(spec.name, results[spec.name], wanted):
                sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
                raise wrong(f"on inputs {sizes}, {difference}")


def _difference(name: str, found: Array, wanted: Array) -> str:
    """How an answer differs from the module's, beyond what another order of summation can explain; "" if it does not.

    Verification compares closely. This finds what was recorded for one size, such as the branch of an `if`.
    """
    import numpy as np

    if found.shape != wanted.shape:
        return f"'{name}' has shape {list(found.shape)}, the module gives {list(wanted.shape)}"
    if not wanted.size or not is_float(wanted.dtype):
        return ""
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    allowed = _PROOF_TOLERANCE * max(1.0, float(np.abs(other[np.isfinite(other)]).max(initial=0)))
    if np.allclose(one, other, rtol=0, atol=allowed, equal_nan=True):
        return ""
    return f"'{name}' differs by {np.nanmax(np.abs(one - other)):.1e} from what the module gives"
