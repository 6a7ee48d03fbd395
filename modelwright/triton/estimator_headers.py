"""What files of XGBoost and LightGBM say of themselves: their first and last bytes are read.

XGBoost writes the names of features first and the size of the model last, with the trees between them; LightGBM has a
head of lines.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.fsops import open_file

_HEAD = 1 << 20
_TAIL = 1 << 16
_DEPTH = 12
_MOST_FEATURES = 1_000_000


@dataclass(frozen=True)
class Feature:
    """What LightGBM saw of a feature in training."""

    low: float
    high: float
    is_category: bool = False


@dataclass(frozen=True)
class EstimatorHeader:
    features: int = 0  # 0: not known
    names: tuple[str, ...] = ()  # of the features
    classes: int | None = None  # None where it gives numbers
    targets: int = 1  # numbers that it gives, where it has no classes
    objective: str = ""
    ranges: tuple[Feature, ...] = ()  # one a feature, or none


def xgboost_header(path: Path) -> EstimatorHeader:
    """Raises ValueError for a file that is damaged, OSError."""
    head, tail = _ends(path)
    read = _ubj_value if head.startswith(b"{L") else _json_value
    try:
        size = read(tail, "learner_model_param")
        objective = str(read(tail, "objective")["name"])
        names = read(head, "feature_names", default=[])
        classes = 2 if objective.startswith("binary:") else int(size["num_class"])
        return EstimatorHeader(
            _positive(size["num_feature"]),
            tuple(map(str, names)),
            classes if objective.startswith(("binary:", "multi:")) else None,
            int(size.get("num_target", 1)),
            objective,
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def lightgbm_header(path: Path) -> EstimatorHeader:
    """Raises ValueError for a file that is damaged, OSError."""
    head, _ = _ends(path)
    lines = head.decode("utf-8", "replace").partition("\n\n")[0].splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    try:
        objective = fields.get("objective", "").split(" ")[0]
        features, classes = int(fields["max_feature_idx"]) + 1, int(fields["num_class"])
    except KeyError as error:
        raise ValueError(f"it has no {error}") from None
    classifies = objective in ("binary", "multiclass", "multiclassova")
    infos = fields.get("feature_infos", "").split(" ")
    return EstimatorHeader(
        _positive(features),
        tuple(fields.get("feature_names", "").split(" ")),
        (2 if objective == "binary" else classes) if classifies else None,
        1,
        objective,
        tuple(map(_feature, infos)) if len(infos) == features else (),
    )


def _feature(info: str) -> Feature:
    """`[0.5:2]`, or the categories `1:0:2`, or `none` for what is always the same."""
    numbers = [float(number) for number in info.strip("[]").split(":")] if ":" in info else [0.0]
    if not all(map(math.isfinite, numbers)):
        return Feature(0.0, 1.0)
    return Feature(max(min(numbers), -1e30), min(max(numbers), 1e30), not info.startswith("["))


# --- XGBoost's two formats --------------------------------------------------------------------------------------------


def _ends(path: Path) -> tuple[bytes, bytes]:
    with open_file(path) as file:
        head = file.read(_HEAD)
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        return head, file.read(_TAIL)


def _positive(number: Any) -> int:
    if not 0 < (found := int(number)) <= _MOST_FEATURES:
        raise ValueError(f"it says that it has {found} features")
    return found


def _json_value(data: bytes, key: str, default: Any = None) -> Any:
    """The value of the last key of that name."""
    text = data.decode("utf-8", "replace")
    found = list(re.finditer(rf'"{key}"\s*:\s*', text))
    if not found:
        return _or_default(key, default)
    try:
        return json.JSONDecoder().raw_decode(text, found[-1].end())[0]
    except json.JSONDecodeError as error:
        raise ValueError(f"its {key} is no JSON: {error.msg}") from None


def _ubj_value(data: bytes, key: str, default: Any = None) -> Any:
    marker = b"L" + struct.pack(">q", len(key)) + key.encode()
    at = data.rfind(marker)
    return _or_default(key, default) if at < 0 else _Ubj(data, at + len(marker)).value()


def _or_default(key: str, default: Any) -> Any:
    if default is None:
        raise ValueError(f"it has no {key}")
    return default


class _Ubj:
    """Reads a value of Universal Binary JSON, of the forms that names and parameters have."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def value(self, depth: int = 0) -> Any:
        tag = self._take(1)
        if tag == b"S":
            return self._string()
        if tag == b"{" and depth < _DEPTH:
            return dict(self._items(depth))
        if tag == b"[" and depth < _DEPTH and self._take(1) == b"#":
            return [self.value(depth + 1) for _ in range(self._length())]
        raise ValueError("it has a value of another type than is expected")

    def _items(self, depth: int) -> Iterator[tuple[str, Any]]:
        while self._data[self._at : self._at + 1] != b"}":
            key = self._string()
            yield key, self.value(depth + 1)
        self._at += 1

    def _string(self) -> str:
        return self._take(self._length()).decode("utf-8", "replace")

    def _length(self) -> int:
        if self._take(1) != b"L":
            raise ValueError("it has a length of another type than is expected")
        return int(struct.unpack(">q", self._take(8))[0])

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise ValueError("it ends too early")
        self._at, start = end, self._at
        return self._data[start:end]
