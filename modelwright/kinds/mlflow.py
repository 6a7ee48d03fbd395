"""source.kind mlflow: a model of an MLflow registry, or a folder that MLflow wrote, by one of its flavours.

`models:/digits@champion` is resolved into source.lock: builds stay what they are until `modelwright update` moves it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from modelwright.environments.tensorflow import TENSORFLOW
from modelwright.errors import SpecError
from modelwright.fsops import read_text
from modelwright.kinds.estimators import NO_TECHNIQUES, TABULAR
from modelwright.kinds.export import EXPORT_TOOLS, ONNX_TOOLS, TORCH
from modelwright.kinds.in_tensorflow import convert_step
from modelwright.kinds.kind import Kind, Needs
from modelwright.kinds.mlflow_python import PYTHON, STEP, check_declared, in_python, not_taken
from modelwright.kinds.mlmodel import DETAIL, FILE, MlModel, SignatureTensor, of_detail, parse_mlmodel
from modelwright.kinds.origin import source_files, source_lock
from modelwright.kinds.python import wanted_lock
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.trust import TrustedField
from modelwright.kinds.verify import in_onnxruntime, in_server
from modelwright.project.files import local_folder
from modelwright.project.source_lock import SourceLockNeededError
from modelwright.project.spec import Builder, ModelSpec, OutputSpec, SourceSpec, TensorSpec
from modelwright.project.uris import Resolved, SourcePath, is_uri

Flavor = Literal["onnx", "sklearn", "xgboost", "lightgbm", "pytorch", "keras", "tensorflow", "python_function"]
ESTIMATORS = ("sklearn", "xgboost", "lightgbm")
IN_TENSORFLOW = ("keras", "tensorflow")
_TAKEN: dict[str, StepFunction] = {  # in the order in which one is chosen
    "onnx": StepFunction("mlflow_onnx", "modelwright.steps.mlflow:from_onnx"),
    **dict.fromkeys(ESTIMATORS, StepFunction("mlflow_estimator", "modelwright.steps.mlflow:from_estimator")),
    "pytorch": StepFunction("mlflow_pytorch", "modelwright.steps.mlflow:from_pytorch"),
    **dict.fromkeys(IN_TENSORFLOW, StepFunction("mlflow_tensorflow", "modelwright.steps.mlflow:from_tensorflow")),
}
_CONVERTERS = ("sklearn", "skl2onnx", "onnxmltools", "scipy", "numpy", "pandas", "skops", *ONNX_TOOLS)
_TOOLS = {
    "onnx": ONNX_TOOLS,
    "sklearn": _CONVERTERS,
    "xgboost": ("xgboost", *_CONVERTERS),
    "lightgbm": ("lightgbm", *_CONVERTERS),
    "pytorch": ("mlflow", *EXPORT_TOOLS),
}
_MLFLOW = Needs(name="MLflow models", modules=("mlflow",), install="modelwright[mlflow]")
_URI = re.compile(r"models:/(?:[^/@:]+/[0-9]+|[^/@:]+@[^/@:]+)|runs:/[0-9A-Za-z]+(?:/[^/]+)+")
_HINT = "write models:/NAME@ALIAS, models:/NAME/3 or runs:/ID/PATH"


def _registry_uri(value: str) -> str:
    if not value.isprintable() or not _URI.fullmatch(value) or ".." in value.split("/"):
        raise ValueError(f"{value!r} names no model of a registry: {_HINT}")
    return value


class MlflowSource(SourceSpec):
    needs_tensors: ClassVar[bool] = False  # a graph declares them, or the signature

    kind: Literal["mlflow"]
    model: Annotated[str, AfterValidator(_registry_uri), Resolved()] | None = Field(
        None,
        description="models:/NAME@ALIAS, models:/NAME/3 or runs:/ID/PATH, of the MLflow of [tracking].",
    )
    path: SourcePath | None = Field(None, description="A folder with an MLmodel file in it, or its URI.")
    flavor: Flavor | None = Field(None, description="Which of its flavours, where it has several.")
    trusted: TrustedField = False
    signature: str = Field("", description="The signature of a TensorFlow module to serve, where it has several.")
    threads: int = Field(1, ge=1, description="Threads to run PyTorch or TensorFlow with. Part of the result.")
    requirements: tuple[str, ...] = Field(
        (),
        description="Of the flavour python_function: packages to vendor into the version, as pip takes them.",
    )
    exclude_dependencies: tuple[str, ...] = Field(
        (), description="Packages that others depend on and this model never uses: they are not vendored."
    )

    @model_validator(mode="after")
    def _one_place(self) -> MlflowSource:
        if (self.model is None) == (self.path is None):
            raise ValueError("give either model or path")
        return self

    @property
    def place(self) -> tuple[str, str]:
        """The field of model.yaml, and what stands there."""
        return ("source.model", self.model) if self.model else ("source.path", str(self.path))

    def completed(self, builder: Builder, builders: Mapping[str, Builder], faulty: Collection[str]) -> ModelSpec:
        """With the flavour, and the tensors of the signature where model.yaml has none.

        Raises SpecError for a folder that is damaged, a flavour that nothing takes, and a signature that disagrees. A
        model that is not locked yet is completed once it is.
        """
        try:
            model = mlmodel_of(builder, self)
        except SourceLockNeededError:
            return builder.spec
        where = f"{builder.file}: {self.place[0]}"
        if model is None:
            if self.flavor is None:
                raise SpecError(
                    f"{where}: which flavour it has is not known before it is fetched", "say it: flavor: onnx"
                )
            return builder.spec
        flavor = taken(model, self.flavor, where)
        source = self.model_copy(update={"flavor": flavor})
        spec = _with_tensors(builder.spec.model_copy(update={"source": source}), model, flavor, where)
        if flavor == PYTHON:
            check_declared(spec, self.requirements, where)
        elif self.requirements:
            raise SpecError(f"{where}: requirements are of the flavour {PYTHON}, and it is taken as {flavor}")
        return spec


def mlmodel_of(builder: Builder, source: MlflowSource) -> MlModel | None:
    """What a source's MLmodel says; None for a URI of files, of which that is not known before they are fetched."""
    field, place = source.place
    where = f"{builder.file}: {field}"
    if is_uri(place):
        detail = source_lock(builder, field, place, folder=True).details.get(DETAIL)
        return of_detail(detail, where) if detail else None
    file = local_folder(builder, field, place) / FILE
    try:
        return parse_mlmodel(read_text(file), f"{where}: {place}/{FILE}")
    except (FileNotFoundError, UnicodeDecodeError):
        raise SpecError(f"{where}: {place} has no {FILE} that reads", "name a folder that MLflow wrote") from None


def taken(model: MlModel, wanted: str | None, where: str) -> str:
    """The flavour that a model is taken by. Raises SpecError where it has none that is taken, or not the wanted one."""
    there = ", ".join(sorted(model.flavors)) or "none"
    if wanted and wanted not in model.flavors:
        raise SpecError(f"{where}: has no flavour {wanted}: it has {there}")
    found = wanted or next((name for name in (*_TAKEN, PYTHON) if name in model.flavors), None)
    if found == PYTHON and (reason := not_taken(model)):
        raise SpecError(f"{where}: {reason}", f"taken are {', '.join(_TAKEN)}, and a PythonModel with tensors")
    if found is None:
        known = ", ".join((*_TAKEN, PYTHON))
        hint = f"taken are {known}: log the model with one of them, such as mlflow.onnx.log_model"
        raise SpecError(f"{where}: has no flavour that is taken: it has {there}", hint)
    return found


def _with_tensors(spec: ModelSpec, model: MlModel, flavor: str, where: str) -> ModelSpec:
    _check_signature(spec, model, where)
    if flavor in ("onnx", *IN_TENSORFLOW) or (spec.inputs and spec.outputs):
        return spec
    changed: dict[str, Any] = {}
    for side, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        if getattr(spec, side):
            continue
        if not tensors or not all(tensor.name and tensor.dtype for tensor in tensors):
            raise SpecError(
                f"{where}: its signature does not name the {side} as tensors", f"declare {side} in model.yaml"
            )
        declared = TensorSpec if side == "inputs" else OutputSpec
        try:
            changed[side] = tuple(
                declared.model_validate(_declared(tensor, batched=spec.batched)) for tensor in tensors
            )
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise SpecError(f"{where}: signature: {problem}", f"declare {side} in model.yaml") from None
    return spec.model_copy(update=changed)


def _declared(tensor: SignatureTensor, *, batched: bool) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.dims[1:] if batched else tensor.dims)}


def _check_signature(spec: ModelSpec, model: MlModel, where: str) -> None:
    """Raise SpecError where model.yaml declares a tensor otherwise than the signature."""
    for side, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        named = {tensor.name: tensor for tensor in tensors if tensor.name}
        for own in getattr(spec, side):
            if not named or len(named) < len(tensors):
                continue
            known = named.get(own.name)
            if known is None:
                raise SpecError(f"{where}: {side}: its signature has no '{own.name}', but {_names(tensors)}")
            dims = list(known.dims[1:] if spec.batched else known.dims)
            if (known.dtype and own.dtype != known.dtype) or not _fit(own.dims, dims):
                said = f"{known.dtype} {dims}, and model.yaml {own.dtype} {own.dims}"
                raise SpecError(f"{where}: {side}: its signature says that '{own.name}' is {said}", "change model.yaml")


def _names(tensors: Sequence[SignatureTensor]) -> str:
    return ", ".join(f"'{tensor.name}'" for tensor in tensors)


def _fit(own: Sequence[int], known: Sequence[int]) -> bool:
    return len(own) == len(known) and all(a == b or -1 in (a, b) for a, b in zip(own, known, strict=True))


def _steps(recipe: Recipe, source: MlflowSource) -> list[Step]:
    field, place = source.place
    files = source_files(recipe, field, place, folder=True)
    flavor = str(source.flavor)
    if flavor == PYTHON:
        return [*files.steps, in_python(recipe, source, files, {"trusted": source.trusted})]
    if flavor in IN_TENSORFLOW:
        own = {"flavor": flavor, "trusted": source.trusted, "signature": source.signature}
        return [*files.steps, convert_step(recipe, "onnx", _TAKEN[flavor], files, own, source.threads)]
    config: dict[str, Any] = {
        "trusted": source.trusted,
        **recipe.onnx_limits,
        **recipe.graph_options,
        "batched": recipe.builder.spec.batched,
    }
    if flavor != "onnx":
        config |= recipe.tensors | {"threads": source.threads}
    if flavor in ESTIMATORS:
        tolerance = recipe.builder.spec.gates.tolerance
        config |= {"flavor": flavor, "tolerance": tolerance.model_dump(mode="json") if tolerance else None}
    take = recipe.step(
        "onnx",
        _TAKEN[flavor],
        config=config,
        data={**files.data, **recipe.operators},
        tools=versions(_TOOLS[flavor]),
        needs={**files.needs, **recipe.samples},
        threads=source.threads if flavor != "onnx" else 1,
    )
    return [*files.steps, take]


def _other_form(source: MlflowSource) -> Kind[MlflowSource] | None:
    """The same, with what its flavour needs."""
    if source.flavor == PYTHON:
        return replace(KIND, version_step=STEP, verification=in_server, backend="python", other_form=_none)
    if source.flavor in ESTIMATORS:
        return replace(KIND, needs=(TABULAR,), no_techniques=NO_TECHNIQUES, other_form=_none)
    if source.flavor in IN_TENSORFLOW:
        return replace(KIND, environment=TENSORFLOW, other_form=_none)
    return replace(KIND, needs=(TORCH, _MLFLOW), other_form=_none) if source.flavor == "pytorch" else None


def _none(source: MlflowSource) -> None:
    return None


KIND = Kind(
    name="mlflow",
    source=MlflowSource,
    summary="a model of an MLflow registry",
    takes="`model: models:/NAME@ALIAS` of a registry, or `path`: a folder that MLflow wrote; flavours onnx, sklearn, "
    "xgboost, lightgbm, pytorch, keras, tensorflow, python_function",
    verified="as the kinds `onnx`, `torch`, `sklearn`, `tensorflow` and `python` are",
    steps=_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    wanted_lock=wanted_lock,
    other_form=_other_form,
    left_out_of_source=("registered_model_meta",),  # that downloading writes
    backend="onnxruntime",
)
