"""The technique `qat`: fine-tune a module with fake quantisation, then make its rounding part of the exported graph.

torchao does the work (PT2E): torch.export captures the module, places of `int8_places` get fake quantisation and batch
norms are folded, the builder's entry trains, and the result computes with quantised weights. torch's exporter writes
it as QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import ModelwrightError, StepError, located, one_line
from modelwright.facts.part import Facts, Integer
from modelwright.kinds.torch import TorchSource
from modelwright.steps.context import StepContext
from modelwright.steps.export import adapted, dynamic_axes, torch_tensors, traced_feed
from modelwright.steps.exporters import traced_program
from modelwright.steps.int8_places import Placed, normed_layers, quantizer
from modelwright.steps.modules import finetuned, place_of, prepare_torch, sample_arrays
from modelwright.steps.quiet import loggers_at
from modelwright.steps.train import load_module, parameters_of, save_module
from modelwright.triton.tensors import Tensors
from modelwright.variants.technique import SOURCE
from modelwright.variants.techniques.qat import QatOptions

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

_QUIET_LOGGERS = ("torchao", "torch.utils._pytree")  # of CUDA kernels that are not there, and of enumerations


class FakeQuantised(Facts):
    parameters: Integer
    int8: tuple[str, ...]  # layers that compute in INT8
    kept: tuple[str, ...] = ()  # layers that stay in float, because model.yaml says so


def run(context: StepContext, out: Path) -> FakeQuantised:
    """Train the module of the step before on, with fake quantisation; keep `module.pt`."""
    options, spec = context.options(QatOptions), context.builder.spec
    prepare_torch(options.threads)
    with located(place_of(context)), _quiet():
        if context.source(TorchSource).exporter != "dynamo":
            hint = "leave source.exporter out, or quantise the graph: steps: [quantise]"
            raise StepError("what qat makes is exported by torch's dynamo exporter alone", hint)
        module = load_module(context, context.inputs[SOURCE])
        parameters = parameters_of(module)
        samples = traced_feed(sample_arrays(context), spec.inputs, spec.batched)
        folded = _folded(module, _captured(context, adapted(module, spec.inputs, None), samples))
        prepared, placed = _prepared(_captured(context, adapted(folded, spec.inputs, None), samples), options)
        prepared(*torch_tensors(samples))  # ranges to begin with
        tuned = _tuned(context, options, prepared)
        program = _captured(context, adapted(_converted(tuned), spec.inputs, spec.outputs), samples)
        save_module(storable(program), out, place_of(context))
    return FakeQuantised(parameters=parameters, int8=placed.layers, kept=placed.kept)


def _captured(context: StepContext, module: nn.Module, samples: Tensors) -> ExportedProgram:
    """torch's graph of a module, for all sizes of what is dynamic. Raises StepError."""
    spec = context.builder.spec
    try:
        return traced_program(
            module, torch_tensors(samples), [dynamic_axes(tensor, spec.batched) for tensor in spec.inputs]
        )
    except ModelwrightError:
        raise
    except Exception as error:
        hint = "quantise the graph instead: steps: [quantise]"
        raise StepError(f"torch.export cannot capture the module: {one_line(error)}", hint) from error


def _folded(module: nn.Module, program: ExportedProgram) -> nn.Module:
    """A copy in which batch norms are part of the convolutions before them: what is trained on is what is served.

    The captured graph says which follow each other, and that nothing else sees what lies between.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

    folded = copy.deepcopy(module)
    for layer, norm in normed_layers(program.module()):
        one, other = folded.get_submodule(layer), folded.get_submodule(norm)
        fuse = fuse_linear_bn_eval if isinstance(one, nn.Linear) else fuse_conv_bn_eval
        folded.set_submodule(layer, fuse(one, other))
        folded.set_submodule(norm, nn.Identity())
    return folded.eval()


def _prepared(program: ExportedProgram, options: QatOptions) -> tuple[GraphModule, Placed]:
    """The module with fake quantisation, in eval mode; train() and eval() work on it."""
    from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    places, placed = quantizer(options.keep, reduce_range=options.reduce_range)
    prepared = prepare_qat_pt2e(program.module(), places)

    def train(mode: bool = True) -> GraphModule:
        """As nn.Module's, which a captured graph refuses: its dropout and batch norms are rewritten."""
        (move_exported_model_to_train if mode else move_exported_model_to_eval)(prepared)
        return prepared

    prepared.train, prepared.eval = train, lambda: train(False)
    return prepared.eval(), placed[0]


def _tuned(context: StepContext, options: QatOptions, prepared: GraphModule) -> GraphModule:
    """What the builder's entry makes of it. Raises StepError where that is another module."""
    tuned = finetuned(context, options.entry, prepared, options.params)
    if tuned is not prepared:
        hint = "return the module that it is given: fake quantisation, and what was learnt of its ranges, are in it"
        raise StepError(f"entry: it returned another module, {type(tuned).__name__}", hint)
    return prepared


def _converted(tuned: GraphModule) -> GraphModule:
    """The module with weights of INT8, and with the operators that quantise and dequantise."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    return _in_eval_mode(convert_pt2e(tuned))


def _in_eval_mode(captured: GraphModule) -> GraphModule:
    """A graph of inference alone, which the eval() of a module that it is in must leave as it is."""
    for part in captured.modules():
        part.training = False
    captured.train = lambda mode=True: captured
    return captured


def storable(program: ExportedProgram) -> nn.Module:
    """A module that can be pickled: torch pickles no module of a captured graph, but saves the graph."""
    from torch import export, nn

    class Captured(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = _in_eval_mode(program.module())

        def forward(self, *tensors: Any) -> Any:
            return self.module(*tensors)

        def __reduce__(self) -> tuple[Any, ...]:
            file = io.BytesIO()
            export.save(program, file)
            return restored, (file.getvalue(),)

    return Captured().eval()


def restored(data: bytes) -> nn.Module:
    """The module that `storable` made, when it is read from a file."""
    import torch
    import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401  the operators that its graph has

    with _quiet():
        return storable(torch.export.load(io.BytesIO(data)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch 2.13 and torchao 0.18 say of their own insides."""
    with loggers_at(logging.CRITICAL, _QUIET_LOGGERS), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield
