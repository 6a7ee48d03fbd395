"""MW8xx: TensorRT plans, which load with the TensorRT that built them, on the GPU that they were built for.

A plan's first bytes name the TensorRT that built it (`triton/plans.py`). Only TensorRT can read more from a plan. So
the version's manifest.json records it (`facts/made.TensorRtBuild`):
`made.tensorrt` = {"version": "10.13.0", "compute_capability": "9.0", "version_compatible": false, "profiles": […]}.
Where a version has a plan for each of several GPUs, `made.plans` has the same for each file.

What the server does with profiles and files was read in its tensorrt backend (src/tensorrt_utils.cc, MaximumDims;
src/instance_state.cc).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modelwright.lint.completion import MAX_BATCH_SIZE
from modelwright.lint.manifests import manifest_record
from modelwright.lint.rule import Example, Found, Severity, TensorRtPlan, rule
from modelwright.lint.tree import is_hidden
from modelwright.lint.view import ConfigView, RepositoryView
from modelwright.suggest import did_you_mean
from modelwright.triton.file_types import FileType
from modelwright.triton.plans import PlanHeader, loads, read_plan, tensorrt_in

if TYPE_CHECKING:
    from modelwright.facts.plan import PlanProfile, ShapeRange

_NO_GPU = "the local server has neither TensorRT nor a GPU"
_ALLOCATION = "execution_context_allocation_strategy"
_STRATEGIES = ("STATIC", "ON_PROFILE_CHANGE")


_PLAN = {"1/model.plan": TensorRtPlan("10.5.0.18")}


_CAPABILITIES = ("8.0", "8.9")


def _manifest(version: str, compatible: bool = False, **more: Any) -> dict[str, str]:
    record = {"version": version, "compute_capability": "9.0", "version_compatible": compatible, **more}
    return {"1/manifest.json": json.dumps({"made": {"tensorrt": record}})}


def _profiles(rows: int = 8, size: int = 2) -> dict[str, str]:
    """The manifest of a plan whose one profile takes so many rows of `x`, of at most this size."""
    shapes = {"min": [1, 1], "opt": [rows, size], "max": [rows, size]}
    return _manifest("10.5.0.18", profiles=[{"inputs": {"x": shapes}}])


def _files(*built_for: str) -> dict[str, str]:
    """The manifest of plans for these compute capabilities, in files named by those that they should be for."""
    plans = {
        f"{name}.plan": {"version": "10.5.0.18", "compute_capability": capability}
        for name, capability in zip(_CAPABILITIES, built_for, strict=True)
    }
    return {"1/manifest.json": json.dumps({"made": {"plans": plans}})}


_RECORD = '{"made": {"tensorrt": {"version": "10.13.0", "compute_capability": "8.6"}}}'
_LOOK_UP = "NVIDIA's release notes say which TensorRT Triton {target} has: build the plan with that one."
_BY_CAPABILITY = " ".join(f'cc_model_filenames {{ key: "{name}" value: "{name}.plan" }}' for name in _CAPABILITIES)
_TWO_PLANS = {f"1/{name}.plan": TensorRtPlan("10.5.0.18") for name in _CAPABILITIES}


@dataclass(frozen=True)
class _Seen:
    """One plan: its file relative to the model, what its header and its manifest say."""

    file: str
    header: PlanHeader | FileType | OSError
    record: dict[str, Any]
    has_manifest: bool
    capability: str = ""  # of cc_model_filenames, where the file stands there

    @property
    def version(self) -> str:
        """The TensorRT that built it; '' where neither says so."""
        header = self.header.version if isinstance(self.header, PlanHeader) else ""
        return header or str(self.record.get("version") or "")

    @property
    def compatible(self) -> bool:
        return bool(self.record.get("version_compatible"))

    @property
    def profiles(self) -> tuple[PlanProfile, ...]:
        """Those that the manifest has; none where it has none, or something else stands there."""
        given = self.record.get("profiles")
        if not isinstance(given, list):
            return ()
        from modelwright.facts.part import DamagedError, validated  # pydantic, which only plans of ours need
        from modelwright.facts.plan import PlanProfile

        try:
            return tuple(validated(PlanProfile, profile) for profile in given)
        except DamagedError:
            return ()


def _plans(view: ConfigView) -> list[_Seen]:
    """The plans of every version that is served. A file that is not there is another rule's."""
    if view.message.backend != "tensorrt":
        return []
    if "plans" not in view.kept:
        view.kept["plans"] = list(_read_plans(view))
    plans: list[_Seen] = view.kept["plans"]
    return plans


def _read_plans(view: ConfigView) -> Iterator[_Seen]:
    by_file = {file: capability for capability, file in sorted(view.message.cc_model_filenames.items())}
    for number in view.served:
        manifest = manifest_record(view, number)
        made = (manifest or {}).get("made")
        made = made if isinstance(made, dict) else {}
        several = made.get("plans")
        for name in by_file or (view.message.default_model_filename,):
            path = view.model_file(number, name)
            if view.leaves(name) or not path.is_file():
                continue
            record = several.get(name) if isinstance(several, dict) else None
            record = made.get("tensorrt") if record is None and not by_file else record
            try:
                header: PlanHeader | FileType | OSError = read_plan(path)
            except OSError as error:
                header = error
            record = record if isinstance(record, dict) else {}
            yield _Seen(f"{number}/{name}", header, record, manifest is not None, by_file.get(name, ""))


@rule(
    "MW801",
    "plan built with another TensorRT than the release's",
    Severity.ERROR,
    why="A plan loads only with the TensorRT version that built it, which its first bytes name. A version-compatible "
    "plan also loads with later versions of the same major one (and one of 8 in 10, of 10 in 11), if the server runs "
    "with --backend-config=tensorrt,version-compatible=true. Whether a plan is one stands only in its manifest.json.",
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
    why="A plan loads only with the TensorRT that built it, on a GPU of the compute capability that it was built for. "
    "The TensorRT is in the plan's first bytes. The compute capability is not: a manifest.json beside the plan records "
    "it, which Modelwright writes. Without one it is not checked; one finding stands for all such plans.",
    fix="Try the plan on a GPU of the kind that will serve it, or build it with Modelwright, or write a manifest.json "
    f"beside it: {_RECORD}.",
    example=Example("", "", base="tensorrt", target="24.10", files=_PLAN, fixed_files=_manifest("10.5.0.18")),
    unexercised=_NO_GPU,
)
def cannot_compare(repository: RepositoryView) -> Iterator[Found]:
    target = repository.options.target.name
    runtime = tensorrt_in(target)
    unrecorded: list[Found] = []
    for view, plan in _all_plans(repository):
        if not plan.version:
            if isinstance(plan.header, PlanHeader):
                yield view.at(plan.file, "the plan's header is of a newer kind, and no manifest records its TensorRT")
        elif loads(plan.version, plan.compatible, runtime) is None:
            what = f"built with TensorRT {plan.version}; Triton {target} has {runtime}, more is not known"
            yield view.at(plan.file, what, fix=_LOOK_UP.format(target=target))
        elif not plan.record.get("compute_capability"):
            built = f"built with TensorRT {plan.version}, for a GPU that"
            if plan.has_manifest:
                yield view.at(plan.file, f"{built} its manifest does not record")
            else:
                unrecorded.append(view.at(plan.file, f"{built} nothing records"))
    if unrecorded:
        more = len(unrecorded) - 1
        others = f"; the same holds for {more} other {'plan' if more == 1 else 'plans'}" if more else ""
        yield replace(unrecorded[0], message=f"{unrecorded[0].message}{others}")


def _all_plans(repository: RepositoryView) -> Iterator[tuple[ConfigView, _Seen]]:
    for name in repository.tree.models:
        view = repository.view(name)
        if view is not None and not view.source.error and view.problem is None and not is_hidden(name):
            yield from ((view, plan) for plan in _plans(view))


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


@rule(
    "MW805",
    "max_batch_size beyond the plan's profiles",
    Severity.WARNING,
    why="A plan takes only the shapes of its optimisation profiles. The server puts up to max_batch_size rows into one "
    "request, and it fails where no profile takes so many.",
    fix="Build the plan again with a profile for max_batch_size rows, or lower max_batch_size.",
    example=Example(
        "", "", base="tensorrt", target="24.10", files=_PLAN, fault_files=_profiles(rows=4), fixed_files=_profiles()
    ),
    unexercised=_NO_GPU,
)
def too_few_rows(view: ConfigView) -> Iterator[Found]:
    most = view.message.max_batch_size
    for plan in _plans(view):
        rows = [
            min(shapes.max[0] for shapes in profile.inputs.values())
            for profile in _used(view, plan)
            if profile.inputs and all(shapes.max for shapes in profile.inputs.values())
        ]
        if view.batched and rows and max(rows) < most:
            yield view.at(plan.file, f"its profiles take at most {max(rows)} rows, and max_batch_size is {most}")


@rule(
    "MW806",
    "dims that no profile of the plan takes",
    Severity.ERROR,
    why="At load the server makes buffers for the dims of the config. It refuses dims above the profile's largest, "
    "and a request with dims below its smallest fails.",
    fix="Write dims that a profile takes, -1 for a range of sizes, or build the plan with such a profile.",
    example=Example(
        "", "", base="tensorrt", target="24.10", files=_PLAN, fault_files=_profiles(size=1), fixed_files=_profiles()
    ),
    unexercised=_NO_GPU,
)
def dims_of_no_profile(view: ConfigView) -> Iterator[Found]:
    first = int(view.batched)
    # The backend reads from the number of dims whether a config without max_batch_size means one.
    starts = (0, 1) if view.may_complete(MAX_BATCH_SIZE) else (first,)
    for plan in _plans(view):
        profiles = _used(view, plan)
        for index, tensor in enumerate(view.message.input):
            dims = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
            if not dims:
                continue
            ranges = [profile.inputs[tensor.name] for profile in profiles if tensor.name in profile.inputs]
            if ranges and not any(_takes(shapes, dims, start) for shapes in ranges for start in starts):
                known = " or ".join(f"{list(shapes.min[first:])} to {list(shapes.max[first:])}" for shapes in ranges)
                what = f"'{tensor.name}' has dims {dims}, and the plan takes {known}"
                yield view.found(what, "input", index, "dims")


@rule(
    "MW807",
    "profile that the plan does not have",
    Severity.ERROR,
    why="`profile` of an instance group lists optimisation profiles of the plan by index, from 0 on. The server "
    "refuses an index that the plan does not have.",
    fix="Write an index that the plan has, or build the plan with more profiles.",
    example=Example(
        'instance_group [ { kind: KIND_GPU, profile: [ "1" ] } ]',
        'instance_group [ { kind: KIND_GPU, profile: [ "0" ] } ]',
        base="tensorrt",
        target="24.10",
        files={**_PLAN, **_profiles()},
    ),
    unexercised=_NO_GPU,
)
def no_such_profile(view: ConfigView) -> Iterator[Found]:
    for plan in _plans(view):
        count = len(plan.profiles)
        for index, group in enumerate(view.message.instance_group):
            for place, profile in enumerate(group.profile):
                if count and profile.strip().isdecimal() and int(profile) >= count:
                    path = ("instance_group", index, "profile", place)
                    has = "one profile, 0" if count == 1 else f"profiles 0 to {count - 1}"
                    yield view.found(f"{plan.file} has {has}", *path)


@rule(
    "MW808",
    "plan for another GPU than cc_model_filenames says",
    Severity.ERROR,
    why="cc_model_filenames maps a GPU's compute capability to the plan that it loads. A plan for another one does not "
    "load there, unless it was built hardware compatible.",
    fix="Name the file that was built for this compute capability, or build one.",
    example=Example(
        _BY_CAPABILITY,
        _BY_CAPABILITY,
        base="tensorrt",
        target="24.10",
        files={**_TWO_PLANS, "1/model.plan": TensorRtPlan("10.5.0.18")},
        fault_files=_files("8.0", "8.0"),
        fixed_files=_files(*_CAPABILITIES),
    ),
    unexercised=_NO_GPU,
)
def plan_of_another_gpu(view: ConfigView) -> Iterator[Found]:
    for plan in _plans(view):
        built = str(plan.record.get("compute_capability") or "")
        if plan.capability and built and not _runs_on(built, plan.capability, plan.record):
            what = f"{plan.file} is for {plan.capability}, and was built on a GPU of {built}"
            yield view.found(what, "cc_model_filenames", plan.capability)


def _runs_on(built: str, capability: str, record: dict[str, Any]) -> bool:
    """Whether a plan built on a GPU of one compute capability loads on another: ampere_plus begins at 8.0."""
    if record.get("hardware_compatibility") == "ampere_plus":
        return capability.partition(".")[0].isdecimal() and int(capability.partition(".")[0]) >= 8
    return built == capability


@rule(
    "MW809",
    "unknown strategy of the tensorrt backend",
    Severity.ERROR,
    why="execution_context_allocation_strategy is STATIC (the default: memory for the largest profile) or "
    "ON_PROFILE_CHANGE (memory for the profile in use), as the backend's documentation says. It refuses other values.",
    fix="Write STATIC or ON_PROFILE_CHANGE, or remove the parameter.",
    example=Example(
        f'parameters {{ key: "{_ALLOCATION}" value {{ string_value: "DYNAMIC" }} }}',
        f'parameters {{ key: "{_ALLOCATION}" value {{ string_value: "ON_PROFILE_CHANGE" }} }}',
        base="tensorrt",
        target="24.10",
        files={**_PLAN, **_manifest("10.5.0.18")},
    ),
    unexercised=_NO_GPU,
)
def unknown_strategy(view: ConfigView) -> Iterator[Found]:
    if view.message.backend == "tensorrt" and _ALLOCATION in view.message.parameters:
        value = view.message.parameters[_ALLOCATION].string_value
        if value not in _STRATEGIES:
            near = did_you_mean(value, _STRATEGIES)
            yield view.found(f"{_ALLOCATION} is '{value}'", "parameters", _ALLOCATION, fix=near)


def _used(view: ConfigView, plan: _Seen) -> list[PlanProfile]:
    """The profiles that some instance uses: those that its group lists, else the first."""
    listed = [
        {int(text) for text in group.profile if text.strip().isdecimal()} or {0}
        for group in view.message.instance_group
    ]
    wanted = set().union(*listed) if listed else {0}
    return [profile for number, profile in enumerate(plan.profiles) if number in wanted]


def _takes(shapes: ShapeRange, dims: list[int], first: int) -> bool:
    low, high = shapes.min[first:], shapes.max[first:]
    return len(dims) == len(high) and all(
        size == -1 or least <= size <= most for size, least, most in zip(dims, low, high, strict=True)
    )
