"""What the stock container's onnxruntime backend checks beyond tensors: see the package's docstring for whose verdicts."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lint.cases.build import X, Y, onnx, without
from tests.lint.cases.misc import parameter
from tests.lint.cases.onnx import FP32, graph_inputs_of, tensor
from tests.lint.trees import Content, Onnx, OnnxTensor, Tree

START = "kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1]"
END = "kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1]"
CONTROL = ("c", "TYPE_INT32", ("batch", 1))
SECOND = ("d", "TYPE_INT32", ("batch", 1))
STATE = ("s", FP32, ("batch", 4))
COUNT = ("n", FP32, ("n",))
STATEFUL = Onnx(
    inputs=(("x", FP32, ("batch", 4)), STATE), outputs=(("y", FP32, ("batch", 4)), ("t", FP32, ("batch", 4)))
)


def sequence(*parts: str) -> str:
    return f"sequence_batching {{ {' '.join(parts)} }}"


def control(*kinds: str, name: str = "c") -> str:
    return f'control_input [{{ name: "{name}" control [{", ".join(f"{{ {kind} }}" for kind in kinds)}] }}]'


def state(names: str = 'input_name: "s" output_name: "t"', dims: str = "4", data_type: str = FP32) -> str:
    return f"state [{{ {names} data_type: {data_type} dims: [{dims}] }}]"


def ragged(shape: tuple[object, ...], *, batch: int = 4, more: str = "", outputs: str = Y) -> Tree:
    """x of the shape `shape`, ragged; y = [batch, 4]."""
    model = Onnx(inputs=(("x", FP32, shape),))
    inputs = tensor("input", "-1", more=f"allow_ragged_batch: true {more}")
    return onnx(model, batch=batch, inputs=inputs, outputs=outputs)


def batch_input(targets: str, *tensors: OnnxTensor, kind: str = "BATCH_ELEMENT_COUNT", more: str = "") -> Tree:
    """A ragged x, and inputs that the backend makes of it."""
    entry = f'batch_input [{{ kind: {kind} {targets} data_type: TYPE_FP32 source_input: "x" }}] {more}'
    model = Onnx(inputs=(("x", FP32, ("elements",)), *tensors))
    return onnx(model, entry, inputs=tensor("input", "-1", more="allow_ragged_batch: true"))


def batch_output(dims: str, shape: tuple[object, ...], *, data_type: str = FP32) -> Tree:
    entry = 'batch_output [{ target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" }]'
    model = Onnx(inputs=(("x", FP32, ("elements",)),), outputs=(("y", FP32, shape),))
    inputs = tensor("input", "-1", more="allow_ragged_batch: true")
    return onnx(model, entry, inputs=inputs, outputs=tensor("output", dims, data_type=data_type))


def given(name: str, data_type: str = FP32, dims: str = "4") -> str:
    return f'inputs {{ key: "{name}" value {{ data_type: {data_type} dims: [{dims}] zero_data: true }} }}'


def warmup(*inputs: str, batch_size: int = 1) -> str:
    return f'model_warmup [{{ name: "s" batch_size: {batch_size} {" ".join(inputs)} }}]'


def named(name: str, content: Content | None = None) -> Tree:
    tree = without(onnx(None, f'default_model_filename: "{name}"'), "m/1/model.onnx")
    return {**tree, f"m/1/{name}": content or Onnx()}


@cache
def ort_format() -> bytes:
    """The plain model in onnxruntime's own format."""
    import onnxruntime

    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = f"{folder}/model.ort"
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(Onnx().data(), options, providers=["CPUExecutionProvider"])
        return Path(folder, "model.ort").read_bytes()


CONTROLLED = graph_inputs_of(CONTROL)
WITH_CONTROL = sequence(control(START))
CC = 'cc_model_filenames { key: "7.5" value: "model.75.onnx" }'

TREES: dict[str, Tree] = {
    "ragged input": ragged(("elements",)),
    "ragged input with a batch dimension": ragged(("batch", "n")),
    "ragged input of a fixed size": ragged((8,)),
    "ragged input of a scalar": ragged(()),
    "ragged input, optional": ragged(("elements",), more="optional: true"),
    "ragged input of a fixed batch": ragged((1, 4)),
    "batch input": batch_input('target_name: "n"', COUNT),
    "batch input of two dims": batch_input('target_name: "n"', ("n", FP32, ("n", 1))),
    "batch input of another type": batch_input('target_name: "n"', ("n", "TYPE_INT64", ("n",))),
    "batch input that the file lacks": batch_input('target_name: "n"'),
    "batch input of another name": batch_input('target_name: "m"', COUNT),
    "batch input of two targets": batch_input('target_name: ["n", "k"]', COUNT, ("k", FP32, ("n",))),
    "batch input of two targets, one of them the file's": batch_input('target_name: ["n", "k"]', COUNT),
    "batch output of other dims": batch_output("-1", ("n", "k", 3)),
    "batch output of a fixed batch": batch_output("-1", (1, 4)),
    "batch output of another type": batch_output("-1", ("n",), data_type="TYPE_INT32"),
    "state": onnx(STATEFUL, sequence(state())),
    "state without batching": onnx(
        Onnx(inputs=(("x", FP32, (4,)), ("s", FP32, (4,))), outputs=(("y", FP32, (4,)), ("t", FP32, (4,)))),
        sequence(state()),
        batch=0,
    ),
    "state that the file lacks": onnx(None, sequence(state('input_name: "s" output_name: "y"'))),
    "state of another input name": onnx(STATEFUL, sequence(state('input_name: "r" output_name: "t"'))),
    "state of another output name": onnx(STATEFUL, sequence(state('input_name: "s" output_name: "r"'))),
    "state of other dims and type": onnx(STATEFUL, sequence(state(dims="5", data_type="TYPE_INT32"))),
    "state and a control": onnx(
        Onnx(inputs=(*STATEFUL.inputs, CONTROL), outputs=STATEFUL.outputs), sequence(state(), control(START))
    ),
    "state and an input": onnx(STATEFUL, sequence(state()), inputs=f"{X} {tensor('input', '4', name='s')}"),
    "two controls of one tensor": onnx(CONTROLLED, sequence(control(START, END))),
    "two controls of two tensors": onnx(graph_inputs_of(CONTROL, SECOND), sequence(control(START), control(END, name="d"))),
    "two controls of one tensor of a file with two": onnx(graph_inputs_of(CONTROL, SECOND), sequence(control(START, END))),
    "control input without control, absent in the file": onnx(None, sequence('control_input [{ name: "c" }]')),
    "control input without control, in the file": onnx(CONTROLLED, sequence('control_input [{ name: "c" }]')),
    "control input without control, an input": onnx(None, sequence('control_input [{ name: "x" }]')),
    "control of an unknown kind's number": onnx(CONTROLLED, sequence(control("kind: 7 int32_false_true: [0, 1]"))),
    "control of an unknown kind's number, absent in the file": onnx(None, sequence(control("kind: 7"))),
    "control of an unknown kind's number beside another": onnx(CONTROLLED, sequence(control(START, "kind: 7"))),
    "threads 1.5": onnx(None, parameter("intra_op_thread_count", "1.5")),
    "threads 1x": onnx(None, parameter("intra_op_thread_count", "1x")),
    "threads 1e3": onnx(None, parameter("intra_op_thread_count", "1e3")),
    "threads with a blank in front": onnx(None, parameter("intra_op_thread_count", " 1")),
    "threads with a blank behind": onnx(None, parameter("intra_op_thread_count", "1 ")),
    "threads with a sign": onnx(None, parameter("intra_op_thread_count", "+1")),
    "threads in hexadecimal": onnx(None, parameter("intra_op_thread_count", "0x2")),
    "threads empty": onnx(None, parameter("intra_op_thread_count", "")),
    "threads blank": onnx(None, parameter("inter_op_thread_count", " ")),
    "threads of other digits": onnx(None, parameter("inter_op_thread_count", "٢")),
    "threads at the limit of 32 bits": onnx(None, parameter("inter_op_thread_count", "-2147483648")),
    "threads beyond 32 bits": onnx(None, parameter("intra_op_thread_count", "2147483648")),
    "threads far beyond": onnx(None, parameter("inter_op_thread_count", "9" * 5000)),
    "threads below 32 bits": onnx(None, parameter("inter_op_thread_count", "-2147483649")),
    "execution_mode 1.5": onnx(None, parameter("execution_mode", "1.5")),
    "execution_mode beyond 32 bits": onnx(None, parameter("execution_mode", "4294967296")),
    "mem arena on": onnx(None, parameter("enable_mem_arena", "on")),
    "mem arena OFF": onnx(None, parameter("enable_mem_arena", "OFF")),
    "mem arena yes": onnx(None, parameter("enable_mem_arena", "yes")),
    "mem pattern off": onnx(None, parameter("enable_mem_pattern", "off")),
    "mem pattern with a blank": onnx(None, parameter("enable_mem_pattern", " true")),
    "shared session empty": onnx(None, parameter("share_session_between_instances", "")),
    "warm-up": onnx(None, warmup(given("x"))),
    "warm-up of an unknown input": onnx(None, warmup(given("x"), given("w"))),
    "warm-up of an unknown input of strings": onnx(None, warmup(given("x"), given("w", "TYPE_STRING", "1"))),
    "warm-up of an initializer": onnx(
        Onnx(inputs=(("x", FP32, (4,)), ("w", FP32, (1,))), outputs=(("y", FP32, (4,)),), initializers=(("w", FP32, (1,)),)),
        warmup(given("x"), given("w", dims="1")),
        batch=0, inputs=tensor("input", "4"), outputs=tensor("output", "4"),
    ),
    "warm-up of batch size zero of an unknown input": onnx(None, warmup(given("x"), given("w"), batch_size=0)),
    "warm-up without a control": onnx(CONTROLLED, f"{WITH_CONTROL} {warmup(given('x'))}"),
    "warm-up with a control": onnx(CONTROLLED, f"{WITH_CONTROL} {warmup(given('x'), given('c', 'TYPE_INT32', '1'))}"),
    "warm-up with a control, two requests": onnx(
        CONTROLLED, f"{WITH_CONTROL} {warmup(given('x'), given('c', 'TYPE_INT32', '1'), batch_size=2)}"
    ),
    "warm-up with a control of another type": onnx(CONTROLLED, f"{WITH_CONTROL} {warmup(given('x'), given('c', FP32, '1'))}"),
    "warm-up with a control of other dims": onnx(CONTROLLED, f"{WITH_CONTROL} {warmup(given('x'), given('c', 'TYPE_INT32', '2'))}"),
    "warm-up with a control and its batch": onnx(CONTROLLED, f"{WITH_CONTROL} {warmup(given('x'), given('c', 'TYPE_INT32', '1, 1'))}"),
    "warm-up without a state": onnx(STATEFUL, f"{sequence(state())} {warmup(given('x'))}"),
    "warm-up with a state": onnx(STATEFUL, f"{sequence(state())} {warmup(given('x'), given('s'))}"),
    "warm-up of a batch input": batch_input('target_name: "n"', COUNT, more=warmup(given("x"))),
    "cc_model_filenames alone": {**without(onnx(None, CC), "m/1/model.onnx"), "m/1/model.75.onnx": Onnx()},
    "cc_model_filenames beside the default": {**onnx(None, CC), "m/1/model.75.onnx": Onnx()},
    "file named .plan": named("model.plan"),
    "file named .pt": named("model.pt"),
    "file named .ort": named("model.ort"),
    "file named .ORT": named("model.ORT"),
    "file named .ort, of that format": named("model.ort", ort_format),
    "file named .onnx, of the format .ort": named("network.onnx", ort_format),
    "file without suffix": named("model"),
    "file named .pt that is not ONNX": named("model.pt", b"PK\x03\x04" + bytes(100)),
    "BF16": onnx(
        Onnx(inputs=(("x", "TYPE_BF16", ("batch", 4)),), outputs=(("y", "TYPE_BF16", ("batch", 4)),)),
        inputs=tensor("input", "4", data_type="TYPE_BF16"), outputs=tensor("output", "4", data_type="TYPE_BF16"),
    ),
}  # fmt: skip
