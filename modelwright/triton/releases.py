"""What each Triton release contains. The data is in `data/triton_releases.json`, with its sources."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelwright.errors import ProjectError
from modelwright.fsops import read_text

# Where no source names a release's numpy: what all others have, and what the local server's Python backend works with.
_NUMPY = "1.26.4"
_PYTHON = "3.12"  # likewise: all releases from 24.11 on have it
_UNLIMITED = 2**31

TESTED_WITH = "26.07"  # what a new project is for, unless it says otherwise


@dataclass(frozen=True)
class Release:
    """One Triton release, as in the stock `-py3` container of that month."""

    name: str  # "26.07"
    server: str  # "2.71.0"; empty where no source states it
    onnxruntime: str  # "1.27.0"; empty where no source states it
    python: str  # "3.12": the interpreter of the Python backend
    numpy: str  # "1.26.4": the only package that models of the Python backend find there
    max_opset: int  # of the ai.onnx domain, as that onnxruntime accepts it
    max_ir: int

    @property
    def image(self) -> str:
        return f"nvcr.io/nvidia/tritonserver:{self.name}-py3"


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(read_text(Path(__file__).with_name("data") / "triton_releases.json"))
    return data


def release(name: str, *, whole: bool = True) -> Release:
    """One release. Raises ProjectError for an unknown name, and for one whose onnxruntime no source states.

    With `whole` false such a release comes without onnxruntime and its limits, for who can do without: the linter.
    """
    data = _data()
    if name not in data["releases"]:
        known = list(data["releases"])
        raise ProjectError(
            f"unknown Triton release '{name}'",
            f"known releases are {known[0]} to {known[-1]}, written like '{known[-1]}'",
        )
    row = data["releases"][name]
    if row["onnxruntime"] is None and whole:
        raise ProjectError(
            f"Triton {name}: no source states its onnxruntime, so what its models may use is not known",
            f"the newest release that is known is {newest_whole()}; `lint` takes {name}, without what depends on it",
        )
    limits = data["onnxruntime"].get(row["onnxruntime"], {"max_opset": _UNLIMITED, "max_ir": _UNLIMITED})
    return Release(
        name=name,
        server=row["server"] or "",
        onnxruntime=row["onnxruntime"] or "",
        python=row["python"] or _PYTHON,
        numpy=row["numpy"] or _NUMPY,
        max_opset=limits["max_opset"],
        max_ir=limits["max_ir"],
    )


def known_releases() -> list[str]:
    """Every release in the data, oldest first."""
    return list(_data()["releases"])


def newest_whole() -> str:
    """The newest release of which sources state what models may use."""
    names: list[str] = [name for name, row in _data()["releases"].items() if row["onnxruntime"]]
    return names[-1]


def release_of_server(version: str) -> str | None:
    """'2.71.0' → '26.07'; None for a server that no known release has."""
    return next((name for name, row in _data()["releases"].items() if row["server"] == version), None)


def older_than(name: str, since: str) -> bool:
    """Whether one release is older than another. All names have the same width: '24.06' sorts before '24.11'."""
    return name < since


def has_older_onnxruntime(target: Release, since: str) -> bool:
    """Whether a release has an older onnxruntime than the release named `since`."""
    if not target.onnxruntime:
        return older_than(target.name, since)
    ours, theirs = (tuple(map(int, text.split("."))) for text in (target.onnxruntime, release(since).onnxruntime))
    return ours < theirs


def fields_since() -> dict[str, str]:
    """{'ModelConfig.runtime': the first release with the field}; fields older than the data are left out."""
    fields: dict[str, str] = _data()["config_fields_since"]
    return fields


def tensorrt_of(name: str) -> str | None:
    """The TensorRT version in a release's container; None if it is not known."""
    version: str | None = _data()["releases"][name]["tensorrt"]
    return version
