"""source.kind python: a `model.py` for Triton's Python backend, with its files and vendored packages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from modelwright.kinds.kind import Kind, shipped
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_server
from modelwright.project.files import local_file
from modelwright.project.spec import LocalPath, SourceSpec, inside_folder

_ASSEMBLE = StepFunction("python", "modelwright.steps.python:run")


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
        description="Packages to vendor into the version, for the target's Python: exact pins, dependencies included.",
    )

    @model_validator(mode="after")
    def _files_stay_inside(self) -> PythonSource:
        for name, origin in self.files.items():
            inside_folder(name)
            inside_folder(origin.partition(":")[2] or origin)
        return self


def _steps(recipe: Recipe, source: PythonSource) -> list[Step]:
    data = {source.model: recipe.fingerprints.file(local_file(recipe.builder, "source.model", source.model))}
    data |= {origin: recipe.digest(f"source.files.{name}", origin) for name, origin in source.files.items()}
    config = {"model": source.model, "files": source.files, "requirements": list(source.requirements)}
    config |= {"python": recipe.target.python}
    return [recipe.step("python", _ASSEMBLE, config=config, data=dict(sorted(data.items())))]


KIND = Kind(
    name="python",
    source=PythonSource,
    summary="a model.py for Triton's Python backend",
    takes="`model.py` for Triton's Python backend; `requirements` are vendored for the target's Python",
    verified="in the real server, against `reference`",
    steps=_steps,
    version_step="python",
    verification=in_server,
    backend="python",
    scaffold={"": shipped("python")},
)
