"""MW8xx: TensorRT plans, which load with the TensorRT that built them, on the GPU that they were built for.

A plan does not say so in a form that can be read without TensorRT. What built it stands in the version's manifest.json:
`made.tensorrt` = {"version": "10.13.0", "compute_capability": "9.0", "version_compatible": false}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.view import ConfigView
from modelwright.triton.layout import MANIFEST
from modelwright.triton.releases import tensorrt_of

_NO_GPU = "the local server has neither TensorRT nor a GPU"
_LARGEST_MANIFEST = 10_000_000
_PLAN = {"1/model.plan": b"plan"}


def _manifest(version: str, compatible: bool = False) -> dict[str, str]:
    record = {"version": version, "compute_capability": "9.0", "version_compatible": compatible}
    return {"1/manifest.json": json.dumps({"made": {"tensorrt": record}})}


def _records(view: ConfigView) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(version, what its manifest says of its plan) of every version that is served."""
    if view.message.backend != "tensorrt":
        return
    for number in view.served:
        path = view.model_file(number, MANIFEST)
        try:
            with path.open("rb") as file:
                data = json.loads(file.read(_LARGEST_MANIFEST))
            record = data["made"]["tensorrt"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            record = None
        yield number, record if isinstance(record, dict) else None


@rule(
    "MW801",
    "plan of another TensorRT than the release's",
    Severity.ERROR,
    why="A plan loads with the version of TensorRT that built it; one built version-compatible loads with later "
    "ones of the same major version, if the server runs with --backend-config=tensorrt,version-compatible=true.",
    fix="Build the plan again with the release's TensorRT, in its container.",
    example=Example(
        "",
        "",
        base="tensorrt",
        target="24.10",
        files=_PLAN,
        fault_files=_manifest("10.0.1"),
        fixed_files=_manifest("10.5.0.18"),
    ),
    unexercised=_NO_GPU,
)
def other_tensorrt(view: ConfigView) -> Iterator[Found]:
    wanted = tensorrt_of(view.options.target.name)
    for number, record in _records(view):
        if wanted and record and not _loads(record, wanted):
            message = f"built by TensorRT {record.get('version')}; Triton {view.options.target.name} has {wanted}"
            yield view.at(f"{number}/{view.message.default_model_filename}", message)


def _loads(record: dict[str, Any], wanted: str) -> bool:
    """Whether a plan loads in TensorRT `wanted`: three parts of the version agree, or the first if it is compatible."""
    ours, theirs = str(record.get("version", "")).split("."), wanted.split(".")
    return ours[0] == theirs[0] if record.get("version_compatible") else ours[:3] == theirs[:3]


@rule(
    "MW802",
    "plan that cannot be compared with the release",
    Severity.WARNING,
    why="Without a record of its TensorRT version and compute capability, or for a release whose TensorRT no "
    "document states, whether a plan loads shows only on the GPU that it is to run on.",
    fix="Let Modelwright build it, or keep a manifest.json with made.tensorrt beside it.",
    example=Example("", "", base="tensorrt", target="24.10", files=_PLAN, fixed_files=_manifest("10.5.0.18")),
    unexercised=_NO_GPU,
)
def cannot_compare(view: ConfigView) -> Iterator[Found]:
    target = view.options.target.name
    for number, record in _records(view):
        missing = [key for key in ("version", "compute_capability") if not (record or {}).get(key)]
        file = f"{number}/{view.message.default_model_filename}"
        if missing:
            yield view.at(file, f"its manifest says nothing of {' and '.join(missing)}")
        elif tensorrt_of(target) is None:
            yield view.at(file, f"which TensorRT Triton {target} has is not known")
