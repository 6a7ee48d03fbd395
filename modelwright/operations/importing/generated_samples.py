"""The data.py of a builder that `new --from` writes: random samples, from a seed, of what the model takes."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from modelwright.onnx.ids import IdLimit
from modelwright.onnx.signature import Value
from modelwright.triton.dtypes import BY_NAME

SAMPLES = 4
OPEN_RANGES = ((0, 10), (0, 2), (0, 1), (1, 2))  # of integers whose range the graph does not say
_SAMPLE_RATES = ("sr", "sample_rate", "sampling_rate")
_USED = ("found", "np", "random", "samples")
_NAMELESS = ("", "?", "-1", "none", "unknown", "unk", "dynamic")  # said of every dimension, so of none
_ROWS, _SIZE = "rows", "size"
_PLUS = re.compile(r"\s*\+\s*")


@dataclass(frozen=True)
class Sizes:
    """The sizes of the dynamic dimensions of one sample: of a first dimension, and of all others."""

    rows: int
    others: int


@dataclass(frozen=True)
class Generated:
    """Which samples data.py makes. `batched`: the first dimension is the batch, and samples leave it out."""

    inputs: Sequence[Value]
    limits: Mapping[str, IdLimit]
    batched: bool
    sizes: Sequence[Sizes]  # one a sample
    integers: tuple[int, int] = OPEN_RANGES[0]
    normal: bool = False  # floats around 0, not in 0..1

    def dims(self, value: Value) -> Sequence[int | str]:
        return (value.dims or ())[int(self.batched) :]

    def text(self, name: str) -> str:
        """The file."""
        lines = [*_HEAD.replace("NAME", name).splitlines(), *self._sizes_lines(), "", "", *_FUNCTION.splitlines()]
        names = ", ".join(f"{_quoted(value.name)}: []" for value in self.inputs)
        lines.append(f"    found: dict[str, list[NDArray[Any]]] = {{{names}}}")
        lines.append(f"    {self._loop()}")
        for value in self.inputs:
            expression, why = self._expression(value)
            comment = f"  # {why}" if why else ""
            lines.append(f"        found[{_quoted(value.name)}].append({expression}){comment}")
        return "\n".join([*lines, "    return found", ""])

    # -- dynamic dimensions

    @cached_property
    def variables(self) -> dict[str, str]:
        """{dimension: its variable in data.py}. Dimensions of one name have one size."""
        found: dict[str, str] = {}
        for value in self.inputs:
            for axis, dim in enumerate(self.dims(value)):
                for key in self._parts(dim) or [self._key(value, axis)]:
                    if key and not key.isdecimal():
                        found.setdefault(key, _variable(key, found.values()))
        return found

    def _key(self, value: Value, axis: int) -> str:
        """What a dimension is called: by its name, or by its place; '' if it is not dynamic."""
        dim = self.dims(value)[axis]
        if isinstance(dim, str) and dim.lower() not in _NAMELESS:
            return dim
        if isinstance(dim, int) and dim >= 0:
            return ""
        return _ROWS if self._is_rows(value, axis) else _SIZE

    def _is_rows(self, value: Value, axis: int) -> bool:
        """Whether a dimension counts rows, as the first of several does; or the second one of a state, after layers."""
        dims = self.dims(value)
        is_state = axis == 1 and len(dims) > 2 and isinstance(dims[0], int) and dims[0] >= 0
        return not self.batched and ((axis == 0 and len(dims) > 1) or is_state)

    def _parts(self, dim: int | str) -> list[str]:
        """The parts of `past + sequence`, where the file calls a dimension so and has these dimensions."""
        parts = _PLUS.split(dim) if isinstance(dim, str) else []
        known = {other for value in self.inputs for other in self.dims(value) if isinstance(other, str)}
        return parts if len(parts) > 1 and all(part.isdecimal() or part in known for part in parts) else []

    @cached_property
    def _counts_rows(self) -> set[str]:
        places = [(value, axis) for value in self.inputs for axis in range(len(self.dims(value)))]
        return {self._key(value, axis) for value, axis in places if self._is_rows(value, axis)}

    def _sizes_lines(self) -> Iterator[str]:
        if not self.variables:
            return
        yield ""
        names, rows = list(self.variables.values()), self._counts_rows
        yield f"# The sizes of the dynamic dimensions in each sample: {', '.join(names)}."
        tuples = [tuple(size.rows if key in rows else size.others for key in self.variables) for size in self.sizes]
        shown = [str(item[0]) if len(item) == 1 else str(item) for item in tuples]
        yield f"SIZES = ({', '.join(shown)})"

    def _loop(self) -> str:
        if not self.variables:
            return f"for _ in range({SAMPLES}):"
        return f"for {', '.join(self.variables.values())} in SIZES:"

    # -- values

    def _expression(self, value: Value) -> tuple[str, str]:
        """(an array of random values, what is to be said of it)."""
        shape, dtype = self._shape(value), value.dtype or "FP32"
        numpy, name = BY_NAME[dtype].numpy, value.name.lower()
        if dtype == "BYTES":
            return f'random.choice(["some", "words", "of", "text"], {shape}).astype(object)', ""
        if dtype in ("FP32", "FP64"):
            draw = "standard_normal" if self.normal else "random"
            return f"random.{draw}({shape}, dtype=np.{numpy})", "" if self.normal else "0 to 1"
        if dtype.startswith(("FP", "BF")):
            return f'random.random({shape}).astype("{numpy}")', "0 to 1"
        if "mask" in name:
            return f"np.ones({shape}, dtype=np.{numpy})", "nothing is masked"
        if dtype == "BOOL":
            return f"random.integers(0, 2, {shape}).astype(bool)", ""
        if value.name in self.limits:
            limit = self.limits[value.name]
            return f"random.integers(0, {limit.below}, {shape}, dtype=np.{numpy})", f"rows of '{limit.table}'"
        if not self.dims(value) and name in _SAMPLE_RATES:
            return f"np.array(16000, dtype=np.{numpy})", "Hz"
        if dtype in ("UINT8", "INT8"):
            low, high = (0, 256) if dtype == "UINT8" else (-128, 128)
            return f"random.integers({low}, {high}, {shape}, dtype=np.{numpy})", ""
        low, high = self.integers
        return f"random.integers({low}, {high}, {shape}, dtype=np.{numpy})", "a guess: the graph gives no range"

    def _shape(self, value: Value) -> str:
        parts = [self._dim(value, axis) for axis in range(len(self.dims(value)))]
        return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"

    def _dim(self, value: Value, axis: int) -> str:
        dim = self.dims(value)[axis]
        parts = self._parts(dim)
        if parts:
            return " + ".join(self.variables.get(part, part) for part in parts)
        key = self._key(value, axis)
        return self.variables[key] if key else str(dim)


def _variable(key: str, taken: Collection[str]) -> str:
    plain = re.sub(r"\W", "_", key).strip("_").lower()
    if not plain.isidentifier() or keyword.iskeyword(plain) or plain in _USED:
        plain = f"size_{plain}".rstrip("_")
    while plain in taken:
        plain += "_"
    return plain


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


_HEAD = '''"""Golden samples of NAME: random values, from a seed, of the types and shapes that the model takes.

They show that the model runs, and that it answers alike wherever it is served. Replace them by inputs like those that
clients send: a warm-up and a load test send them, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
'''
_FUNCTION = '''def samples() -> dict[str, list[NDArray[Any]]]:
    """For each input a list of arrays, one a sample."""
    random = np.random.default_rng(0)'''
