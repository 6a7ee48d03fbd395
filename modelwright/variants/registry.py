"""Finds techniques by the name of their module, and answers what depends on a model's variant."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from modelwright.errors import StepError
from modelwright.kinds import registry as kinds
from modelwright.kinds.step import StepId
from modelwright.project.spec import EXPORT, Builder, Lookups, SourceSpec, StepOptions
from modelwright.suggest import did_you_mean
from modelwright.variants import techniques
from modelwright.variants.technique import Precision, Technique


def find(name: object) -> Technique[Any]:
    """The technique of this name. Raises ValueError."""
    known = names()
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"unknown technique {name!r}: {did_you_mean(str(name), [*known, EXPORT])}")
    technique: Technique[Any] = import_module(f"{techniques.__name__}.{name}").TECHNIQUE
    return technique


@cache
def names() -> tuple[str, ...]:
    """The names of all techniques. Loads none of them."""
    return tuple(module.name for module in pkgutil.iter_modules(techniques.__path__))


class _Lookups:
    """Both registries, as `project.spec` asks them."""

    def source(self, given: object) -> type[SourceSpec]:
        return kinds.source_model(given)

    def options(self, technique: object) -> type[StepOptions]:
        options: type[StepOptions] = find(technique).options
        return options


LOOKUPS: Lookups = _Lookups()


def techniques_of(builder: Builder) -> Iterator[Technique[Any]]:
    """The techniques of a model, in order; none for a plain model."""
    if builder.variant:
        for step in builder.variant.techniques:
            yield find(step.name)


def version_step(builder: Builder) -> StepId:
    """The step that makes what a model's versions hold."""
    on_graph = [technique.name for technique in techniques_of(builder) if technique.works_on == "graph"]
    return (builder.name, on_graph[-1] if on_graph else kinds.kind_of(builder).version_step)


def backend_of(builder: Builder) -> str:
    """The `backend` of a model's config.pbtxt."""
    changed = [technique.backend for technique in techniques_of(builder) if technique.backend]
    return changed[-1] if changed else kinds.kind_of(builder).backend


def complete_config(builder: Builder, config: Any, where: str) -> None:
    """Add to a ModelConfig what follows from the model's techniques. Raises ConfigError."""
    for step in builder.variant.techniques if builder.variant else ():
        find(step.name).complete_config(config, step.options, where)


def config_options(builder: Builder) -> list[Any]:
    """What `complete_config` depends on: options of the techniques that add something."""
    return [
        {step.name: step.options.model_dump(mode="json")}
        for step in (builder.variant.techniques if builder.variant else ())
        if step.options and find(step.name).completes_config
    ]


def precision_of(builder: Builder) -> Precision:
    """What a model computes in, as far as its techniques say: `fp32` where none does."""
    changed = [technique.precision for technique in techniques_of(builder) if technique.precision]
    return changed[-1] if changed else "fp32"


def is_lossy(builder: Builder) -> bool:
    """Whether a model's answers may differ from its own export's by more than the order of sums."""
    return any(technique.lossy and technique.works_on == "graph" for technique in techniques_of(builder))


def check_needs(builder: Builder, step: str) -> None:
    """Raise StepError where a step of a model would miss a module."""
    kinds.kind_of(builder).check_needs(builder.file)
    for technique in techniques_of(builder):
        if technique.name != step:
            continue
        for needs in technique.needs:
            missing = [module for module in needs.modules if find_spec(module) is None]
            if missing:
                where = f"{builder.file}: variant {builder.name}: {step} needs {', '.join(missing)}: not installed"
                raise StepError(where, f"pip install '{needs.install}'")
