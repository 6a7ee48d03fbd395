"""Builders → steps → what would run, and why. Pure, but for reading the files that the keys cover.

A step's key is the SHA-256 of its configuration, the builder code it runs, the data it reads, the versions
of its tools, and the digests of what its inputs *made*. So an output that comes out the same stops what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from modelwright.build.store import Artifact, Store
from modelwright.digest import canonical, sha256
from modelwright.errors import ModelwrightError
from modelwright.facts.part import JsonObject
from modelwright.kinds.step import Step, StepId

Before = Callable[[StepId], "JsonObject | None"]


def key_of(key_content: JsonObject) -> str:
    return sha256(canonical(key_content))


@dataclass(frozen=True)
class Planned:
    """A step and what would happen to it."""

    step: Step
    # `after`: whether it runs depends on what comes out before it. `shared`: another model's step makes the same.
    status: Literal["cached", "run", "after", "shared"]
    reason: str
    artifact: Artifact | None = None
    key_content: JsonObject | None = None
    key: str | None = None


def plan_step(step: Step, artifacts: Mapping[StepId, Artifact], store: Store, before: Before) -> Planned:
    """Look one step up, given the artifacts of the steps before it. `before` knows what each was last built with."""
    missing = [need for need in step.needs.values() if need not in artifacts]
    if missing:
        names = " and ".join(dict.fromkeys(_called(need, step.model) for need in missing))
        return Planned(step, "after", f"after {names}")
    key_content = step.key_content({role: artifacts[need].digest for role, need in step.needs.items()})
    key = key_of(key_content)
    artifact = store.get(key)
    if artifact:
        return Planned(step, "cached", "up to date", artifact, key_content, key)
    return Planned(step, "run", explain(before(step.id), key_content), None, key_content, key)


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do, a `Planned` a step; and which models it would fail or hold back, and why."""

    steps: tuple[Planned, ...] = ()
    errors: Mapping[str, ModelwrightError] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)  # models that cannot be made here, and why
    left_out: tuple[str, ...] = ()  # models that are built on request

    def __iter__(self) -> Iterator[Planned]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def explain(before: JsonObject | None, now: JsonObject) -> str:
    """Why a step must run: `never built`, or what changed since: `epochs 30 → 40; train.py changed`."""
    if before is None:
        return "never built"
    changes = dict.fromkeys(_changes(before, now))  # another name and another revision read alike
    return "; ".join(changes) if changes else "its artifact is not in the store any more"


def _changes(before: JsonObject, now: JsonObject) -> Iterable[str]:
    old, new = _flat(before), _flat(now)
    for path in dict.fromkeys([*old, *new]):
        if old.get(path) == new.get(path):
            continue
        section, name = path[0], ".".join(path[1:])
        if section == "code" or section == "data":
            yield f"{name} {'added' if path not in old else 'removed' if path not in new else 'changed'}"
        elif section == "inputs":
            yield f"{name} changed"
        elif section in ("step", "revision"):
            yield "modelwright does this step differently now"
        else:
            yield f"{name} {_shown(old, path)} → {_shown(new, path)}"


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """{("config", "params", "epochs"): 30}. File names hold dots, so paths are tuples."""
    if isinstance(value, dict) and value:
        return {key: leaf for name, item in value.items() for key, leaf in _flat(item, (*path, name)).items()}
    return {path: value} if path and value != {} else {}


def _shown(flat: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> str:
    if path not in flat:
        return "(none)"
    if path[0] == "tools" and flat[path] is None:
        return "(not installed)"
    text = str(flat[path])
    return text if len(text) <= 40 else f"{text[:37]}…"


def _called(need: StepId, model: str) -> str:
    return need[1] if need[0] == model else f"{need[0]} {need[1]}"


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Steps such that needs come before those who need them. The models' own order holds otherwise."""
    by_id = {step.id: step for step in steps}
    done: dict[StepId, Step] = {}

    def visit(step: Step) -> None:
        if step.id in done:
            return
        for need in step.needs.values():
            visit(by_id[need])
        done[step.id] = step

    for step in steps:
        visit(step)
    return list(done.values())
