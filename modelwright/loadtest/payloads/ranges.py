"""From which range generated numbers are drawn: as given, else that of the model's golden samples, else a usual one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import LoadError, ModelwrightError
from modelwright.loadtest.payloads.interface import InterfaceTensor, ModelInterface
from modelwright.loadtest.payloads.sample_files import load_npz
from modelwright.loadtest.payloads.samples import dtype_of
from modelwright.triton.arrays import is_float, largest
from modelwright.verification.golden import part_of

if TYPE_CHECKING:
    import numpy as np

Range = tuple[float, float]  # both ends included; whole numbers for integers

INTEGERS: Range = (0, 99)
FLOATS: Range = (0, 1)
_SHOWN = 4  # inputs in a note


def golden_ranges(interface: ModelInterface, path: Path) -> dict[str, Range]:
    """The smallest and the largest value of each input of numbers; {} without a file of golden samples."""
    if not path.is_file():
        return {}
    found: dict[str, Range] = {}
    try:
        rows = part_of(load_npz(path), "input/")
    except ModelwrightError:
        return {}  # values are drawn as without it: only the load test of golden samples needs the file
    for tensor in interface.inputs:
        ranges = [one for row in rows if tensor.name in row and (one := _range_of(row[tensor.name]))]
        if ranges:
            low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
            is_constant = low == high and isinstance(low, float)  # all requests would be equal
            if not is_constant and not _why_not((low, high), tensor):
                found[tensor.name] = low, high
    return found


def _range_of(values: np.ndarray[Any, Any]) -> Range | None:
    """As int or float. None for strings, bools, and arrays without a finite value."""
    import numpy as np

    if is_float(values.dtype):
        values = values.astype(np.float64)
        values = values[np.isfinite(values)]
    elif values.dtype.kind not in "iu":
        return None
    return (values.min().item(), values.max().item()) if values.size else None


def range_for(tensor: InterfaceTensor, ranges: Mapping[str, Sequence[float]], where: str) -> Range:
    """The range of an input of numbers. Raises LoadError for one that its type does not have."""
    low, high = ranges.get(tensor.name, FLOATS if is_float(dtype_of(tensor, where)) else INTEGERS)
    if wrong := _why_not((low, high), tensor):
        raise LoadError(f"{where}: range {shown((low, high))}: {wrong}", f"give it: --range {tensor.name}=LOW:HIGH")
    return (low, high) if is_float(dtype_of(tensor, where)) else (int(low), int(high))


def has_range(tensor: InterfaceTensor) -> bool:
    """Whether its values are numbers."""
    dtype = dtype_of(tensor, tensor.name)
    return dtype.kind in "iu" or is_float(dtype)


def _why_not(given: Range, tensor: InterfaceTensor) -> str:
    import numpy as np

    low, high = given
    if not has_range(tensor):
        return f"its values are {tensor.datatype}, not numbers"
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        return "must be from a lower to a higher number"
    dtype = dtype_of(tensor, tensor.name)
    if is_float(dtype):
        most = largest(dtype)
        return "" if max(abs(low), abs(high)) <= most else f"beyond {tensor.datatype} (±{most:.4g})"
    if low != int(low) or high != int(high):
        return f"must be whole numbers for {tensor.datatype}"
    limits = np.iinfo(dtype)
    if limits.min <= low and high <= limits.max:
        return ""
    return f"does not fit {tensor.datatype} ({limits.min}..{limits.max})"


def shown(given: Sequence[float]) -> str:
    low, high = given
    return f"{low:.6g}..{high:.6g}" if isinstance(low, float) or isinstance(high, float) else f"{low}..{high}"


def note(ranges: Mapping[str, Sequence[float]]) -> str:
    """What a reader of the result should know of ranges that golden samples gave."""
    parts = [f"{name} {shown(given)}" for name, given in list(ranges.items())[:_SHOWN]]
    more = f" and {len(ranges) - _SHOWN} more" if len(ranges) > _SHOWN else ""
    return f"values are drawn from the range of the golden samples: {', '.join(parts)}{more}"


def hint(interface: ModelInterface, ranges: Mapping[str, Sequence[float]]) -> str:
    """What to do if the model refuses integers that were drawn for it; "" where none were."""
    drawn = [tensor for tensor in interface.inputs if has_range(tensor) and dtype_of(tensor, "").kind in "iu"]
    parts = [f"'{tensor.name}' from {shown(ranges.get(tensor.name, INTEGERS))}" for tensor in drawn[:_SHOWN]]
    if not parts:
        return ""
    return f"values are drawn at random, {', '.join(parts)}: --range {drawn[0].name}=LOW:HIGH gives another range"
