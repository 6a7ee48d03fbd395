"""source.kind prebuilt: versions that were made elsewhere, under their own numbers. `modelwright adopt` writes it.

Every file lies in the builder's folder under the path it has in the repository: `3/model.onnx`, `labels.txt`.
`serving` is the whole ModelConfig then: nothing in it is derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.config import JsonDict

from modelwright.errors import SpecError
from modelwright.kinds.kind import FixedVersion, Kind, Verification
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.files import local_file
from modelwright.project.spec import ModelSpec, PlainPath, Sha256, SourceSpec, StrictModel, Tolerance, Version
from modelwright.triton.layout import CONFIG, GOLDEN, MANIFEST, leading_number

_STAGE = StepFunction("prebuilt", "modelwright.steps.prebuilt:run")
_VERIFY = StepFunction("verify_prebuilt", "modelwright.steps.prebuilt:verify")


class GoldenRecord(StrictModel):
    """Golden samples that an adopted version brought along, `N/golden.npz`, and how its answers are compared."""

    sha256: Sha256
    batch: int = Field(ge=0, description="Rows in one request.")
    tolerance: dict[str, Tolerance] = Field({}, description="How far each output may lie from the recorded one.")
    members: dict[str, Sha256] = Field(
        {}, description="What each composing model's version held when the answers were recorded."
    )


_BY_VERSION: JsonDict = {"propertyNames": {"pattern": "^(0|[1-9][0-9]{0,18})$"}}


class PrebuiltSource(SourceSpec):
    """Versions that were made elsewhere, under their own numbers; `modelwright adopt` writes it.

    Every file lies in the builder's folder under the path it has in the repository: `3/model.onnx`, `labels.txt`.
    `serving` is the whole ModelConfig then: nothing in it is derived.
    """

    needs_samples: ClassVar[bool] = False
    needs_tensors: ClassVar[bool] = False
    composing_in: ClassVar[str] = "serving.ensemble_scheduling.step: model_name"

    kind: Literal["prebuilt"]
    versions: dict[Version, dict[PlainPath, Sha256]] = Field(
        min_length=1,
        description="Version number → its files, each with its SHA-256. They lie in the folder of that number beside "
        "this file.",
        json_schema_extra=_BY_VERSION,
    )
    files: dict[PlainPath, Sha256] = Field(
        {},
        description="Files beside config.pbtxt (labels, warmup/…, shared libraries), each with its SHA-256.",
    )
    golden: dict[Version, GoldenRecord] = Field(
        {},
        description="Golden samples that a version brought along, in its folder as golden.npz.",
        json_schema_extra=_BY_VERSION,
    )

    @property
    def digests(self) -> dict[str, str]:
        """{path in the builder's folder: SHA-256} of every file."""
        found = {
            f"{number}/{name}": digest for number, files in self.versions.items() for name, digest in files.items()
        }
        return found | self.files | {f"{number}/{GOLDEN}": record.sha256 for number, record in self.golden.items()}

    def check(self, spec: ModelSpec) -> None:
        if any(tensor.labels for tensor in spec.outputs):
            raise ValueError("outputs: labels of a prebuilt model stand in serving.output, its files in source.files")

    def composing(self, serving: Mapping[str, Any]) -> tuple[str, ...]:
        """The models of `serving.ensemble_scheduling`; what is malformed there, config/ refuses."""
        scheduling = serving.get("ensemble_scheduling")
        steps = scheduling.get("step") if isinstance(scheduling, dict) else None
        names = [step.get("model_name") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
        return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))

    @model_validator(mode="after")
    def _names_are_free(self) -> PrebuiltSource:
        for number, files in self.versions.items():
            for name in files:
                if name in (MANIFEST, GOLDEN):
                    raise ValueError(f"versions.{number}: {name}: Modelwright writes a file of this name itself")
        for name in self.files:
            folder, slash, _ = name.partition("/")
            if name == CONFIG or (slash and leading_number(folder) is not None):
                raise ValueError(f"files: {name}: is no file of its own beside {CONFIG}")
        for number in self.golden:
            if number not in self.versions:
                raise ValueError(f"golden.{number}: there is no such version")
        return self


def _steps(recipe: Recipe, source: PrebuiltSource) -> list[Step]:
    builder = recipe.builder
    for name, digest in source.digests.items():
        if recipe.fingerprints.file(local_file(builder, "source", name)) != digest:
            hint = "put the file back; or publish it as a version of its own, under another number"
            raise SpecError(f"{builder.file}: source: {name} is not what its digest says", hint)
    config = {"versions": list(source.versions)}
    return [recipe.step("prebuilt", _STAGE, config=config, data=source.digests, needs=recipe.composing)]


def _verification(spec: ModelSpec, source: PrebuiltSource) -> Verification:
    """In the server, where there are samples to ask with: those of model.yaml, or those that a version brought."""
    golden = {str(number): record.model_dump(mode="json") for number, record in source.golden.items()}
    return Verification(_VERIFY, served=bool(spec.samples or golden), config={"golden": golden})


def _fixed_versions(source: PrebuiltSource) -> dict[int, FixedVersion]:
    composing = {number: record.members for number, record in source.golden.items()}
    return {number: FixedVersion(files, composing.get(number, {})) for number, files in source.versions.items()}


KIND = Kind(
    name="prebuilt",
    source=PrebuiltSource,
    summary="versions that were made elsewhere",
    takes="versions made elsewhere, every file by SHA-256; `modelwright adopt` writes it",
    verified="by golden samples that came along, or `samples`; else that it loads",
    steps=_steps,
    version_step="prebuilt",
    verification=_verification,
    whole_config=True,
    fixed_versions=_fixed_versions,
    files_beside=lambda source: source.files,
)
