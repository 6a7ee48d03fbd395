"""What TensorRT logs when it fails, as messages that say what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from modelwright.errors import StepError
from modelwright.facts.plan import RefusedNode

_SHOWN = 3  # of TensorRT's own lines, and of nodes


class RefusedGraphError(StepError):
    """TensorRT's parser does not take the graph. `nodes` are those that it names; none where it names none."""

    def __init__(self, nodes: Sequence[RefusedNode], errors: Sequence[str]) -> None:
        self.nodes = tuple(nodes)
        of_int8 = any(node.operator in _INT8 for node in self.nodes)
        super().__init__(refused_text(self.nodes, errors), _INT8_HINT if of_int8 else _REFUSED_HINT)


_INT8 = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
_INT8_HINT = (
    "TensorRT takes INT8 as pairs of QuantizeLinear and DequantizeLinear around zero:"
    " {quantise: {mode: static, activations: symmetric}}"
)
_REFUSED_HINT = (
    "write these operations another way in the model, or leave them out of it and do them in a Python model beside it;"
    " the same graph is served by onnxruntime, which runs on a GPU, too"
)


def refused_text(nodes: Sequence[RefusedNode], errors: Sequence[str], layers: Sequence[str] = ()) -> str:
    """`layers` has for each node what is known of where it comes from in the source, or ''."""
    if not nodes:
        return f"TensorRT does not take the graph: {'; '.join(errors[:_SHOWN])}"
    texts = [_node_text(node, layer) for node, layer in zip(nodes, [*layers, *[""] * len(nodes)], strict=False)]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    operators = sorted({node.operator for node in nodes})
    what = f"operator{'s' * (len(operators) > 1)} {', '.join(operators)}"
    return f"TensorRT does not take the {what} of the graph: {'; '.join(texts[:_SHOWN])}{more}"


def _node_text(node: RefusedNode, layer: str) -> str:
    name = f"node '{node.name}'" if node.name else "a node without a name"
    where = f", {layer}" if layer else ""
    # "UNSUPPORTED_NODE: false" is the condition that TensorRT tested: the code alone says more.
    code, _, words = node.reason.partition(": ")
    reason = code if words in ("", "false") else node.reason
    return f"{name} ({node.operator}{where}): {reason}"


@dataclass(frozen=True)
class _Case:
    """What TensorRT's lines contain, what is wrong then, and what to do. `{name}` is a group of the expression."""

    pattern: re.Pattern[str]
    what: str
    hint: str


def _case(expression: str, what: str, hint: str) -> _Case:
    return _Case(re.compile(expression, re.IGNORECASE), what, hint)


# The first one that fits counts. `tests/steps/test_plan_errors.py` has the lines, and where they were seen.
_CASES = (
    # A kernel that got no memory is logged, too, where others are tried after it; so this is looked for first.
    _case(
        r"out ?of ?memory|could not be allocated|cudaError 2\b",
        "the GPU has too little free memory",
        "nvidia-smi shows what else uses it; or lower max in tensorrt.profiles, or set tensorrt.workspace_mb",
    ),
    _case(
        r"Could not find any implementation for node (?P<node>.+?)"
        r"(?: due to insufficient workspace|, try increasing|\.\)|\.? In \w+ at |\)?$)",
        "TensorRT has no kernel for node '{node}' within the workspace",
        "raise tensorrt.workspace_mb, or remove it, which allows all of the GPU's memory; where it has none at all,"
        " write the operation another way",
    ),
    _case(
        r"expecting library version (?P<here>[\d.]*\d) got (?P<built>[\d.]*\d)",
        "the plan was built with TensorRT {built}, and {here} is here",
        "build it with the TensorRT that loads it",
    ),
    _case(
        r"version tag does not match|not compatible with this version of TensorRT",
        "the plan was built with another TensorRT",
        "build it with the TensorRT that loads it",
    ),
    _case(
        r"incompatible device, expecting compute (?P<here>[\d.]*\d) got compute (?P<built>[\d.]*\d)",
        "the plan was built for a GPU of compute capability {built}, and the GPU here has {here}",
        "build it on a GPU of the compute capability that runs it",
    ),
    _case(
        r"incompatible device|different compute capability",
        "the plan was built for another GPU",
        "build it on a GPU of the compute capability that runs it",
    ),
    _case(
        r"optimization profile|kMIN|MIN<=OPT<=MAX",
        "TensorRT refuses the optimisation profiles",
        "each input needs min ≤ opt ≤ max, of sizes that the model can compute: see tensorrt.profiles",
    ),
    _case(
        r"driver version is insufficient|no CUDA-capable device|CUDA initialization failure",
        "CUDA does not work here",
        "nvidia-smi says whether the driver does; this TensorRT may need a later one",
    ),
)


def build_error(errors: Sequence[str]) -> StepError:
    """What made a build, or a run, fail. `errors` are TensorRT's own lines, in order."""
    for case in _CASES:
        for line in errors:
            if match := case.pattern.search(line):
                return StepError(f"{case.what.format_map(match.groupdict())} (TensorRT: {line})", case.hint)
    return StepError(f"TensorRT fails: {'; '.join(errors[:_SHOWN])}", "the step's log has all that it said")
