"""What each Triton release contains: data from `data/triton_releases.json`, which names its sources."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from modelwright.errors import ProjectError


@dataclass(frozen=True)
class Release:
    """One Triton release, as in the stock `-py3` container of that month."""

    name: str  # "26.07"
    server: str  # "2.71.0"
    onnxruntime: str  # "1.27.0"
    python: str  # "3.12": the interpreter of the Python backend
    max_opset: int  # of the ai.onnx domain, what that onnxruntime accepts
    max_ir: int

    @property
    def image(self) -> str:
        return f"nvcr.io/nvidia/tritonserver:{self.name}-py3"


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((files("modelwright") / "data/triton_releases.json").read_text())
    return data


def release(name: str) -> Release:
    """The facts of one release. Raises ProjectError for a name that is not in the data."""
    data = _data()
    if name not in data["releases"]:
        known = list(data["releases"])
        raise ProjectError(
            f"Triton release '{name}' is not known",
            f"known releases are {known[0]} to {known[-1]}, written like '{known[-1]}'",
        )
    row = data["releases"][name]
    limits = data["onnxruntime"][row["onnxruntime"]]
    return Release(
        name=name,
        server=row["server"],
        onnxruntime=row["onnxruntime"],
        python=row["python"],
        max_opset=limits["max_opset"],
        max_ir=limits["max_ir"],
    )
