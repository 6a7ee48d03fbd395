"""What a source kind is: one `Kind` record, which answers all that Modelwright asks about a kind of source.

A module `kinds/<kind>.py` holds the kind's `SourceSpec` and its record, `KIND`; `registry` finds them. Another
distribution adds a kind with such a module of its own and an entry point in the group `modelwright.kinds`:

    [project.entry-points."modelwright.kinds"]
    toy = "toy_kind:KIND"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from modelwright.environments.own import WantedEnvironment
from modelwright.errors import StepError
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.lockfile import Wanted
from modelwright.project.spec import Builder, ModelSpec, Name, SourceSpec, StrictModel
from modelwright.triton.releases import Release
from modelwright.triton.routers import Routed

S = TypeVar("S", bound=SourceSpec)
Files = Mapping[str, str | bytes]  # name → text with $placeholders, or bytes
# `steps`: the model_version of an ensemble's steps. `parameter`: the config parameter `pins`, which the model reads, as
# JSON of {own version: {composing model: version}}. `none`: the config is given whole, or it runs no other models.
Pins = Literal["none", "steps", "parameter"]
_TEMPLATE = ".tmpl"  # keeps linters and type checkers of this package away from code that is not its own
# Fields of ModelConfig that decide what a model answers.
_ANSWER_FIELDS = (
    "max_batch_size",
    "input",
    "output",
    "parameters",
    "model_transaction_policy",
    "model_operations",
)
_BATCHING = "dynamic_batching"
# Fields of ModelConfig that decide how fast a model is, and on which device.
_SPEED_FIELDS = ("environments", "instance_group", "optimization", _BATCHING, "model_warmup", "response_cache")


@dataclass(frozen=True)
class Needs:
    """Modules that the steps of a kind import and that Modelwright does not depend on, and what installs them."""

    name: str  # of the row in `modelwright doctor`
    modules: tuple[str, ...]  # import names
    install: str  # what pip is given: modelwright[torch]
    suggested: tuple[str, ...] = ()  # import names of what builders of this kind often use
    details: str = ""  # a program that imports the modules and prints a line about them


@dataclass(frozen=True)
class Verification:
    """How a model is verified."""

    function: StepFunction
    served: bool = False  # by the local server, together with its composing models
    config: Mapping[str, Any] = field(default_factory=dict)  # what else of the source counts, for the step's key


class EnsembleStep(StrictModel):
    """One model of an ensemble, as ModelConfig's `ensemble_scheduling` has it."""

    model_name: Name = Field(description="A model of this project.")
    model_version: int = Field(-1, description="-1: the newest that is served.")  # Triton's default, 0, is no version
    input_map: dict[str, str] = Field(min_length=1, description="The model's input → the ensemble's tensor.")
    output_map: dict[str, str] = Field(min_length=1, description="The model's output → the ensemble's tensor.")
    model_namespace: str = Field("", description="Which repository, where the server has several with the same names.")

    @model_serializer(mode="wrap")
    def _written(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a namespace that nobody gave: keys and versions from before it was a field stay what they are."""
        fields: dict[str, Any] = default(self)
        return {key: value for key, value in fields.items() if key != "model_namespace" or value}


@dataclass(frozen=True)
class FixedVersion:
    """A version that is published under a number of its own."""

    files: Mapping[str, str]  # name in the version → SHA-256
    composing: Mapping[str, str] = field(default_factory=dict)  # version digests of the composing models at recording


@dataclass(frozen=True)
class BuilderTemplate:
    """Files of another builder to start from, and what they need beside the kind itself."""

    files: Callable[[], Files]
    install: str = ""  # what pip is given: modelwright[train]
    modules: tuple[str, ...] = ()  # import names of that


def _none(source: SourceSpec) -> Any:
    return {}


def _alone(path: Path) -> Sequence[str]:
    return ()


def _nothing_declared(builder: Builder, source: SourceSpec) -> Mapping[str, Any]:
    return {}


def _no_lock(source: SourceSpec, target: Release) -> None:
    return None


def _no_other_form(source: SourceSpec) -> None:
    return None


def _no_steps(source: SourceSpec) -> tuple[EnsembleStep, ...]:
    return ()


def _no_arms(source: SourceSpec) -> Sequence[tuple[str, Routed]]:
    return ()


@dataclass(frozen=True)
class Kind(Generic[S]):
    """A kind of source.

    The steps of a model are `samples` (where it has some), those of its kind, and `verify`. The step named
    `version_step` makes what a version holds, under `version/`; `numbered` and with `fixed_versions`, under
    `versions/<N>/`, and the `files_beside` under `top/`.
    """

    name: str  # of its module, and the value of source.kind
    source: type[S]  # what model.yaml says under `source`
    summary: str  # "a PyTorch module": what a model of this kind is made from
    takes: str  # the README's column "what it takes"
    verified: str  # the README's column "verified"
    steps: Callable[[Recipe, S], list[Step]]  # between samples and verify
    version_step: str
    verification: Callable[[ModelSpec, S], Verification]
    needs: tuple[Needs, ...] = ()
    environment: WantedEnvironment | None = None  # in which its steps start programs, made on first use
    declared_architecture: Callable[[Builder, S], Mapping[str, Any]] = _nothing_declared  # as config.json has it
    training_step: str = ""  # the step whose artifact may hold training.json
    has_module: bool = False  # whether it is a PyTorch module, which a bench measures beside the model
    no_techniques: str = ""  # why variants cannot be made of its graph, where it has one

    # config.pbtxt
    backend: str = ""
    platform: str = ""
    ensemble_steps: Callable[[S], tuple[EnsembleStep, ...]] = _no_steps  # models that are linked by tensors
    parameters: Callable[[S], Mapping[str, str]] = _none  # of its config, beside those of `serving`
    # Models that must have its tensors: (field of model.yaml, model and version)
    routed: Callable[[S], Sequence[tuple[str, Routed]]] = _no_arms
    pins: Pins = "none"  # how its config says which versions of its composing models a version runs
    whole_config: bool = False  # `serving` is the whole ModelConfig: nothing is derived, the server may complete it

    # Another record, for a source that is published in another form; it has the same name
    other_form: Callable[[S], Kind[S] | None] = _no_other_form

    # Of what lies at a URI: which files beside a file belong to it, and patterns of files of a folder that do not
    files_beside_source: Callable[[Path], Sequence[str]] = _alone
    left_out_of_source: tuple[str, ...] = ()

    # What a requirements.lock beside model.yaml is resolved from; None for no lock
    wanted_lock: Callable[[S, Release], Wanted | None] = _no_lock

    # Whether the version step makes several versions that have numbers of their own, under `versions/<N>/`
    numbered: bool = False

    # Versions that were made elsewhere
    fixed_versions: Callable[[S], Mapping[int, FixedVersion]] = _none
    files_beside: Callable[[S], Mapping[str, str]] = _none  # beside config.pbtxt: name → SHA-256

    # What `modelwright new` writes: suffix of the model's name → a builder's files. The last has the suffix "". Texts
    # are string.Template: $name, $yaml_name (as YAML has it), $editor (the first line of a model.yaml), $whole (the
    # name that was asked for), and a $suffix for each suffix, the name of that model as YAML has it.
    scaffold: Mapping[str, Callable[[], Files]] = field(default_factory=dict)
    templates: Mapping[str, BuilderTemplate] = field(default_factory=dict)  # what `new --template` starts from instead

    @property
    def is_built_in(self) -> bool:
        """Whether it is a kind of Modelwright, and not of another distribution."""
        return self.source.__module__.startswith("modelwright.kinds.")

    def answering(self, serving: Mapping[str, Any]) -> dict[str, Any]:
        """Those fields of `serving` that decide what a model answers, not how fast."""
        if self.whole_config:  # nothing is derived, so a server needs all the rest
            return {name: value for name, value in serving.items() if name not in _SPEED_FIELDS}
        return {name: value for name, value in serving.items() if name in _ANSWER_FIELDS}

    def tried(self, serving: Mapping[str, Any]) -> dict[str, Any]:
        """What of `serving` a trial in the server has: what decides the answers, and whether requests run together."""
        batching: dict[str, Any] = {} if serving.get(_BATCHING) is None else {_BATCHING: {}}
        return self.answering(serving) | batching

    def check_needs(self, file: str) -> None:
        """Raise StepError where a step of this kind would miss a module. `file` is the model.yaml, for the message."""
        for needs in self.needs:
            missing = [module for module in needs.modules if find_spec(module) is None]
            if missing:
                where = f"{file}: source.kind {self.name} needs {', '.join(missing)}: not installed"
                raise StepError(where, f"pip install '{needs.install}'")


def shipped(template: str) -> Callable[[], Files]:
    """The files of `scaffolds/<template>/`, read when they are asked for."""

    def read() -> Files:
        from importlib.resources import files

        folder = files("modelwright.kinds") / "scaffolds" / template
        paths = [path for path in folder.iterdir() if path.name.endswith(_TEMPLATE)]
        return {path.name.removesuffix(_TEMPLATE): path.read_text(encoding="utf-8") for path in paths}

    return read
