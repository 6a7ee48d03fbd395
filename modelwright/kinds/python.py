"""source.kind python: a `model.py` for Triton's Python backend, with its files and vendored packages.

What is vendored stands in `requirements.lock` beside the model.yaml (`project/lockfile.py`), and its wheels in the key.
The models that it `calls` are its composing models: its answers change when theirs do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field, model_validator

from modelwright.errors import SpecError
from modelwright.kinds.kind import Kind, Verification, shipped
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_server
from modelwright.project.files import local_file
from modelwright.project.lockfile import FILE, Lock, Wanted, read_lock
from modelwright.project.spec import Builder, LocalPath, ModelSpec, Name, SourceSpec, inside_folder
from modelwright.triton.layout import CALLS
from modelwright.triton.releases import Release

_ASSEMBLE = StepFunction("python", "modelwright.steps.python:run")
_VERIFY_CALLS = StepFunction("verify_calls", "modelwright.steps.calls:verify")


class PythonSource(SourceSpec):
    kind: Literal["python"]
    model: LocalPath = Field("model.py", description="The file with the class TritonPythonModel.")
    files: dict[str, str] = Field(
        {},
        description="Files that the model reads: name in the version → file of this folder, or package:path of an "
        "installed one.",
    )
    requirements: tuple[str, ...] = Field(
        (),
        description="Packages to vendor into the version, as pip takes them. `modelwright lock` resolves them for the "
        "target's Python, with all that they need, into requirements.lock.",
    )
    calls: tuple[Name, ...] = Field(
        (),
        description="Models of this project that model.py calls (business logic scripting). They are built, tried, "
        "published and replayed with it; their versions stand in the config parameter `pins`, which model.py reads.",
    )
    exclude_dependencies: tuple[str, ...] = Field(
        (),
        description="Packages that others depend on and this model never uses: they are not vendored.",
    )

    composing_in: ClassVar[str] = "source.calls:"

    def composing(self, serving: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.calls))

    def completed(self, builder: Builder, builders: Mapping[str, Builder], faulty: Collection[str]) -> ModelSpec:
        """Raises SpecError for an ensemble that serves one version at a time: it could not move together with this."""
        for name in self.calls:
            if name in builders and kind_of(builders[name]).pins == "steps":
                message = f"{builder.file}: source.calls: {name} is an ensemble that serves one version at a time"
                raise SpecError(message, f"give {name} `keep: 2`, or call the models that it runs")
        return builder.spec

    @model_validator(mode="after")
    def _files_stay_inside(self) -> PythonSource:
        for name, origin in self.files.items():
            inside_folder(name)
            inside_folder(origin.partition(":")[2] or origin)
            if name == CALLS and self.calls:
                raise ValueError(f"files: {name}: Modelwright writes a file of this name itself, for `calls`")
        return self


class Vendoring(Protocol):
    """A source with packages that are vendored into its versions."""

    @property
    def requirements(self) -> tuple[str, ...]: ...
    @property
    def exclude_dependencies(self) -> tuple[str, ...]: ...


def lock_of(builder: Builder, source: Vendoring, target: Release) -> Lock | None:
    """The lock of a model; None without requirements. Raises LockNeededError for none that fits."""
    wanted = wanted_lock(source, target)
    shown = f"{builder.file.rpartition('/')[0]}/{FILE}"
    return read_lock(builder.folder / FILE, shown, wanted) if wanted else None


def wanted_lock(source: Vendoring, target: Release) -> Wanted | None:
    """What the lock of a source is resolved from; None without requirements."""
    if not source.requirements:
        return None
    requirements = tuple(" ".join(text.split()) for text in source.requirements)
    return Wanted(requirements, source.exclude_dependencies, target.python, target.numpy)


def lock_key(lock: Lock) -> dict[str, str]:
    """What of a lock counts for a step's key: its wheels, however they were found."""
    return {wheel.name: f"{wheel.version} {wheel.sha256}" for wheel in lock.wheels}


def _steps(recipe: Recipe, source: PythonSource) -> list[Step]:
    data = {source.model: recipe.fingerprints.file(local_file(recipe.builder, "source.model", source.model))}
    data |= {origin: recipe.digest(f"source.files.{name}", origin) for name, origin in source.files.items()}
    config: dict[str, Any] = {
        "model": source.model, "files": source.files, "requirements": list(source.requirements),
        "python": recipe.target.python,
    }  # fmt: skip
    if lock := lock_of(recipe.builder, source, recipe.target):
        config["lock"] = lock_key(lock)
    data = dict(sorted(data.items()))
    return [recipe.step("python", _ASSEMBLE, config=config, data=data, needs=recipe.composing)]


def _verification(spec: ModelSpec, source: PythonSource) -> Verification:
    return Verification(_VERIFY_CALLS, served=True) if source.calls else in_server(spec, source)


KIND = Kind(
    name="python",
    source=PythonSource,
    summary="a model.py for Triton's Python backend",
    takes="`model.py` for Triton's Python backend; `requirements` are locked and vendored for the target's Python; "
    "`calls` names the models that it calls",
    verified="in the real server, against `reference`",
    steps=_steps,
    version_step="python",
    verification=_verification,
    backend="python",
    pins="parameter",
    wanted_lock=wanted_lock,
    scaffold={"": shipped("python")},
)
