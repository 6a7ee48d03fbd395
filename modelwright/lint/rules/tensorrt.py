"""MW8xx: TensorRT plans, which load with the TensorRT that built them, on the GPU that they were built for.

A plan's first bytes name the TensorRT that built it (`triton/plans.py`). Only TensorRT can read more from a plan. So
the version's manifest.json records it:
`made.tensorrt` = {"version": "10.13.0", "compute_capability": "9.0", "version_compatible": false}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelwright.lint.manifests import manifest_record
from modelwright.lint.rule import Example, Found, Severity, TensorRtPlan, rule
from modelwright.lint.view import ConfigView
from modelwright.triton.file_types import FileType
from modelwright.triton.plans import PlanHeader, loads, read_plan, tensorrt_in

_NO_GPU = "the local server has neither TensorRT nor a GPU"


_PLAN = {"1/model.plan": TensorRtPlan("10.5.0.18")}


def _manifest(version: str, compatible: bool = False) -> dict[str, str]:
    record = {"version": version, "compute_capability": "9.0", "version_compatible": compatible}
    return {"1/manifest.json": json.dumps({"made": {"tensorrt": record}})}


@dataclass(frozen=True)
class _Seen:
    """One version's plan: its file relative to the model, what its header and its manifest say."""

    file: str
    header: PlanHeader | FileType | OSError
    record: dict[str, Any]

    @property
    def version(self) -> str:
        """The TensorRT that built it; '' where neither says so."""
        header = self.header.version if isinstance(self.header, PlanHeader) else ""
        return header or str(self.record.get("version") or "")

    @property
    def compatible(self) -> bool:
        return bool(self.record.get("version_compatible"))


def _plans(view: ConfigView) -> Iterator[_Seen]:
    """The plan of every version that is served.

    A file that is not there is another rule's. With cc_model_filenames the GPU decides which file is loaded.
    """
    if view.message.backend != "tensorrt" or view.message.cc_model_filenames:
        return
    for number in view.served:
        name = view.message.default_model_filename
        path = view.model_file(number, name)
        if not path.is_file():
            continue
        made = (manifest_record(view, number) or {}).get("made")
        record = made.get("tensorrt") if isinstance(made, dict) else None
        try:
            header: PlanHeader | FileType | OSError = read_plan(path)
        except OSError as error:
            header = error
        yield _Seen(f"{number}/{name}", header, record if isinstance(record, dict) else {})


@rule(
    "MW801",
    "plan built with another TensorRT than the release's",
    Severity.ERROR,
    why="A plan loads only with the TensorRT version that built it, which its first bytes name. A version-compatible "
    "plan also loads with later versions of the same major one (and one of 8 in 10, of 10 in 11), if the server runs "
    "with --backend-config=tensorrt,version-compatible=true. That a plan is one, only its manifest.json says.",
    fix="Build the plan again in the release's container, or choose the release that it was built for. If it is "
    "version compatible and your server takes such plans, ignore the rule for the model.",
    example=Example(
        "",
        "",
        base="tensorrt",
        target="24.10",
        fault_files={"1/model.plan": TensorRtPlan("10.0.1.6")},
        fixed_files=_PLAN,
    ),
    unexercised=_NO_GPU,
)
def other_tensorrt(view: ConfigView) -> Iterator[Found]:
    target = view.options.target.name
    runtime = tensorrt_in(target)
    for plan in _plans(view):
        if plan.version and loads(plan.version, plan.compatible, runtime) is False:
            yield view.at(plan.file, f"built with TensorRT {plan.version}; Triton {target} has {runtime}")


@rule(
    "MW802",
    "plan of unknown TensorRT or GPU",
    Severity.WARNING,
    why="The TensorRT version or the compute capability of the plan is not recorded, or the release's TensorRT is not "
    "known. Whether the plan loads shows only on the GPU.",
    fix="Build the plan with Modelwright, or put a manifest.json with made.tensorrt beside it.",
    example=Example("", "", base="tensorrt", target="24.10", files=_PLAN, fixed_files=_manifest("10.5.0.18")),
    unexercised=_NO_GPU,
)
def cannot_compare(view: ConfigView) -> Iterator[Found]:
    target = view.options.target.name
    runtime = tensorrt_in(target)
    for plan in _plans(view):
        if not plan.version:
            if isinstance(plan.header, PlanHeader):
                yield view.at(plan.file, "the plan's header is of a newer kind, and no manifest records its TensorRT")
        elif loads(plan.version, plan.compatible, runtime) is None:
            yield view.at(plan.file, f"built with TensorRT {plan.version}; of Triton {target} is only known: {runtime}")
        elif not plan.record.get("compute_capability"):
            yield view.at(plan.file, f"built with TensorRT {plan.version}, for a GPU that no manifest records")


@rule(
    "MW803",
    "not a TensorRT plan",
    Severity.ERROR,
    why="TensorRT refuses a file that does not begin as a plan does: a Git LFS pointer, a web page, an ONNX file under "
    "another name, an interrupted copy.",
    fix="Copy or build the plan again.",
    example=Example(
        "",
        "",
        base="tensorrt",
        target="24.10",
        fault_files={"1/model.plan": "<html>404 Not Found</html>\n"},
        fixed_files=_PLAN,
    ),
    unexercised=_NO_GPU,
)
def not_a_plan(view: ConfigView) -> Iterator[Found]:
    for plan in _plans(view):
        if isinstance(plan.header, FileType):
            yield view.at(plan.file, f"it is {plan.header.what}", fix=f"{plan.header.fix}.")
        elif isinstance(plan.header, OSError):
            yield view.at(plan.file, f"cannot be read: {plan.header.strerror}")


@rule(
    "MW804",
    "version-compatible plan",
    Severity.WARNING,
    why="A version-compatible plan carries a runtime of its own, and the server runs it only with an option that this "
    "linter cannot see.",
    fix="Start the server with --backend-config=tensorrt,version-compatible=true, or build the plan without it.",
    example=Example(
        "",
        "",
        base="tensorrt",
        target="24.10",
        files=_PLAN,
        fault_files=_manifest("10.5.0.18", compatible=True),
        fixed_files=_manifest("10.5.0.18"),
    ),
    unexercised=_NO_GPU,
)
def needs_an_option(view: ConfigView) -> Iterator[Found]:
    for plan in _plans(view):
        if plan.compatible:
            yield view.at(plan.file, "it needs --backend-config=tensorrt,version-compatible=true")
