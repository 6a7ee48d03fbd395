"""`distil`: a smaller network, the student, learns to answer as the teacher does (Hinton et al., arXiv:1503.02531)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from modelwright.kinds.export import TORCH
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import Entry, StepOptions
from modelwright.variants.technique import Stage, Technique

_DISTIL = StepFunction("distil", "modelwright.steps.distil:run")


# What the training loop of Modelwright does.
_LOOP = ("loss", "axis", "output", "temperature", "alpha", "epochs", "lr", "weight_decay", "batch_size", "seed")


class DistilOptions(StepOptions):
    student: Entry = Field(description="module:function of this folder. (**params) → the untrained nn.Module.")
    params: dict[str, JsonValue] = Field({}, description="Arguments of student.")
    teacher: str | None = Field(
        None, description="A model of this file whose module is learnt from; by default what comes before this step."
    )
    data: Entry | None = Field(
        None,
        description="module:function of this folder. (epoch) → {input: (N, *shape)}, what to learn from in this epoch;"
        " with labels: (N, …) for the hard loss.",
    )
    train: Entry | None = Field(
        None, description="In place of data: your own training. (student, teacher, **train_params) → the student."
    )
    train_params: dict[str, JsonValue] = Field({}, description="Arguments of train.")
    loss: Literal["kl", "mse"] = Field(
        "kl", description="kl: outputs are logits of classes. mse: they are numbers, such as embeddings."
    )
    axis: int = Field(-1, description="Of kl: the axis of the classes in the declared shape.")
    output: str | None = Field(None, description="The output that the labels are of, where there are several.")
    temperature: float = Field(4.0, gt=0, description="Of kl: divides the logits, so that small ones count as well.")
    alpha: float = Field(0.9, ge=0, le=1, description="Share of the teacher in the loss; the rest is the labels'.")
    epochs: int = Field(30, ge=1)
    lr: float = Field(0.01, gt=0, description="The largest learning rate: AdamW, one cycle.")
    weight_decay: float = Field(0.01, ge=0)
    batch_size: int = Field(64, ge=1)
    seed: int = 0
    threads: int = Field(1, ge=1, description="Threads to train with. Part of the result.")

    @model_validator(mode="after")
    def _one_way(self) -> DistilOptions:
        if (self.data is None) == (self.train is None):
            raise ValueError("give data: module:function, what to learn from; or train, your own training")
        if self.train and (set_too := [name for name in _LOOP if getattr(self, name) != _default(name)]):
            raise ValueError(f"{set_too[0]}: your own training has its own; write it under train_params")
        if self.train_params and not self.train:
            raise ValueError("train_params: they are arguments of train, which is missing")
        return self

    def entries(self) -> Mapping[str, Entry]:
        given = (("student", self.student), ("data", self.data), ("train", self.train))
        return {name: entry for name, entry in given if entry}


def _default(name: str) -> object:
    return DistilOptions.model_fields[name].default


def _step(stage: Stage, options: DistilOptions) -> Step:
    return stage.step(_DISTIL, options, tools=("torch",), threads=options.threads)


def _teacher(options: DistilOptions) -> str | None:
    return options.teacher


TECHNIQUE = Technique(
    name="distil",
    options=DistilOptions,
    summary="a smaller network learns to answer as this one does",
    works_on="module",
    step=_step,
    needs=(TORCH,),
    teacher=_teacher,
)
