"""What a model answers to golden samples, in TensorFlow itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.steps.tensorflow_program.function import Function, triton_name
from modelwright.suggest import did_you_mean
from modelwright.triton.arrays import datatype_of
from modelwright.triton.tensors import Tensors, load_tensors, save_tensors

_MOST_ROWS = 64  # of a batch: memory, not the answers, depends on it


def answer(function: Function, asked: Path, out: Path, *, batched: bool) -> None:
    """Run each group of samples; keep its answers under the same name. Raises StepError."""
    import numpy as np

    out.mkdir(parents=True)
    for file in sorted(asked.glob("*.npz")):
        samples = load_tensors(file)
        _check_names(function, samples)
        count = len(next(iter(samples.values())))
        step = _MOST_ROWS if batched else 1
        parts = [_run(function, samples, start, start + step, batched) for start in range(0, count, step)]
        save_tensors(
            out / file.name, {name: np.concatenate([part[name] for part in parts]) for name in function.outputs}
        )


def _run(function: Function, samples: Tensors, start: int, end: int, batched: bool) -> Tensors:
    """The answers to some of the samples, with a first axis that counts them."""
    import numpy as np
    import tensorflow as tf

    feed = {}
    for name, spec in function.inputs.items():
        rows = samples[name][start:end]
        feed[name] = tf.constant(_fitting(name, rows if batched else rows[0], spec), dtype=spec.dtype)
    try:
        answers = {name: value.numpy() for name, value in function.concrete(**feed).items()}
    except tf.errors.OpError as error:
        raise StepError(f"it fails on the samples: {_first_line(error.message)}", "the step's log has more") from error
    if batched:
        for name, value in answers.items():
            if np.ndim(value) < 1 or len(value) != len(next(iter(feed.values()))):
                shape = list(np.shape(value))
                raise StepError(
                    f"output '{name}' has shape {shape} for {end - start} rows: not one row for each",
                    "set serving.max_batch_size: 0, after which samples carry the batch dimension themselves",
                )
        return {name: _as_array(value) for name, value in answers.items()}
    return {name: _as_array(value)[None] for name, value in answers.items()}


def _as_array(value: Any) -> Any:
    import numpy as np

    if isinstance(value, bytes):  # a single string
        single: Any = np.empty((), dtype=object)
        single[()] = value
        return single
    return np.asarray(value)


def _fitting(name: str, array: Any, spec: Any) -> Any:
    """A sample as the signature takes it. A scalar may be given as [1], and the other way round."""
    wanted, given = triton_name(spec.dtype), datatype_of(array)
    if wanted != given:
        raise StepError(f"input '{name}' is {wanted} in the model, {given} in the samples", "change the samples' dtype")
    rank = spec.shape.rank
    if rank is not None and array.ndim == rank + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    elif rank is not None and array.ndim == rank - 1 and spec.shape[-1] == 1:
        array = array[..., None]
    if not spec.shape.is_compatible_with(array.shape):
        raise StepError(
            f"input '{name}' takes {spec.shape.as_list()}, and the samples are {list(array.shape)}",
            "samples are (N, *shape); a model without a batch dimension needs serving.max_batch_size: 0",
        )
    return array


def _check_names(function: Function, samples: Tensors) -> None:
    for name in samples:
        if name not in function.inputs:
            raise StepError(
                f"it has no input '{name}', only {', '.join(function.inputs)}", did_you_mean(name, function.inputs)
            )
    missing = [name for name in function.inputs if name not in samples]
    if missing:
        raise StepError(f"the samples have no '{missing[0]}', which the model takes", "give every input")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
