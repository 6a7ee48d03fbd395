"""What goes out, in which order, and its publish: `Built` → one outcome a model.

An ensemble goes out after the models that it runs, and not without them: it names their versions. These go out whatever
becomes of it, since a published ensemble keeps to the versions that it names; only one that an older Modelwright
published names none, and holds its composing models. What the linter says the server would refuse is not published. A
model that fails here fails alone, as in its steps.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.build.outcome import Outcome, Status
from modelwright.build.publisher import Decision, Publisher
from modelwright.build.scheduler import Built
from modelwright.build.workspace import Workspace, waits_text
from modelwright.digest import sha256
from modelwright.errors import VersionGoneError
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.part import JsonObject
from modelwright.project.spec import Builder
from modelwright.repository.journal import Told
from modelwright.repository.pins import unpinned_by
from modelwright.repository.recorded import plain_digests, record, top_digests
from modelwright.repository.repository import Change, Repository
from modelwright.variants.model_steps import VERIFY
from modelwright.variants.registry import version_step


def release(workspace: Workspace, built: Built) -> list[Outcome]:
    """Publish what was built and is not held. One outcome a selected model."""
    return _Release(workspace, built).publish()


class _Release:
    def __init__(self, workspace: Workspace, built: Built) -> None:
        self._workspace = workspace
        self._built = built
        self._artifacts = built.artifacts
        self._faults = workspace.faults
        self._warnings: dict[str, list[str]] = {}  # of the linter
        self._unpinned: dict[str, set[str]] = {}  # the models that published ensembles run by their newest version

    def publish(self) -> list[Outcome]:
        """Decide, lint, reserve the version numbers, publish: in this order, so that nothing is lost on the way."""
        workspace = self._workspace
        sound = [builder for builder in workspace.selected if builder.name not in self._faults.errors]
        publisher = Publisher(workspace.project, workspace.repository, workspace.fingerprints, sound)
        try:
            decisions = self._decisions(publisher)
            changes = self._changes(publisher, decisions)
            self._lint(changes)
            wanted = [name for name in changes if not self._is_held(name)]
            repository = self._workspace.repository
            if wanted and not repository.journal.file.exists():
                record(repository, why="the journal begins")
            if wanted:
                repository.journal.append_all(_told(repository, changes[name], decisions[name]) for name in wanted)
            repository.reserve(
                (name for name in wanted if decisions[name].number is not None),
                fixed={name: decisions[name].fixed for name in wanted},
                states=publisher.states(decisions[name] for name in wanted),
            )
            for name in wanted:
                if not self._is_held(name):  # since one that belongs with it could not be published
                    with self._faults.of(name, "publish"):
                        repository.publish(changes[name])
        finally:
            publisher.save()
        left_out = [Outcome(name, "on request") for name in self._workspace.left_out]
        return [self._outcome(name, decisions.get(name)) for name in self._workspace.names] + left_out

    def _decisions(self, publisher: Publisher) -> dict[str, Decision]:
        """For every model that was built: composing models before the ensembles that run them."""
        decisions = {}
        families = self._workspace.families
        for builder in sorted(self._workspace.selected, key=lambda item: len(families[item.name])):
            if (builder.name, VERIFY) not in self._artifacts or builder.name in self._faults.errors:
                continue
            with self._faults.of(builder.name, "decide"):
                try:
                    decision = publisher.decide(builder, self._artifacts)
                except VersionGoneError:
                    if self._is_held(builder.name):
                        continue  # it runs a version that was just built and does not go out
                    raise
                if decision.new_version or decision.top_copies:
                    self._check_artifacts(builder)
                decisions[builder.name] = decision
        return decisions

    def _changes(self, publisher: Publisher, decisions: Mapping[str, Decision]) -> dict[str, Change]:
        """What would be published, under the numbers that are next: nobody else publishes while the lock is held."""
        changes = {}
        for name, decision in decisions.items():
            if decision.changes_anything and not self._is_held(name):
                with self._faults.of(name, "publish"):
                    changes[name] = publisher.change(decision, self._artifacts)
                    self._check_signing(changes[name])
        return changes

    def _check_signing(self, change: Change) -> None:
        """A version that must be signed is refused where it cannot be, before anything of it is written."""
        settings = self._workspace.project.signing
        if not change.versions or not (settings.signs or settings.required):
            return
        if settings.signs_here or settings.required:
            from modelwright.repository.signing import check_key

            check_key(settings)
        else:
            note = f"{change.model}: published unsigned: {settings.private_key} is not here"
            self._warnings[change.model] = [*self._warnings.get(change.model, []), note]

    def _lint(self, changes: Mapping[str, Change]) -> None:
        """Nothing is published that the server would refuse: what has errors, or runs what has, fails here."""
        going_out = {name: change for name, change in changes.items() if not self._is_held(name)}
        if not going_out:
            return
        from modelwright.build import lint_gate

        families = self._workspace.families
        affected = {name for name in families if going_out.keys() & families[name] and not self._is_held(name)}
        found = lint_gate.check(self._workspace.project, list(going_out.values()), affected, self._faults)
        for name, warnings in found.items():
            self._warnings[name] = [*self._warnings.get(name, []), *warnings]

    def _check_artifacts(self, builder: Builder) -> None:
        for step in (version_step(builder), (builder.name, VERIFY)):
            self._workspace.store.check(self._artifacts[step])

    def _is_held(self, name: str) -> bool:
        """Whether a model must not be published: it failed, or one that must go out before it or with it."""
        return bool(self._failed_with(name))

    def _failed_with(self, name: str) -> list[str]:
        """The models that keep a model from being published: itself, those that it runs, and ensembles that run its
        newest version whatever that is."""
        failed, families = self._faults.errors.keys(), self._workspace.families
        pipelines = {other for other in failed & families.keys() if name in self._runs_newest(other)}
        return sorted((families[name] | pipelines) & failed)

    def _runs_newest(self, pipeline: str) -> set[str]:
        if pipeline not in self._unpinned:
            self._unpinned[pipeline] = unpinned_by(self._workspace.repository, pipeline)
        return self._unpinned[pipeline]

    def _outcome(self, name: str, decision: Decision | None) -> Outcome:
        outcome = None
        if name not in self._faults.errors:
            with self._faults.of(name, "publish"):
                outcome = self._skipped(name) or self._held(name, decision) or self._published(name, decision)
        return outcome or self._failed(name)

    def _failed(self, name: str) -> Outcome:
        spent_s = self._built.spent_s.get(name, 0.0)
        error, log = self._faults.errors[name], self._faults.logs.get(name)
        return Outcome(name, "failed", build_s=spent_s, ran=True, error=error, log=log)

    def _skipped(self, name: str) -> Outcome | None:
        """A model that cannot be made here; what could be tried of it has passed."""
        reason = self._workspace.skipped.get(name)
        if reason is None:
            return None
        spent_s = self._built.spent_s
        return Outcome(name, "skipped", build_s=spent_s.get(name, 0.0), ran=name in spent_s, reason=reason)

    def _held(self, name: str, decision: Decision | None) -> Outcome | None:
        """What was not built, or changed and does not go out; None for what is as it should be."""
        failed = self._failed_with(name)
        if decision is not None and not (failed and decision.changes_anything):
            return None
        spent_s = self._built.spent_s
        return Outcome(name, "held", build_s=spent_s.get(name, 0.0), ran=name in spent_s, reason=waits_text(failed))

    def _published(self, name: str, decision: Decision | None) -> Outcome:
        assert decision is not None
        build_s, ran = self._built.spent_s.get(name, 0.0), name in self._built.spent_s
        status: Status = "new" if decision.new_version else "config" if decision.changes_anything else "unchanged"
        latest = self._workspace.repository.latest(name)
        if latest is None:  # prebuilt, and all of it lay there before, under the same numbers
            newest = max(self._workspace.repository.versions(name))
            return Outcome(name, status, newest, build_s=build_s, ran=ran, compared_with=ComparedWith.NOTHING)
        version, manifest = latest
        notes = [f"{name}: {note}" for note in manifest.verification.notes] if ran else []
        return Outcome(
            name,
            status,
            version=version,
            compared_with=manifest.verification.compared_with,
            published=tuple(sorted(decision.fixed)),
            note=decision.note,
            size_bytes=manifest.size_bytes,
            max_abs_error=manifest.verification.largest_error,
            metrics=manifest.metrics,
            build_s=build_s or sum(entry.seconds for entry in manifest.lineage),
            ran=ran,
            warnings=(*notes, *self._warnings.get(name, ())),
        )


def _told(repository: Repository, change: Change, decision: Decision) -> Told:
    """What the journal says of a publish."""
    details: JsonObject = {
        "versions": {
            str(item.version): {
                "digest": item.manifest.version_digest,
                "manifest": sha256(item.manifest.text().encode()),
            }
            for item in change.versions
            if item.manifest
        },
        "top": {**top_digests(change)},
        "plain": {**plain_digests(change)},
        "pins": {**decision.pins},
        "live": [*repository.versions(change.model)],
    }
    told = {name: value for name, value in details.items() if value}
    newest = max((item.version for item in change.versions if item.version is not None), default=None)
    return Told("publish" if newest is not None else "config", change.model, newest, details=told)
