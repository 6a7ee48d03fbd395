"""From artifacts to the repository: is there a new version digest, what does config.pbtxt say, and the manifest."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from modelwright import __version__
from modelwright.build.numbered import newest_golden, numbered_versions, source_digest
from modelwright.build.store import Artifact
from modelwright.config import model_files
from modelwright.config.edit import parameter, with_parameter
from modelwright.config.model_config import ConfigTensor, ConfigTensors, tensors_of
from modelwright.config.nested import flat_steps, is_inlined
from modelwright.config.render import parse, shipped_templates, template_files
from modelwright.digest import Fingerprints, canonical, list_tree, parse_json, sha256, tree_digest
from modelwright.errors import ConfigError, RepositoryError
from modelwright.facts.key_content import KeyContent
from modelwright.facts.made import Made
from modelwright.facts.part import JsonObject
from modelwright.facts.verified import Verified, VerifiedVersions
from modelwright.fsops import read_file, read_text, write_cache
from modelwright.kinds.kind import EnsembleStep
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import StepId
from modelwright.project.project import ProjectConfig
from modelwright.project.spec import Builder
from modelwright.repository.ledger import ServingState
from modelwright.repository.manifest import (
    LineageStep,
    Manifest,
    PublishedFile,
    PublishedTensor,
    PublishedTensors,
    SourceCommit,
    TargetVersions,
)
from modelwright.repository.pins import Needed, Pins, as_parameter, merged, needed, number_of, published_pins
from modelwright.repository.policy import recent, released, utc_now, with_policy
from modelwright.repository.repository import Change, Repository
from modelwright.repository.sbom import sbom_of
from modelwright.triton.layout import CONFIG, GOLDEN, PINS, SBOM, environment_of
from modelwright.variants.model_steps import VERIFY
from modelwright.variants.registry import backend_of, config_options, techniques_of, version_step

_VERSION = "version/"
_CONFIG_REVISION = 1  # raised when the same spec and templates now give another config.pbtxt


@dataclass(frozen=True)
class Decision:
    """What publishing would do to a model."""

    builder: Builder
    version_digest: str
    new_version: bool
    top_files: dict[str, bytes | None]  # those that must be replaced; None: removed
    top_copies: dict[str, Path] = field(default_factory=dict)  # those that its kind brings along
    # Its new versions under numbers of their own: number → version digest
    fixed: dict[int, str] = field(default_factory=dict)
    number: int | None = None  # of its new version, where that has none of its own
    pins: dict[str, int] = field(default_factory=dict)  # the versions that it runs of other models
    config: bytes = b""  # the config.pbtxt that goes with its new version
    state: ServingState = field(default_factory=ServingState)
    note: str = ""  # why what was built is not what is served

    @property
    def changes_anything(self) -> bool:
        return self.new_version or bool(self.top_files or self.top_copies)


def rendered_files(project: ProjectConfig, model: str) -> dict[str, str]:
    """{file beside the versions: its SHA-256} of a model, as a build here rendered it last; empty for none."""
    files = _read_json(_rendered_cache(project)).get(model, {}).get("files", {})
    return {str(name): str(digest) for name, digest in files.items()}


def _rendered_cache(project: ProjectConfig) -> Path:
    return project.state / "cache" / "configs.json"


class Publisher:
    """Decides and publishes for one build. Remembers which config.pbtxt came of which key, to render none twice."""

    def __init__(
        self, project: ProjectConfig, repository: Repository, fingerprints: Fingerprints, builders: Iterable[Builder]
    ) -> None:
        self._project = project
        self._repository = repository
        self._fingerprints = fingerprints
        builders = list(builders)
        self._builders = {builder.name: builder for builder in builders}
        self._routed = {builder.name: _routed_pins(builder) for builder in builders if _is_router(builder)}
        self._cache = _rendered_cache(project)
        self._rendered = _read_json(self._cache)  # model → {key, files: {name: SHA-256}}
        self._before = dict(self._rendered)
        self._ledger = repository.ledger()
        self._now = utc_now()
        self._decided: dict[str, Decision] = {}

    @cached_property
    def _needed(self) -> Needed:
        """Which versions pipelines need: as published, and as routers are about to."""
        return needed(self._repository, {name: self._bound(name, pins) for name, pins in self._routed.items()})

    def _bound(self, name: str, pins: Pins) -> Pins:
        """What a router calls until it is published, and after."""
        now = published_pins(self._repository, name)
        return {model: now.get(model, frozenset()) | pins.get(model, frozenset()) for model in {*now, *pins}}

    def decide(self, builder: Builder, artifacts: Mapping[StepId, Artifact]) -> Decision:
        """Compare what was built with what is published; composing models before the pipelines that run them.

        Raises ConfigError, RepositoryError.
        """
        decision = self._decide(builder, artifacts)
        self._decided[builder.name] = decision
        return decision

    def _decide(self, builder: Builder, artifacts: Mapping[StepId, Artifact]) -> Decision:
        made, verified = artifacts[version_step(builder)], artifacts[(builder.name, VERIFY)]
        name, state = builder.name, self._ledger.state(builder.name)
        digest, new_version, fixed = self._new_versions(builder, made)
        withdrawn = [number for number, known in state.withdrawn.items() if known == digest]
        if new_version and withdrawn and not fixed:
            note = self._withdrawn_note(name, withdrawn[-1])
            return Decision(builder, digest, False, self._lost_config(name, state), state=state, note=note)
        number = self._repository.next_number(name, self._ledger) if new_version and not fixed else None
        decision = Decision(builder, digest, new_version, {}, fixed=fixed, number=number, state=state)
        decision = replace(decision, pins=self._pins(builder, artifacts))
        files = _Files(decision, tensors_of(builder, made.facts_as(Made)), verified)
        if state.promoted is not None and self._newest(decision) != state.promoted and not _is_prebuilt(builder):
            note = f"version {state.promoted} is promoted: modelwright promote {name} {self._newest(decision)} serves "
            lost = self._lost_config(name, state)
            return replace(decision, config=self._config(files), top_files=lost, note=f"{note}{self._newest(decision)}")
        top_files, state = self._top_files(files)
        copies = {
            item: made.path(f"top/{item}")
            for item, content in kind_of(builder).files_beside(builder.spec.source).items()
            if not self._on_disk(name, {item: content})
        }
        config = self._config(files) if new_version else b""
        return replace(decision, top_files=top_files, top_copies=copies, state=state, config=config)

    def _withdrawn_note(self, name: str, number: int) -> str:
        command = f"modelwright restore {name} {number}"
        if number in self._repository.retired(name):
            return f"version {number}, which is the same, was rolled back: {command} brings it back"
        return f"version {number}, which was the same, was rolled back, then deleted: {command} lets a build publish it"

    def _lost_config(self, name: str, state: ServingState) -> dict[str, bytes | None]:
        """The config of a model that serves another version than the one that was built, where it has none that reads:
        as it was published with that version. Raises RepositoryError where that is not known."""
        file = self._repository.root / name / CONFIG
        with contextlib.suppress(OSError, ConfigError):
            parse(read_text(file, errors="replace"), name)
            return {}
        versions = self._repository.versions(name)
        number = state.promoted or max(versions)
        published = self._repository.folder(name, number) / CONFIG
        if not published.is_file():
            hint = f"serve what a build makes: modelwright promote {name} latest" if state.promoted else ""
            problem = f"does not read, and that of version {number}, which is served, is not known"
            raise RepositoryError(f"{file}: {problem}", hint or "restore it from a backup")
        text = read_text(published)
        return {CONFIG: with_policy(text, name, versions, state, self._needed.get(name, ()), self._now)[0].encode()}

    def _newest(self, decision: Decision) -> int:
        """The highest number that its model has once it is published."""
        own: Iterable[int] = [decision.number] if decision.number is not None else decision.fixed
        return max([*own, *self._repository.versions(decision.builder.name)])

    def _pins(self, builder: Builder, artifacts: Mapping[StepId, Artifact]) -> dict[str, int]:
        """The versions of the models that it runs, by which it was verified; of an ensemble that it runs, what that one
        runs. Raises RepositoryError for one that is not served."""
        kind = kind_of(builder)
        if kind.pins == "none":
            return {}
        found: dict[str, int] = {}
        for name, digest in artifacts[version_step(builder)].facts_as(Made).composing_models.items():
            inner = self._builders.get(name)
            if kind.pins == "steps" and inner is not None and is_inlined(inner):
                found |= self._pins(inner, artifacts)
            else:
                found[name] = self._pin(builder, name, digest)
        return found

    def _pin(self, builder: Builder, name: str, digest: str) -> int:
        decided, state = self._decided.get(name), self._ledger.state(name)
        number: int
        if decided is not None and decided.number is not None and decided.version_digest == digest:
            number = decided.number
        elif decided is not None and digest in decided.fixed.values():
            number = max(number for number, known in decided.fixed.items() if known == digest)
        else:
            now = published_pins(self._repository, builder.name).get(name, frozenset())
            number = number_of(self._repository, name, digest, now, builder.name)
            if number not in self._repository.versions(name):
                hint = f"modelwright restore {name} {number}, or change its builder"
                raise RepositoryError(f"{builder.name}: it runs {name} version {number}, which is retired", hint)
        if state.promoted is not None and number > state.promoted:
            hint = f"modelwright promote {name} {number}, then build again"
            problem = f"it was verified with {name} version {number}, and version {state.promoted} is promoted"
            raise RepositoryError(f"{builder.name}: {problem}", hint)
        return number

    def states(self, decisions: Iterable[Decision]) -> dict[str, ServingState]:
        """The serving states once these decisions are published: the pipelines among them may stop to need versions."""
        chosen = {decision.builder.name: decision for decision in decisions}
        states = {name: decision.state for name, decision in chosen.items()}
        for name, decision in chosen.items():
            bound = self._routed.get(name) or {model: frozenset({number}) for model, number in decision.pins.items()}
            if not bound and name not in self._routed:
                continue
            for composing, numbers in published_pins(self._repository, name).items():
                users, kept = self._needed.get(composing, {}), bound.get(composing, frozenset())
                dropped = [number for number in numbers if number not in kept and users[number] == (name,)]
                if dropped:
                    known = states.get(composing, self._ledger.state(composing))
                    states[composing] = released(known, dropped, self._now)
        return states

    def _new_versions(self, builder: Builder, made: Artifact) -> tuple[str, bool, dict[int, str]]:
        """(version digest of the newest, whether there is something new, the new ones under fixed numbers)."""
        versions = numbered_versions(builder, made)
        if versions:
            digests = {number: tree_digest(version.files) for number, version in sorted(versions.items())}
            facts = made.facts_as(Made)
            fixed = {
                number: digest
                for number, digest in digests.items()
                if self._is_free(builder, number, digest, source_digest(facts, number))
            }
            return digests[max(digests)], bool(fixed), fixed
        digest = tree_digest(version_files(made))
        latest = self._repository.latest(builder.name)
        return digest, latest is None or latest[1].version_digest != digest, {}

    def change(self, decision: Decision, artifacts: Mapping[StepId, Artifact]) -> Change:
        """The publish that carries a decision out: new versions and the files beside them become visible together."""
        builder = decision.builder
        made, verified = artifacts[version_step(builder)], artifacts[(builder.name, VERIFY)]
        versions = [_fixed_version(decision, number, made, verified) for number in sorted(decision.fixed)]
        if decision.number is not None:
            versions.append(_numbered_version(decision, decision.number, made, verified))
        first, *rest = [self._version_change(builder, item, artifacts) for item in versions] or [Change(builder.name)]
        return replace(first, top_files=decision.top_files, top_copies=decision.top_copies, more=tuple(rest))

    def _is_free(self, builder: Builder, number: int, version_digest: str, source: str) -> bool:
        """Whether a version must be published under its own number; False when it is there. A number stands for one
        content, for good: raises RepositoryError when this one stands for another. What was converted from the same
        `source` is the same, though another converter writes it differently."""
        where = f"{builder.file}: {'source' if source else 'source.versions'}.{number}"
        hint = "a number is never used twice: give the version another one, here and as its folder's name"
        folder = self._repository.folder(builder.name, number)
        if number in self._repository.retired(builder.name):
            return False  # an operator took it out
        if not folder.is_dir():
            taken = self._repository.taken(builder.name, number)
            if taken in (None, version_digest):
                return True
            raise RepositoryError(
                f"{where}: {builder.name} had a version {number} before, which is not there now", hint
            )
        manifest = self._repository.manifest(builder.name, number)
        if source and source_digest(manifest.made if manifest else None, number) == source:
            return False
        if (manifest.version_digest if manifest else self._version_digest(folder)) != version_digest:
            raise RepositoryError(f"{where}: version {number} is published, with other content", hint)
        return False

    def _version_digest(self, folder: Path) -> str:
        """What a version holds that was not made here, and so has no manifest."""
        return tree_digest({name: self._fingerprints.file(path) for name, path in list_tree(folder).items()})

    def _version_change(self, builder: Builder, new: _NewVersion, artifacts: Mapping[StepId, Artifact]) -> Change:
        files = {content.name: content.path for content in new.contents}
        if SBOM not in files:  # a prebuilt version may bring its own
            bill = sbom_of(self._manifest(builder, new, artifacts), files)
            new = replace(new, data={**new.data, SBOM: bill})
        manifest = self._manifest(builder, new, artifacts)
        return Change(builder.name, new.version, files, manifest, version_data=new.data, sign=True)

    def save(self) -> None:
        if self._rendered != self._before:
            write_cache(self._cache, json.dumps(self._rendered))

    def _top_files(self, files: _Files) -> tuple[dict[str, bytes | None], ServingState]:
        """The files beside the versions that must be replaced, and the serving state that goes with them."""
        builder = files.builder
        name, state = builder.name, files.decision.state
        own = [files.decision.number] if files.decision.number is not None else list(files.decision.fixed)
        versions = {*self._repository.versions(name), *own}
        # A config that was given whole is for its author to change; an operator may promote one of its versions. An
        # ensemble that another one runs serves its new version, and the other one goes out right after it.
        alone = _is_prebuilt(builder) or kind_of(builder).pins == "steps"
        needing = () if alone else self._needed.get(name, {})
        key = sha256(canonical(self._inputs(files) | self._serving_inputs(files, versions, needing)))
        known = self._rendered.get(name)
        if known and known["key"] == key and self._on_disk(name, known["files"]):
            return {}, state
        rendered = dict(self._make(files))
        for file in sorted(rendered, key=lambda file: file == CONFIG):
            if file == CONFIG or environment_of(file):
                text, new_state = with_policy(
                    rendered[file].decode(), name, versions, state, needing, self._now, prebuilt=_is_prebuilt(builder)
                )
                rendered[file] = text.encode()
        wanted = {*rendered, *kind_of(builder).files_beside(builder.spec.source)}
        stale = self._stale(name, known["files"] if known else {}, wanted)
        digests = {file: sha256(data) for file, data in rendered.items()}
        self._rendered[name] = {"key": key, "files": digests}
        changed = {file: rendered[file] for file in rendered if not self._on_disk(name, {file: digests[file]})}
        return {**changed, **dict.fromkeys(stale)}, new_state

    def _config(self, files: _Files) -> bytes:
        """The config.pbtxt as it is made from model.yaml, whatever is promoted."""
        return self._make(files)[CONFIG]

    def _make(self, files: _Files) -> Mapping[str, bytes]:
        builder, templates = files.builder, [self._project.templates, shipped_templates()]
        golden, pins = files.verified.path(newest_golden(files.verified)), files.decision.pins
        made = model_files.make(builder, files.tensors, golden, templates, pins, self._steps(builder))
        if pins and kind_of(builder).pins == "parameter":
            text = self._pins_parameter(files.decision)
            for file in made:
                if file == CONFIG or environment_of(file):
                    made[file] = with_parameter(made[file].decode(), PINS, text).encode()
        return made

    def _steps(self, builder: Builder) -> tuple[EnsembleStep, ...] | None:
        """The steps of an ensemble as it is published; None for another model."""
        return flat_steps(builder, self._builders) if is_inlined(builder) else None

    def _pins_parameter(self, decision: Decision) -> str:
        """The pins of every version that is there: of those that are published, as they are."""
        name = decision.builder.name
        versions = {*self._repository.versions(name), self._newest(decision)}
        published = self._repository.root / name / CONFIG
        before = parameter(parse(read_text(published), name), PINS) if published.is_file() else None
        return merged(before, as_parameter({self._newest(decision): decision.pins}), versions)

    def _inputs(self, files: _Files) -> dict[str, Any]:
        builder, templates = files.builder, [self._project.templates, shipped_templates()]
        return {
            "revision": _CONFIG_REVISION,
            "file": builder.file,
            "serving": builder.spec.serving,
            "source": _named_source(builder),
            "tensors": [[tensor.name, tensor.dtype, tensor.dims, tensor.labels] for tensor in _all(files.tensors)],
            "templates": {
                str(path): self._fingerprints.file(path) for path in template_files([builder.folder, *templates])
            },
            "files": {name: self._fingerprints.file(path) for name, path in model_files.sources(builder).items()},
            "golden": files.verified.files[newest_golden(files.verified)] if model_files.warms_up(builder) else None,
            "pins": files.decision.pins,
            "steps": [step.model_dump() for step in self._steps(builder) or ()],
        }

    def _serving_inputs(self, files: _Files, versions: Collection[int], needing: Iterable[int]) -> dict[str, Any]:
        """What decides which versions are served."""
        state = files.decision.state
        return {
            "versions": sorted(versions),
            "promoted": state.promoted,
            "needed": sorted(needing),
            "released": sorted(recent(state, self._now)),
        }

    def _stale(self, model: str, before: Iterable[str], wanted: Iterable[str]) -> list[str]:
        """Files that were published for this model and that nothing asks for now."""
        folder = self._repository.root / model
        config = folder / CONFIG
        named = model_files.recorded(read_text(config, errors="replace")) if config.is_file() else []
        names = {*named, *(name for name in before if model_files.is_ours(name))}.difference(wanted)
        return sorted(name for name in names if (folder / name).is_file())

    def _on_disk(self, model: str, files: Mapping[str, str]) -> bool:
        folder = self._repository.root / model
        paths = {name: folder / name for name in files}
        return all(paths[name].is_file() and self._fingerprints.file(paths[name]) == files[name] for name in files)

    def _manifest(self, builder: Builder, new: _NewVersion, artifacts: Mapping[StepId, Artifact]) -> Manifest:
        target = self._project.target
        changed = {technique.name for technique in techniques_of(builder)}
        lineage = [
            _lineage(name, item, item.facts if name in changed else {})
            for (model, name), item in artifacts.items()
            if model == builder.name
        ]
        return Manifest(
            model=builder.name,
            version=new.version,
            description=builder.spec.description,
            created=datetime.now(timezone.utc).replace(microsecond=0),
            modelwright=__version__,
            target=TargetVersions(triton=target.name, onnxruntime=target.onnxruntime, python=target.python),
            source=source_commit(builder),
            version_digest=new.version_digest,
            files={content.name: content.record for content in new.contents} | new.data_records,
            tensors=_published_tensors(builder, tensors_of(builder, new.made)),
            made=new.made,
            verification=new.verified,
            lineage=tuple(lineage),
        )


@dataclass(frozen=True)
class _Content:
    """A file of a version: where it lies among a step's files, and its name in the version."""

    artifact: Artifact
    origin: str
    name: str

    @property
    def path(self) -> Path:
        return self.artifact.path(self.origin)

    @property
    def record(self) -> PublishedFile:
        return PublishedFile(sha256=self.artifact.files[self.origin], size_bytes=self.path.stat().st_size)


@dataclass(frozen=True)
class _NewVersion:
    """One version that is to be published: its number, its files, and what the steps learnt of it."""

    version: int
    version_digest: str
    contents: list[_Content]
    made: Made
    verified: Verified
    data: dict[str, bytes] = field(default_factory=dict)  # files that are made with it

    @property
    def data_records(self) -> dict[str, PublishedFile]:
        return {
            name: PublishedFile(sha256=sha256(data), size_bytes=len(data)) for name, data in sorted(self.data.items())
        }


@dataclass(frozen=True)
class _Files:
    """What the files beside a model's versions are made from."""

    decision: Decision
    tensors: ConfigTensors
    verified: Artifact

    @property
    def builder(self) -> Builder:
        return self.decision.builder


def _numbered_version(decision: Decision, number: int, made: Artifact, verified: Artifact) -> _NewVersion:
    contents = [_Content(made, _VERSION + name, name) for name in version_files(made)]
    contents.append(_Content(verified, GOLDEN, GOLDEN))
    facts, verdict = made.facts_as(Made), verified.facts_as(Verified)
    return _NewVersion(number, decision.version_digest, contents, facts, verdict, {CONFIG: decision.config})


def _fixed_version(decision: Decision, number: int, made: Artifact, verified: Artifact) -> _NewVersion:
    builder = decision.builder
    version = numbered_versions(builder, made)[number]
    contents = [_Content(made, f"versions/{number}/{name}", name) for name in version.files]
    golden = f"{number}/{GOLDEN}"
    if golden in verified.files:
        contents.append(_Content(verified, golden, GOLDEN))
    facts = made.facts_as(Made)
    if version.composing and not builder.spec.samples:
        # What an ensemble ran when its samples were recorded tells whether they still hold for it.
        facts = facts.model_copy(update={"composing_models": dict(version.composing)})
    verdict = verified.facts_as(VerifiedVersions).versions[number]
    # A config that was given whole is for its author to change; what is made from model.yaml goes with its version.
    data = {} if _is_prebuilt(builder) else {CONFIG: decision.config}
    return _NewVersion(number, decision.fixed[number], contents, facts, verdict, data)


def _is_prebuilt(builder: Builder) -> bool:
    return kind_of(builder).whole_config


def _is_router(builder: Builder) -> bool:
    return bool(kind_of(builder).routed(builder.spec.source))


def _routed_pins(builder: Builder) -> Pins:
    """The versions that a router calls by their numbers."""
    found: dict[str, frozenset[int]] = {}
    for _, item in kind_of(builder).routed(builder.spec.source):
        if item.version is not None:
            found[item.model] = found.get(item.model, frozenset()) | {item.version}
    return found


def _named_source(builder: Builder) -> Any:
    """What of `source` stands in config.pbtxt, or in the line that names the files made with it."""
    kind, source = kind_of(builder), builder.spec.source
    beside = kind.files_beside(source)
    if kind.whole_config or beside:
        return [kind.name, *beside]
    if builder.variant:
        return [kind.name, backend_of(builder), *config_options(builder)]
    return source.model_dump() if builder.composing else kind.name


def version_files(made: Artifact) -> dict[str, str]:
    """{relative name: SHA-256} of what a version holds: its version digest is made of these."""
    return {name.removeprefix(_VERSION): digest for name, digest in made.files.items() if name.startswith(_VERSION)}


def _lineage(step: str, artifact: Artifact, facts: JsonObject) -> LineageStep:
    return LineageStep(
        step=step,
        key=artifact.key,
        output=artifact.digest,
        seconds=artifact.duration_s,
        key_content=KeyContent.model_validate(artifact.key_content),
        facts=facts,
    )


def _published_tensors(builder: Builder, tensors: ConfigTensors) -> PublishedTensors:
    def side(tensors: tuple[ConfigTensor, ...]) -> tuple[PublishedTensor, ...]:
        return tuple(PublishedTensor(name=item.name, dtype=item.dtype, dims=item.dims) for item in tensors)

    return PublishedTensors(batched=builder.spec.batched, inputs=side(tensors.inputs), outputs=side(tensors.outputs))


def _all(tensors: ConfigTensors) -> tuple[Any, ...]:
    return (*tensors.inputs, *tensors.outputs)


def source_commit(builder: Builder) -> SourceCommit:
    """The commit a version was built from, and whether the builder's folder had changes on top."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(builder.folder), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit:
        return SourceCommit(builder=builder.file)
    return SourceCommit(builder=builder.file, commit=commit, dirty=bool(git("status", "--porcelain", "--", ".")))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = parse_json(read_file(path))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
