"""Small published repositories for tests of what operators do: real files and manifests, without a build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from modelwright.config.edit import with_versions
from modelwright.digest import sha256, tree_digest
from modelwright.facts.made import Made
from modelwright.repository.manifest import PublishedFile, PublishedTensor, PublishedTensors
from modelwright.repository.pins import needed
from modelwright.repository.policy import utc_now, with_policy
from modelwright.repository.repository import Change, Repository
from tests.repository.manifests import a_manifest

CONFIG_TEXT = """name: "{name}"
backend: "onnxruntime"
max_batch_size: 8

input [
  {{ name: "x", data_type: TYPE_FP32, dims: [ {size} ] }}
]

output [
  {{ name: "y", data_type: TYPE_FP32, dims: [ {size} ] }}
]
{more}"""


class Operated:
    """A repository, and the publishes that a build would make; with `keeps`, what pipelines need stays served."""

    def __init__(self, folder: Path, *, keeps: bool = False) -> None:
        self.folder = folder
        self.repository = Repository(folder / "model_repository", folder / ".modelwright/staging")
        self._keeps = keeps
        self._kept: dict[str, dict[int, dict[str, int]]] = {}

    def publish(
        self, name: str, version: int, *, text: str = "", size: int = 2, more: str = "", model: bytes = b""
    ) -> str:
        """A version of a plain model that holds `text`, or this `model.onnx`; its version digest."""
        content = model or (text or f"{name} {version}").encode()
        config = CONFIG_TEXT.format(name=name, size=size, more=more)
        return self._publish(name, version, {"model.onnx": content}, config, size, {})

    def pipeline(self, name: str, version: int, runs: Mapping[str, int], *, pin: bool = True) -> str:
        """A version of an ensemble that runs these versions of models, one after the other."""
        steps, at = [], "x"
        digests = {model: self.digest(model, number) for model, number in runs.items()}
        for index, model in enumerate(runs):
            target = "y" if index == len(runs) - 1 else f"between{index}"
            steps.append(
                {"model_name": model, "model_version": -1, "input_map": {"x": at}, "output_map": {"y": target}}
            )
            at = target
        content = json.dumps({"steps": steps, "members": digests}).encode()
        config = CONFIG_TEXT.format(name=name, size=2, more=_scheduling(steps, runs if pin else {}))
        config = config.replace('backend: "onnxruntime"', 'platform: "ensemble"')
        return self._publish(name, version, {"ensemble.json": content}, config, 2, digests, pinned=pin)

    def kept(self, name: str, version: int, runs: Mapping[str, int], keep: int = 3) -> str:
        """A version of a pipeline whose versions are served side by side, with the pins of those before it."""
        digests = {model: self.digest(model, number) for model, number in runs.items()}
        self._kept.setdefault(name, {})[version] = dict(runs)
        pins = json.dumps({str(own): by_model for own, by_model in self._kept[name].items()})
        policy = f"\nversion_policy {{ latest {{ num_versions: {keep} }} }}\n"
        parameter = f'parameters {{ key: "pins", value: {{ string_value: {json.dumps(pins)} }} }}\n'
        config = CONFIG_TEXT.format(name=name, size=2, more=policy + parameter).replace("onnxruntime", "python")
        files = {"pipeline.json": json.dumps({"composing": digests}).encode(), "model.py": b""}
        return self._publish(name, version, files, config, 2, digests, pinned=True)

    def digest(self, name: str, version: int) -> str:
        manifest = self.repository.manifest(name, version)
        assert manifest is not None
        return manifest.version_digest

    def served(self) -> dict[str, list[int]]:
        """What a server would serve of each model."""
        from modelwright.config.render import parse
        from modelwright.triton.policy import selected

        found = {}
        for name in self.repository.models():
            text = (self.repository.root / name / "config.pbtxt").read_text()
            found[name] = selected(parse(text, name).version_policy, self.repository.versions(name))
        return found

    def _with_policy(self, name: str, version: int, config: str) -> str:
        """The config as a build publishes it where pipelines need older versions."""
        needing = needed(self.repository).get(name, ())
        if not needing or not self._keeps:
            return config
        versions = {*self.repository.versions(name), version}
        return with_policy(config, name, versions, self.repository.ledger().state(name), needing, utc_now())[0]

    def _publish(
        self,
        name: str,
        version: int,
        files: Mapping[str, bytes],
        config: str,
        size: int,
        composing: Mapping[str, str],
        *,
        pinned: bool = False,
    ) -> str:
        paths = {}
        for file, content in files.items():
            paths[file] = self.folder / "artifacts" / name / str(version) / file
            paths[file].parent.mkdir(parents=True, exist_ok=True)
            paths[file].write_bytes(content)
        digest = tree_digest({file: sha256(content) for file, content in files.items()})
        tensors = PublishedTensors(
            batched=True,
            inputs=(PublishedTensor(name="x", dtype="FP32", dims=(size,)),),
            outputs=(PublishedTensor(name="y", dtype="FP32", dims=(size,)),),
        )
        manifest = a_manifest(
            paths,
            model=name,
            version=version,
            version_digest=digest,
            tensors=tensors,
            made=Made(composing_models=dict(composing)),
        )
        snapshot = config.encode()
        record = PublishedFile(sha256=sha256(snapshot), size_bytes=len(snapshot))
        manifest = manifest.model_copy(update={"files": {**manifest.files, "config.pbtxt": record}})
        top = with_versions(config, [version]) if pinned else self._with_policy(name, version, config)
        self.repository.reserve([name])
        self.repository.publish(
            Change(
                name, version, paths, manifest, {"config.pbtxt": top.encode()}, version_data={"config.pbtxt": snapshot}
            )
        )
        return digest


def _scheduling(steps: list[dict[str, object]], pins: Mapping[str, int]) -> str:
    lines = []
    for step in steps:
        maps = " ".join(
            f'{side}_map {{ key: "{key}" value: "{value}" }}'
            for side in ("input", "output")
            for key, value in step[f"{side}_map"].items()  # type: ignore[attr-defined]
        )
        number = pins.get(str(step["model_name"]), -1)
        lines.append(f'  step {{ model_name: "{step["model_name"]}" model_version: {number} {maps} }}')
    return "\nensemble_scheduling {\n" + "\n".join(lines) + "\n}\n"
