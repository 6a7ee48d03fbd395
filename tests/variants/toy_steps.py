"""The functions of the toy techniques."""

from __future__ import annotations

import json
from pathlib import Path

from modelwright.facts.made import Made
from modelwright.onnx.check import read_signature
from modelwright.steps import evaluation
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.evaluation import MODEL, baseline_metrics
from modelwright.steps.onnx import made
from modelwright.steps.train import Trained, load_module, parameters_of, save_module
from modelwright.steps.verify_variant import SENSITIVITY
from modelwright.variants.technique import SOURCE
from tests.variants.toy.shift import ShiftOptions
from tests.variants.toy.stretch import StretchOptions


class Shifted(Made):
    by: float
    plain: dict[str, float]
    measured: dict[str, float]


def shift(context: StepContext, out: Path) -> Shifted:
    import onnx
    from onnx import helper, numpy_helper

    options = context.options(ShiftOptions)
    model = onnx.load(context.inputs[SOURCE] / MODEL)
    output = model.graph.output[0].name
    model.graph.node[-1].output[0] = "unshifted"
    import numpy as np

    model.graph.initializer.append(numpy_helper.from_array(np.array([options.by], np.float32), "by"))
    model.graph.node.append(helper.make_node("Add", ["unshifted", "by"], [output]))
    (out / "version").mkdir()
    onnx.save(model, out / MODEL)
    (out / SENSITIVITY).write_text(json.dumps([{"layer": "the_sum", "harm": options.by}]))
    signature = made(read_signature(out / MODEL), out / MODEL, context).signature
    runner = evaluation.onnx_runner(context, out / MODEL)
    measured = evaluation.metrics_of(context, runner, evaluation.plain_runner(context))
    return Shifted(signature=signature, by=options.by, plain=baseline_metrics(context), measured=measured)


def tidy(context: StepContext, out: Path) -> Made:
    import onnx

    (out / "version").mkdir()
    onnx.save(onnx.load(context.inputs[SOURCE] / MODEL), out / MODEL)
    return made(read_signature(out / MODEL), out / MODEL, context)


def stretch(context: StepContext, out: Path) -> Trained:
    entry = context.options(StretchOptions).entry
    module = call(context, "stretch.entry", entry, load_module(context, context.inputs[SOURCE]))
    save_module(module, out, f"stretch {entry}")
    return Trained(parameters=parameters_of(module))
