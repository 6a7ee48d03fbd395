"""Writes the requirements.lock of a Python model: for `modelwright lock`, and for a build where one is missing.

A build writes a source.lock that is missing, too: `build.source_locks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.build.lock_files import Say, write_lock
from modelwright.build.source_locks import lock_sources
from modelwright.errors import ModelwrightError
from modelwright.fsops import read_text
from modelwright.kinds.registry import kind_of
from modelwright.project.lockfile import FILE, Lock, LockNeededError, Wanted, parse_lock
from modelwright.project.project import ProjectConfig
from modelwright.project.spec import Builder
from modelwright.project.uris import uris_of


@dataclass(frozen=True)
class LockedModel:
    """What became of one model's lock."""

    model: str
    file: Path
    lock: Lock
    changes: tuple[str, ...]  # of the wheels: "jinja2 3.1.5 → 3.1.6"
    written: bool  # whether the file is another one now


def wanted_lock(project: ProjectConfig, builder: Builder) -> Wanted | None:
    """What the lock of a model is resolved from; None for a model that needs none."""
    wanted: Wanted | None = kind_of(builder).wanted_lock(builder.spec.source, project.target)
    return wanted


def lock_model(project: ProjectConfig, builder: Builder, say: Say, *, upgrade: bool = False) -> LockedModel:
    """Resolve the requirements of one model, and write its lock if it is not what is there.

    Versions that the lock has are kept where they fit, unless with `upgrade`. Raises SpecError for requirements that
    cannot be met, StepError without uv or an index.
    """
    from modelwright.steps.resolve import resolve

    file, wanted = builder.folder / FILE, wanted_lock(project, builder)
    assert wanted
    before = _existing(file)
    if before and before.wanted == wanted and not upgrade:
        return LockedModel(builder.name, file, before, (), written=False)
    say(f"{project.shown(file)}: resolving {', '.join(wanted.requirements)}")
    lock = resolve(wanted, builder.file, None if upgrade else before, project.wheels)
    changed = before is None or before != lock
    if changed:
        write_lock(project, file, lock.text)
    return LockedModel(builder.name, file, lock, tuple(_changes(before, lock)), changed)


def needing(builders: Sequence[Builder], errors: Mapping[str, ModelwrightError]) -> list[Builder]:
    """The builders that failed for want of a lock."""
    return [builder for builder in builders if isinstance(errors.get(builder.name), LockNeededError)]


def write_needed(project: ProjectConfig, builders: Sequence[Builder], say: Say) -> dict[str, Exception]:
    """Write the locks of builders. Returns the errors of those that could not be written."""
    failed: dict[str, Exception] = {}
    for builder in builders:
        try:
            if uris_of(builder.spec.source):
                sources = lock_sources(project, builder, say)
                if sources.written:
                    say(f"{project.shown(sources.file)}: written, commit it")
            if wanted_lock(project, builder):
                made = lock_model(project, builder, say)
                say(f"{project.shown(made.file)}: written, commit it")
        except Exception as error:
            failed[builder.name] = error
    return failed


def _existing(file: Path) -> Lock | None:
    """The lock that is there, whatever it was made for; None for none, and for a damaged one."""
    try:
        return parse_lock(read_text(file), str(file))
    except (OSError, UnicodeDecodeError, LockNeededError):
        return None


def _changes(before: Lock | None, after: Lock) -> list[str]:
    old = {wheel.name: wheel.version for wheel in before.wheels} if before else {}
    new = {wheel.name: wheel.version for wheel in after.wheels}
    found = [f"{name} {old[name]} → {new[name]}" for name in old if name in new and old[name] != new[name]]
    found += [f"{name} {new[name]} added" for name in new if name not in old]
    return sorted(found + [f"{name} {old[name]} removed" for name in old if name not in new])
