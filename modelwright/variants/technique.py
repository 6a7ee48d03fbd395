"""What a technique is: one `Technique` record, which answers all that Modelwright asks about one entry of `steps`.

A module `variants/techniques/<name>.py` holds the technique's options and its record, `TECHNIQUE`; `registry` finds
them. The function that does the work is in `steps/`, since it imports frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from modelwright.errors import SpecError
from modelwright.kinds.kind import Needs
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction, StepId
from modelwright.project.spec import Builder, StepOptions

O = TypeVar("O", bound=StepOptions)  # noqa: E741
WorksOn: TypeAlias = Literal["module", "graph"]
Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]

SOURCE = "source"  # role of the step that a technique starts from
BASELINE = "baseline"  # role of the plain model's metrics
PLAIN = "plain"  # role of the plain model's export


@dataclass(frozen=True)
class Skipped:
    """A version that cannot be made here. The model is not published, and the build goes on."""

    reason: str
    checks: tuple[Step, ...] = ()  # what can be tried all the same


def check_rows_served(builder: Builder, rows: int, where: str) -> None:
    """Raise SpecError for a number of rows that no request of this model has; `where` is the option that gives it."""
    most = max(builder.spec.max_batch_size, 1)
    if rows > most:
        raise SpecError(
            f"{where}: {rows} rows, and serving.max_batch_size is {builder.spec.max_batch_size}",
            f"give {most} at most, or raise serving.max_batch_size: what no request can have is not measured",
        )


@dataclass(frozen=True)
class Stage:
    """A technique's place in the chain of one variant."""

    recipe: Recipe
    technique: Technique[Any]
    source: StepId  # the step that it starts from
    plain: StepId  # the step that exports the plain model
    baseline: StepId | None  # the step that measures the plain model; None without `evaluate`
    code: Mapping[str, str] = field(default_factory=dict)  # what the steps before it run: a stored module needs it
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # `Step` fields of a step that calls `evaluate`

    def check_rows(self, rows: int, option: str) -> None:
        """Raise SpecError for a number of rows that no request of this model has."""
        builder = self.recipe.builder
        where = f"{builder.file}: variant {builder.name}: {self.technique.name}.{option}"
        check_rows_served(builder, rows, where)

    def step(
        self,
        function: StepFunction,
        options: StepOptions,
        *,
        config: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
        tools: Iterable[str] = (),
        gated: bool = False,
        threads: int = 1,
        needs: Mapping[str, StepId] | None = None,
    ) -> Step:
        """The technique's step. Its key covers the options, the code that they name, `tools` and what it needs.

        `gated`: it tries candidates against the variant's gates, so gates and `evaluate` count, too.
        """
        recipe = self.recipe
        code = dict(self.code)
        for entry in options.entries().values():
            code |= recipe.code(entry)
        settings: dict[str, Any] = {"options": options.model_dump(mode="json"), **recipe.tensors, **(config or {})}
        settings |= {"batched": recipe.builder.spec.batched, **recipe.onnx_limits, **recipe.graph_options}
        roles = {SOURCE: self.source, **recipe.samples, **(needs or {})}
        evaluation: Mapping[str, Any] = self.evaluation if gated else {}
        if gated or self.technique.works_on == "graph":  # it asks the model, as it is served
            settings |= recipe.served_as | recipe.rows_asked
        if gated:
            settings |= {"gates": recipe.builder.spec.gates.model_dump(mode="json"), **evaluation.get("config", {})}
            code |= evaluation.get("code", {})
            roles |= {PLAIN: self.plain} | ({BASELINE: self.baseline} if self.baseline else {})
        return recipe.step(
            self.technique.name,
            function,
            config=settings,
            code=code,
            data={**(recipe.declared() if code else {}), **recipe.operators, **(data or {})},
            tools=versions(("numpy", *tools)) | recipe.libraries(code),
            needs=roles,
            threads=threads,
        )


def _no_teacher(options: StepOptions) -> str | None:
    return None


def _as_it_is(config: Any, options: StepOptions, where: str) -> None:
    """The source kind's config."""


@dataclass(frozen=True)
class Technique(Generic[O]):
    """One way to make another model of a source."""

    name: str  # of its module, of its entry in `steps`, and of its step
    options: type[O]
    summary: str  # for the documentation: "graph clean-up and fusions"
    works_on: WorksOn  # the torch module, before the export; or the ONNX graph, after it
    # The steps, needs first: the last one has the technique's name.
    step: Callable[[Stage, O], Step | tuple[Step, ...] | Skipped]
    precision: Precision | None = None  # what the version computes in, where the technique changes it
    lossy: bool = True  # answers may differ from the source's by more than the order of sums
    needs: tuple[Needs, ...] = ()
    backend: str = ""  # of config.pbtxt; "" for the source kind's
    verification: StepFunction | None = None  # None: in onnxruntime, as the source kind's models
    teacher: Callable[[O], str | None] = _no_teacher  # a model of the same builder, whose module the step starts from
    # Adds to the ModelConfig what follows from the technique; raises ConfigError. `where` is the name of `serving`.
    complete_config: Callable[[Any, O, str], None] = _as_it_is

    @property
    def completes_config(self) -> bool:
        return self.complete_config is not _as_it_is
