"""MW7xx: what an ensemble may say, how its tensors flow, and whether its members fit.

The rules are those of ValidateEnsembleSchedulingConfig (core's model_config_utils.cc) and of ensemble_utils.cc.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.lint.completion import ENSEMBLE
from modelwright.lint.rule import Absent, Example, Found, Severity, rule
from modelwright.lint.rules.sequences import type_name
from modelwright.lint.view import ConfigView
from modelwright.suggest import did_you_mean

_FIELD = "ensemble_scheduling"


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


def members(view: ConfigView) -> Iterator[tuple[int, Any, ConfigView]]:
    """(index, step, the member's config) of every member that can be looked at."""
    for index, step, _ in steps(view):
        member = view.repository.view(step.model_name, view.environment) if not step.model_namespace else None
        if member is not None and member.message is not None:
            yield index, step, member


@rule(
    "MW701",
    "field that an ensemble does not take",
    Severity.ERROR,
    why="An ensemble runs nothing itself: instances, optimization and warm-up are its members'.",
    fix="Move the field to the members.",
    example=Example(f"{_GOOD}\ninstance_group [ {{ count: 1 }} ]", _GOOD, base=ENSEMBLE),
)
def not_for_ensembles(view: ConfigView) -> Iterator[Found]:
    if view.is_ensemble:
        for field in ("instance_group", "model_warmup"):
            if len(getattr(view.message, field)):
                yield view.found(f"an ensemble has no {field}", field)
        if view.message.HasField("optimization"):
            yield view.found("an ensemble has no optimization", "optimization")


@rule(
    "MW702",
    "platform and scheduling that do not both say ensemble",
    Severity.ERROR,
    why='A model is an ensemble if it has platform: "ensemble" and ensemble_scheduling with steps: both, or neither.',
    fix='Write platform: "ensemble" and ensemble_scheduling { step [ … ] }.',
    example=Example("ensemble_scheduling { }", _GOOD, base=ENSEMBLE),
)
def half_ensemble(view: ConfigView) -> Iterator[Found]:
    platform = view.message.platform
    if view.is_ensemble and platform != ENSEMBLE:
        yield view.found(f"ensemble_scheduling with platform '{platform}'", _FIELD)
    elif platform == ENSEMBLE and not view.is_ensemble:
        yield view.found("platform 'ensemble' without ensemble_scheduling", "platform")
    elif view.is_ensemble and not view.message.ensemble_scheduling.step:
        yield view.found("the ensemble has no step", _FIELD)


@rule(
    "MW703",
    "step that lacks a part",
    Severity.ERROR,
    why="A step names a model, and maps its inputs and outputs to tensors of the ensemble.",
    fix="Give it model_name, input_map and output_map.",
    example=Example(_scheduling(_step("part", {"x": "x"}, {})), _GOOD, base=ENSEMBLE),
)
def incomplete_step(view: ConfigView) -> Iterator[Found]:
    for index, step, path in steps(view):
        for field in ("model_name", "input_map", "output_map"):
            if not getattr(step, field):
                yield view.found(f"step {index} has no {field}", *path)


@rule(
    "MW704",
    "tensor written twice",
    Severity.ERROR,
    why="Every tensor of an ensemble has one writer: one output of one step.",
    fix="Map one of the two outputs to another name.",
    example=Example(_scheduling(_step("part", *_XY), _step("part", *_XY)), _GOOD, base=ENSEMBLE),
)
def written_twice(view: ConfigView) -> Iterator[Found]:
    seen: set[str] = set()
    for _, step, path in steps(view):
        for key in sorted(step.output_map):
            if step.output_map[key] in seen:
                yield view.found(f"'{step.output_map[key]}' is written a second time", *path, "output_map", key)
            seen.add(step.output_map[key])


@rule(
    "MW705",
    "tensor of an ensemble that is not written or not used",
    Severity.ERROR,
    why="Each of the ensemble's inputs is read by a step, each output written by one, and everything in between "
    "both; steps that wait for each other never run.",
    fix="Connect the tensor, or remove it.",
    example=Example(_scheduling(_step("part", {"x": "x"}, {"y": "z"})), _GOOD, base=ENSEMBLE),
)
def broken_flow(view: ConfigView) -> Iterator[Found]:
    if not view.is_ensemble or not _is_whole(view):
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
            yield view.found(f"'{name}' is written and not used", *_place(view, name))


def _is_whole(view: ConfigView) -> bool:
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
    lacking = sorted(set(writes.get(name, ())) - ready)
    return f"its step waits for '{lacking[0]}'" if lacking else "no step has it as output, and it is no input"


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
    "member that is not there",
    Severity.ERROR,
    why="The models that an ensemble runs must be in the repository; the server loads them with it.",
    fix="Publish the member, or correct the name.",
    example=Example(_scheduling(_step("prat", *_XY)), _GOOD, base=ENSEMBLE),
)
def member_missing(view: ConfigView) -> Iterator[Found]:
    for _, step, path in steps(view):
        known = view.repository.tree.models
        if step.model_name and not step.model_namespace and step.model_name not in known:
            near = did_you_mean(step.model_name, known)
            fix = near if near.startswith("did") else ""
            yield view.found(f"there is no model '{step.model_name}'", *path, "model_name", fix=fix)


@rule(
    "MW707",
    "version of a member that is not served",
    Severity.ERROR,
    why="model_version left out means version 0, not the latest: write -1 for that. Any other number must be one "
    "that the member serves.",
    fix="Write model_version: -1.",
    example=Example(_scheduling(_step("part", *_XY, version=0)), _GOOD, base=ENSEMBLE),
)
def member_version(view: ConfigView) -> Iterator[Found]:
    for index, step, member in members(view):
        if step.model_version != -1 and step.model_version not in member.served:
            unset = not step.model_version and not (view.tree and _is_written(view, index))
            what = "no version is given, which means 0" if unset else f"version {step.model_version}"
            served = ", ".join(str(number) for number in member.served) or "none"
            message = f"{what}; '{step.model_name}' serves {served}"
            yield view.found(message, _FIELD, "step", index, "model_version")


def _is_written(view: ConfigView, index: int) -> bool:
    path = (_FIELD, "step", index)
    return view.line((*path, "model_version")) != view.line(path)


@rule(
    "MW708",
    "member that does not load",
    Severity.ERROR,
    why="A member that the server refuses takes its ensembles with it.",
    fix="Mend the member first.",
    example=Example(_GOOD, _GOOD, base=ENSEMBLE, fault_files={"/part/1/model.py": Absent()}),
)
def member_fails(view: ConfigView) -> Iterator[Found]:
    for _, step, path in steps(view):
        if not step.model_namespace and view.repository.fails(step.model_name, view.environment):
            yield view.found(f"'{step.model_name}' has errors of its own", *path, "model_name")


@rule(
    "MW709",
    "mapping to a tensor that the member does not have, or none to one that it needs",
    Severity.ERROR,
    why="input_map and output_map are keyed by the member's tensors; every input that is not optional must be fed.",
    fix="Use the member's names as keys: the ensemble's are the values.",
    example=Example(_scheduling(_step("part", {"a": "x"}, {"y": "y"})), _GOOD, base=ENSEMBLE),
)
def member_tensors(view: ConfigView) -> Iterator[Found]:
    for index, step, member in members(view):
        if not member.tensors_known:
            continue
        path = (_FIELD, "step", index)
        for field, side in (("input_map", "input"), ("output_map", "output")):
            known = [tensor.name for tensor in getattr(member.message, side)]
            for name in sorted(getattr(step, field)):
                if name not in known:
                    message = f"'{step.model_name}' has no {side} '{name}'"
                    yield view.found(message, *path, field, name, fix=did_you_mean(name, known))
        for tensor in member.message.input:
            if tensor.name not in step.input_map and not tensor.optional:
                yield view.found(f"nothing feeds '{tensor.name}' of '{step.model_name}'", *path, "input_map")


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the ensemble as the model that first mentions it declares it."""

    owner: str
    data_type: int
    dims: list[int]
    batched: bool

    @property
    def full(self) -> list[int]:
        return [-1, *self.dims] if self.batched else self.dims


@rule(
    "MW710",
    "tensor whose type or shape differs between two models",
    Severity.ERROR,
    why="What one step writes is what the next one reads: same data type, same shape, where -1 fits anything. A "
    "model that does not batch may state the batch dimension itself.",
    fix="Make the two configs agree, or put a model that converts in between.",
    example=Example(
        f'input [ {{ name: "x", data_type: TYPE_INT32, dims: [ 2 ] }} ]\n{_GOOD}',
        f'input [ {{ name: "x", data_type: TYPE_FP32, dims: [ 2 ] }} ]\n{_GOOD}',
        base=ENSEMBLE,
    ),
)
def unequal_tensors(view: ConfigView) -> Iterator[Found]:
    known: dict[str, _Tensor] = {}
    for tensor in (*view.message.input, *view.message.output) if view.is_ensemble else ():
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        known.setdefault(tensor.name, _Tensor("the ensemble", tensor.data_type, list(dims), view.batched))
    for index, step, member in members(view):
        for field, side in (("input_map", "input"), ("output_map", "output")):
            for tensor in getattr(member.message, side):
                if tensor.name not in getattr(step, field):
                    continue
                name = getattr(step, field)[tensor.name]
                actual = _Tensor(f"'{step.model_name}'", tensor.data_type, list(tensor.dims), member.batched)
                problem = _difference(known.setdefault(name, actual), actual)
                if problem:
                    yield view.found(f"'{name}' is {problem}", _FIELD, "step", index, field, tensor.name)


def _difference(first: _Tensor, second: _Tensor) -> str:
    if first.data_type != second.data_type:
        types = type_name(first.data_type), type_name(second.data_type)
        return f"{types[0]} for {first.owner} and {types[1]} for {second.owner}"
    if _equal(first.dims, second.dims) or _equal(first.full, second.full):
        return ""
    return f"of shape {first.full} for {first.owner} and {second.full} for {second.owner}"


def _equal(first: list[int], second: list[int]) -> bool:
    return len(first) == len(second) and all(-1 in (a, b) or a == b for a, b in zip(first, second, strict=True))


@rule(
    "MW711",
    "larger batches than a member takes",
    Severity.ERROR,
    why="An ensemble hands its batches on. Members that do not batch at all are allowed, if shapes fit.",
    fix="Lower the ensemble's max_batch_size, or raise the member's.",
    example=Example(f"max_batch_size: 16\n{_GOOD}", f"max_batch_size: 8\n{_GOOD}", base=ENSEMBLE),
)
def larger_batches(view: ConfigView) -> Iterator[Found]:
    own = view.message.max_batch_size
    for _, step, member in members(view):
        theirs = member.message.max_batch_size
        if theirs and theirs < own:
            yield view.found(f"max_batch_size is {own} here, {theirs} for '{step.model_name}'", "max_batch_size")


@rule(
    "MW712",
    "ensembles that run each other",
    Severity.ERROR,
    why="An ensemble may run ensembles, but not itself, by no detour.",
    fix="Break the circle.",
    example=Example(_scheduling(_step("m", *_XY)), _GOOD, base=ENSEMBLE),
)
def circle(view: ConfigView) -> Iterator[Found]:
    for _, step, path in steps(view):
        member = view.repository.view(step.model_name, view.environment) if not step.model_namespace else None
        if member is not None and any(_runs(other, view.model.name) for other in member.reached()):
            yield view.found(f"'{step.model_name}' leads back to '{view.model.name}'", *path, "model_name")


def _runs(view: ConfigView, name: str) -> bool:
    return any(step.model_name == name and not step.model_namespace for _, step, _ in steps(view))


@rule(
    "MW713",
    "step fed by two decoupled models",
    Severity.ERROR,
    why="A decoupled model answers any number of times. A step that reads from two of them could not tell which "
    "answers belong together.",
    fix="Let at most one decoupled model come before a step.",
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
    if not view.is_ensemble or not _is_whole(view):
        return
    streams: dict[str, int] = dict.fromkeys((tensor.name for tensor in view.message.input), 0)
    waiting = [
        (index, step, member.message.model_transaction_policy.decoupled) for index, step, member in members(view)
    ]
    count, moved = 0, True
    while moved:
        moved = False
        for entry in list(waiting):
            index, step, decoupled = entry
            sources = [streams.get(name) for name in step.input_map.values()]
            if None in sources:
                continue
            waiting.remove(entry)
            moved = True
            if len(set(sources)) > 1:
                message = f"'{step.model_name}' reads from different decoupled models"
                yield view.found(message, _FIELD, "step", index)
                return
            count += bool(decoupled)
            stream = count if decoupled else sources[0]
            streams.update((name, stream) for name in step.output_map.values() if stream is not None)
