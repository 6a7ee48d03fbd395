"""Random repositories near the bounds of the server's rules: hypothesis strategies of trees.

Each section of a config is there or not, and each value is drawn from what the server takes or, now and then, from just
beyond. About half of the repositories load: few faults in what every model has, more in the sections that few have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from modelwright.triton.model_config_pb2 import schema
from tests.lint.cases import Case
from tests.lint.completing import forgetful, is_whole
from tests.lint.draft import FAULT_PERCENT, Draft
from tests.lint.generator_native import add_native, add_parameter, file_name
from tests.lint.streams import decoupled_ensembles
from tests.lint.trees import DECOUPLED_PY, MODEL_PY, Content, Dir, Onnx, Tree

SECTION_FAULT_PERCENT = 5
TYPES = ["TYPE_FP32", "TYPE_INT32", "TYPE_INT64", "TYPE_BOOL", "TYPE_STRING", "TYPE_FP16", "TYPE_UINT8"]
SIZES = {"TYPE_FP32": 4, "TYPE_INT32": 4, "TYPE_INT64": 8, "TYPE_BOOL": 1, "TYPE_FP16": 2, "TYPE_UINT8": 1}


def generated(count: int, first_seed: int = 0) -> list[Case]:
    """That many different repositories, the same ones for the same seed."""
    found: dict[str, Tree] = {}
    for attempt in range(20):
        for tree in _drawn(count, first_seed + 1_000_003 * attempt):
            found.setdefault(repr(tree), tree)
            if len(found) == count:
                return _cases(found, first_seed)
    return _cases(found, first_seed)


def _cases(found: dict[str, Tree], first_seed: int) -> list[Case]:
    return [Case(f"generated/{first_seed}-{index}", tree) for index, tree in enumerate(found.values())]


def _drawn(count: int, first_seed: int) -> list[Tree]:
    drawn: list[Tree] = []

    @seed(first_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(repositories())
    def collect(tree: Tree) -> None:
        drawn.append(tree)

    collect()
    return drawn


# --- the kinds of repository ------------------------------------------------------------------------------------------


@st.composite
def repositories(draw: DrawFn) -> Tree:
    kinds = {"python": python_models, "onnx": onnx_models, "ensemble": ensembles, "streams": decoupled_ensembles}
    kind = draw(st.sampled_from(["python"] * 6 + ["onnx"] * 3 + ["ensemble"] * 2 + ["streams"] * 2))
    return draw(kinds[kind]())


@st.composite
def python_models(draw: DrawFn) -> Tree:
    """One Python model with any sections. The config of some lacks what auto_complete_config fills in, or does not."""
    draft = Draft(draw, "m")
    _heading(draft, "python")
    _tensors(draft)
    forgets = draft.chance(35) and is_whole(draft)
    draft.fault_percent = 0 if forgets else SECTION_FAULT_PERCENT
    for percent, section in SECTIONS:
        if draft.chance(percent):
            section(draft)
    draft.fault_percent = 0 if forgets else FAULT_PERCENT
    _versions(draft)
    if forgets:
        forgetful(draft)
    return draft.tree()


@st.composite
def onnx_models(draw: DrawFn) -> Tree:
    """One onnxruntime model and a config that fits it, or nearly."""
    draft = Draft(draw, "m")
    _heading(draft, "onnxruntime")
    tensors = _onnx_tensors(draft)
    draft.fault_percent = SECTION_FAULT_PERCENT
    add_native(draft, tensors)
    draft.fault_percent = FAULT_PERCENT
    inputs, outputs = tensors["input"], tensors["output"]
    model = Onnx(tuple(inputs), tuple(outputs), ir=draft.near([8, 10], [13, 14]), opset=draft.near([13, 17], [26, 27]))
    if draft.chance(15):
        _forget(draft)
    if draft.chance(20) and not draft.config.HasField("sequence_batching"):
        draft.config.dynamic_batching.preferred_batch_size.extend(_preferred(draft))
    if draft.chance(20):
        add_parameter(draft)
    draft.config.instance_group.add(count=1)
    cut = draft.near([None], [0, -7])
    draft.files[f"1/{file_name(draft)}"] = model if cut is None else model.data()[:cut]
    return draft.tree()


@st.composite
def ensembles(draw: DrawFn) -> Tree:
    """One to three composing Python models in a chain, or sharing an input, after which the ensemble comes."""
    count = draw(st.integers(1, 3))
    whole = Draft(draw, "e")
    whole.config.max_batch_size = whole.one(0, 2, 4)
    shape = whole.one([4], [2, -1], [-1])
    forgets = whole.chance(30)
    whole.fault_percent = 0 if forgets else FAULT_PERCENT
    composing = [_composing_model(draw, name, whole, shape) for name in "abc"[:count]]
    if forgets:
        forgetful(composing[0])
    _ensemble(whole, [model.name for model in composing], shape)
    tree: dict[str, Content] = {}
    for draft in [*composing, whole]:
        tree.update(draft.tree())
    return tree


# --- sections ---------------------------------------------------------------------------------------------------------


def _heading(draft: Draft, backend: str) -> None:
    config = draft.config
    config.name = draft.near(["", "", draft.name], ["other"])
    config.backend = draft.near([backend], ["nonsense"])
    config.max_batch_size = draft.near([0, 1, 4, 8], [-1])
    if draft.chance(5):
        config.platform = "onnxruntime_onnx" if backend == "onnxruntime" else "anything"
    if draft.chance(1):
        config.runtime = "libtriton_nonsense.so"
    elif backend == "python" and draft.chance(5):
        config.runtime = draft.near(
            ["libtriton_python.so", "./libtriton_python.so", "../python/libtriton_python.so", "/libtriton_python.so"],
            ["../libtriton_python.so", "../none/libtriton_python.so", "1", "model.py", "../1/model.py"],
        )


def _tensors(draft: Draft) -> None:
    for kind, most in (("input", 3), ("output", 2)):
        names = ["x", "w", "v"] if kind == "input" else ["y", "z"]
        for name in names[: draft.one(*range(1, most + 1))]:
            _tensor(draft, getattr(draft.config, kind).add(), draft.near([name], [""]))
            _only_inputs(draft, draft.config.input[-1]) if kind == "input" else _labels(draft)


def _tensor(draft: Draft, tensor: Any, name: str) -> None:
    tensor.name = name
    tensor.data_type = draft.near(
        [schema().DataType.Value(kind) for kind in TYPES], [0, schema().DataType.Value("TYPE_INVALID")]
    )
    dims = draft.draw(st.lists(st.sampled_from([1, 2, 4, 4, -1]), min_size=1, max_size=3))
    tensor.dims.extend(draft.near([dims], [[], [*dims, 0], [-2, *dims]]))
    if draft.chance(20):
        _reshape(draft, tensor)
    if draft.chance(25) and draft.fault():
        tensor.is_shape_tensor = True
    if draft.chance(25) and draft.fault():
        tensor.is_non_linear_format_io = True


def _reshape(draft: Draft, tensor: Any) -> None:
    """Fits by construction: ones added, neighbours joined, or nothing left of ones. Else anything."""
    dims = list(tensor.dims)
    good: list[list[int]] = [[1, *dims], [*dims, 1]]
    good += [[*dims[:at], dims[at] * dims[at + 1], *dims[at + 2 :]] for at in range(len(dims) - 1) if min(dims) > 0]
    good += [[]] if draft.batched and dims and set(dims) == {1} else []
    bad = [[], [3], [-1, -1], [0], [*dims, 2], [-2], [4], [-1, *dims]]
    tensor.reshape.shape.extend(draft.near(good, bad))
    tensor.reshape.SetInParent()


def _only_inputs(draft: Draft, tensor: Any) -> None:
    tensor.optional = draft.chance(10)
    tensor.allow_ragged_batch = draft.chance(10)
    if draft.chance(10):
        tensor.format = draft.one(1, 2)
        if not draft.chance(15):
            del tensor.dims[:]
            tensor.dims.extend([3, 4, 4])
            tensor.ClearField("reshape")


def _labels(draft: Draft) -> None:
    if draft.chance(15):
        name = draft.one("labels.txt", "data/labels.txt")
        draft.config.output[-1].label_filename = name
        if not draft.chance(8):
            draft.files[name] = draft.one("", "a\nb\n")


def _preferred(draft: Draft) -> list[int]:
    most = max(1, draft.config.max_batch_size)
    if not draft.batched:
        return draft.near([[]], [[1]])
    return draft.near([[], [1], [most], [1, most], [most, 1]], [[0], [most + 1], [-1], [1, most + 1]])


def _dynamic(draft: Draft) -> None:
    batching = draft.config.dynamic_batching
    batching.SetInParent()
    batching.preferred_batch_size.extend(_preferred(draft))
    batching.max_queue_delay_microseconds = draft.one(0, 1, 100)
    levels = draft.one(0, 0, 1, 2, 3)
    batching.priority_levels = levels
    batching.default_priority_level = draft.near([*range(1, levels + 1)] or [0, 1], [0, levels + 1] if levels else [])
    if draft.chance(30):
        _queue_policy(draft, batching.default_queue_policy)
    if draft.chance(30):
        level = draft.near([*range(1, levels + 1)] or [0, 1, 5], [0, levels + 1] if levels else [])
        _queue_policy(draft, batching.priority_queue_policy[level])
    if draft.chance(10):
        batching.preserve_ordering = True


def _queue_policy(draft: Draft, policy: Any) -> None:
    policy.timeout_action = draft.one(0, 1)
    policy.default_timeout_microseconds = draft.one(0, 0, 100)
    policy.allow_timeout_override = draft.chance(30)
    policy.max_queue_size = draft.one(0, 1, 8)


def _sequence(draft: Draft) -> None:
    batching = draft.config.sequence_batching
    batching.SetInParent()
    batching.max_sequence_idle_microseconds = draft.one(0, 1000)
    batching.iterative_sequence = draft.chance(5)
    strategy = draft.one("", "direct", "oldest")
    if strategy == "direct":
        batching.direct.minimum_slot_utilization = draft.near([0, 0.5, 1], [-0.1, 1.1])
    elif strategy == "oldest":
        batching.oldest.max_candidate_sequences = draft.one(0, 1, 4, -1)
        batching.oldest.preferred_batch_size.extend(_preferred(draft))
    for index in range(draft.one(0, 1, 2, 3)):
        _control(draft, batching.control_input.add(), index)
    for index in range(draft.one(0, 0, 1, 2)):
        _state(draft, batching.state.add(), index)


def _control(draft: Draft, control_input: Any, index: int) -> None:
    control_input.name = draft.near([f"c{index}"], ["", "c0", "x"])
    kind = draft.near([[0, 3, 1, 2][index]], [0, 1, 2, 3])
    control = control_input.control.add(kind=kind)
    correlation = schema().ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID
    if kind == correlation:
        names = ["TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING"]
        control.data_type = schema().DataType.Value(draft.near(names, ["TYPE_INT16", "TYPE_INVALID"]))
        control.int32_false_true.extend(draft.near([[]], [[0, 1]]))
        return
    values = draft.one("int32_false_true", "fp32_false_true", "bool_false_true")
    getattr(control, values).extend(draft.near([[0, 1]], [[], [0], [0, 1, 1]]))
    if draft.fault():
        control.int32_false_true.extend([0, 1])


def _state(draft: Draft, state: Any, index: int) -> None:
    state.input_name, state.output_name = f"s{index}", f"t{index}"
    state.data_type = schema().DataType.Value(draft.one("TYPE_FP32", "TYPE_INT64"))
    state.dims.extend(draft.one([4], [2, 2], [-1]))
    if draft.chance(50):
        for _ in range(draft.near([1], [2])):
            _initial_state(draft, state, state.initial_state.add())


def _initial_state(draft: Draft, state: Any, initial: Any) -> None:
    initial.name = draft.near(["start"], [""])
    initial.data_type = draft.near([state.data_type], [schema().DataType.Value("TYPE_INT32")])
    fixed = [2 if dim < 0 else dim for dim in state.dims]
    initial.dims.extend(draft.near([fixed], [list(state.dims), [*fixed, 1], fixed[1:], [3] * len(fixed)]))
    if draft.fault():
        return
    if draft.chance(50):
        initial.zero_data = True
        return
    initial.data_file = f"{state.input_name}-{len(state.initial_state)}"
    size = SIZES[schema().DataType.Name(initial.data_type)] * prod(initial.dims)
    _data_file(draft, "initial_state", initial.data_file, size)


def _data_file(draft: Draft, folder: str, name: str, size: int) -> None:
    """A file that is large enough; or too small, or not there."""
    length = draft.near([size, size + 1], [size - 1, -1])
    if length >= 0:
        draft.files[f"{folder}/{name}"] = bytes(length)


def _batch_input(draft: Draft) -> None:
    made = draft.config.batch_input.add()
    made.kind = draft.one(0, 1, 2, 3, 4, 5)
    made.target_name.extend(draft.one(["n"], ["n", "o"], []))
    made.data_type = schema().DataType.Value(draft.near(["TYPE_INT32", "TYPE_FP32"], ["TYPE_INT64"]))
    known = [tensor.name for tensor in draft.config.input]
    made.source_input.extend(draft.near([[name] for name in known], [[], known * 2, ["unknown"], ["y"]]))


def _batch_output(draft: Draft) -> None:
    made = draft.config.batch_output.add()
    outputs = [tensor.name for tensor in draft.config.output]
    made.target_name.extend(draft.near([[name] for name in outputs], [["unknown"], [outputs[0]] * 2]))
    inputs = [tensor.name for tensor in draft.config.input]
    made.source_input.extend(draft.near([[name] for name in inputs], [[], ["unknown"], inputs * 2]))


def _instances(draft: Draft) -> None:
    kinds = schema().ModelInstanceGroup
    for _ in range(draft.one(1, 1, 2)):
        group = draft.config.instance_group.add()
        group.kind = draft.one(kinds.KIND_AUTO, kinds.KIND_CPU, kinds.KIND_MODEL)
        group.count = draft.one(1, 1, 0, -1)
        group.name = draft.one("", "", "group")
        group.passive = draft.chance(5)
        group.host_policy = draft.one("", "", "cpu_0", "any")
        group.gpus.extend(draft.near([[]], [[0] if group.kind != kinds.KIND_AUTO else [-1]]))
        group.profile.extend(draft.near([[]], [["0"]]))
        if draft.chance(30):
            group.rate_limiter.priority = draft.one(0, 1)
            group.rate_limiter.resources.add(name=draft.one("R", ""), count=draft.one(0, 1))
            setattr(group.rate_limiter.resources[-1], "global", draft.chance(50))
        if draft.chance(5):
            group.secondary_devices.add(device_id=0)


def _warmup(draft: Draft) -> None:
    sample = draft.config.model_warmup.add()
    sample.name = draft.one("s", "")
    largest = max(1, draft.config.max_batch_size)
    sample.batch_size = draft.near([0, 1, largest], [largest + 1])
    sample.count = draft.one(0, 1, 2)
    for tensor in draft.config.input:
        if tensor.name and not draft.fault():
            _warmup_input(draft, sample, tensor)
    if draft.fault():
        sample.inputs["unknown"].zero_data = True


def _warmup_input(draft: Draft, sample: Any, tensor: Any) -> None:
    made = sample.inputs[tensor.name]
    made.data_type = draft.near([tensor.data_type], [schema().DataType.Value("TYPE_UINT16"), 0])
    fixed = [3 if dim == -1 else dim for dim in tensor.dims]
    made.dims.extend(draft.near([fixed], [[*fixed, 1], [-1] * len(fixed), [0, *fixed[1:]], [], [7, *fixed[1:]]]))
    source = draft.near(["zero_data", "random_data", "input_data_file"], [""])
    name = schema().DataType.Name(tensor.data_type)
    if source == "input_data_file" and name in SIZES:
        batch = sample.batch_size if draft.batched else 1
        made.input_data_file = tensor.name
        _data_file(draft, "warmup", tensor.name, SIZES[name] * prod(fixed) * batch)
    elif source:
        made.zero_data = True
        if source == "random_data":
            made.random_data = True


def _optimization(draft: Draft) -> None:
    made = draft.config.optimization
    made.graph.level = draft.one(-1, 0, 1, 5)
    made.priority = draft.one(0, 1, 2)
    made.eager_batching = draft.chance(30)
    made.input_pinned_memory.enable = draft.chance(30)
    if draft.chance(30):
        made.execution_accelerators.cpu_execution_accelerator.add(name=draft.one("openvino", "other"))


def _policies(draft: Draft) -> None:
    if draft.chance(50):
        draft.config.response_cache.enable = draft.one(True, False)
    if draft.chance(40):
        draft.config.model_transaction_policy.decoupled = draft.one(True, False)


def _various(draft: Draft) -> None:
    config = draft.config
    if draft.chance(50):
        config.metric_tags["team"] = "a"
    if draft.chance(50):
        config.parameters["any"].string_value = draft.one("", "value")
    if draft.chance(20):
        config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = draft.near(["yes", "no"], ["maybe"])
    if draft.fault():
        config.parameters["EXECUTION_ENV_PATH"].string_value = "$$TRITON_MODEL_DIRECTORY/environment.tar.gz"
    if draft.fault():
        config.model_repository_agents.agents.add(name="nonsense")
    if draft.fault():
        config.model_metrics.metric_control.add().metric_identifier.family = "of_a_later_release"
    if draft.chance(10):
        config.cc_model_filenames["8.0"] = "none.py"


SECTIONS: Sequence[tuple[int, Callable[[Draft], None]]] = (
    (40, _dynamic),
    (30, _sequence),  # replaces dynamic batching where both are drawn
    (30, _instances),
    (12, _batch_input),
    (10, _batch_output),
    (25, _warmup),
    (20, _optimization),
    (20, _policies),
    (30, _various),
)


def _versions(draft: Draft) -> None:
    """Version directories and what of them is served; model.py in each."""
    code = DECOUPLED_PY if draft.config.model_transaction_policy.decoupled else MODEL_PY
    names = draft.near(
        [["1"], ["1"], ["3"], ["1", "2"], ["1", "02"], ["0"], ["1", "notes"]], [["01"], ["x"], [], ["1", "5.tmp"]]
    )
    for name in names:
        draft.files[f"{name}/model.py"] = code
    if draft.chance(50) and draft.fault():
        draft.files["9"] = Dir()
    policy = draft.config.version_policy
    kind = draft.one("", "", "latest", "all", "specific")
    if kind == "latest":
        policy.latest.num_versions = draft.near([1, 2], [0])
    elif kind == "all":
        policy.all.SetInParent()
    elif kind == "specific":
        known = [int(name) for name in names if name.isdecimal() and (name == "0" or name[0] != "0")]
        policy.specific.versions.extend(draft.near([known, [*known, 77], known[:1]], [[], [77]]))


# --- onnxruntime ------------------------------------------------------------------------------------------------------


def _onnx_tensors(draft: Draft) -> dict[str, list[tuple[str, str, tuple[Any, ...]]]]:
    """The graph's tensors, with the config's entries made from them."""
    made: dict[str, list[tuple[str, str, tuple[Any, ...]]]] = {"input": [], "output": []}
    for kind, names in (("input", ["x", "w"]), ("output", ["y", "z"])):
        for name in names[: draft.one(1, 1, 2)]:
            data_type = draft.one("TYPE_FP32", "TYPE_INT32", "TYPE_INT64", "TYPE_FP16")
            dims = draft.draw(st.lists(st.sampled_from([2, 4, "n"]), min_size=1, max_size=2))
            batch = draft.near(["batch"], [1]) if draft.batched else draft.one("batch", 1, 3)
            made[kind].append((name, data_type, (batch, *dims)))
            _onnx_entry(draft, kind, made[kind][-1])
    return made


def _onnx_entry(draft: Draft, kind: str, tensor: tuple[str, str, tuple[Any, ...]]) -> None:
    name, data_type, shape = tensor
    full = [-1 if isinstance(dim, str) else dim for dim in shape]
    dims = full[1:] if draft.batched else full
    narrowed = [5 if dim == -1 else dim for dim in dims]
    good = [dims, narrowed] if kind == "input" else [dims]
    bad = [[-1 for _ in dims], [*dims, 1], dims[1:] or [9], narrowed, [9, *dims[1:]]]
    entry = getattr(draft.config, kind).add(name=draft.near([name], ["q"]))
    entry.data_type = schema().DataType.Value(draft.near([data_type], ["TYPE_UINT8"]))
    chosen = draft.near(good, bad)
    if draft.chance(10) and min(chosen, default=1) > 0:
        entry.dims.append(prod(chosen))
        entry.reshape.shape.extend(chosen)
    else:
        entry.dims.extend(chosen)


def _forget(draft: Draft) -> None:
    """Leave out what auto-completion fills in."""
    for section in draft.one(["input"], ["output"], ["input", "output"], ["input", "output", "max_batch_size"]):
        draft.config.ClearField(section)


# --- ensembles --------------------------------------------------------------------------------------------------------


def _composing_model(draw: DrawFn, name: str, whole: Draft, shape: Sequence[int]) -> Draft:
    """x → y of the ensemble's shape and type, or something else."""
    draft = Draft(draw, name, fault_percent=whole.fault_percent)
    _heading(draft, "python")
    batch = whole.config.max_batch_size
    draft.config.max_batch_size = draft.near([batch, batch + 4], [1, 0])
    for kind, tensor in (("input", "x"), ("output", "y")):
        dims = draft.near([list(shape), [-1] * len(shape)], [[*shape, 1], [9, *shape[1:]]])
        entry = getattr(draft.config, kind).add(name=draft.near([tensor], ["q"]), dims=dims)
        entry.data_type = schema().DataType.Value(draft.near(["TYPE_FP32"], ["TYPE_INT32"]))
    if draft.chance(10):
        draft.config.input.add(name="w", data_type=entry.data_type, dims=[1], optional=not draft.chance(10))
    if draft.chance(5):
        draft.config.model_transaction_policy.decoupled = True
    draft.files["1/model.py"] = draft.near([MODEL_PY], ["nonsense("])
    return draft


def _ensemble(draft: Draft, composing: Sequence[str], shape: Sequence[int]) -> None:
    config = draft.config
    config.platform = draft.near(["ensemble"], ["ensembles", ""])
    config.backend = draft.near([""], ["python"])
    for kind, name in (("input", "x"), ("output", "y")):
        entry = getattr(config, kind).add(name=draft.near([name], ["q"]), dims=shape)
        entry.data_type = schema().DataType.Value(draft.near(["TYPE_FP32"], ["TYPE_INT32"]))
    tensors = ["x", *(f"t{index}" for index in range(1, len(composing))), "y"]
    for model_name, (source, target) in zip(composing, pairwise(tensors), strict=True):
        step = config.ensemble_scheduling.step.add()
        step.model_name = draft.near([model_name], ["gone", "", composing[0]])
        step.model_version = draft.near([-1, 1], [0, 9])
        step.input_map[draft.near(["x"], ["p"])] = draft.near([source, source, "x"], ["loose", ""])
        step.output_map[draft.near(["y"], ["p"])] = draft.near([target], ["y", "loose"])
    if draft.fault():
        config.instance_group.add(count=1)
    if draft.fault():
        config.optimization.SetInParent()
    if draft.chance(8):
        config.response_cache.enable = True
    version: Content = Dir()
    if draft.fault():
        version = "a file"
    draft.files["1"] = version
