"""What the kinds of fitted estimators share: scikit-learn, XGBoost and LightGBM, which all become one ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, JsonValue, model_validator

from modelwright.kinds.export import ONNX_TOOLS
from modelwright.kinds.kind import Needs
from modelwright.kinds.origin import SourceFiles, source_files
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import Entry, ModelSpec, SourceSpec
from modelwright.project.uris import SourcePath

_FIT = StepFunction("estimator", "modelwright.steps.estimators:fit")
_EXPORT = StepFunction("estimator_onnx", "modelwright.steps.estimators:export")
ESTIMATOR = "estimator"  # the step that fits, and its role for the step that converts
_CONVERTERS = ("sklearn", "skl2onnx", "onnxmltools", "scipy")

TABULAR = Needs(
    name="tabular models",
    modules=("sklearn", "skl2onnx", "onnxmltools"),
    install="modelwright[tabular]",
    suggested=("pandas", "skops"),
)
NO_TECHNIQUES = "a fitted estimator has no layers that a technique could change"
VERIFIED = "against the library on 10,000 rows or more, and in the target's onnxruntime"


class FittedSource(SourceSpec):
    """A fitted estimator: what a function of the builder returns, or a file."""

    library: ClassVar[str] = "sklearn"  # import name of what made it
    formats: ClassVar[str] = ""  # of its files, for messages

    entry: Entry | None = Field(
        None, description="module:function of this folder. (**params) → a fitted estimator or Pipeline."
    )
    params: dict[str, JsonValue] = Field({}, description="Arguments of the entry: changing one fits again.")
    path: SourcePath | None = Field(
        None, description="A file with the fitted estimator, or its URI, in place of the entry."
    )
    rows: Entry | None = Field(
        None,
        description="module:function of this folder. () → inputs {name: (N, *shape)}: rows on which the graph is "
        "compared with the library. Without it they are drawn from the golden samples, column by column.",
    )
    threads: int = Field(1, ge=1, description="Threads to fit with. Part of the result.")

    @model_validator(mode="after")
    def _one_place(self) -> FittedSource:
        if (self.entry is None) == (self.path is None):
            raise ValueError("give either entry or path")
        if self.params and not self.entry:
            raise ValueError("params: are arguments of the entry")
        return self

    def check(self, spec: ModelSpec) -> None:
        if not spec.batched:
            raise ValueError("serving.max_batch_size: an estimator takes rows: 1 or more is needed")

    def entries(self) -> Mapping[str, Entry]:
        found = {"entry": self.entry, "rows": self.rows}
        return {field: entry for field, entry in found.items() if entry}


def estimator_steps(recipe: Recipe, source: FittedSource) -> list[Step]:
    """Fit, where there is an entry; then convert, and compare with the library."""
    libraries = (*_CONVERTERS, source.library)
    fitted = [_fit_step(recipe, source, libraries)] if source.entry else []
    files = source_files(recipe, "source.path", source.path) if source.path else SourceFiles()
    rows = recipe.code(source.rows) if source.rows else {}
    code = {
        **rows,
        **(fitted[0].code if fitted else {}),
    }  # loading a pickle runs the builder's code
    needs = {ESTIMATOR: fitted[0].id} if fitted else {}
    export = recipe.step(
        "onnx",
        _EXPORT,
        config={"kind": source.kind, **_config(recipe, source)},
        code=code,
        data={**files.data, **recipe.operators, **(recipe.declared() if code else {})},
        tools=versions((*libraries, *ONNX_TOOLS, "numpy", "pandas", "skops")) | recipe.libraries(code),
        needs={**needs, **files.needs, **recipe.samples},
        threads=source.threads,
    )
    return [*files.steps, *fitted, export]


def _fit_step(recipe: Recipe, source: FittedSource, libraries: tuple[str, ...]) -> Step:
    config = {"entry": source.entry, "params": source.params, "threads": source.threads}
    return recipe.code_step(ESTIMATOR, _FIT, str(source.entry), config, libraries, source.threads)


def _config(recipe: Recipe, source: FittedSource) -> dict[str, Any]:
    tolerance = recipe.builder.spec.gates.tolerance
    return {
        "path": source.path,
        "rows": source.rows,
        "threads": source.threads,
        **recipe.tensors,
        **recipe.onnx_limits,
        **recipe.graph_options,
        **({"tolerance": tolerance.model_dump(mode="json")} if tolerance else {}),
    }
