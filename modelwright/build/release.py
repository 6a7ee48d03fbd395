"""What goes out together, and its publish: `Built` → one outcome a model.

An ensemble and the models it runs are published together or not at all. What the linter says the server would refuse is
not published.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from modelwright.build.outcome import Outcome, Status
from modelwright.build.publisher import Decision, Publisher
from modelwright.build.scheduler import Built
from modelwright.build.workspace import Workspace
from modelwright.errors import ModelwrightError
from modelwright.facts.compared_with import ComparedWith
from modelwright.kinds.registry import version_step
from modelwright.project.family import family_of
from modelwright.project.spec import Builder
from modelwright.repository.repository import Change


def release(workspace: Workspace, built: Built) -> list[Outcome]:
    """Publish each group of models that belong together, if all of it was built. One outcome a selected model."""
    return _Release(workspace, built).publish()


class _Release:
    def __init__(self, workspace: Workspace, built: Built) -> None:
        self._workspace = workspace
        self._built = built
        self._artifacts = built.artifacts
        self._errors: dict[str, ModelwrightError] = dict(built.errors)
        self._warnings: dict[str, list[str]] = {}  # of the linter

    def publish(self) -> list[Outcome]:
        """Decide, lint, reserve the version numbers, publish: in this order, so that nothing is lost on the way."""
        publisher = Publisher(self._workspace.project, self._workspace.repository, self._workspace.fingerprints)
        decisions = self._decisions(publisher)
        held = self._held()
        changes = self._changes(publisher, {name: item for name, item in decisions.items() if name not in held})
        self._lint(changes, held)
        held = self._held()
        wanted = [name for name in changes if name not in held]
        self._workspace.repository.reserve(
            (name for name in wanted if decisions[name].new_version and not decisions[name].fixed),
            fixed={name: decisions[name].fixed for name in wanted},
        )
        for name in wanted:
            self._workspace.repository.publish(changes[name])
        publisher.save()
        return [self._outcome(builder, decisions.get(builder.name), held) for builder in self._workspace.selected]

    def _decisions(self, publisher: Publisher) -> dict[str, Decision]:
        """For every model that was built: composing models before the ensembles that run them."""
        decisions = {}
        for builder in sorted(
            self._workspace.selected, key=lambda item: len(family_of(item, self._workspace.builders))
        ):
            if (builder.name, "verify") not in self._artifacts:
                continue
            try:
                decision = publisher.decide(builder, self._artifacts)
                if decision.new_version or decision.top_copies:
                    self._check_artifacts(builder)
                decisions[builder.name] = decision
            except ModelwrightError as error:
                self._errors[builder.name] = error
        return decisions

    def _changes(self, publisher: Publisher, decisions: Mapping[str, Decision]) -> dict[str, Change]:
        """What would be published, under the numbers that are next: nobody else publishes while the lock is held."""
        ledger, changes = self._workspace.repository.ledger(), {}
        for name, decision in decisions.items():
            if decision.changes_anything:
                fresh = decision.new_version and not decision.fixed
                number = self._workspace.repository.next_number(name, ledger) if fresh else None
                changes[name] = publisher.change(decision, number, self._artifacts)
        return changes

    def _lint(self, changes: Mapping[str, Change], held: Collection[str]) -> None:
        """Nothing is published that the server would refuse: what has errors, or runs what has, fails here."""
        if not changes:
            return
        from modelwright.build import lint_gate

        families = {item.name: family_of(item, self._workspace.builders) for item in self._workspace.selected}
        affected = {name for name, family in families.items() if changes.keys() & set(family)}.difference(held)
        checked = lint_gate.check(self._workspace.project, list(changes.values()), affected)
        self._errors |= checked.errors
        self._warnings |= checked.warnings

    def _check_artifacts(self, builder: Builder) -> None:
        for step in (version_step(builder), (builder.name, "verify")):
            self._workspace.store.check(self._artifacts[step])

    def _held(self) -> set[str]:
        """Models that must not be published: an ensemble and what it runs go out together or not at all."""
        groups: dict[str, set[str]] = {}
        for builder in self._workspace.selected:
            family = family_of(builder, self._workspace.builders)
            joined = set(family).union(*(groups.get(name, ()) for name in family))
            groups |= dict.fromkeys(joined, joined)
        unbuilt = {item.name for item in self._workspace.selected if (item.name, "verify") not in self._artifacts}
        bad = unbuilt | self._errors.keys()
        return {name for name, group in groups.items() if group & bad}

    def _outcome(self, builder: Builder, decision: Decision | None, held: set[str]) -> Outcome:
        name, spent_s = builder.name, self._built.spent_s
        build_s, ran = spent_s.get(name, 0.0), name in spent_s
        if name in self._errors:
            log = self._built.logs.get(name)
            return Outcome(name, "failed", build_s=build_s, ran=True, error=self._errors[name], log=log)
        if name in held or decision is None:
            return Outcome(name, "held", build_s=build_s, ran=ran)
        status: Status = "new" if decision.new_version else "config" if decision.changes_anything else "unchanged"
        latest = self._workspace.repository.latest(name)
        if latest is None:  # prebuilt, and all of it lay there before, under the same numbers
            newest = max(self._workspace.repository.versions(name))
            return Outcome(name, status, newest, build_s=build_s, ran=ran, compared_with=ComparedWith.NOTHING)
        version, manifest = latest
        return Outcome(
            name,
            status,
            version=version,
            compared_with=manifest.verification.compared_with,
            published=tuple(sorted(decision.fixed)),
            size_bytes=manifest.size_bytes,
            max_abs_error=manifest.verification.largest_error,
            metrics=manifest.metrics,
            build_s=build_s or sum(entry.seconds for entry in manifest.lineage),
            ran=ran,
            warnings=tuple(self._warnings.get(name, ())),
        )
