"""What takes part in a bench: the source in its framework, the plain model, and its variants; and why some cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelwright.bench.child import Load, LoadFramework, LoadOnnx
from modelwright.bench.document import ContenderResult, Form
from modelwright.build.store import Store
from modelwright.build.workspace import Workspace, open_workspace
from modelwright.digest import sha256_file
from modelwright.errors import ModelwrightError, RepositoryError, SpecError
from modelwright.facts.key_content import KeyContent
from modelwright.kinds.origin import FETCH, role_of
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import StepFunction
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builders
from modelwright.project.spec import Builder
from modelwright.repository.manifest import LineageStep, Manifest
from modelwright.repository.repository import Repository
from modelwright.repository.versions import published_config
from modelwright.server.native import backends_here
from modelwright.steps.bench import MODULE
from modelwright.steps.context import StepContext
from modelwright.suggest import did_you_mean
from modelwright.triton.layout import ABOUT
from modelwright.variants.registry import LOOKUPS

EAGER, COMPILED = "PyTorch", "torch.compile"
_TRAIN, _EXPORT = "torch", "onnx"  # steps, as a lineage names them
_FORMS: dict[str, Form] = {EAGER: "eager", COMPILED: "compiled"}
_FUNCTION = StepFunction("bench", "modelwright.steps.bench:torch_calls")
_MODEL_FILE = "model.onnx"
_NO_PROCESS = {
    "python": "a Python model runs in the server only",
    "": "an ensemble runs in the server only",
    "tensorrt": "a TensorRT plan runs on the GPU that it was built for only",
}


@dataclass(frozen=True)
class Contender:
    """`row` is the result before anything is measured; without a `load` it says why there is none."""

    row: ContenderResult
    load: Load | None = None
    largest: int = 1  # max_batch_size; 0 without a batch dimension
    is_served: bool = False

    @property
    def name(self) -> str:
        return self.row.name


@dataclass(frozen=True)
class Contest:
    """All of one builder. `plain` is its own model, as it is published."""

    builder: Builder
    contenders: tuple[Contender, ...]

    @property
    def model(self) -> str:
        return self.builder.name

    @property
    def plain(self) -> Contender:
        return next(item for item in self.contenders if item.name == self.model)


def contests(project: ProjectConfig, names: Sequence[str]) -> list[Contest]:
    """A contest for each builder that the names belong to, or of all builders with variants.

    A name is that of a model, of one of its variants, or of an alias of them. Raises SpecError for an unknown one, the
    error of a builder that is faulty, and RepositoryError where nothing of a builder is published.
    """
    read = read_builders(project, LOOKUPS)
    own: list[str] = []
    for name in names:
        if name in read.faulty:
            raise read.faulty[name]
        if name not in read.valid:
            hint = did_you_mean(name, [*read.valid, *read.faulty])
            raise SpecError(f"no builder makes a model named '{name}'", hint)
        own.append(own_name(read.valid[name]))
    own = list(dict.fromkeys(own))
    workspace = open_workspace(project, own, everything=True)
    return [_contest(workspace, read.valid[name]) for name in own]


def own_name(builder: Builder) -> str:
    """The model of the builder's own name, for it, for each of its variants, and for an alias of them."""
    return builder.spec.source.alias_of() or (builder.variant.of if builder.variant else builder.name)


def _contest(workspace: Workspace, builder: Builder) -> Contest:
    project, repository = workspace.project, workspace.repository
    variants = [
        other
        for other in workspace.builders.values()
        if other.variant and other.variant.of == builder.name != other.name
    ]
    models = [_model(repository, item, workspace.skipped.get(item.name, "")) for item in (builder, *variants)]
    models[0] = _with_metrics(repository, models)
    if not any(model.row.version for model in models):
        raise RepositoryError(f"{builder.name}: nothing of it is published", f"modelwright build {builder.name}")
    frameworks = _frameworks(project, repository, builder) if kind_of(builder).has_module else []
    return Contest(builder, (*frameworks, *models))


def _model(repository: Repository, builder: Builder, skipped: str) -> Contender:
    """The newest version of a model; `skipped`: why none can be made here."""
    row = ContenderResult(
        name=builder.name,
        form="variant" if builder.variant and own_name(builder) != builder.name else "onnx",
        description=builder.spec.description,
        model=builder.name,
    )
    latest = repository.latest(builder.name)
    config = published_config(repository, builder.name) if latest else None
    if latest is None or config is None:
        reason = f"cannot be made here: {skipped}" if skipped else f"not built: modelwright build {builder.name}"
        return Contender(row.model_copy(update={"reason": reason, "not_served": reason}))
    version, manifest = latest
    row = row.model_copy(
        update={
            "version": version,
            "version_digest": manifest.version_digest,
            "size_bytes": size_bytes(manifest),
            "metrics": manifest.metrics,
        }
    )
    file = repository.folder(builder.name, version) / _MODEL_FILE
    backend = backend_of(config)
    load = LoadOnnx(replace(builder, variant=None), file)  # however it was made, it is a file now
    is_served = not backend or backend in backends_here()  # an ensemble has no backend
    contender = Contender(row, load, config.max_batch_size, is_served)
    if backend != "onnxruntime" or not file.is_file():
        reason = _NO_PROCESS.get(backend, f"its version holds no {_MODEL_FILE} for onnxruntime")
        not_served = "" if contender.is_served else f"the server here has no backend {backend}"
        update = {"reason": reason, "not_served": not_served, "form": row.form if builder.variant else "served only"}
        return replace(contender, row=row.model_copy(update=update), load=None)
    return contender


def _with_metrics(repository: Repository, models: Sequence[Contender]) -> Contender:
    """The plain model, the first one, with what the `evaluate` of its variants says of it, where its own does not."""
    plain = models[0]
    found: dict[str, float] = {}
    for row in (model.row for model in models[1:]):
        manifest = repository.manifest(row.name, row.version) if row.version is not None else None
        found |= manifest.verification.plain_metrics if manifest else {}
    metrics = {**found, **plain.row.metrics}
    return replace(plain, row=plain.row.model_copy(update={"metrics": metrics})) if plain.row.version else plain


def backend_of(config: Any) -> str:
    """The backend of a ModelConfig; "" for an ensemble. `platform` is the older way to say it."""
    if config.backend or config.platform == "ensemble":
        return str(config.backend)
    return {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}.get(config.platform, str(config.platform))


def size_bytes(manifest: Manifest) -> int:
    """What a server loads of a version: without golden samples."""
    return sum(file.size_bytes for name, file in manifest.files.items() if name not in ABOUT)


# --- the source in its framework -------------------------------------------------------------------------------------


def _frameworks(project: ProjectConfig, repository: Repository, builder: Builder) -> list[Contender]:
    """Eager and compiled: the module that the published version was exported from, or why it is not there."""
    try:
        context = _context(project, repository, builder)
        config = published_config(repository, builder.name)
    except ModelwrightError as error:
        hint = f": {error.hint}" if error.hint else ""
        rows = [ContenderResult(name=name, form=form, reason=error.message + hint) for name, form in _FORMS.items()]
        return [Contender(row) for row in rows]
    largest = config.max_batch_size if config is not None else 0
    return [
        Contender(ContenderResult(name=name, form=form), LoadFramework(context, compiled=name == COMPILED), largest)
        for name, form in _FORMS.items()
    ]


def _context(project: ProjectConfig, repository: Repository, builder: Builder) -> StepContext:
    """What the export was given. Raises ModelwrightError where it is not there any more, or not what it was."""
    kind_of(builder).check_needs(builder.file)
    latest = repository.latest(builder.name)
    build = f"modelwright build {builder.name}"
    if latest is None:
        raise RepositoryError(f"{builder.name} is not built", build)
    lineage = {step.step: step for step in latest[1].lineage}
    step = lineage.get(_TRAIN) or lineage.get(_EXPORT)
    if step is None:
        raise RepositoryError(f"the lineage of {builder.name} names no step that made its module", build)
    _check_unchanged(builder, step.key_content, latest[0])
    needed = {MODULE: step.key} if step.step == _TRAIN else {}
    needed |= {role_of(str(made.key_content.config["field"])): made.key for made in lineage.values() if _is_fetch(made)}
    inputs, store = {}, Store(project.store)
    for role, key in needed.items():
        artifact = store.get(key)
        if artifact is None:
            what = "module" if role == MODULE else "source"
            raise RepositoryError(f"the {what} of version {latest[0]} is not in the store any more", build)
        inputs[role] = artifact.folder / "files"
    contents = [made.key_content for made in lineage.values()]
    return StepContext(
        builder=replace(builder, variant=None),
        function=_FUNCTION,
        config={**step.key_content.config, "evaluate": builder.spec.evaluate},
        target=project.target,
        inputs=inputs,
        declared=frozenset(name for content in contents for name in (*content.code, *content.data)),
        server=project.server,
        wheels=project.wheels,
    )


def _is_fetch(made: LineageStep) -> bool:
    """Whether a step had the files of a URI."""
    return made.key_content.step == FETCH.name


def _check_unchanged(builder: Builder, made_from: KeyContent, version: int) -> None:
    """The code of the builder makes the module: it must be the code that the version was made by."""
    for name, digest in made_from.code.items():
        file = builder.folder / name
        if not file.is_file() or sha256_file(file) != digest:
            where = f"{builder.file.rpartition('/')[0]}/{name}"
            raise RepositoryError(
                f"{where} is not what version {version} was built from", f"modelwright build {builder.name}"
            )
