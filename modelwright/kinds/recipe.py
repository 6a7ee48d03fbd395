"""Builder → its steps, by source kind: which functions run, and what each one's key covers.

    torch         samples, torch (the entry's module), onnx, verify
    huggingface   samples, onnx (loads and exports in one go: there is nothing to train), verify
    onnx          samples, onnx (checks the file), verify
    python        samples, python (model.py, files, vendored wheels), verify on the real server
    ensemble      samples, ensemble (steps, and what its members are), verify on the real server
    prebuilt      prebuilt (its files, by their digests), verify on the real server where there are samples

The step between `samples` and `verify` makes what a version holds, under `version/`: `PAYLOAD_STEP` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright import tools
from modelwright.digest import Fingerprints, code_closure, list_tree, module_file, tree_digest
from modelwright.errors import SpecError
from modelwright.kinds.step import Step, StepFunction, StepId
from modelwright.project.family import family_of
from modelwright.project.files import local_file, package_directory, published_file
from modelwright.project.spec import (
    Builder,
    EnsembleSource,
    HuggingFaceSource,
    OnnxSource,
    PrebuiltSource,
    PythonSource,
    TorchSource,
)
from modelwright.suggest import did_you_mean
from modelwright.triton.releases import Release

PAYLOAD_STEP = {
    "torch": "onnx",
    "huggingface": "onnx",
    "onnx": "onnx",
    "python": "python",
    "ensemble": "ensemble",
    "prebuilt": "prebuilt",
}
SAMPLES = StepFunction("samples", "modelwright.steps.samples:run")
TRAIN = StepFunction("torch", "modelwright.steps.train:run")
EXPORT = StepFunction("onnx", "modelwright.steps.onnx:from_torch")
EXPORT_HUGGINGFACE = StepFunction("huggingface", "modelwright.steps.onnx:from_huggingface")
TAKE_FILE = StepFunction("onnx_file", "modelwright.steps.onnx:from_file")
ASSEMBLE = StepFunction("python", "modelwright.steps.python:run")
COMPOSE = StepFunction("ensemble", "modelwright.steps.ensemble:run")
STAGE = StepFunction("prebuilt", "modelwright.steps.prebuilt:run")
VERIFY = StepFunction("verify", "modelwright.steps.verify:run", revision=2)
VERIFY_SERVED = StepFunction("verify_served", "modelwright.steps.verify:run_served", revision=2)
VERIFY_PREBUILT = StepFunction("verify_prebuilt", "modelwright.steps.prebuilt:verify")
# Fields of ModelConfig that say how fast a model is, and on which device.
_SPEED = ("environments", "instance_group", "optimization", "dynamic_batching", "model_warmup", "response_cache")
_ONNX_TOOLS = ("onnx", "onnxruntime")
_EXPORT_TOOLS = ("torch", "onnxscript", *_ONNX_TOOLS)


def payload_step(builder: Builder) -> StepId:
    return (builder.name, PAYLOAD_STEP[builder.spec.source.kind])


@dataclass(frozen=True)
class Recipes:
    """Makes the steps of builders. Reads the files that keys cover, through `fingerprints`; imports no ML framework."""

    builders: Mapping[str, Builder]
    target: Release
    fingerprints: Fingerprints

    def steps(self, builder: Builder) -> list[Step]:
        """The steps of one model, needs first. Raises SpecError for entries and files that are not there."""
        self._check_entries(builder)
        source = builder.spec.source
        entry = builder.spec.samples
        samples = [self._code_step(builder, "samples", SAMPLES, entry, {})] if entry else []
        if isinstance(source, TorchSource):
            made = self._torch_steps(builder, source)
        elif isinstance(source, HuggingFaceSource):
            made = [self._huggingface_step(builder, source)]
        elif isinstance(source, OnnxSource):
            made = [self._onnx_step(builder, source)]
        elif isinstance(source, PythonSource):
            made = [self._python_step(builder, source)]
        elif isinstance(source, PrebuiltSource):
            made = [self._prebuilt_step(builder, source)]
        else:
            made = [self._ensemble_step(builder, source)]
        return [*samples, *made, self._verify_step(builder)]

    def _torch_steps(self, builder: Builder, source: TorchSource) -> list[Step]:
        config: dict[str, Any] = {"entry": source.entry, "params": source.params, "threads": source.threads}
        train = self._code_step(builder, "torch", TRAIN, source.entry, config, ("torch",), source.threads)
        export = Step(
            model=builder.name,
            name="onnx",
            function=EXPORT,
            config=self._export_config(builder),
            # The module is a pickle: loading it runs the code it was made by.
            code=train.code,
            tools=_versions(_EXPORT_TOOLS),
            needs={"module": train.id, "samples": (builder.name, "samples")},
            threads=source.threads,
        )
        return [train, export]

    def _huggingface_step(self, builder: Builder, source: HuggingFaceSource) -> Step:
        folder = huggingface_directory(builder, source)
        files = {name: self.fingerprints.file(path) for name, path in list_tree(folder).items()}
        config: dict[str, Any] = {"entry": source.entry, "params": source.params, "auto_class": source.auto_class}
        config |= {"threads": source.threads, **self._export_config(builder)}
        code = self._code(builder, source.entry) if source.entry else {}
        return Step(
            model=builder.name,
            name="onnx",
            function=EXPORT_HUGGINGFACE,
            config=config,
            code=code,
            data={source.package or str(source.path): tree_digest(files), **(self._declared(builder) if code else {})},
            tools=_versions((*_EXPORT_TOOLS, "transformers", "safetensors")) | self._libraries(builder, code),
            needs={"samples": (builder.name, "samples")},
            threads=source.threads,
        )

    def _onnx_step(self, builder: Builder, source: OnnxSource) -> Step:
        data: dict[str, str] = {}
        if source.path:
            # The graph, and the files with its weights: the builder declares those.
            data = {source.path: self.fingerprints.file(local_file(builder, "source.path", source.path))}
            data |= self._declared(builder)
        return Step(
            model=builder.name,
            name="onnx",
            function=TAKE_FILE,
            config={"sha256": source.sha256, **self._limits(), "batched": builder.spec.batched},
            data=data,
            tools=_versions(_ONNX_TOOLS),
            needs={"samples": (builder.name, "samples")},
        )

    def _python_step(self, builder: Builder, source: PythonSource) -> Step:
        data = {source.model: self.fingerprints.file(local_file(builder, "source.model", source.model))}
        for name, origin in source.files.items():
            data[origin] = self.fingerprints.file(published_file(builder, f"source.files.{name}", origin))
        return Step(
            model=builder.name,
            name="python",
            function=ASSEMBLE,
            config={
                "model": source.model,
                "files": source.files,
                "requirements": list(source.requirements),
                "python": self.target.python,
            },
            data=dict(sorted(data.items())),
        )

    def _ensemble_step(self, builder: Builder, source: EnsembleSource) -> Step:
        return Step(
            model=builder.name,
            name="ensemble",
            function=COMPOSE,
            config={"steps": [step.model_dump(mode="json") for step in source.steps]},
            needs=self._composing(builder),
        )

    def _prebuilt_step(self, builder: Builder, source: PrebuiltSource) -> Step:
        for name, digest in source.digests.items():
            if self.fingerprints.file(local_file(builder, "source", name)) != digest:
                hint = "put the file back; or publish it as a version of its own, under another number"
                raise SpecError(f"{builder.file}: source: {name} is not what its digest says", hint)
        return Step(
            model=builder.name,
            name="prebuilt",
            function=STAGE,
            config={"versions": list(source.versions)},
            data=source.digests,
            needs=self._composing(builder),
        )

    def _composing(self, builder: Builder) -> dict[str, StepId]:
        return {name: payload_step(self.builders[name]) for name in builder.composing}

    def _verify_step(self, builder: Builder) -> Step:
        spec = builder.spec
        prebuilt = isinstance(spec.source, PrebuiltSource)
        # A prebuilt model is run only where there are samples to run it with.
        has_samples = bool(spec.samples or getattr(spec.source, "golden", None))
        served = has_samples if prebuilt else spec.source.kind in ("python", "ensemble")
        code = self._code(builder, spec.reference) if spec.reference else {}
        code |= self._code(builder, spec.evaluate) if spec.evaluate else {}
        config: dict[str, Any] = {
            "reference": spec.reference,
            "evaluate": spec.evaluate,
            "gates": spec.gates.model_dump(mode="json"),
            "inputs": [tensor.model_dump(mode="json") for tensor in spec.inputs],
            "outputs": [tensor.model_dump(mode="json", exclude={"labels"}) for tensor in spec.outputs],
            "max_batch_size": spec.max_batch_size if served else spec.batched,
        }
        if isinstance(spec.source, PrebuiltSource):
            config["golden"] = {
                str(number): item.model_dump(mode="json") for number, item in spec.source.golden.items()
            }
        needs = {"samples": (builder.name, "samples")} if spec.samples else {}
        needs["model"] = payload_step(builder)
        if served:
            # The server runs the members too, so their files are needed, and their configs count.
            family = [self.builders[name] for name in family_of(builder, self.builders)]
            needs |= {f"member {member.name}": payload_step(member) for member in family if member is not builder}
            config["served"] = {member.name: served_part(member) for member in family}
            config["release"] = self.target.name
        return Step(
            model=builder.name,
            name="verify",
            function=VERIFY_PREBUILT if prebuilt else VERIFY_SERVED if served else VERIFY,
            config=config,
            code=code,
            data=self._declared(builder) if code else {},
            tools=_versions(("numpy", "onnxruntime")) | self._libraries(builder, code),
            needs=needs,
        )

    def _code_step(
        self,
        builder: Builder,
        name: str,
        function: StepFunction,
        entry: str,
        config: dict[str, Any],
        libraries: tuple[str, ...] = (),
        threads: int = 1,
    ) -> Step:
        """A step that calls a function of the builder's folder."""
        code = self._code(builder, entry)
        return Step(
            model=builder.name,
            name=name,
            function=function,
            config=config or {"entry": entry},
            code=code,
            data=self._declared(builder),
            tools=_versions(("numpy", *libraries)) | self._libraries(builder, code),
            threads=threads,
        )

    def _export_config(self, builder: Builder) -> dict[str, Any]:
        spec = builder.spec
        return {
            "inputs": [tensor.model_dump(mode="json") for tensor in spec.inputs],
            "outputs": [tensor.model_dump(mode="json", exclude={"labels"}) for tensor in spec.outputs],
            "batched": spec.batched,
            **self._limits(),
        }

    def _limits(self) -> dict[str, Any]:
        return {"max_opset": self.target.max_opset, "max_ir": self.target.max_ir}

    def _code(self, builder: Builder, entry: str) -> dict[str, str]:
        module = entry.partition(":")[0]
        return code_closure(module, builder.folder, builder.file.rpartition("/")[0], self.fingerprints)

    def _libraries(self, builder: Builder, code: Mapping[str, str]) -> dict[str, str | None]:
        imports: set[str] = set()
        for name in code:
            imports |= set(self.fingerprints.code(builder.folder / name, name).imports)
        own = {name.partition("/")[0].removesuffix(".py") for name in code}
        return {**tools.third_party(imports - own), "python": tools.python()}

    def _declared(self, builder: Builder) -> dict[str, str]:
        """The files that the builder says its code reads: globs of its folder, or `package:path`."""
        found: dict[str, str] = {}
        for pattern in builder.spec.files:
            if ":" in pattern:
                found[pattern] = self.fingerprints.file(published_file(builder, "files", pattern))
                continue
            matches = [path for path in sorted(builder.folder.glob(pattern)) if path.is_file()]
            if not matches:
                raise SpecError(
                    f"{builder.file}: files: nothing matches '{pattern}'", "globs are relative to its folder"
                )
            for path in matches:
                relative = path.relative_to(builder.folder).as_posix()
                found[relative] = self.fingerprints.file(local_file(builder, "files", relative))
        return found

    def _check_entries(self, builder: Builder) -> None:
        """Every module:function must be there, before anything runs."""
        for field, entry in builder.entries():
            module, _, function = entry.partition(":")
            file = module_file(builder.folder, module)
            if file is None:
                own = [path.stem for path in builder.folder.glob("*.py")]
                where = f"{builder.file}: {field}: there is no {module.replace('.', '/')}.py in its folder"
                raise SpecError(where, did_you_mean(module, own))
            shown = f"{builder.file.rpartition('/')[0]}/{file.relative_to(builder.folder).as_posix()}"
            code = self.fingerprints.code(file, shown)
            if not code.defines(function):
                hint = did_you_mean(function, [name for name in code.names if not name.startswith("_")])
                raise SpecError(f"{builder.file}: {field}: {shown} has no function '{function}'", hint)


def huggingface_directory(builder: Builder, source: HuggingFaceSource) -> Path:
    """The directory of a Hugging Face model: of the builder's folder, or carried by an installed package."""
    if source.package:
        folder = package_directory(builder, "source.package", source.package) / source.subfolder
    else:
        folder = builder.folder / str(source.path) / source.subfolder
        if not folder.resolve().is_relative_to(builder.folder.resolve()):
            raise SpecError(f"{builder.file}: source.path: a link leaves the builder's folder", "copy the directory in")
    if not (folder / "config.json").is_file():
        where = "/".join(part for part in (source.package or source.path, source.subfolder) if part)
        near = sorted(file.parent.name for file in folder.glob("*/config.json"))
        hint = f"subfolder: {near[0]}" if near else "name the directory that from_pretrained() would take"
        raise SpecError(f"{builder.file}: source: {where}: no config.json there", hint)
    return folder


def served_part(builder: Builder) -> dict[str, Any]:
    """Those fields of `serving` that change what a model answers, not how fast."""
    if isinstance(builder.spec.source, PrebuiltSource):  # nothing is derived, so all the rest is needed
        return {key: value for key, value in builder.spec.serving.items() if key not in _SPEED}
    kept = ("max_batch_size", "input", "output", "parameters", "model_transaction_policy")
    return {key: value for key, value in builder.spec.serving.items() if key in kept}


def _versions(names: tuple[str, ...]) -> dict[str, str | None]:
    return {name: tools.version(name) for name in names}
