"""`fsck`: everything that is wrong with the repository and its history, and its repair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.build.build import LOCK, build
from modelwright.build.listener import Listener
from modelwright.errors import ModelwrightError
from modelwright.fsops import locked
from modelwright.operations.follow import follow
from modelwright.project.project import ProjectConfig
from modelwright.repair.check import Checked, check
from modelwright.repair.damage import Action, Damage
from modelwright.repair.restore import Repairs
from modelwright.repair.sources import Sources, with_remedies
from modelwright.repository.recorded import record
from modelwright.repository.repository import Repository
from modelwright.repository.versions import check_known

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Checkup:
    """What a check of the repository found. `damages` is what is wrong now, `repaired` what was."""

    damages: tuple[Damage, ...]
    repaired: tuple[Damage, ...]
    failed: dict[str, ModelwrightError]  # place → why it could not be repaired
    notes: tuple[str, ...]
    versions: int
    files: int
    size_bytes: int

    @property
    def repairable(self) -> int:
        return sum(damage.remedy is not None for damage in self.damages)


def fsck(
    project: ProjectConfig,
    names: Sequence[str] = (),
    *,
    repair: bool = False,
    remotes: Sequence[str] = (),
    why: str = "",
    wait: bool = False,
    say: Say,
) -> Checkup:
    """Check the versions of these models, or of all, live and retired, and what is around them; with `repair` restore
    what can be.

    Nothing else may change the repository meanwhile, so it holds the build lock: raises LockedError, or with `wait`
    waits. Raises RepositoryError for an unknown name, SigningError where signatures cannot be checked at all.
    """
    repository = Repository.of(project)
    for name in names:
        check_known(repository, name)
    repaired: list[Damage] = []
    failed: dict[str, ModelwrightError] = {}
    with locked(project.state / LOCK, "modelwright fsck", wait=wait, say=say):
        checked, damages = _checked(project, names, remotes)
        if repair:
            checked, damages = _repaired(project, names, remotes, why, (checked, damages), repaired, failed)
    models = sorted({item.model for item in damages if item.remedy and item.remedy.action is Action.BUILD})
    if repair and models:
        say(f"building {', '.join(models)} again")
        build(project, models, Listener(), wait=wait)
        with locked(project.state / LOCK, "modelwright fsck", wait=wait, say=say):
            found = _checked(project, names, remotes)
            left = {item.place for item in found[1]}
            built = [item for item in damages if item.remedy and item.remedy.action is Action.BUILD]
            repaired += [item for item in built if item.place not in left]
            checked, damages = _repaired(project, names, remotes, why, found, repaired, failed)
    if repair and (unrecorded := follow(project, ())):
        say(unrecorded)
    return Checkup(
        tuple(damages),
        tuple(repaired),
        failed,
        tuple(_notes(checked, project, recorded=repair)),
        sum(item.where != "record" for item in checked.folders),
        checked.files,
        checked.size_bytes,
    )


Found = tuple[Checked, list[Damage]]


def _checked(project: ProjectConfig, names: Sequence[str], remotes: Sequence[str]) -> Found:
    checked = check(project, Repository.of(project), names)
    sources = Sources(project, checked.folders, checked.manifests, remotes)
    return checked, with_remedies(checked.damages, sources)


def _repaired(
    project: ProjectConfig,
    names: Sequence[str],
    remotes: Sequence[str],
    why: str,
    found: Found,
    repaired: list[Damage],
    failed: dict[str, ModelwrightError],
) -> Found:
    """Repair until nothing more can be: a manifest that is right again says what its files must be."""
    while True:
        repairs = Repairs(project, Repository.of(project), why)
        done = repairs.run([item for item in found[1] if project.shown(item.place) not in failed])
        failed |= {project.shown(place): error for place, error in repairs.failed.items()}
        repaired += done
        if not done:
            break
        found = _checked(project, names, remotes)
    _record(project, found, why)
    return found


def _record(project: ProjectConfig, found: Found, why: str) -> None:
    """Write down what the journal does not know yet of models that nothing is wrong with."""
    damaged = {item.model for item in found[1]}
    clean = [model for model in found[0].unrecorded if model not in damaged]
    repository = Repository.of(project)
    if clean and record(repository, clean, why=why or "fsck"):
        repository.reserve()


def _notes(checked: Checked, project: ProjectConfig, *, recorded: bool) -> list[str]:
    notes = []
    if checked.foreign:
        names = ", ".join(project.shown(item.folder) for item in checked.foreign[:5])
        notes.append(f"not made here, so not checked: {names}{', …' * (len(checked.foreign) > 5)}")
    if checked.unrecorded and not recorded:
        names = ", ".join(checked.unrecorded[:5])
        notes.append(
            f"{names}{', …' * (len(checked.unrecorded) > 5)}: the journal does not know yet what manifests and configs "
            "must be; fsck --repair, or the next build, writes it down as it is"
        )
    return notes
