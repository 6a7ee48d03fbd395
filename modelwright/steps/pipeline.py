"""source.kind ensemble with `keep`: a Python model, each of whose versions runs its own steps.

version/model.py         runs the steps: the same for every pipeline (pipeline_model.py)
version/pipeline.json    the steps by stages, and the digest of what each composing model's version held
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.facts.made import Made
from modelwright.steps.context import StepContext
from modelwright.steps.ensemble import composing_digests
from modelwright.triton.layout import PIPELINE

_MODEL = "pipeline_model.py"


def run(context: StepContext, out: Path) -> Made:
    """Put the version's files together."""
    composing = composing_digests(context)
    version = out / "version"
    version.mkdir()
    shutil.copyfile(Path(__file__).with_name(_MODEL), version / "model.py")
    content = {"stages": stages(context.config["steps"]), "composing": composing}
    (version / PIPELINE).write_text(json.dumps(content, indent=1) + "\n")
    return Made(composing_models=composing)


def stages(steps: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """The steps by when they can run: those of a stage need only what earlier stages write, and the request's tensors.

    The steps form no circle: the plan has checked that.
    """
    waiting = [{key: step[key] for key in ("model_name", "input_map", "output_map")} for step in steps]
    found: list[list[dict[str, Any]]] = []
    while waiting:
        unwritten = {tensor for step in waiting for tensor in step["output_map"].values()}
        ready = [step for step in waiting if unwritten.isdisjoint(step["input_map"].values())]
        assert ready, "the steps form a circle"
        found.append(ready)
        waiting = [step for step in waiting if step not in ready]
    return found
