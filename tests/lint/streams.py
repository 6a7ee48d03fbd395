"""Ensembles of decoupled and plain steps in any order, with any of their tensors as outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from modelwright.triton.model_config_pb2 import schema
from tests.lint.draft import Draft
from tests.lint.trees import DECOUPLED_PY, MODEL_PY, Content, Tree

MODELS = {"plain": (["x"], False), "stream": (["x"], True), "pair": (["x", "w"], False), "pairs": (["x", "w"], True)}


@st.composite
def decoupled_ensembles(draw: DrawFn) -> Tree:
    whole = Draft(draw, "e", fault_percent=0)
    names = draw(st.lists(st.sampled_from(["plain", "plain", "stream", "pair", "pairs"]), min_size=2, max_size=5))
    known = ["x"]
    read: set[str] = set()
    for index, name in enumerate(names):
        step = whole.config.ensemble_scheduling.step.add(model_name=name, model_version=-1)
        for key in MODELS[name][0]:
            step.input_map[key] = "x" if index == 0 else whole.one(*known)
            read.add(step.input_map[key])
        step.output_map["y"] = f"t{index}"
        known.append(f"t{index}")
    # What nothing reads must be an output.
    outputs = [tensor for tensor in known[1:] if tensor not in read or whole.chance(30)]
    _interface(whole.config, ["x"], outputs)
    whole.config.platform = "ensemble"
    whole.files["1/keep"] = ""
    tree: dict[str, Content] = {}
    for draft in [*(_model(draw, name) for name in sorted(set(names))), whole]:
        tree.update(draft.tree())
    return tree


def _model(draw: DrawFn, name: str) -> Draft:
    inputs, decoupled = MODELS[name]
    draft = Draft(draw, name, fault_percent=0)
    draft.config.backend = "python"
    draft.config.model_transaction_policy.decoupled = decoupled
    _interface(draft.config, inputs, ["y"])
    draft.files["1/model.py"] = DECOUPLED_PY if decoupled else MODEL_PY
    return draft


def _interface(config: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for side, names in ((config.input, inputs), (config.output, outputs)):
        for name in names:
            side.add(name=name, data_type=schema().DataType.TYPE_FP32, dims=[4])
