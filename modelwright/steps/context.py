"""What a step is given. It crosses into a worker process, so it is plain, frozen and picklable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from modelwright import progress
from modelwright.kinds.step import StepFunction
from modelwright.project.fetching import FetchLimits
from modelwright.project.plan_places import PlanPlaces
from modelwright.project.spec import Builder, Gates, SourceSpec, StepOptions
from modelwright.triton.releases import Release

S = TypeVar("S", bound=SourceSpec)
O = TypeVar("O", bound=StepOptions)  # noqa: E741


@dataclass(frozen=True)
class ServedModel:
    """One model of the small repository in which a Python model or an ensemble is tried before it is published."""

    name: str
    config: str  # config.pbtxt
    versions: Mapping[int, Path]  # the files of each
    is_prebuilt: bool = False
    is_published: bool = False  # some of the files are those of the repository, which are not touched
    top: Path | None = None  # files that a prebuilt model has beside its config
    beside: Mapping[str, Path] = field(default_factory=dict)  # name below its folder → a file that it needs there
    is_complete: bool = True  # whether the config names all tensors; otherwise the server completes it


@dataclass(frozen=True)
class StepContext:
    builder: Builder
    function: StepFunction
    config: Mapping[str, Any]
    target: Release
    inputs: Mapping[str, Path]  # role → the folder of that step's files
    declared: frozenset[str]  # files of the builder's folder that the key covers
    server: Path  # where the local server's environments live
    wheels: Path  # where downloaded wheels are kept
    served: tuple[ServedModel, ...] = field(default=())
    startup_timeout_s: float | None = None  # of the local server; None: by what it loads
    step: str = ""  # its name in the model
    cache: Path = Path()  # what makes a step faster the next time, and nothing else, is kept here
    plan_places: PlanPlaces = field(default_factory=PlanPlaces)  # where TensorRT plans are built
    fetch_limits: FetchLimits = field(default_factory=FetchLimits)  # of files at URIs
    registry: str = ""  # URI of the project's MLflow
    checkpoints: Path | None = None  # of this step key: what a step that was killed goes on from the next time
    environments: Path = Path()  # where environments of their own live: TensorFlow's

    def source(self, model: type[S]) -> S:
        """The builder's source, as the kind that this step belongs to has it."""
        source = self.builder.spec.source
        assert isinstance(source, model)
        return source

    def options(self, model: type[O]) -> O:
        """The options of the technique that this step belongs to. `model` is their type."""
        return model.model_validate(self.config["options"])

    @property
    def gates(self) -> Gates:
        """What a step that tries candidates holds them to."""
        return Gates.model_validate(self.config["gates"])

    def tell(self, text: str) -> None:
        """How far the step is, in a few words, for the progress of the build."""
        progress.tell(text)

    def say(self, text: str) -> None:
        """A line for the step's log: in a worker, standard output is that log."""
        print(text, flush=True)
