"""From artifacts to the repository: is there a new version digest, what does config.pbtxt say, and the manifest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from modelwright import __version__
from modelwright.build.store import Artifact
from modelwright.config import model_files
from modelwright.config.model_config import ConfigTensor, ConfigTensors, tensors_of
from modelwright.config.render import shipped_templates, template_files
from modelwright.digest import Fingerprints, canonical, list_tree, sha256, tree_digest
from modelwright.errors import RepositoryError
from modelwright.facts.key_content import KeyContent
from modelwright.facts.made import Made
from modelwright.facts.part import JsonObject
from modelwright.facts.verified import Verified, VerifiedVersions
from modelwright.fsops import write_cache
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import StepId
from modelwright.project.project import ProjectConfig
from modelwright.project.spec import Builder
from modelwright.repository.manifest import (
    LineageStep,
    Manifest,
    PublishedFile,
    PublishedTensor,
    PublishedTensors,
    SourceCommit,
    TargetVersions,
)
from modelwright.repository.repository import Change, Repository
from modelwright.triton.layout import CONFIG, GOLDEN
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
    fixed: dict[int, str] = field(
        default_factory=dict
    )  # its new versions, under their own numbers: number → version digest

    @property
    def changes_anything(self) -> bool:
        return self.new_version or bool(self.top_files or self.top_copies)


class Publisher:
    """Decides and publishes for one build. Remembers which config.pbtxt came of which key, to render none twice."""

    def __init__(self, project: ProjectConfig, repository: Repository, fingerprints: Fingerprints) -> None:
        self._project = project
        self._repository = repository
        self._fingerprints = fingerprints
        self._cache = project.state / "cache" / "configs.json"
        self._rendered = _read_json(self._cache)  # model → {key, files: {name: SHA-256}}
        self._before = dict(self._rendered)

    def decide(self, builder: Builder, artifacts: Mapping[StepId, Artifact]) -> Decision:
        """Compare what was built with what is published. Raises ConfigError, RepositoryError."""
        made, verified = artifacts[version_step(builder)], artifacts[(builder.name, VERIFY)]
        digest, new_version, fixed = self._new_versions(builder, made)
        top_files = self._top_files(builder, tensors_of(builder, made.facts_as(Made)), verified)
        copies = {
            name: made.path(f"top/{name}")
            for name, content in kind_of(builder).files_beside(builder.spec.source).items()
            if not self._on_disk(builder.name, {name: content})
        }
        return Decision(builder, digest, new_version, top_files, copies, fixed)

    def _new_versions(self, builder: Builder, made: Artifact) -> tuple[str, bool, dict[int, str]]:
        """(version digest of the newest, whether there is something new, the new ones under fixed numbers)."""
        versions = kind_of(builder).fixed_versions(builder.spec.source)
        if versions:
            digests = {number: tree_digest(version.files) for number, version in sorted(versions.items())}
            fixed = {number: digest for number, digest in digests.items() if self._is_free(builder, number, digest)}
            return digests[max(digests)], bool(fixed), fixed
        digest = tree_digest(version_files(made))
        latest = self._repository.latest(builder.name)
        return digest, latest is None or latest[1].version_digest != digest, {}

    def change(self, decision: Decision, version: int | None, artifacts: Mapping[StepId, Artifact]) -> Change:
        """The publish that carries a decision out: all new versions and the files beside them become visible together.

        `version` is the number that was reserved for a version without a number of its own.
        """
        builder = decision.builder
        made, verified = artifacts[version_step(builder)], artifacts[(builder.name, VERIFY)]
        versions = [_fixed_version(decision, number, made, verified) for number in sorted(decision.fixed)]
        if version is not None:
            versions.append(_numbered_version(decision, version, made, verified))
        first, *rest = [self._version_change(builder, item, artifacts) for item in versions] or [Change(builder.name)]
        return replace(first, top_files=decision.top_files, top_copies=decision.top_copies, more=tuple(rest))

    def _is_free(self, builder: Builder, number: int, version_digest: str) -> bool:
        """Whether a version must be published under its own number; False when it is there. A number stands for one
        content, for good: raises RepositoryError when this one stands for another."""
        where = f"{builder.file}: source.versions.{number}"
        hint = "a number is never used twice: give the version another one, here and as its folder's name"
        folder = self._repository.folder(builder.name, number)
        if not folder.is_dir():
            taken = self._repository.taken(builder.name, number)
            if taken in (None, version_digest):
                return True
            raise RepositoryError(
                f"{where}: {builder.name} had a version {number} before, which is not there now", hint
            )
        manifest = self._repository.manifest(builder.name, number)
        if (manifest.version_digest if manifest else self._version_digest(folder)) != version_digest:
            raise RepositoryError(f"{where}: version {number} is published, with other content", hint)
        return False

    def _version_digest(self, folder: Path) -> str:
        """What a version holds that was not made here, and so has no manifest."""
        return tree_digest({name: self._fingerprints.file(path) for name, path in list_tree(folder).items()})

    def _version_change(self, builder: Builder, new: _NewVersion, artifacts: Mapping[StepId, Artifact]) -> Change:
        files = {content.name: content.path for content in new.contents}
        return Change(builder.name, new.version, files, self._manifest(builder, new, artifacts))

    def save(self) -> None:
        if self._rendered != self._before:
            write_cache(self._cache, json.dumps(self._rendered))

    def _top_files(self, builder: Builder, tensors: ConfigTensors, verified: Artifact) -> dict[str, bytes | None]:
        templates = [self._project.templates, shipped_templates()]
        inputs = {
            "revision": _CONFIG_REVISION,
            "file": builder.file,
            "serving": builder.spec.serving,
            "source": _named_source(builder),
            "tensors": [[tensor.name, tensor.dtype, tensor.dims, tensor.labels] for tensor in _all(tensors)],
            "templates": {
                str(path): self._fingerprints.file(path) for path in template_files([builder.folder, *templates])
            },
            "files": {name: self._fingerprints.file(path) for name, path in model_files.sources(builder).items()},
            "golden": verified.files[GOLDEN] if model_files.warms_up(builder) else None,
        }
        key = sha256(canonical(inputs))
        known = self._rendered.get(builder.name)
        if known and known["key"] == key and self._on_disk(builder.name, known["files"]):
            return {}
        files = model_files.make(builder, tensors, verified.path(GOLDEN), templates)
        wanted = {*files, *kind_of(builder).files_beside(builder.spec.source)}
        stale = self._stale(builder.name, known["files"] if known else {}, wanted)
        digests = {name: sha256(data) for name, data in files.items()}
        self._rendered[builder.name] = {"key": key, "files": digests}
        changed = {name: files[name] for name in files if not self._on_disk(builder.name, {name: digests[name]})}
        return {**changed, **dict.fromkeys(stale)}

    def _stale(self, model: str, before: Iterable[str], wanted: Iterable[str]) -> list[str]:
        """Files that were published for this model and that nothing asks for now."""
        folder = self._repository.root / model
        config = folder / CONFIG
        named = model_files.recorded(config.read_text(encoding="utf-8", errors="replace")) if config.is_file() else []
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
            source=_source_commit(builder),
            version_digest=new.version_digest,
            files={content.name: content.record for content in new.contents},
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


def _numbered_version(decision: Decision, number: int, made: Artifact, verified: Artifact) -> _NewVersion:
    contents = [_Content(made, _VERSION + name, name) for name in version_files(made)]
    contents.append(_Content(verified, GOLDEN, GOLDEN))
    return _NewVersion(number, decision.version_digest, contents, made.facts_as(Made), verified.facts_as(Verified))


def _fixed_version(decision: Decision, number: int, made: Artifact, verified: Artifact) -> _NewVersion:
    builder = decision.builder
    version = kind_of(builder).fixed_versions(builder.spec.source)[number]
    contents = [_Content(made, f"versions/{number}/{name}", name) for name in version.files]
    golden = f"{number}/{GOLDEN}"
    if golden in verified.files:
        contents.append(_Content(verified, golden, GOLDEN))
    facts = made.facts_as(Made)
    if version.composing and not builder.spec.samples:
        # What an ensemble ran when its samples were recorded tells whether they still hold for it.
        facts = facts.model_copy(update={"composing_models": dict(version.composing)})
    verdict = verified.facts_as(VerifiedVersions).versions[number]
    return _NewVersion(number, decision.fixed[number], contents, facts, verdict)


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


def _source_commit(builder: Builder) -> SourceCommit:
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
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
