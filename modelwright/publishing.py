"""From artefacts to the repository: is there a new payload, what does config.pbtxt say, and the manifest of it all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from modelwright import __version__, topfiles
from modelwright.config import Tensor, Tensors, tensors_of
from modelwright.digest import Fingerprints, canonical, sha256, tree_digest
from modelwright.plan import StepId
from modelwright.project import Project
from modelwright.recipe import payload_step
from modelwright.render import shipped_templates, template_files
from modelwright.repository import CONFIG, GOLDEN, Change, Manifest, Repository
from modelwright.spec import Builder
from modelwright.store import Artifact

_SCHEMA = 1
_VERSION = "version/"
_CONFIG_REVISION = 1  # raised when the same spec and templates now give another config.pbtxt


@dataclass(frozen=True)
class Decision:
    """What publishing would do to a model."""

    builder: Builder
    payload: str
    new_version: bool
    top_files: dict[str, bytes | None]  # those that must be replaced; None: removed

    @property
    def changes_anything(self) -> bool:
        return self.new_version or bool(self.top_files)


class Publisher:
    """Decides and publishes for one build. Remembers which config.pbtxt came of which key, to render none twice."""

    def __init__(self, project: Project, repository: Repository, fingerprints: Fingerprints) -> None:
        self._project = project
        self._repository = repository
        self._fingerprints = fingerprints
        self._cache = project.state / "cache" / "configs.json"
        self._rendered = _read_json(self._cache)  # model → {key, files: {name: SHA-256}}
        self._before = dict(self._rendered)

    def decide(self, builder: Builder, artifacts: Mapping[StepId, Artifact]) -> Decision:
        """Compare what was built with what is published. Raises ConfigError."""
        made = artifacts[payload_step(builder)]
        payload = tree_digest(version_files(made))
        latest = self._repository.latest(builder.name)
        new_version = latest is None or latest[1]["payload"] != payload
        verified = artifacts[(builder.name, "verify")]
        top_files = self._top_files(builder, tensors_of(builder, made.facts), verified)
        return Decision(builder, payload, new_version, top_files)

    def change(self, decision: Decision, version: int | None, artifacts: Mapping[StepId, Artifact]) -> Change:
        """The publish that carries a decision out, under a version number that was reserved for it."""
        if version is None:
            return Change(decision.builder.name, top_files=decision.top_files)
        made = artifacts[payload_step(decision.builder)]
        verified = artifacts[(decision.builder.name, "verify")]
        files = {name: made.path(_VERSION + name) for name in version_files(made)}
        files[GOLDEN] = verified.path(GOLDEN)
        manifest = self._manifest(decision, version, files, artifacts)
        return Change(decision.builder.name, version, files, manifest, decision.top_files)

    def save(self) -> None:
        if self._rendered != self._before:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            self._cache.write_text(json.dumps(self._rendered))

    def _top_files(self, builder: Builder, tensors: Tensors, verified: Artifact) -> dict[str, bytes | None]:
        templates = [self._project.templates, shipped_templates()]
        inputs = {
            "revision": _CONFIG_REVISION,
            "file": builder.file,
            "serving": builder.spec.serving,
            "source": builder.spec.source.model_dump() if builder.members else builder.spec.source.kind,
            "tensors": [[tensor.name, tensor.dtype, tensor.dims, tensor.labels] for tensor in _all(tensors)],
            "templates": {
                str(path): self._fingerprints.file(path) for path in template_files([builder.folder, *templates])
            },
            "files": {name: self._fingerprints.file(path) for name, path in topfiles.sources(builder).items()},
            "golden": verified.files[GOLDEN] if topfiles.warms_up(builder) else None,
        }
        key = sha256(canonical(inputs))
        known = self._rendered.get(builder.name)
        if known and known["key"] == key and self._on_disk(builder.name, known["files"]):
            return {}
        files = topfiles.make(builder, tensors, verified.path(GOLDEN), templates)
        stale = self._stale(builder.name, known["files"] if known else {}, files)
        digests = {name: sha256(data) for name, data in files.items()}
        self._rendered[builder.name] = {"key": key, "files": digests}
        changed = {name: files[name] for name in files if not self._on_disk(builder.name, {name: digests[name]})}
        return {**changed, **dict.fromkeys(stale)}

    def _stale(self, model: str, before: Iterable[str], wanted: Iterable[str]) -> list[str]:
        """Files that were published for this model and that nothing asks for now."""
        folder = self._repository.root / model
        config = folder / CONFIG
        named = topfiles.recorded(config.read_text(encoding="utf-8", errors="replace")) if config.is_file() else []
        names = {*named, *(name for name in before if topfiles.is_ours(name))}.difference(wanted)
        return sorted(name for name in names if (folder / name).is_file())

    def _on_disk(self, model: str, files: Mapping[str, str]) -> bool:
        folder = self._repository.root / model
        paths = {name: folder / name for name in files}
        return all(paths[name].is_file() and self._fingerprints.file(paths[name]) == files[name] for name in files)

    def _manifest(
        self, decision: Decision, version: int, files: Mapping[str, Path], artifacts: Mapping[StepId, Artifact]
    ) -> Manifest:
        builder, target = decision.builder, self._project.target
        made, verified = artifacts[payload_step(builder)], artifacts[(builder.name, "verify")]
        digests = {**version_files(made), GOLDEN: verified.files[GOLDEN]}
        return {
            "schema": _SCHEMA,
            "model": builder.name,
            "version": version,
            "description": builder.spec.description,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "modelwright": __version__,
            "target": {"triton": target.name, "onnxruntime": target.onnxruntime, "python": target.python},
            "source": {"builder": builder.file, **_git(builder.folder)},
            "payload": decision.payload,
            "files": {name: {"sha256": digests[name], "size_bytes": files[name].stat().st_size} for name in files},
            "tensors": _tensors_record(builder, tensors_of(builder, made.facts)),
            "made": made.facts,  # the ONNX signature, the vendored requirements, or an ensemble's members
            "verification": {key: value for key, value in verified.facts.items() if key != "metrics"},
            "metrics": verified.facts["metrics"],
            "lineage": [
                {
                    "step": name,
                    "key": item.key,
                    "output": item.digest,
                    "seconds": item.duration_s,
                    "payload": item.payload,
                }
                for (model, name), item in artifacts.items()
                if model == builder.name
            ],
        }


def version_files(made: Artifact) -> dict[str, str]:
    """{relative name: SHA-256} of what a version holds: its payload."""
    return {name.removeprefix(_VERSION): digest for name, digest in made.files.items() if name.startswith(_VERSION)}


def _tensors_record(builder: Builder, tensors: Tensors) -> dict[str, Any]:
    """What a config must say for this version to load: versions that differ here cannot be served together."""

    def plain(side: tuple[Tensor, ...]) -> list[dict[str, Any]]:
        return [{"name": tensor.name, "dtype": tensor.dtype, "dims": list(tensor.dims)} for tensor in side]

    return {"batched": builder.spec.batched, "inputs": plain(tensors.inputs), "outputs": plain(tensors.outputs)}


def _all(tensors: Tensors) -> tuple[Any, ...]:
    return (*tensors.inputs, *tensors.outputs)


def _git(folder: Path) -> dict[str, Any]:
    """The commit a version was built from, and whether the builder's folder had changes on top; nothing outside git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--", "."))} if commit else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
