"""What `modelwright bench` times: a call of the source in its framework, or of an ONNX file in onnxruntime.

Each function loads a model once and returns `prepare(feed)`, which returns a function without arguments to be timed:
what is needed once for a feed, such as turning arrays into torch's tensors, is not part of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelwright.config.model_config import graph_level
from modelwright.config.served import served_view
from modelwright.errors import StepError, one_line
from modelwright.kinds.huggingface import HuggingFaceSource
from modelwright.onnx.runtime import load_session
from modelwright.project.operators import operator_libraries
from modelwright.project.spec import Builder
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import metrics_of
from modelwright.triton.tensors import Tensors
from modelwright.verification.runner import SampleRunner

Call = Callable[[], Any]
Prepare = Callable[[Tensors], Call]

MODULE = "module"  # the role of the folder with a torch step's module


def import_torch() -> None:
    """What a process has imported before a module is loaded: its memory is not the module's."""
    import torch.nn  # noqa: F401


def import_onnxruntime() -> None:
    import onnxruntime  # noqa: F401


def torch_calls(context: StepContext, threads: int, *, compiled: bool) -> Prepare:
    """The source's module, eager or compiled. Raises StepError where it cannot be loaded or called."""
    import torch

    from modelwright.steps.export import prepared_call

    torch.set_num_threads(threads)
    module = _module(context)
    spec = context.builder.spec

    def prepare(feed: Tensors) -> Call:
        call = prepared_call(module, feed, spec.inputs, spec.outputs, compiled=compiled)
        if compiled:
            try:
                call()  # compiles, which fails in as many ways as there are modules and C++ compilers
            except Exception as error:
                raise StepError(f"torch.compile: {type(error).__name__}: {_first_line(error)}") from error
        return call

    return prepare


def torch_metrics(context: StepContext) -> dict[str, float]:
    """What the builder's `evaluate` says of the source's module; nothing where it has none. Raises StepError."""
    from modelwright.steps.export import run_torch

    module, spec = _module(context), context.builder.spec

    def infer(inputs: Tensors) -> Tensors:
        rows = inputs if spec.batched else {name: array[None] for name, array in inputs.items()}
        answers = run_torch(module, rows, spec.inputs, spec.outputs, batched=spec.batched)
        return answers if spec.batched else {name: array[0] for name, array in answers.items()}

    scalars = frozenset(output.name for output in spec.outputs if not output.shape)
    return metrics_of(context, SampleRunner(infer, spec.batched, scalars))


def _module(context: StepContext) -> Any:
    if MODULE in context.inputs:
        from modelwright.steps.train import load_module

        return load_module(context, context.inputs[MODULE])
    assert isinstance(context.builder.spec.source, HuggingFaceSource)
    from modelwright.steps.onnx import huggingface_module

    return huggingface_module(context)


def _first_line(error: BaseException) -> str:
    return one_line(error)[:300]


def onnx_calls(builder: Builder, file: Path, threads: int) -> Prepare:
    """An ONNX file with the options that the server gives it, but for `threads`. Raises StepError, ConfigError."""
    libraries = operator_libraries(builder).values()
    session = load_session(file, threads, graph_level(builder), libraries=libraries)
    return served_view(builder, session).prepared
