"""Candidates of the step `optimise`: graphs that libraries make of one, and that could be served in its place.

A candidate loads with the server's options and within the target's limits, holds only operators that the backend has on
the CPU and on GPUs, and gives the same answers. What does not is dropped, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.errors import ModelwrightError, one_line
from modelwright.onnx.canonical import canonicalise, load, save_canonical
from modelwright.onnx.check import check_limits, read_signature
from modelwright.onnx.operators import forget_unused_domains, used_operators
from modelwright.onnx.precision import replace_items
from modelwright.onnx.runtime import optimised_offline
from modelwright.project.operators import operator_libraries
from modelwright.project.spec import Gates
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import onnx_view, runner_of
from modelwright.steps.fusions import fused_by_onnxscript, fused_by_transformers
from modelwright.triton.tensors import Tensors
from modelwright.variants.techniques.optimise import Candidate, OptimiseOptions
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.tolerances import tolerances

if TYPE_CHECKING:
    from onnx import ModelProto

_OWN = "com.microsoft"
# Fused operators that onnxruntime has on the CPU and in its CUDA provider (docs/OperatorKernels.md of onnxruntime).
_PORTABLE = frozenset({
    "Attention", "BiasGelu", "EmbedLayerNormalization", "FastGelu", "FusedConv", "FusedMatMul", "Gelu",
    "MultiHeadAttention", "QuickGelu", "RotaryEmbedding", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
})  # fmt: skip


class DroppedError(Exception):
    """Why a candidate cannot stand in for the plain graph."""


@dataclass
class Ready:
    """A candidate that may be served."""

    name: str
    file: Path  # the only model in its folder
    ratios: dict[int, float] = field(default_factory=dict)  # rows → time, as a share of the plain graph's


class Candidates:
    """`source` is the plain graph's file, `expected` its answers to `samples`, `batch` of them in a request."""

    def __init__(
        self,
        context: StepContext,
        source: Path,
        work: Path,
        samples: Sequence[Tensors],
        batch: int,
        expected: Sequence[Tensors],
    ) -> None:
        self._context = context
        self._options = context.options(OptimiseOptions)
        self._source = source
        self._work = work
        self._samples = samples
        self._batch = batch
        self._expected = expected
        self._libraries = tuple(operator_libraries(context.builder).values())
        plain = canonicalise(load(source))
        self._inputs = list(plain.graph.input)
        self._outputs = list(plain.graph.output)
        self._operators = used_operators(plain)
        self._plain = _content(plain)

    def make(self, name: Candidate) -> Ready:
        """A candidate that answers as the plain graph does. Raises DroppedError."""
        folder = self._work / name
        folder.mkdir(parents=True)
        model = canonicalise(self._model(name, folder))
        for path in folder.iterdir():
            path.unlink()
        forget_unused_domains(model)
        self._keep_interface(model)
        if _content(model) == self._plain:
            raise DroppedError("dropped: it changes nothing")
        self._check_operators(model)
        file = folder / "model.onnx"
        save_canonical(model, file)
        try:
            check_limits(read_signature(file), self._context.target)
            answers = runner_of(onnx_view(self._context, file)).ask_all(self._samples, self._batch)
            compare_outputs(self._expected, answers, tolerances(Gates(), self._expected[0]))
        except ModelwrightError as error:
            raise DroppedError(f"dropped: {error.message}") from error
        return Ready(name, file)

    def _model(self, name: Candidate, folder: Path) -> ModelProto:
        make: Mapping[Candidate, Callable[[Path], ModelProto]] = {
            "onnxslim": self._slimmed,
            "onnxruntime": self._offline,
            "transformers": self._by_transformers,
            "onnxscript": self._by_onnxscript,
        }
        try:
            return make[name](folder)
        except DroppedError:
            raise
        except Exception as error:  # a library that fails on a graph makes no candidate of it, whatever it raises
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise DroppedError(f"dropped: it fails on this graph: {reason}") from error

    def _slimmed(self, folder: Path) -> ModelProto:
        import onnxslim

        slimmed: ModelProto = onnxslim.slim(load(self._source))
        return slimmed

    def _offline(self, folder: Path) -> ModelProto:
        level = self._options.level if self._context.config["own_operators"] else "basic"
        return load(optimised_offline(self._source, folder / "offline.onnx", level, self._libraries))

    def _by_transformers(self, folder: Path) -> ModelProto:
        known = self._context.config["model"]
        if not known["architecture"]:
            raise DroppedError("not tried: the architecture is not known; the option `architecture` names it")
        return fused_by_transformers(
            self._source, known["architecture"], known["heads"] or 0, known["hidden_size"] or 0
        )

    def _by_onnxscript(self, folder: Path) -> ModelProto:
        return fused_by_onnxscript(load(self._source), self._context.config["model"]["heads"] or 0)

    def _keep_interface(self, model: ModelProto) -> None:
        """Declare inputs and outputs as the plain graph does: libraries give other names to dynamic dimensions."""
        for values, wanted in ((model.graph.input, self._inputs), (model.graph.output, self._outputs)):
            if {value.name for value in values} != {value.name for value in wanted}:
                names = ", ".join(value.name for value in values)
                raise DroppedError(f"dropped: it has other inputs or outputs: {names}")
            replace_items(values, wanted)

    def _check_operators(self, model: ModelProto) -> None:
        """Refuse operators that the backend does not have everywhere. Raises DroppedError."""
        import onnxruntime

        used = used_operators(model)
        if foreign := sorted(used.keys() - self._operators.keys() - {_OWN, ""}):
            raise DroppedError(f"dropped: operators of {foreign[0]} fit one kind of machine only")
        own = sorted(used.get(_OWN, set()) - self._operators.get(_OWN, set()))
        if own and not self._context.config["own_operators"]:
            raise DroppedError(f"dropped: it has {own[0]}, which is onnxruntime's own: TensorRT does not know it")
        if only_cpu := [name for name in own if name not in _PORTABLE]:
            raise DroppedError(f"dropped: {only_cpu[0]} is not in onnxruntime's CUDA provider")
        target = self._context.target.onnxruntime
        if own and onnxruntime.__version__ != target:
            versions = f"onnxruntime {onnxruntime.__version__} is here, the target has {target}"
            raise DroppedError(f"dropped: {own[0]} is onnxruntime's own, and {versions}")


def _content(model: ModelProto) -> bytes:
    """What a canonical graph is, without the shapes inside it that a library wrote down. Drops those."""
    del model.graph.value_info[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content
