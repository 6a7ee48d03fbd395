"""Small repositories for remotes: published by the Repository, without being built. And what a server would make of a
copy of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.config.edit import with_versions
from modelwright.digest import sha256, sha256_file, tree_digest
from modelwright.facts.made import Made
from modelwright.remotes.sides import parsed
from modelwright.repository.manifest import parse as parse_manifest
from modelwright.repository.pins import pins_of
from modelwright.repository.repository import Change, Repository
from modelwright.triton.layout import CONFIG, MANIFEST, environment_config, environment_of, version_number
from modelwright.triton.policy import selected
from tests.repository.manifests import a_manifest

TENSORS = """
max_batch_size: 8
input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ] } ]
output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ] } ]
"""
MODEL = 'name: "NAME"\nbackend: "onnxruntime"\n' + TENSORS
PIPELINE = 'name: "NAME"\nplatform: "ensemble"\n' + TENSORS + "ensemble_scheduling {\nSTEPS}\n"
STEP = (
    '  step {{ model_name: "{model}" model_version: {version} input_map {{ key: "x", value: "x" }} '
    'output_map {{ key: "y", value: "y" }} }}\n'
)


@dataclass
class MadeRepository:
    """A project's folder with a repository in it."""

    folder: Path

    @property
    def repository(self) -> Repository:
        return Repository(
            self.folder / "model_repository", self.folder / ".modelwright/staging", self.folder / "model_history"
        )

    def version(
        self,
        model: str,
        version: int,
        *,
        content: bytes = b"",
        versions: Iterable[int] | None = None,
        tops: Mapping[str, bytes | None] | None = None,
        extra: Mapping[str, bytes] | None = None,
        environments: Iterable[str] = (),
    ) -> None:
        """Publish a version of a model; `versions` is what its config serves, by default the latest."""
        data = {"model.onnx": content or f"{model} {version}".encode() * 50, "golden.npz": b"golden", **(extra or {})}
        text = MODEL.replace("NAME", model)
        text = text if versions is None else with_versions(text, list(versions))
        configs = {environment_config(name): text.encode() for name in environments}
        self._publish(model, version, data, text, {**configs, **(tops or {})})

    def pipeline(self, model: str, version: int, runs: Mapping[str, int]) -> None:
        steps = "".join(STEP.format(model=name, version=number) for name, number in runs.items())
        digests = {name: self.digest(name, number) for name, number in runs.items()}
        text = with_versions(PIPELINE.replace("NAME", model).replace("STEPS", steps), [version])
        self._publish(model, version, {"ensemble.json": steps.encode()}, text, {}, Made(composing_models=digests))

    def _publish(
        self,
        model: str,
        version: int,
        data: Mapping[str, bytes],
        text: str,
        tops: Mapping[str, bytes | None],
        made: Made | None = None,
    ) -> None:
        files = {}
        for name, content in data.items():
            path = self.folder / "artifacts" / model / str(version) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            files[name] = path
        digest = tree_digest({name: sha256(content) for name, content in data.items()})
        manifest = a_manifest(files, model=model, version=version, version_digest=digest, made=made or Made())
        repository = self.repository
        repository.reserve([], {model: {version: digest}})
        top_files = {CONFIG: text.encode(), **tops}
        repository.publish(Change(model, version, files, manifest, top_files, version_data={CONFIG: text.encode()}))

    def digest(self, model: str, version: int) -> str:
        manifest = self.repository.manifest(model, version)
        assert manifest is not None
        return manifest.version_digest

    def served(self, model: str) -> list[int]:
        repository = self.repository
        text = (repository.root / model / CONFIG).read_text()
        return sorted(selected(parsed(text, model).version_policy, repository.versions(model)))

    def edit(self, model: str, edit: Callable[[str], str]) -> None:
        path = self.repository.root / model / CONFIG
        path.write_text(edit(path.read_text()))

    def serve(self, model: str, *versions: int) -> None:
        self.edit(model, lambda text: with_versions(text, versions))


def unready(objects: Mapping[str, Any], read: Callable[[str], bytes]) -> list[str]:
    """Why a server would not load what lies there, a line each. A model without a config, or with a closed one, is not
    looked at. `objects` has the names, `read` gives the content of one."""
    models: dict[str, list[str]] = {}
    for name in objects:
        model, slash, inner = name.partition("/")
        if slash:
            models.setdefault(model, []).append(inner)
    configs: dict[str, Any] = {}
    served: dict[str, list[int]] = {}
    for model, names in models.items():
        config = parsed(read(f"{model}/{CONFIG}").decode(), model) if CONFIG in names else None
        if config is not None:
            configs[model] = config
            folders = {name.partition("/")[0] for name in names if "/" in name}
            numbers = [number for number in map(version_number, folders) if number is not None]
            served[model] = selected(config.version_policy, numbers)
    problems = []
    for model, names in models.items():  # servers with --model-config-name read the configs of environments
        folders = {name.partition("/")[0] for name in names if "/" in name}
        numbers = [number for number in map(version_number, folders) if number is not None]
        for name in names:
            config = parsed(read(f"{model}/{name}").decode(), model) if name == CONFIG or environment_of(name) else None
            if config is not None:
                chosen = selected(config.version_policy, numbers)
                problems += [] if chosen else [f"{model}: {name} serves nothing"]
                for number in chosen:
                    problems += _incomplete(model, number, names, read)
    for model, config in configs.items():
        labels = [output.label_filename for output in config.output if output.label_filename]
        problems += [f"{model}: no {name}" for name in labels if name not in models[model]]
        for step in config.ensemble_scheduling.step:
            if not served.get(step.model_name):
                problems.append(f"{model}: {step.model_name} is not served")
        for name, numbers_needed in pins_of(config, served[model]).items():
            missing = numbers_needed - set(served.get(name, ()))
            problems += [f"{model}: {name} version {number} is not served" for number in missing]
    return problems


def _incomplete(model: str, number: int, names: Iterable[str], read: Callable[[str], bytes]) -> list[str]:
    if f"{number}/{MANIFEST}" not in names:
        return [f"{model}/{number}: no manifest"]
    manifest = parse_manifest(read(f"{model}/{number}/{MANIFEST}"), model)
    assert manifest is not None
    return [f"{model}/{number}: no {name}" for name in manifest.files if f"{number}/{name}" not in names]


def served_there(objects: Mapping[str, Any], read: Callable[[str], bytes]) -> dict[str, list[int]]:
    """What a server would serve: {model: versions}."""
    found: dict[str, list[int]] = {}
    for name in objects:
        model, _, inner = name.partition("/")
        if inner == CONFIG:
            config = parsed(read(name).decode(), model)
            folders = {
                other.split("/")[1] for other in objects if other.startswith(f"{model}/") and other.count("/") > 1
            }
            numbers = [number for number in map(version_number, folders) if number is not None]
            if config is not None:
                found[model] = sorted(selected(config.version_policy, numbers))
    return found


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
