"""What the generator adds to onnxruntime models: sequences, ragged batches, warm-ups, parameters, names of files.

Each section changes the config and the graph together, so that they fit; or now and then one of them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelwright.triton.model_config_pb2 import schema

if TYPE_CHECKING:
    from tests.lint.draft import Draft

    Tensors = dict[str, list[tuple[str, str, tuple[Any, ...]]]]

FP32 = "TYPE_FP32"
_THREADS = ["1", "0", "2x", "1.5", "1e0", " 1", "+1", "-3"], ["abc", "", " ", "x1", "4294967296", "-99999999999"]
_PARAMETERS = {
    "intra_op_thread_count": _THREADS,
    "inter_op_thread_count": _THREADS,
    "execution_mode": (["0", "1", "1.5", "0x"], ["2", "abc", "4294967297"]),
    "enable_mem_arena": (["true", "0", "on", "OFF"], ["yes", "", "tru"]),
    "enable_mem_pattern": (["false", "1", "Off"], ["no", " on"]),
    "share_session_between_instances": (["true", "maybe", ""], []),
}


def add_native(draft: Draft, tensors: Tensors) -> None:
    """Any of the sections, in the config and in the graph's tensors."""
    if draft.chance(25):
        _sequence(draft, tensors)
    if draft.batched and draft.chance(15):
        _ragged(draft, tensors)
    if draft.chance(8):
        output = draft.config.output[0].name if draft.config.output else "y"
        draft.config.batch_output.add(target_name=[output], source_input=["x"])
    if draft.chance(20):
        _warmup(draft, tensors)


def add_parameter(draft: Draft) -> None:
    key = draft.one(*_PARAMETERS)
    good, bad = _PARAMETERS[key]
    draft.config.parameters[key].string_value = draft.one(*good, *bad)


def file_name(draft: Draft) -> str:
    """Where the ONNX file lies in the version; the config says so."""
    name = draft.near(["model.onnx"] * 6 + ["model.plan", "net"], ["model.ort", "model.ORT"])
    if name != "model.onnx":
        draft.config.default_model_filename = name
    return name


def _type(name: str) -> int:
    return int(schema().DataType.Value(name))


def _batch(draft: Draft) -> tuple[str, ...]:
    return ("batch",) if draft.batched else ()


def _sequence(draft: Draft, tensors: Tensors) -> None:
    batching = draft.config.sequence_batching
    batching.SetInParent()
    for index in range(draft.one(0, 1, 2)):
        entry = batching.control_input.add(name=f"c{index}")
        for kind in draft.near([[index]], [[], [index, 2], [7]]):
            entry.control.add(kind=kind, int32_false_true=[0, 1])
        shape = (*_batch(draft), *draft.near([(1,)], [(2,), (1, 1)]))
        tensors["input"] += draft.near([[(f"c{index}", "TYPE_INT32", shape)]], [[], [(f"c{index}", FP32, shape)]])
    if draft.chance(30):
        batching.state.add(input_name="s", output_name="t", data_type=_type(FP32), dims=[4])
        state = (FP32, (*_batch(draft), 4))
        tensors["input"] += draft.near([[("s", *state)]], [[], [("r", *state)]])
        tensors["output"] += draft.near([[("t", *state)]], [[]])


def _ragged(draft: Draft, tensors: Tensors) -> None:
    draft.config.input.add(name="g", data_type=_type(FP32), dims=[-1], allow_ragged_batch=True)
    shape = draft.near([("elements",)], [("batch", "n"), ("batch",), (4,), ()])
    tensors["input"].append(("g", FP32, shape))
    if draft.chance(50):
        targets = draft.near([["k"]], [["k", "l"], ["m"]])
        draft.config.batch_input.add(target_name=targets, data_type=_type(FP32), source_input=["g"])
        tensors["input"] += draft.near([[("k", FP32, ("k_size",))]], [[]])


def _warmup(draft: Draft, tensors: Tensors) -> None:
    """Of a model that can run: each output is an input, passed on."""
    kinds = {(data_type, shape) for _, data_type, shape in tensors["input"]}
    if any((data_type, shape) not in kinds for _, data_type, shape in tensors["output"]):
        return
    sample = draft.config.model_warmup.add(name="s", batch_size=draft.one(0, 1, 1, 1))
    configured = {tensor.name: list(tensor.dims) for tensor in draft.config.input}
    computed = {name for entry in draft.config.batch_input for name in entry.target_name}
    for name, data_type, shape in tensors["input"]:
        if name not in computed and not draft.fault():
            dims = configured.get(name, list(shape[int(draft.batched) :]))
            fixed = [3 if isinstance(dim, str) or dim == -1 else dim for dim in dims]
            sample.inputs[name].CopyFrom(_zeros(data_type, fixed))
    if draft.fault():
        sample.inputs["unknown"].CopyFrom(_zeros(FP32, [1]))


def _zeros(data_type: str, dims: list[int]) -> Any:
    return schema().ModelWarmup.Input(data_type=_type(data_type), dims=dims, zero_data=True)
