"""source.kind router: a version that holds the model.py of all routers, and its verification with each arm alone.

version/model.py    `router_model.py`, headed by the name and the tensors of this router
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelwright.config.render import as_json, parse
from modelwright.errors import located
from modelwright.facts.made import Made
from modelwright.facts.verified import Verified
from modelwright.kinds.router import RouterSource
from modelwright.project.spec import TensorSpec
from modelwright.steps.context import StepContext
from modelwright.steps.samples import load_samples
from modelwright.steps.verify import SERVED_BATCH, served_runner, verify_in
from modelwright.triton.client import Client
from modelwright.triton.routers import Routed, only_arm
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.tolerances import tolerances

MODEL = "router_model.py"
_HINT = "a router passes on what an arm answers: an arm that answers anew each time cannot be told from a faulty one"


def run(context: StepContext, out: Path) -> Made:
    """Write the version's model.py."""
    version = out / "version"
    version.mkdir()
    code = Path(__file__).with_name(MODEL).read_text(encoding="utf-8")
    (version / "model.py").write_text(f"{_head(context)}\n{code}", encoding="utf-8")
    return Made()


def _head(context: StepContext) -> str:
    spec = context.builder.spec
    lines = [f"# The router {spec.name}, made by Modelwright."]
    lines += [f"# input {_shown(tensor)}" for tensor in spec.inputs]
    lines += [f"# output {_shown(tensor)}" for tensor in spec.outputs]
    return "\n".join(lines)


def _shown(tensor: TensorSpec) -> str:
    return f"{tensor.name}: {tensor.dtype} {list(tensor.dims)}"


def verify(context: StepContext, out: Path) -> Verified:
    """In the real server: where one arm alone has a weight, the router answers as this arm does. A shadow answers as an
    arm would: what can be one can be the other."""
    from modelwright.steps.trial import trial

    spec = context.builder.spec
    routed = [item for _, item in context.source(RouterSource).routed]
    first, others = routed[0], list(dict.fromkeys(routed[1:]))
    with located(f"{spec.name}: verify"), trial(context, out.parent) as client:
        for arm in others:
            with located(f"arm {arm.name}"):
                _check_arm(context, client, arm)
        _load(context, client, first)
        return verify_in(context, client, out, _runner(context, client, first))


def _check_arm(context: StepContext, client: Client, arm: Routed) -> None:
    _load(context, client, arm)
    spec = context.builder.spec
    samples = load_samples(context, {tensor.name: tensor.dtype for tensor in spec.inputs})
    batch = min(spec.max_batch_size, SERVED_BATCH)
    expected = _runner(context, client, arm).ask_all(samples, batch)
    actual = served_runner(context, client).ask_all(samples, batch)
    compare_outputs(expected, actual, tolerances(spec.gates, expected[0]), arm.name, _HINT)


def _runner(context: StepContext, client: Client, arm: Routed) -> Any:
    return served_runner(context, client, "" if arm.version is None else str(arm.version), arm.model)


def _load(context: StepContext, client: Client, arm: Routed) -> None:
    """Let one arm alone answer: other parameters load the router again, as in service."""
    name = context.builder.name
    text = next(model.config for model in context.served if model.name == name)
    config = parse(text, name)
    only_arm(config, arm)
    client.load(name, as_json(config))
