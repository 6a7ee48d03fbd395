"""`prune`: channels that matter least leave the module, in rounds of cutting and fine-tuning, down to a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from modelwright.kinds.export import EXPORT_TOOLS, TORCH
from modelwright.kinds.kind import Needs
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import Entry, StepOptions
from modelwright.variants.technique import Stage, Technique

_PRUNE = StepFunction("prune", "modelwright.steps.prune:run")

TORCH_PRUNING = Needs(
    name="torch-pruning",
    modules=("torch_pruning",),
    install="modelwright[variants]",
)


class PruneOptions(StepOptions):
    flops: float | None = Field(None, gt=0, lt=1, description="Target: share of the floating-point operations left.")
    size: float | None = Field(None, gt=0, lt=1, description="Target: share of the weights' bytes left.")
    latency: float | None = Field(
        None, gt=0, lt=1, description="Target: share of the time in onnxruntime left, measured on this machine."
    )
    batch: int = Field(1, ge=1, description="Samples in a request, for latency.")
    entry: Entry | None = Field(
        None, description="Fine-tunes: module:function of this folder. (module, **params) → the nn.Module, trained."
    )
    params: dict[str, JsonValue] = Field({}, description="Arguments of the entry.")
    rounds: int = Field(
        2, ge=1, le=100, description="Steps to the target. Each cuts, fine-tunes, and is held to the gates."
    )
    importance: Literal["l1", "l2", "bn_scale", "taylor"] = Field(
        "l2", description="What a channel is worth: the norm of its weights, its batch norm's scale, or taylor's."
    )
    loss: Entry | None = Field(
        None, description="Of importance taylor: module:function of this folder. (module) → the loss, a tensor."
    )
    ranking: Literal["layer", "global"] = Field(
        "layer", description="Cut the same share of each layer, or the least important channels of all."
    )
    multiple_of: int = Field(
        16,
        ge=1,
        description="Channels that stay are a multiple of this: onnxruntime computes 16 at a time with AVX-512, 8 with"
        " AVX2, and other counts are slower than more channels.",
    )
    keep: tuple[str, ...] = Field((), description="Layers whose channels stay: names in the module, with * for any.")
    sparsity: Literal["2:4"] | None = Field(
        None, description="Zero two of every four weights, which TensorRT uses on Ampere and later; nothing else gains."
    )
    threads: int = Field(1, ge=1, description="Threads to train with. Part of the result.")

    @model_validator(mode="after")
    def _one_target(self) -> PruneOptions:
        given = [name for name in ("flops", "size", "latency") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]}: give one target; the others can be gates")
        if not given and not self.sparsity:
            raise ValueError("give a target: flops, size or latency, the share that is left; or sparsity: '2:4'")
        if (self.importance == "taylor") != (self.loss is not None):
            raise ValueError("importance: taylor and loss: module:function belong together")
        if self.params and not self.entry:
            raise ValueError("params: they are arguments of the entry, which is missing")
        return self

    @property
    def target(self) -> float | None:
        return self.flops or self.size or self.latency

    @property
    def goal(self) -> str:
        """What the target is of."""
        return "size" if self.size else "latency" if self.latency else "flops"

    def entries(self) -> Mapping[str, Entry]:
        return {name: entry for name, entry in (("entry", self.entry), ("loss", self.loss)) if entry}


def _step(stage: Stage, options: PruneOptions) -> Step:
    stage.check_rows(options.batch, "batch")
    return stage.step(_PRUNE, options, tools=(*EXPORT_TOOLS, "torch_pruning"), gated=True, threads=options.threads)


TECHNIQUE = Technique(
    name="prune",
    options=PruneOptions,
    summary="channels that matter least leave the module, fine-tuned in rounds down to a target",
    works_on="module",
    step=_step,
    needs=(TORCH, TORCH_PRUNING),
)
