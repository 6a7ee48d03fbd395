"""Which two versions of which models a gate compares, and the requests that it sends to both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelwright.errors import LoadError
from modelwright.loadtest.measure.lab import Setting
from modelwright.loadtest.payloads.workload import Workload
from modelwright.project.spec import Slo
from modelwright.repository.repository import Repository
from modelwright.triton.layout import GOLDEN


@dataclass(frozen=True)
class Pairing:
    """Two versions of a model, each with its repository. `slo` has margins, bounds and loads."""

    model: str
    baseline: int
    candidate: int
    baseline_repository: Path
    candidate_repository: Path
    slo: Slo

    @property
    def names(self) -> tuple[str, str]:
        if self.baseline_repository == self.candidate_repository:
            return f"version {self.baseline}", f"version {self.candidate}"
        return (
            f"version {self.baseline} of {self.baseline_repository.name}",
            f"version {self.candidate} of {self.candidate_repository.name}",
        )


def pairings(
    setting: Setting,
    names: Sequence[str],
    versions: Sequence[int],
    baseline_repository: Path | None,
    slo_of: Callable[[str], Slo],
) -> tuple[list[Pairing], list[str]]:
    """The pairings to compare, and for each model that cannot be compared the reason."""
    if versions and len(names) != 1:
        raise LoadError("--versions requires exactly one model", "name one model")
    if len(versions) not in (0, 2):
        raise LoadError(f"--versions {','.join(map(str, versions))}: give baseline and candidate", "such as 3,4")
    candidates = Repository(setting.repository, setting.project.staging)
    baselines = Repository(baseline_repository, setting.project.staging) if baseline_repository else candidates
    models = list(dict.fromkeys(names)) or [model for model in candidates.models() if model in baselines.models()]
    found, left_out = [], []
    for model in models:
        chosen = _versions(model, baselines, candidates, versions)
        if isinstance(chosen, str):
            left_out.append(chosen)
        else:
            found.append(Pairing(model, *chosen, baselines.root, candidates.root, slo_of(model)))
    if left_out and names:
        raise LoadError("; ".join(left_out), "modelwright status lists what is published")
    return found, left_out


def _versions(model: str, baselines: Repository, candidates: Repository, given: Sequence[int]) -> tuple[int, int] | str:
    old, new = baselines.versions(model), candidates.versions(model)
    if given:
        baseline, candidate = given
        for version, there, root in ((baseline, old, baselines.root), (candidate, new, candidates.root)):
            if version not in there:
                return f"{model}: no version {version} in {root.name}"
        return baseline, candidate
    if baselines.root != candidates.root:
        return (old[-1], new[-1]) if old and new else f"{model}: not in both repositories"
    return (old[-2], old[-1]) if len(old) > 1 else f"{model}: has only one version"


def workloads_of(setting: Setting, pairing: Pairing) -> tuple[Workload, Workload]:
    template = replace(setting.workload, model=pairing.model)
    old = pairing.baseline_repository, pairing.baseline
    return same_requests(template, old, (pairing.candidate_repository, pairing.candidate))


def same_requests(template: Workload, old: tuple[Path, int], new: tuple[Path, int]) -> tuple[Workload, Workload]:
    """The workloads of two versions of a model, each of a repository. Both sides send the same.

    If golden samples differ, those of the old one, without expected answers. Generated values follow the old ones, too.
    """
    golden = [repository / template.model / str(version) / GOLDEN for repository, version in (old, new)]
    is_golden = not (template.payload or template.shapes or template.ranges) and golden[0].is_file()
    if is_golden and not _same_inputs(*golden):
        template = replace(template, payload=str(golden[0]))
    template = replace(template, ranges_of=str(golden[0]))
    return replace(template, version=str(old[1])), replace(template, version=str(new[1]))


def _same_inputs(old: Path, new: Path) -> bool:
    import numpy as np

    from modelwright.verification.golden import load_golden
    from modelwright.verification.samples import pack

    if not new.is_file():
        return False
    first, second = pack(load_golden(old)[0]), pack(load_golden(new)[0])
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
