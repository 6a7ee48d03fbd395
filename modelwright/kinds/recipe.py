"""What a kind makes steps from: a builder, the target release, and what the keys of steps cover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelwright import tools
from modelwright.digest import Fingerprints, code_closure
from modelwright.errors import SpecError
from modelwright.facts.training import KIT, KIT_REVISION
from modelwright.kinds.step import Step, StepFunction, StepId
from modelwright.project.files import local_file, published_file
from modelwright.project.operators import operator_libraries
from modelwright.project.plan_places import PlanPlaces
from modelwright.project.spec import Builder
from modelwright.triton.releases import Release

SAMPLES = "samples"
TRAINING = "training"  # role of the step that trained, for one that looks at its folds


@dataclass(frozen=True)
class Recipe:
    """One builder, as a kind's `steps` sees it.

    Reads the files that keys cover, through `fingerprints`, and the versions of libraries from their metadata: nothing
    is imported to plan a build.
    """

    builder: Builder
    target: Release
    fingerprints: Fingerprints
    composing: Mapping[str, StepId]  # composing model → the step that makes what its versions hold
    plan_places: PlanPlaces = field(default_factory=PlanPlaces)  # where TensorRT plans are built

    @property
    def samples(self) -> dict[str, StepId]:
        """The need of a step that runs the golden samples."""
        spec = self.builder.spec
        others = spec.source.samples_of()
        return {SAMPLES: (others or spec.name, SAMPLES)} if others or spec.samples else {}

    @property
    def tensors(self) -> dict[str, Any]:
        """The declared inputs and outputs, for a step's config; labels change nothing that a step makes."""
        spec = self.builder.spec
        return {
            "inputs": [tensor.model_dump(mode="json") for tensor in spec.inputs],
            "outputs": [tensor.model_dump(mode="json", exclude={"labels"}) for tensor in spec.outputs],
        }

    @property
    def onnx_limits(self) -> dict[str, Any]:
        """What the target's onnxruntime can load, for a step's config."""
        return {"max_opset": self.target.max_opset, "max_ir": self.target.max_ir}

    @property
    def graph_options(self) -> dict[str, Any]:
        """How the server's onnxruntime optimises the graph, for a step's config: shapes that it infers depend on it."""
        optimization = self.builder.spec.serving.get("optimization")
        graph = optimization.get("graph") if isinstance(optimization, Mapping) else None
        return {"graph": graph} if graph else {}

    @property
    def operators(self) -> dict[str, str]:
        """{library of custom operators: SHA-256}, for a step's data."""
        return {path: self.fingerprints.file(file) for path, file in operator_libraries(self.builder).items()}

    @property
    def served_as(self) -> dict[str, Any]:
        """What of `serving` decides how clients see an ONNX model's tensors, for a step's config."""
        serving = self.builder.spec.serving
        found = {name: serving[name] for name in ("input", "output", "sequence_batching") if serving.get(name)}
        return {"serving": found} if found else {}

    @property
    def rows_asked(self) -> dict[str, Any]:
        """Whether a model is asked row by row, for the config of a step that asks it: rows can move each other."""
        spec = self.builder.spec
        return {"rows_asked": 1} if spec.batched and spec.max_batch_size == 1 else {}

    def step(self, name: str, function: StepFunction, **fields: Any) -> Step:
        """A step of this model; `fields` are those of `Step`."""
        return Step(self.builder.name, name, function, **fields)

    def code_step(
        self,
        name: str,
        function: StepFunction,
        entry: str,
        config: Mapping[str, Any] | None = None,
        libraries: Iterable[str] = (),
        threads: int = 1,
    ) -> Step:
        """A step that calls a function of the builder's folder."""
        code = self.code(entry)
        return self.step(
            name,
            function,
            config=config or {"entry": entry},
            code=code,
            data=self.declared(),
            tools=versions(("numpy", *libraries)) | self.libraries(code),
            threads=threads,
        )

    def code(self, entry: str) -> dict[str, str]:
        """{file of the builder's folder: SHA-256} of an entry's module and everything that it imports from there."""
        module = entry.partition(":")[0]
        return code_closure(module, self.builder.folder, self.builder.file.rpartition("/")[0], self.fingerprints)

    def libraries(self, code: Mapping[str, str]) -> dict[str, str | None]:
        """{distribution: version} of the libraries that code imports, and the version of Python."""
        imports: set[str] = set()
        for name in code:
            imports |= set(self.fingerprints.code(self.builder.folder / name, name).imports)
        own = {name.partition("/")[0].removesuffix(".py") for name in code}
        return {**tools.third_party(imports - own), **_training_kit(imports), "python": tools.python()}

    def digest(self, field: str, origin: str) -> str:
        """The SHA-256 of a file that model.yaml names at `field`: of the builder's folder, or `package:path`."""
        return self.fingerprints.file(published_file(self.builder, field, origin))

    def declared(self) -> dict[str, str]:
        """{file: SHA-256} of what `files` says the builder's code reads: globs of its folder, or `package:path`."""
        builder = self.builder
        found: dict[str, str] = {}
        for pattern in builder.spec.files:
            if ":" in pattern:
                found[pattern] = self.digest("files", pattern)
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


def _training_kit(imports: Iterable[str]) -> dict[str, str | None]:
    """What trains, where code imports the training kit."""
    if not any(name == KIT or name.startswith(f"{KIT}.") for name in imports):
        return {}
    return {"training kit": KIT_REVISION, **versions(("torch", "lightning"))}


def versions(names: Iterable[str]) -> dict[str, str | None]:
    """{import name: installed version}, None where it is not installed."""
    return {name: tools.version(name) for name in names}
