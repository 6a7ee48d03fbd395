"""The technique `distil`: train a student to answer as its teacher does.

The loss is alpha · soft + (1 - alpha) · hard. Soft, against the teacher: the Kullback-Leibler divergence of both,
softened by the temperature T, times T² so that its gradients keep their size (Hinton et al., arXiv:1503.02531), or the
mean squared difference. Hard, against the labels: cross-entropy, or the mean squared difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError, located
from modelwright.facts.part import Facts, Integer, Number
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.export import adapted, check_samples, run_torch, torch_tensors
from modelwright.steps.modules import check_finite, module_from, place_of, prepare_torch, sample_arrays
from modelwright.steps.train import load_module, parameters_of, save_module
from modelwright.suggest import did_you_mean
from modelwright.triton.tensors import Tensors
from modelwright.variants.technique import SOURCE
from modelwright.variants.techniques.distil import DistilOptions

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Array = np.ndarray[Any, Any]

LABELS = "labels"  # the key of the labels in what `data` returns
IGNORED = -100  # a label that the hard loss leaves out: torch's own


class Distilled(Facts):
    parameters: Integer
    teacher_parameters: Integer
    losses: tuple[Number, ...] = ()  # the mean of each epoch; none of a training of the builder's own


def run(context: StepContext, out: Path) -> Distilled:
    """Train the student on the answers of the module of the step before; keep `module.pt`."""
    options = context.options(DistilOptions)
    prepare_torch(options.threads)
    teacher = load_module(context, context.inputs[SOURCE])
    teacher.eval().requires_grad_(False)
    with located(place_of(context)):
        student = _student(context, options, teacher)
        if options.train:
            losses: tuple[float, ...] = ()
            student = _trained_by_entry(context, options, student, teacher)
        else:
            losses = tuple(_Lesson(context, options, student, teacher).run())
        check_finite("the student", student)
        _check_answers(context, student, teacher)
        save_module(student, out, place_of(context))
    return Distilled(parameters=parameters_of(student), teacher_parameters=parameters_of(teacher), losses=losses)


def _student(context: StepContext, options: DistilOptions, teacher: nn.Module) -> nn.Module:
    """The untrained student, which answers in the teacher's shapes and has something to train."""
    field = f"variant {context.builder.name}: distil.student"
    where = f"{context.builder.file}: {field} {options.student}"
    student = module_from(where, call(context, field, options.student, **options.params)).eval()
    _check_answers(context, student, teacher)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise StepError("the student has no weight that can be trained", "leave requires_grad on")
    return student


def _check_answers(context: StepContext, student: nn.Module, teacher: nn.Module) -> None:
    """Hold both to the same outputs, on the golden samples. Raises StepError."""
    spec, samples = context.builder.spec, sample_arrays(context)
    answers = {}
    for name, module in (("teacher", teacher), ("student", student)):
        with located(f"the {name}"):
            answers[name] = run_torch(module, samples, spec.inputs, spec.outputs, batched=spec.batched)
    for output, expected in answers["teacher"].items():
        found = answers["student"][output]
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            shown = [f"{array.dtype} {list(array.shape)}" for array in (found, expected)]
            raise StepError(
                f"the student's output '{output}' is {shown[0]}, the teacher's is {shown[1]}",
                "a student answers in the teacher's place: give it the same outputs",
            )


def _trained_by_entry(
    context: StepContext, options: DistilOptions, student: nn.Module, teacher: nn.Module
) -> nn.Module:
    assert options.train is not None
    field = f"variant {context.builder.name}: distil.train"
    trained = call(context, field, options.train, student, teacher, **options.train_params)
    return module_from(f"{context.builder.file}: {field} {options.train}", trained).eval()


class _Lesson:
    """The training loop: AdamW over one cycle of the learning rate, the batches in an order that the seed decides."""

    def __init__(self, context: StepContext, options: DistilOptions, student: nn.Module, teacher: nn.Module) -> None:
        spec = context.builder.spec
        self._context = context
        self._options = options
        self._where = f"data {options.data}"
        self._student = adapted(student, spec.inputs, spec.outputs)
        self._teacher = adapted(teacher, spec.inputs, spec.outputs)
        self._batched = spec.batched
        self._outputs = [output.name for output in spec.outputs]
        self._labelled = self._labelled_output()

    def run(self) -> list[float]:
        """Train; the mean loss of each epoch."""
        import torch

        options = self._options
        size = options.batch_size if self._batched else 1
        torch.manual_seed(options.seed)
        optimiser = torch.optim.AdamW(
            [weight for weight in self._student.parameters() if weight.requires_grad],
            lr=options.lr,
            weight_decay=options.weight_decay,
        )
        first = self._data(0)
        steps = options.epochs * math.ceil(_rows(first) / size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=options.lr, total_steps=steps)
        self._student.train()
        losses = []
        for epoch in range(options.epochs):
            data = first if epoch == 0 else self._data(epoch)
            if _rows(data) != _rows(first):
                raise StepError(f"{self._where}: epoch {epoch} has {_rows(data)} samples, epoch 0 has {_rows(first)}")
            total = 0.0
            for rows in torch.randperm(_rows(data)).split(size):
                loss = self._loss(data, rows.numpy())
                if not torch.isfinite(loss):
                    hint = "lower lr, or look at what data returns"
                    raise StepError(f"the loss is {loss.item()} in epoch {epoch}: the student does not train", hint)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.item() * len(rows)
            losses.append(float(f"{total / _rows(data):.4g}"))
            self._context.say(f"epoch {epoch}: loss {losses[-1]:g}")
        self._student.eval()
        return losses

    def _loss(self, data: Tensors, rows: Array) -> Tensor:
        """alpha · soft + (1 - alpha) · hard, for these rows."""
        import torch

        given = rows if self._batched else int(rows[0])
        inputs = torch_tensors({name: array[given] for name, array in data.items() if name != LABELS})
        with torch.no_grad():
            wanted = self._teacher(*inputs)
        found = self._student(*inputs)
        alpha = self._options.alpha
        soft = sum(self._soft(one, other) for one, other in zip(found, wanted, strict=True) if one.is_floating_point())
        if LABELS not in data:
            return alpha * soft
        (labels,) = torch_tensors({LABELS: data[LABELS][given]})
        return alpha * soft + (1 - alpha) * self._hard(found[self._labelled], labels)

    def _soft(self, found: Tensor, wanted: Tensor) -> Tensor:
        from torch.nn import functional

        if self._options.loss == "mse":
            return functional.mse_loss(found, wanted)
        heat = self._options.temperature
        one, other = (functional.log_softmax(self._classes(logits) / heat, dim=1) for logits in (found, wanted))
        return heat * heat * functional.kl_div(one, other, reduction="batchmean", log_target=True)

    def _hard(self, found: Tensor, labels: Tensor) -> Tensor:
        from torch.nn import functional

        if self._options.loss == "mse":
            return functional.mse_loss(found, labels.to(found.dtype))
        return functional.cross_entropy(self._classes(found), labels.reshape(-1).long())

    def _classes(self, logits: Tensor) -> Tensor:
        """(…, classes) → (N, classes)."""
        axis = self._options.axis
        last = logits.movedim(axis + self._batched if axis >= 0 else axis, -1)
        return last.reshape(-1, last.shape[-1])

    def _labelled_output(self) -> int:
        """Which output the labels are of. Raises StepError."""
        named = self._options.output
        if named is None:
            return 0
        if named not in self._outputs:
            raise StepError(f"output: the model has no '{named}'", did_you_mean(named, self._outputs))
        return self._outputs.index(named)

    def _data(self, epoch: int) -> Tensors:
        """What the student learns from in an epoch, checked. Raises StepError."""
        import numpy as np

        options, spec = self._options, self._context.builder.spec
        assert options.data is not None
        field = f"variant {self._context.builder.name}: distil.data"
        given = call(self._context, field, options.data, epoch)
        if not isinstance(given, Mapping):
            hint = f"return {{input: (N, *shape)}}, with '{LABELS}': (N, …) for the hard loss"
            raise StepError(f"{self._where}: expected a dict of arrays, got {type(given).__name__}", hint)
        data = {str(name): np.asarray(array) for name, array in given.items()}
        check_samples(data, spec.inputs, self._where)
        names = [tensor.name for tensor in spec.inputs]
        if unknown := sorted(data.keys() - {*names, LABELS}):
            hint = did_you_mean(unknown[0], [*names, LABELS])
            raise StepError(f"{self._where}: the model has no input '{unknown[0]}'", hint)
        if len({len(array) for array in data.values()}) > 1:
            counts = {name: len(array) for name, array in data.items()}
            raise StepError(f"{self._where}: every array needs the same number of samples, got {counts}")
        if LABELS in data:
            self._check_labels(data[LABELS])
        elif options.alpha < 1:
            raise StepError(f"{self._where}: there are no '{LABELS}' for the hard loss", "return them, or set alpha: 1")
        return {name: data[name] for name in (*names, LABELS) if name in data}

    def _check_labels(self, labels: Array) -> None:
        output = self._context.builder.spec.outputs[self._labelled]
        if len(self._outputs) > 1 and self._options.output is None:
            raise StepError("output: which output are the labels of?", f"output: {self._outputs[0]}")
        shape = list(output.shape)
        if self._options.loss == "mse":
            _check_shape(labels, shape, self._where)
            return
        axis = self._options.axis
        if not -len(shape) <= axis < len(shape):
            hint = "axis counts the dimensions of the declared shape; loss: mse is for numbers"
            raise StepError(f"axis: '{output.name}' has {len(shape)} dimensions, and no axis {axis}", hint)
        classes = shape.pop(axis)
        _check_shape(labels, shape, self._where)
        if labels.dtype.kind not in "iu":
            raise StepError(f"{self._where}: '{LABELS}' are {labels.dtype}, expected whole numbers, the classes")
        if not isinstance(classes, int):
            raise StepError(
                f"axis: the size of axis {axis} of '{output.name}' is dynamic, so it is not that of classes"
            )
        wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= classes))]
        if wrong.size:
            hint = f"classes are 0 to {classes - 1}; {IGNORED} is left out of the loss"
            raise StepError(f"{self._where}: a label is {wrong[0]}, but '{output.name}' has {classes} classes", hint)


def _check_shape(labels: Array, shape: list[int | str], where: str) -> None:
    fits = labels.ndim == 1 + len(shape) and all(
        not isinstance(dim, int) or dim in (-1, size) for dim, size in zip(shape, labels.shape[1:], strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, ["N", *shape]))
        raise StepError(f"{where}: '{LABELS}' have shape {list(labels.shape)}, expected [{expected}]")


def _rows(data: Tensors) -> int:
    return len(next(iter(data.values())))
