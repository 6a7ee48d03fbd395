"""Files with fitted estimators: of XGBoost, LightGBM and skops, and pickles, which are never loaded here.

How many features there are, and what the answers are, is read from headers. What LightGBM saw of each feature in
training becomes the range of its golden samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from modelwright.errors import SpecError
from modelwright.onnx.signature import Value
from modelwright.operations.importing.generated_samples import SAMPLES, Generated, Sizes
from modelwright.operations.importing.recogniser import NewBuilder, Recogniser, Seen, Written
from modelwright.project.spec import FILE
from modelwright.project.writer import as_yaml
from modelwright.text import counted, printable, size
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.estimator_files import LIGHTGBM, PICKLES, SKOPS, XGBOOST, estimator_file
from modelwright.triton.estimator_headers import EstimatorHeader, Feature, lightgbm_header, xgboost_header
from modelwright.triton.estimator_pickles import PickleHeader, SkopsHeader, pickle_header, skops_header

DATA = "data.py"
_INPUT = "x"
_MAX_BATCH_SIZE = 64
_LIBRARIES = {"sklearn", "xgboost", "lightgbm"}
_SUFFIXES = (".joblib", ".pkl", ".pickle")
_LINE = 110
# Classes of scikit-learn whose models give no probabilities, or give them only if asked to.
_NO_PROBABILITIES = re.compile(
    r"(LinearSVC|RidgeClassifier(CV)?|SGDClassifier|Perceptron|\w*AggressiveClassifier|\w*SVC)$"
)
_NUMBERS = re.compile(r"(Regressor|Regression|SVR|Ridge|Lasso|ElasticNet|RidgeCV|LassoCV|ElasticNetCV)$")
_CLASS, _PROBABILITIES, _NUMBER = "class", "probabilities", "prediction"
_ZERO_TO_ONE = (
    "golden samples are random, from 0 to 1: replace them by rows like those of training, so that the comparison with"
    " the library reaches all of the trees"
)
_RANDOM = "golden samples are random: replace them by what clients send"


def recognise(path: Path) -> Seen | None:
    """By how a file begins. Raises SpecError for one that is damaged."""
    found = estimator_file(path) if path.is_file() else None
    try:
        if found is XGBOOST:
            return _boosted("xgboost", found.what, path, xgboost_header(path))
        if found is LIGHTGBM:
            return _boosted("lightgbm", found.what, path, lightgbm_header(path))
        if found is SKOPS:
            return _skops(path, skops_header(path))
    except ValueError as error:
        raise SpecError(printable(f"is {found.what}, but damaged: {error}"), "copy or write it again") from None  # type: ignore[union-attr]
    return _pickle(path, pickle_header(path)) if found in PICKLES else None


def _boosted(kind: str, what: str, path: Path, header: EstimatorHeader) -> Seen:
    gives = _many(header.classes, "class", "classes") if header.classes else counted(header.targets, "number")
    parts = [
        counted(header.features, "feature"),
        gives,
        *([f"objective {header.objective}"] if header.objective else []),
    ]
    return Seen(kind, printable(f"{what}: {', '.join(parts)}"), path, header)


def _skops(path: Path, header: SkopsHeader) -> Seen:
    last = f" that ends in {_short(header.last)}" if header.last != header.estimator else ""
    parts = [f"{_short(header.estimator)}{last}"]
    parts += [counted(header.features, "feature")] if header.features else []
    parts += [_many(header.classes, "class", "classes")] if header.classes else []
    parts += [f"of scikit-learn {header.version}"] if header.version else []
    return Seen("sklearn", printable(f"a skops file: {', '.join(parts)}"), path, header)


def _pickle(path: Path, header: PickleHeader) -> Seen | None:
    """A pickle that names a library of estimators; or one of joblib, of which only the part before arrays is read."""
    if not _LIBRARIES.intersection(header.libraries) and ("torch" in header.libraries or path.suffix != ".joblib"):
        return None
    version = f" (scikit-learn {header.version})" if header.version else ""
    names = f" that names {', '.join(header.libraries[:8])}{version}" if header.libraries else ""
    return Seen(
        "sklearn", printable(f"a pickle of {size(path.stat().st_size)}{names}; it was not loaded"), path, header
    )


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(seen: Seen, new: NewBuilder) -> Written:
    write: Callable[[Seen, NewBuilder, list[str]], Written]
    if isinstance(seen.details, EstimatorHeader):
        name, write = ("model.txt" if seen.kind == "lightgbm" else _xgboost_name(seen.path)), _write_boosted
    elif isinstance(seen.details, SkopsHeader):
        name, write = "model.skops", _write_skops
    else:
        name, write = f"model{seen.path.suffix if seen.path.suffix in _SUFFIXES else '.pkl'}", _write_pickle
    path = new.take(seen.path, name)
    return write(seen, new, [f"  kind: {seen.kind}", f"  path: {as_yaml(path)}"])


def _xgboost_name(path: Path) -> str:
    with path.open("rb") as file:
        return "model.ubj" if file.read(2) == b"{L" else "model.json"


def _write_boosted(seen: Seen, new: NewBuilder, source: list[str]) -> Written:
    header: EstimatorHeader = seen.details
    numbered = all(name == f"Column_{index}" for index, name in enumerate(header.names))
    order = "" if numbered else f"in this order: {', '.join(header.names)}"
    if header.classes:
        outputs = _classifier("INT64", header.classes)
    else:
        outputs = [_tensor(_NUMBER, "FP32", [header.targets] if header.targets > 1 else [])]
    _model_yaml(new, source, header.features, outputs, order)
    if header.ranges:
        new.write(DATA, _ranged(new.name, header.ranges))
        return Written(("golden samples are random, of the range that each feature had in training",))
    _random(new, header.features)
    return Written((_ZERO_TO_ONE,))


def _write_skops(seen: Seen, new: NewBuilder, source: list[str]) -> Written:
    header: SkopsHeader = seen.details
    outputs = _outputs_of(header)
    left = [] if outputs else [f"outputs in {FILE}: the file does not say what {_short(header.last)} gives"]
    if not header.features:
        left.append(f"inputs in {FILE}, and samples of them in {DATA}")
    elif header.by_name:
        left.append(
            f"inputs in {FILE}, if not all columns that it was fitted on are numbers: one a column, of its type"
        )
    _model_yaml(new, source, header.features or -1, outputs or [_tensor(_NUMBER, "FP32", [])])
    _random(new, header.features or -1)
    builds = bool(outputs and header.features)
    return Written((_RANDOM,), tuple(left), builds, FILE)


def _outputs_of(header: SkopsHeader) -> list[str]:
    """What the last step gives; none where the file does not tell."""
    if not header.classes:
        return [_tensor(_NUMBER, "FP32", [])] if _NUMBERS.search(header.last) else []
    dtype = "BYTES" if header.class_dtype[1:2] in ("U", "S", "O") else "INT64"
    if _NO_PROBABILITIES.search(header.last):
        return [_tensor(_CLASS, dtype, [])]
    return _classifier(dtype, header.classes)


def _write_pickle(seen: Seen, new: NewBuilder, source: list[str]) -> Written:
    header: PickleHeader = seen.details
    source.append("  # trusted: true # loading a pickle runs code: only if you trust whoever made it")
    outputs = [
        "# of a classifier; classes with names are BYTES. A regressor gives FP32, of shape []",
        _tensor(_CLASS, "INT64", []),
    ]
    _model_yaml(new, source, header.features or -1, outputs)
    _random(new, header.features or -1)
    left = (
        "source.trusted: true, if you trust whoever made it: loading a pickle runs the code in it",
        f"outputs in {FILE}{'' if header.features else ', and inputs'}: only loading it would tell",
        f"samples in {DATA}",
    )
    return Written(
        (f"it seems to take {counted(header.features, 'feature')}",) if header.features else (), left, False, FILE
    )


def _classifier(dtype: str, classes: int) -> list[str]:
    return [_tensor(_CLASS, dtype, []), _tensor(_PROBABILITIES, "FP32", [classes])]


def _tensor(name: str, dtype: str, shape: Sequence[int]) -> str:
    return f"  - {{name: {name}, dtype: {dtype}, shape: {list(shape)}}}"


def _model_yaml(new: NewBuilder, source: Sequence[str], features: int, outputs: Sequence[str], order: str = "") -> None:
    lines = [
        *new.head,
        f"description: {as_yaml(f'The model of {Path(new.given).name}.')}",
        "source:",
        *source,
        "inputs: # a row of numbers; or one input a column, by its name, for what was fitted on a DataFrame",
        *_comment(order),
        _tensor(_INPUT, "FP32", [features]),
        "outputs: # without probabilities, where nobody reads them, the graph does less",
        *(line if line.startswith(" ") else f"  {line}" for line in outputs),
        "samples: data:samples # golden inputs, random for now: replace them by what clients send",
        "# rows: data:rows, below source, would give the rows on which the graph is held against the library",
        "serving: # Triton's ModelConfig, field by field: every field of it may stand here",
        f"  max_batch_size: {_MAX_BATCH_SIZE}",
        "  # Wait this long for more requests, then run them together.",
        "  dynamic_batching: {max_queue_delay_microseconds: 100}",
    ]
    new.write(FILE, "\n".join([*lines, ""]))


def _comment(text: str) -> list[str]:
    """As lines of a comment in model.yaml."""
    words, lines = printable(text).split(" "), [""]
    for word in words if text else ():
        if len(lines[-1]) + len(word) > _LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return [f"  #{line}" for line in lines if line]


# --- samples ----------------------------------------------------------------------------------------------------------


def _random(new: NewBuilder, features: int) -> None:
    value = Value(_INPUT, "tensor", BY_NAME["FP32"].onnx, (features,))
    new.write(DATA, Generated([value], {}, False, [Sizes(8, 8)] * SAMPLES).text(new.name))


_RANGED = '''"""Golden samples of NAME: random values, from a seed, of the range that each feature had in training.

They show that the model answers as the library does. Replace them by rows like those that clients send: a warm-up and
a load test send them, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LOW = [LOWEST]
HIGH = [HIGHEST]
CATEGORIES: list[int] = [WHOLE]  # features that are whole numbers


def samples() -> dict[str, NDArray[Any]]:
    """For the input an array with a row a sample."""
    rows = np.random.default_rng(0).uniform(LOW, HIGH, (32, len(LOW)))
    rows[:, CATEGORIES] = rows[:, CATEGORIES].round()
    return {"x": rows.astype(np.float32)}
'''


def _ranged(name: str, ranges: Sequence[Feature]) -> str:
    whole = [str(index) for index, feature in enumerate(ranges) if feature.is_category]
    return (
        _RANGED.replace("NAME", name)
        .replace("LOWEST", _listed([str(feature.low) for feature in ranges]))
        .replace("HIGHEST", _listed([str(feature.high) for feature in ranges]))
        .replace("WHOLE", _listed(whole))
    )


def _listed(items: Sequence[str]) -> str:
    """The items of a Python list, as the formatter has them."""
    line = ", ".join(items)
    return line if len(line) < _LINE else "".join(f"\n    {item}," for item in items) + "\n"


RECOGNISER = Recogniser(
    "fitted estimators (.skops, XGBoost's .json and .ubj, LightGBM's .txt, pickles)", recognise, _write
)
