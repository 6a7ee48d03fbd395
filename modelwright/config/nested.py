"""Ensembles that run ensembles, as one: the steps of the inner ones in place of the step that runs them.

An ensemble serves one version at a time, since its steps stand in its one config. One that named the version of another
would fail from the moment when that one moves until it has moved itself. So a published ensemble names the models that
inner ensembles run, and moves by itself. An alias is an ensemble, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelwright.kinds.kind import EnsembleStep
from modelwright.kinds.registry import kind_of
from modelwright.project.spec import Builder


def is_inlined(builder: Builder) -> bool:
    """Whether an ensemble that runs this model names what this one runs, in its place."""
    return kind_of(builder).pins == "steps"


def flat_steps(builder: Builder, builders: Mapping[str, Builder]) -> tuple[EnsembleStep, ...]:
    """The steps of an ensemble, with those of the ensembles that it runs in their places."""
    steps: list[EnsembleStep] = []
    for index, step in enumerate(kind_of(builder).ensemble_steps(builder.spec.source)):
        inner = builders.get(step.model_name)
        if inner is not None and is_inlined(inner):
            steps += _inlined(step, flat_steps(inner, builders), f"{step.model_name}_{index}_")
        else:
            steps.append(step)
    return tuple(steps)


def _inlined(step: EnsembleStep, inner: Sequence[EnsembleStep], prefix: str) -> list[EnsembleStep]:
    """The steps of the ensemble that `step` runs, with the outer one's names for tensors.

    The server refuses a tensor that nothing reads: what leads to outputs that are not asked for is left out.
    """
    names = {**step.input_map, **step.output_map}
    wanted = set(step.output_map)
    chosen: set[int] = set()
    while more := [
        index for index, part in enumerate(inner) if index not in chosen and wanted & {*part.output_map.values()}
    ]:
        chosen |= {*more}
        wanted |= {tensor for index in more for tensor in inner[index].input_map.values()}

    def renamed(tensors: Mapping[str, str]) -> dict[str, str]:
        return {name: names.get(tensor, prefix + tensor) for name, tensor in tensors.items() if tensor in wanted}

    return [
        part.model_copy(update={"input_map": renamed(part.input_map), "output_map": renamed(part.output_map)})
        for part in (inner[index] for index in sorted(chosen))
    ]
