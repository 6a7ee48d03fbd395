"""The objectives of each model: `slo` in its model.yaml, changed by the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelwright.errors import LoadError
from modelwright.loadtest.gate.rounds import METRICS, Metric
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import slo_of
from modelwright.project.spec import Slo, SloMargins
from modelwright.suggest import did_you_mean
from modelwright.variants.registry import LOOKUPS


def objectives(
    project: ProjectConfig, margins: Sequence[str], concurrency: int | None = None, rate: float | None = None
) -> Callable[[str], Slo]:
    """A function from a model's name. Raises LoadError for a wrong margin, SpecError for a wrong model.yaml."""
    changed_margins = dict(_margin(item) for item in margins)
    given = {"concurrency": concurrency, "rate": rate}
    changed = {name: value for name, value in given.items() if value is not None}

    def of(model: str) -> Slo:
        slo = slo_of(project, model, LOOKUPS) or Slo()
        return slo.model_copy(update={**changed, "margins": slo.margins.model_copy(update=changed_margins)})

    return of


def metrics(names: Sequence[str]) -> list[Metric]:
    """The metrics of these names; without names, all. Raises LoadError for an unknown name."""
    known = list(dict.fromkeys(metric.name for metric in METRICS))
    for name in names:
        if name not in known:
            raise LoadError(
                f"--metric {name}: unknown metric", did_you_mean(name, known) or f"known: {', '.join(known)}"
            )
    return [metric for metric in METRICS if metric.name in names] or list(METRICS)


def _margin(item: str) -> tuple[str, float]:
    name, _, text = item.partition("=")
    if name not in SloMargins.model_fields:
        hint = did_you_mean(name, SloMargins.model_fields) or f"known: {', '.join(SloMargins.model_fields)}"
        raise LoadError(f"--margin {item}: unknown metric", hint)
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise LoadError(f"--margin {item}: must be a share between 0 and 1", f"such as {name}=0.05 for 5 %")
    return name, share
