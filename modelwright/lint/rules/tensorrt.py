"""MW8xx: TensorRT plans, which load with the TensorRT that built them, on the GPU that they were built for.

Only TensorRT can read that from a plan. So the version's manifest.json records it:
`made.tensorrt` = {"version": "10.13.0", "compute_capability": "9.0", "version_compatible": false}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from modelwright.lint.manifests import manifest_record
from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.view import ConfigView
from modelwright.triton.releases import tensorrt_of

_NO_GPU = "the local server has neither TensorRT nor a GPU"
_PLAN = {"1/model.plan": b"plan"}


def _manifest(version: str, compatible: bool = False) -> dict[str, str]:
    record = {"version": version, "compute_capability": "9.0", "version_compatible": compatible}
    return {"1/manifest.json": json.dumps({"made": {"tensorrt": record}})}


def _records(view: ConfigView) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(version, its manifest's record of the plan) of every version that is served."""
    if view.message.backend != "tensorrt":
        return
    for number in view.served:
        made = (manifest_record(view, number) or {}).get("made")
        record = made.get("tensorrt") if isinstance(made, dict) else None
        yield number, record if isinstance(record, dict) else None


@rule(
    "MW801",
    "plan built with another TensorRT than the release's",
    Severity.ERROR,
    why="A plan loads only with the TensorRT version that built it. A version-compatible plan also loads with later "
    "versions of the same major one, if the server runs with --backend-config=tensorrt,version-compatible=true.",
    fix="Build the plan again in the release's container.",
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
            message = f"built with TensorRT {record.get('version')}; Triton {view.options.target.name} has {wanted}"
            yield view.at(f"{number}/{view.message.default_model_filename}", message)


def _loads(record: dict[str, Any], wanted: str) -> bool:
    """Whether a plan loads in TensorRT `wanted`: equal in three parts of the version, or in the first if compatible."""
    ours, theirs = str(record.get("version", "")).split("."), wanted.split(".")
    return ours[0] == theirs[0] if record.get("version_compatible") else ours[:3] == theirs[:3]


@rule(
    "MW802",
    "plan of unknown TensorRT",
    Severity.WARNING,
    why="The TensorRT version or the compute capability of the plan is not recorded, or the release's TensorRT is not "
    "known. Whether the plan loads shows only on the GPU.",
    fix="Build the plan with Modelwright, or put a manifest.json with made.tensorrt beside it.",
    example=Example("", "", base="tensorrt", target="24.10", files=_PLAN, fixed_files=_manifest("10.5.0.18")),
    unexercised=_NO_GPU,
)
def cannot_compare(view: ConfigView) -> Iterator[Found]:
    target = view.options.target.name
    for number, record in _records(view):
        missing = [key for key in ("version", "compute_capability") if not (record or {}).get(key)]
        file = f"{number}/{view.message.default_model_filename}"
        if missing:
            yield view.at(file, f"the manifest does not record {' and '.join(missing)}")
        elif tensorrt_of(target) is None:
            yield view.at(file, f"the TensorRT of Triton {target} is not known")
