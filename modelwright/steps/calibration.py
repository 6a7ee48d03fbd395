"""Calibration: the ranges of activations, measured on data of the builder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.config.served import ServedView
from modelwright.errors import StepError, located, one_line
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.int8 import is_large, save_temporary
from modelwright.steps.int8_layers import Layer, operators_of
from modelwright.steps.samples import as_declared, as_samples, load_samples
from modelwright.triton.arrays import is_float, rounded_to
from modelwright.triton.tensors import Tensors
from modelwright.variants.techniques.quantise import QuantiseOptions
from modelwright.verification.samples import of_equal_sizes, request_of

if TYPE_CHECKING:
    from onnx import ModelProto

_ROWS = 32  # of a request: more needs more memory, and shows no more


def calibration_feeds(context: StepContext, options: QuantiseOptions, view: ServedView) -> tuple[list[Tensors], int]:
    """(what onnxruntime is given, how many samples that are): of the `calibration` entry, else of the golden samples.

    Raises StepError or ConfigError for data that do not fit the model.
    """
    types = view.tensors.input_types
    entry = options.calibration
    if entry is None:
        where = f"{context.builder.file}: samples {context.builder.spec.samples}, to measure on"
        samples = load_samples(context, types)
    else:
        where = f"{context.builder.file}: quantise.calibration {entry}"
        given = as_samples(call(context, "quantise.calibration", entry), where)
        samples = [rounded_to(item, types) for item in as_declared(given, context.builder.spec.inputs, where)]
    samples = samples[: options.samples]
    _check_finite(samples, where)
    with located(where):
        return [view.feed(request) for request in _requests(samples, view)], len(samples)


def _requests(samples: Sequence[Tensors], view: ServedView) -> Iterator[Tensors]:
    rows = min(_ROWS, view.config.max_batch_size) if view.batched else 1
    for group in of_equal_sizes(samples):
        for start in range(0, len(group), rows):
            yield request_of([samples[index] for index in group[start : start + rows]], batched=view.batched)


def _check_finite(samples: Sequence[Tensors], where: str) -> None:
    import numpy as np

    for index, sample in enumerate(samples):
        for name, array in sample.items():
            if is_float(array.dtype) and not np.isfinite(array.astype(np.float64)).all():
                hint = "a range is measured on numbers as the model gets them: leave such samples out"
                raise StepError(f"{where}: '{name}' of sample {index} has values that are NaN or infinite", hint)


def measured_ranges(
    model: ModelProto,
    layers: Sequence[Layer],
    options: QuantiseOptions,
    feeds: Sequence[Tensors],
    scratch: Path,
    libraries: Sequence[Path] = (),
) -> Any:
    """onnxruntime's ranges (`TensorsData`) of the tensors that become INT8. Raises StepError for one not finite."""
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    from modelwright.onnx.runtime import load_session

    methods = {
        "min-max": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    file, augmented = scratch / "calibrated.onnx", scratch / "augmented.onnx"
    augmented.with_name(f"{augmented.name}.data").unlink(missing_ok=True)
    save_temporary(model, file)
    symmetric = options.activations == "symmetric"
    calibrator = create_calibrator(
        file,
        operators_of(layers),
        augmented_model_path=str(augmented),
        calibrate_method=methods[options.method],
        use_external_data_format=is_large(model),
        extra_options={"symmetric": symmetric, "percentile": options.percentile},
    )
    # One thread, so that ranges are the same each time; and the libraries of custom operators.
    calibrator.infer_session = load_session(augmented, graph_level=2, libraries=libraries)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, about NaN: that is an error here, below
            for feed in feeds:  # one at a time: the histograms of onnxruntime take no requests of different sizes
                calibrator.collect_data(_reader(feed))
            ranges = calibrator.compute_data()
    except (ValueError, RuntimeError, IndexError) as error:
        raise StepError(f"calibration by {options.method} fails: {one_line(error)}", "try method: min-max") from error
    for name, values in ranges.items():
        if not np.isfinite(np.array(values.range_value, np.float64)).all():
            hint = "the model itself overflows on these data: check that they are as in production"
            raise StepError(f"calibration: the range of '{name}' is not finite", hint)
    return ranges


def _reader(feed: Tensors) -> Any:
    """A reader, as onnxruntime's calibrators take it, of one request."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._waiting = [feed]

        def get_next(self) -> Tensors | None:
            return self._waiting.pop() if self._waiting else None

    return Reader()
