"""MW7xx: the fields of an ensemble, how its tensors flow, and whether its composing models fit.

The rules are those of ValidateEnsembleSchedulingConfig (core's model_config_utils.cc) and of ensemble_utils.cc.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.lint.completion import ENSEMBLE, MAX_BATCH_SIZE, POLICY
from modelwright.lint.python_code import COMPLETES
from modelwright.lint.rule import Absent, Example, Found, Severity, rule
from modelwright.lint.view import ConfigView
from modelwright.suggest import did_you_mean
from modelwright.triton.model_config_pb2 import data_type_name

_FIELD = "ensemble_scheduling"
_EITHER = 'For an ensemble write platform: "ensemble" instead of the backend; else remove ensemble_scheduling.'


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str], version: int = -1) -> str:
    maps = [f'input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs.items()]
    maps += [f'output_map {{ key: "{key}" value: "{value}" }}' for key, value in outputs.items()]
    return f'step [ {{ model_name: "{model}", model_version: {version}, {", ".join(maps)} }} ]'


def _scheduling(*steps: str) -> str:
    return f"ensemble_scheduling {{ {' '.join(steps)} }}"


_XY = {"x": "x"}, {"y": "y"}
_GOOD = _scheduling(_step("part", *_XY))


def steps(view: ConfigView) -> Iterator[tuple[int, Any, tuple[str | int, ...]]]:
    for index, step in enumerate(view.message.ensemble_scheduling.step):
        yield index, step, (_FIELD, "step", index)


def composing_models(view: ConfigView) -> Iterator[tuple[int, Any, ConfigView]]:
    """(index, step, the composing model's config) of every step whose model is in the repository and parses."""
    for index, step, _ in steps(view):
        composing = view.repository.view(step.model_name, view.environment) if not step.model_namespace else None
        if composing is not None and composing.message is not None:
            yield index, step, composing


@rule(
    "MW701",
    "field that an ensemble cannot have",
    Severity.ERROR,
    why="An ensemble runs nothing itself: instance_group, optimization and model_warmup belong to the models it runs.",
    fix="Move the field to the configs of the composing models.",
    example=Example(f"{_GOOD}\ninstance_group [ {{ count: 1 }} ]", _GOOD, base=ENSEMBLE),
)
def not_for_ensembles(view: ConfigView) -> Iterator[Found]:
    if view.is_ensemble and view.message.platform == ENSEMBLE:
        for field in ("instance_group", "model_warmup"):
            if len(getattr(view.message, field)):
                yield view.found(f"an ensemble cannot have {field}", field)
        if view.message.HasField("optimization"):
            yield view.found("an ensemble cannot have optimization", "optimization")


@rule(
    "MW702",
    "platform and ensemble_scheduling do not agree",
    Severity.ERROR,
    why='An ensemble needs both platform: "ensemble" and ensemble_scheduling with steps.',
    fix='Write platform: "ensemble" and ensemble_scheduling { step [ … ] }.',
    example=Example("ensemble_scheduling { }", _GOOD, base=ENSEMBLE),
)
def half_ensemble(view: ConfigView) -> Iterator[Found]:
    platform, backend = view.message.platform, view.message.backend
    if view.is_ensemble and platform != ENSEMBLE:
        what = f"backend '{backend}'" if backend else f"platform '{platform}'" if platform else "no platform"
        yield view.found(f"ensemble_scheduling in a config with {what}", _FIELD, fix=_EITHER if backend else "")
    elif platform == ENSEMBLE and not view.is_ensemble:
        yield view.found("platform 'ensemble' without ensemble_scheduling", "platform")
    elif view.is_ensemble and not view.message.ensemble_scheduling.step:
        yield view.found("the ensemble has no steps", _FIELD)


@rule(
    "MW703",
    "incomplete step of an ensemble",
    Severity.ERROR,
    why="A step needs a model, and maps that model's inputs and outputs to tensors of the ensemble.",
    fix="Write model_name, input_map and output_map.",
    example=Example(_scheduling(_step("part", {"x": "x"}, {})), _GOOD, base=ENSEMBLE),
)
def incomplete_step(view: ConfigView) -> Iterator[Found]:
    for index, step, path in steps(view):
        for field in ("model_name", "input_map", "output_map"):
            if not getattr(step, field):
                yield view.found(f"step {index} has no {field}", *path)


@rule(
    "MW704",
    "two steps write one tensor",
    Severity.ERROR,
    why="Each tensor of an ensemble must come from one output of one step.",
    fix="Map one of the two outputs to another name.",
    example=Example(_scheduling(_step("part", *_XY), _step("part", *_XY)), _GOOD, base=ENSEMBLE),
)
def written_twice(view: ConfigView) -> Iterator[Found]:
    seen: set[str] = set()
    for _, step, path in steps(view):
        for key in sorted(step.output_map):
            if step.output_map[key] in seen:
                yield view.found(
                    f"'{step.output_map[key]}' is already written by another step", *path, "output_map", key
                )
            seen.add(step.output_map[key])


@rule(
    "MW705",
    "tensor of an ensemble that is never written or never used",
    Severity.ERROR,
    why="A step must read each input of the ensemble, a step must write each output, and tensors in between need both. "
    "Steps that wait for each other never run.",
    fix="Map the tensor in the step that should read or write it, or remove it.",
    example=Example(_scheduling(_step("part", {"x": "x"}, {"y": "z"})), _GOOD, base=ENSEMBLE),
)
def broken_flow(view: ConfigView) -> Iterator[Found]:
    if not view.is_ensemble or not _is_complete(view):
        return
    reads, writes = _graph(view)
    used = reads.keys() | writes.keys()
    for side in ("input", "output"):
        for index, tensor in enumerate(getattr(view.message, side)):
            if tensor.name not in used:
                yield view.found(f"no step uses the {side} '{tensor.name}'", side, index)
    ready = _ready(view, reads, writes)
    outputs = {tensor.name for tensor in view.message.output}
    for name in sorted(used):
        if name not in ready:
            yield view.found(f"'{name}' is never written: {_why_not(name, writes, ready)}", *_place(view, name))
        elif name not in reads and name not in outputs:
            yield view.found(f"'{name}' is written, and nothing uses it", *_place(view, name))


def _is_complete(view: ConfigView) -> bool:
    return all(step.model_name and step.input_map and step.output_map for _, step, _ in steps(view))


def _graph(view: ConfigView) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """{tensor: what is computed from it} and {tensor: what it is computed from}."""
    reads: dict[str, list[str]] = {}
    writes: dict[str, list[str]] = {}
    for _, step, _ in steps(view):
        sources, targets = list(step.input_map.values()), list(step.output_map.values())
        for source in sources:
            reads.setdefault(source, []).extend(targets)
        for target in targets:
            writes.setdefault(target, []).extend(sources)
    return reads, writes


def _ready(view: ConfigView, reads: Mapping[str, list[str]], writes: Mapping[str, list[str]]) -> set[str]:
    """What can be computed from the ensemble's inputs."""
    ready = {tensor.name for tensor in view.message.input if tensor.name in reads or tensor.name in writes}
    waiting = deque(ready)
    while waiting:
        for target in reads.get(waiting.popleft(), ()):
            if target not in ready and ready.issuperset(writes[target]):
                ready.add(target)
                waiting.append(target)
    return ready


def _why_not(name: str, writes: Mapping[str, list[str]], ready: set[str]) -> str:
    missing = sorted(set(writes.get(name, ())) - ready)
    return f"its step waits for '{missing[0]}'" if missing else "it is neither an input nor an output of a step"


def _place(view: ConfigView, name: str) -> tuple[str | int, ...]:
    """Where a tensor of the ensemble is written, or else read."""
    for field in ("output_map", "input_map"):
        for _, step, path in steps(view):
            for key in sorted(getattr(step, field)):
                if getattr(step, field)[key] == name:
                    return (*path, field, key)
    return (_FIELD,)


@rule(
    "MW706",
    "composing model missing",
    Severity.ERROR,
    why="The models that an ensemble runs must be in the repository: the server loads them together.",
    fix="Add the model to the repository, or correct the name.",
    example=Example(_scheduling(_step("prat", *_XY)), _GOOD, base=ENSEMBLE),
)
def model_missing(view: ConfigView) -> Iterator[Found]:
    for _, step, path in steps(view):
        known = view.repository.tree.models
        if step.model_name and not step.model_namespace and step.model_name not in known:
            near = view.repository.nearest_model(step.model_name, view.model.name)
            fix = f"did you mean '{near}'? If not, add '{step.model_name}' to the repository." if near else ""
            yield view.found(f"model '{step.model_name}' is not in the repository", *path, "model_name", fix=fix)


@rule(
    "MW707",
    "version of a composing model that is not served",
    Severity.ERROR,
    why="Without model_version a step runs version 0, not the latest; -1 is the latest. Any other number must be a "
    "version that the composing model serves.",
    fix="Write model_version: -1.",
    example=Example(_scheduling(_step("part", *_XY, version=0)), _GOOD, base=ENSEMBLE),
)
def version_not_served(view: ConfigView) -> Iterator[Found]:
    for index, step, composing in composing_models(view):
        if step.model_version != -1 and step.model_version not in composing.served:
            unset = not step.model_version and not (view.tree and _is_written(view, index))
            what = "no model_version is given, which means 0" if unset else f"model_version is {step.model_version}"
            served = ", ".join(str(number) for number in composing.served) or "no version"
            message = f"{what}; '{step.model_name}' serves {served}"
            yield view.found(message, _FIELD, "step", index, "model_version")


def _is_written(view: ConfigView, index: int) -> bool:
    path = (_FIELD, "step", index)
    return view.line((*path, "model_version")) != view.line(path)


@rule(
    "MW708",
    "composing model with errors",
    Severity.ERROR,
    why="When the server refuses a composing model, it refuses every ensemble that runs it.",
    fix="Correct the composing model first.",
    example=Example(_GOOD, _GOOD, base=ENSEMBLE, fault_files={"/part/1/model.py": Absent()}),
)
def model_fails(view: ConfigView) -> Iterator[Found]:
    for _, step, path in steps(view):
        if not step.model_namespace and view.repository.fails(step.model_name, view.environment):
            yield view.found(f"'{step.model_name}' has errors", *path, "model_name")


@rule(
    "MW709",
    "step's mapping does not fit the composing model",
    Severity.ERROR,
    why="The keys of input_map and output_map are the composing model's tensors, the values are the ensemble's. Every "
    "input that is not optional must be mapped.",
    fix="Use the composing model's tensor names as keys.",
    example=Example(_scheduling(_step("part", {"a": "x"}, {"y": "y"})), _GOOD, base=ENSEMBLE),
)
def unknown_tensors(view: ConfigView) -> Iterator[Found]:
    for index, step, composing in composing_models(view):
        path = (_FIELD, "step", index)
        for field, side in (("input_map", "input"), ("output_map", "output")):
            known = [tensor.name for tensor in getattr(composing.message, side)]
            for name in sorted(getattr(step, field)):
                if name not in known and not composing.may_complete(side):
                    message = f"'{step.model_name}' has no {side} '{name}'"
                    fix = did_you_mean(name, known) if known else _undeclared(composing, side)
                    yield view.found(message, *path, field, name, fix=fix)
        for tensor in composing.message.input:
            if tensor.name not in step.input_map and not tensor.optional:
                yield view.found(f"input '{tensor.name}' of '{step.model_name}' is not mapped", *path, "input_map")


def _undeclared(composing: ConfigView, side: str) -> str:
    """What to do where a composing model's config lists no tensors of a side at all."""
    fix = f"List the {side}s of '{composing.model.name}' in its config"
    if composing.message.backend == "python" and composing.options.auto_complete:
        return f"{fix}, or add them in {COMPLETES} of its model.py."
    return f"{fix}."


@dataclass(frozen=True)
class _Declaration:
    """How one model declares a tensor of the ensemble."""

    owner: str
    data_type: int
    dims: list[int]
    batched: bool
    batching_open: bool = False  # auto-completion may make the model batch

    @property
    def full(self) -> list[int]:
        return [-1, *self.dims] if self.batched else self.dims

    @property
    def fulls(self) -> list[list[int]]:
        """Every shape that it may have with the batch dimension."""
        return [self.dims, [-1, *self.dims]] if self.batching_open else [self.full]


@rule(
    "MW710",
    "two models disagree about a tensor's type or shape",
    Severity.ERROR,
    why="A tensor has the same data type and shape in the step that writes it and the step that reads it; -1 fits any "
    "size. A model that does not batch may include the batch dimension in dims.",
    fix="Make the two configs agree, or add a model that converts the tensor.",
    example=Example(
        f'input [ {{ name: "x", data_type: TYPE_INT32, dims: [ 2 ] }} ]\n{_GOOD}',
        f'input [ {{ name: "x", data_type: TYPE_FP32, dims: [ 2 ] }} ]\n{_GOOD}',
        base=ENSEMBLE,
    ),
)
def unequal_tensors(view: ConfigView) -> Iterator[Found]:
    known: dict[str, _Declaration] = {}
    for tensor in (*view.message.input, *view.message.output) if view.is_ensemble else ():
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        known.setdefault(tensor.name, _Declaration("the ensemble", tensor.data_type, list(dims), view.batched))
    for index, step, composing in composing_models(view):
        for field, side in (("input_map", "input"), ("output_map", "output")):
            for tensor in getattr(composing.message, side):
                if tensor.name not in getattr(step, field):
                    continue
                if composing.may_complete(side) and not (tensor.data_type and tensor.dims):
                    continue
                name = getattr(step, field)[tensor.name]
                actual = _declared(composing, tensor)
                problem = _difference(known.setdefault(name, actual), actual)
                if problem:
                    yield view.found(f"'{name}' is {problem}", _FIELD, "step", index, field, tensor.name)


def _declared(composing: ConfigView, tensor: Any) -> _Declaration:
    batching_open = not composing.batched and composing.may_complete(MAX_BATCH_SIZE)
    dims = list(tensor.dims)
    return _Declaration(f"'{composing.model.name}'", tensor.data_type, dims, composing.batched, batching_open)


def _difference(first: _Declaration, second: _Declaration) -> str:
    if first.data_type != second.data_type:
        types = data_type_name(first.data_type), data_type_name(second.data_type)
        return f"{types[0]} in {first.owner}, {types[1]} in {second.owner}"
    if _equal(first.dims, second.dims) or any(_equal(one, two) for one in first.fulls for two in second.fulls):
        return ""
    return f"of shape {first.full} in {first.owner}, {second.full} in {second.owner}"


def _equal(first: list[int], second: list[int]) -> bool:
    return len(first) == len(second) and all(-1 in (a, b) or a == b for a, b in zip(first, second, strict=True))


@rule(
    "MW711",
    "larger batches than a composing model takes",
    Severity.ERROR,
    why="An ensemble passes its batches to its composing models. Those that do not batch are allowed if shapes fit.",
    fix="Lower the ensemble's max_batch_size, or raise that of the composing model.",
    example=Example(f"max_batch_size: 16\n{_GOOD}", f"max_batch_size: 8\n{_GOOD}", base=ENSEMBLE),
)
def larger_batches(view: ConfigView) -> Iterator[Found]:
    own = view.message.max_batch_size
    for _, step, composing in composing_models(view):
        theirs = composing.message.max_batch_size
        if theirs and theirs < own and not composing.may_complete(MAX_BATCH_SIZE):
            yield view.found(f"max_batch_size is {own} here, {theirs} in '{step.model_name}'", "max_batch_size")


@rule(
    "MW712",
    "ensembles that run each other",
    Severity.ERROR,
    why="An ensemble may run other ensembles, but not itself, directly or through another one.",
    fix="Remove one of the steps that form the circle.",
    example=Example(_scheduling(_step("m", *_XY)), _GOOD, base=ENSEMBLE),
)
def runs_itself(view: ConfigView) -> Iterator[Found]:
    for _, step, path in steps(view):
        composing = view.repository.view(step.model_name, view.environment) if not step.model_namespace else None
        if composing is not None and any(_runs(other, view.model.name) for other in composing.reached()):
            own = step.model_name == view.model.name
            what = "the ensemble runs itself" if own else f"'{step.model_name}' runs '{view.model.name}' again"
            yield view.found(what, *path, "model_name")


def _runs(view: ConfigView, name: str) -> bool:
    return any(step.model_name == name and not step.model_namespace for _, step, _ in steps(view))


@rule(
    "MW713",
    "responses of several decoupled models that meet",
    Severity.ERROR,
    why="A decoupled model sends any number of responses to a request. A step that reads from two of them cannot tell "
    "which responses belong together, and neither can an ensemble whose outputs come from two of them, or from one and "
    "from a step beside it.",
    fix="Put at most one decoupled model before a step, and let all outputs of the ensemble come after the same one.",
    example=Example(
        _scheduling(
            _step("stream", {"x": "x"}, {"y": "a"}),
            _step("stream", {"x": "x"}, {"y": "b"}),
            _step("two", {"a": "a", "b": "b"}, {"y": "y"}),
        ),
        _scheduling(
            _step("stream", {"x": "x"}, {"y": "a"}),
            _step("part", {"x": "a"}, {"y": "b"}),
            _step("two", {"a": "a", "b": "b"}, {"y": "y"}),
        ),
        base=ENSEMBLE,
    ),
)
def two_streams(view: ConfigView) -> Iterator[Found]:
    if not view.is_ensemble or not _is_complete(view):
        return
    composing = list(composing_models(view))
    if any(not model.decoupled and model.may_complete(POLICY) for _, _, model in composing):
        return
    # {tensor: the decoupled step that its values come from}, -1 for none.
    streams: dict[str, int] = dict.fromkeys((tensor.name for tensor in view.message.input), -1)
    for index, step, decoupled in _in_order(
        streams, [(index, step, model.decoupled) for index, step, model in composing]
    ):
        sources = list(step.input_map.values())
        meeting = _meeting(view, streams, sources)
        if meeting:
            yield view.found(f"'{step.model_name}' reads {meeting}", _FIELD, "step", index)
            return
        stream = index if decoupled else streams[sources[0]]
        streams.update((name, stream) for name in step.output_map.values())
    meeting = _meeting(view, streams, [tensor.name for tensor in view.message.output if tensor.name in streams])
    if meeting:
        yield view.found(f"the outputs do not belong together: {meeting}", "output")


def _meeting(view: ConfigView, streams: Mapping[str, int], names: list[str]) -> str:
    """Which two of some tensors come from different streams of responses; '' if none do."""
    other = next((name for name in names if streams[name] != streams[names[0]]), None)
    if other is None:
        return ""

    def origin(name: str) -> str:
        index = streams[name]
        model = view.message.ensemble_scheduling.step[index].model_name if index >= 0 else ""
        return (
            f"'{name}', after the decoupled '{model}' of step {index}"
            if model
            else f"'{name}', after no decoupled model"
        )

    return f"{origin(names[0])}, and {origin(other)}"


def _in_order(known: Mapping[str, int], steps: list[tuple[int, Any, bool]]) -> Iterator[tuple[int, Any, bool]]:
    """Each step as soon as all tensors that it reads are known. Steps that wait for each other never come."""
    moved = True
    while moved:
        waiting, moved = [], False
        for entry in steps:
            if known.keys() >= set(entry[1].input_map.values()):
                moved = True
                yield entry
            else:
                waiting.append(entry)
        steps = waiting
