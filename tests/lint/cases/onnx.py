"""An ONNX file against its configuration, and files that onnxruntime does not take."""

from collections.abc import Callable
from functools import cache
from typing import Any

from tests.lint.cases.build import ONNX, X, Y, config, onnx, without
from tests.lint.trees import Dir, Link, Onnx, OnnxTensor, Tree

FP32 = "TYPE_FP32"
ONE = "instance_group [{ count: 1 }]"


def tensor(kind: str, dims: str, *, name: str = "", data_type: str = FP32, more: str = "") -> str:
    return f'{kind} [{{ name: "{name or kind[0].translate({105: 120, 111: 121})}" data_type: {data_type} dims: [{dims}] {more} }}]'


def shaped(model: Any, dims: str, *, batch: int = 4, more: str = "") -> Tree:
    """y = x of the shape `model`, configured as `dims`."""
    both = Onnx(inputs=(("x", FP32, model),), outputs=(("y", FP32, model),))
    return onnx(both, batch=batch, inputs=tensor("input", dims, more=more), outputs=tensor("output", dims, more=more))


def sized(model: Any, inputs: str, outputs: str, *, batch: int = 0) -> Tree:
    both = Onnx(inputs=(("x", FP32, model),), outputs=(("y", FP32, model),))
    return onnx(both, batch=batch, inputs=tensor("input", inputs), outputs=tensor("output", outputs))


def typed(model: str, configured: str) -> Tree:
    shape = ("batch", 4)
    both = Onnx(inputs=(("x", model, shape),), outputs=(("y", model, shape),))
    inputs, outputs = (tensor(kind, "4", data_type=configured) for kind in ("input", "output"))
    return onnx(both, inputs=inputs, outputs=outputs)


def incomplete(model: Onnx | None = None, *, batch: int | None = None, parts: str = "", head: str = ONNX) -> Tree:
    """No input or output in the configuration but those of `parts`."""
    size = "" if batch is None else f"max_batch_size: {batch}"
    return {"m/config.pbtxt": f"{head} {ONE} {size} {parts}", "m/1/model.onnx": model or Onnx()}


def control(dims: Any = ("batch", 1), data_type: str = "TYPE_INT32", values: str = "int32_false_true: [0, 1]") -> Tree:
    model = Onnx(inputs=(("x", FP32, ("batch", 4)), ("c", data_type, dims)))
    kind = "CONTROL_SEQUENCE_CORRID" if "data_type" in values else "CONTROL_SEQUENCE_START"
    return onnx(model, f'sequence_batching {{ control_input [{{ name: "c" control [{{ kind: {kind} {values} }}] }}] }}')


def external(location: str, files: Tree | None = None) -> Tree:
    """A model of which one initializer lies in another file."""
    model = Onnx(initializers=(("w", FP32, (4,)),), external=location)
    return {**onnx(model), **(files or {})}


@cache
def edited(edit: Callable[[Any], None]) -> Callable[[], bytes]:
    """The plain model after an edit."""

    def data() -> bytes:
        from onnx import load_from_string

        model = load_from_string(Onnx().data())
        edit(model)
        changed: bytes = model.SerializeToString()
        return changed

    return data


def add_sequence_output(model: Any) -> None:
    from onnx import TensorProto, helper

    model.graph.node.append(helper.make_node("SequenceConstruct", ["x"], ["s"]))
    model.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))


def add_sequence_input(model: Any) -> None:
    from onnx import TensorProto, helper

    model.graph.input.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))


def add_map_output(model: Any) -> None:
    from onnx import TensorProto, helper

    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    model.graph.node.append(
        helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])
    )
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    sequence = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, value))
    model.graph.output.append(helper.make_value_info("z", sequence))


def add_optional_output(model: Any) -> None:
    from onnx import TensorProto, helper

    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 4])
    model.graph.node.append(helper.make_node("Optional", ["x"], ["o"]))
    model.graph.output.append(helper.make_value_info("o", helper.make_optional_type_proto(tensor)))


def drop_output_shape(model: Any) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def loosen_output(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "n"


def drop_input_shape(model: Any) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")
    drop_output_shape(model)


def unnamed_dims(model: Any) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].ClearField("value")


def negative_dims(model: Any) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = -1


def zero_dims(model: Any) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 0


def element_type(number: int) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = number

    return edit


def unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Nonsense"


def unknown_domain(model: Any) -> None:
    from onnx import helper

    model.opset_import.append(helper.make_opsetid("example.org", 1))
    model.graph.node[0].domain = "example.org"


def undeclared_domain(model: Any) -> None:
    model.graph.node[0].domain = "example.org"


def unused_domain(model: Any) -> None:
    from onnx import helper

    model.opset_import.append(helper.make_opsetid("example.org", 1))


def ml_domain(version: int) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        from onnx import helper

        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", version))

    return edit


def no_opset(model: Any) -> None:
    model.ClearField("opset_import")


def no_ir(model: Any) -> None:
    model.ClearField("ir_version")


def no_graph(model: Any) -> None:
    model.ClearField("graph")


def broken_graph(model: Any) -> None:
    model.graph.node[0].input[0] = "gone"


def output_of_nothing(model: Any) -> None:
    model.graph.output[0].name = "gone"


def duplicate_names(model: Any) -> None:
    model.graph.node.add().CopyFrom(model.graph.node[0])


def graph_inputs_of(*tensors: OnnxTensor) -> Onnx:
    return Onnx(inputs=(("x", FP32, ("batch", 4)), *tensors))


W = ("w", FP32, ("batch", 4))
OPTIONAL = Onnx(
    inputs=(("x", FP32, (4,)), ("w", FP32, (1,))), outputs=(("y", FP32, (4,)),), initializers=(("w", FP32, (1,)),)
)
PLAIN = Onnx()
LARGE = Onnx(
    inputs=(("x", FP32, ("batch", 4096)),),
    outputs=(("y", FP32, ("batch", 4096)),),
    initializers=(("w", FP32, (4096,)),),
    external="w.bin",
)

TREES: dict[str, Tree] = {
    "plain": onnx(),
    "no batching": sized((4,), "4", "4"),
    "input unknown": onnx(inputs=tensor("input", "4", name="z")),
    "input missing": onnx(graph_inputs_of(W)),
    "input missing, none configured": onnx(inputs=""),
    "input too many": onnx(inputs=f"{X} {tensor('input', '4', name='w')}"),
    "input named as an output": onnx(inputs=tensor("input", "4", name="y")),
    "input twice": onnx(inputs=f"{X} {X}"),
    "two inputs, one of them twice": onnx(graph_inputs_of(W), inputs=f"{X} {X}"),
    "two inputs": onnx(graph_inputs_of(W), inputs=f"{X} {tensor('input', '4', name='w')}"),
    "two inputs in another order": onnx(graph_inputs_of(W), inputs=f"{tensor('input', '4', name='w')} {X}"),
    "output unknown": onnx(outputs=tensor("output", "4", name="z")),
    "output missing": onnx(Onnx(outputs=(("y", FP32, ("batch", 4)), ("z", FP32, ("batch", 4))))),
    "output missing, none configured": onnx(outputs=""),
    "output too many": onnx(outputs=f"{Y} {tensor('output', '4', name='z')}"),
    "output twice": onnx(outputs=f"{Y} {Y}"),
    "output is an inner tensor": onnx(Onnx(outputs=(("y", "TYPE_INT32", ("batch", 4)),)), outputs=tensor("output", "4", name="y_cast", data_type="TYPE_INT32")),
    "name in another case": onnx(inputs=tensor("input", "4", name="X")),
    "input of another type": onnx(inputs=tensor("input", "4", data_type="TYPE_INT32")),
    "output of another type": onnx(outputs=tensor("output", "4", data_type="TYPE_FP16")),
    "UINT8 for BOOL": typed("TYPE_BOOL", "TYPE_UINT8"),
    "strings": typed("TYPE_STRING", "TYPE_STRING"),
    "strings for UINT8": typed("TYPE_UINT8", "TYPE_STRING"),
    "BF16": {
        "m/config.pbtxt": config(ONE, head=ONNX, inputs=tensor("input", "4", data_type="TYPE_BF16"), outputs=tensor("output", "4", data_type="TYPE_BF16")),
        "m/1/model.onnx": edited(element_type(16)),
    },
    "FP8": {
        "m/config.pbtxt": config(ONE, head=ONNX, inputs=tensor("input", "4", data_type="TYPE_UINT8"), outputs=tensor("output", "4", data_type="TYPE_UINT8")),
        "m/1/model.onnx": edited(element_type(17)),
    },
    "dims of another size": shaped(("batch", 4), "5"),
    "dims too few": shaped(("batch", 4, 4), "4"),
    "dims too many": shaped(("batch", 4), "4, 1"),
    "dims with the batch": shaped(("batch", 4), "-1, 4"),
    "dims wider than the model": shaped(("batch", 4), "-1"),
    "input wider": sized((4,), "-1", "4"),
    "input narrower": sized(("n",), "4", "-1"),
    "output wider": sized((4,), "4", "-1"),
    "output narrower": sized(("n",), "-1", "4"),
    "both narrower": sized(("n",), "4", "4"),
    "both variable": sized(("n",), "-1", "-1"),
    "input narrower, batched": sized(("batch", "n"), "4", "-1", batch=4),
    "output narrower, batched": sized(("batch", "n"), "-1", "4", batch=4),
    "batch of one": shaped((1, 4), "4"),
    "batch of the maximum": shaped((4, 4), "4"),
    "batch of one, max_batch_size 1": shaped((1, 4), "4", batch=1),
    "batch fixed, no batching": sized((1, 4), "1, 4", "1, 4"),
    "batch variable, no batching": sized(("batch", 4), "-1, 4", "-1, 4"),
    "batch variable, no batching, given": sized(("batch", 4), "1, 4", "-1, 4"),
    "batch variable, no batching, left out": sized(("batch", 4), "4", "4"),
    "output without batch": onnx(Onnx(outputs=(("y", FP32, (4,)),))),
    "output of fixed batch": onnx(Onnx(outputs=(("y", FP32, (1, 4)),))),
    "batch only": shaped(("batch",), "1", more="reshape { shape: [] }"),
    "batch only, without reshape": shaped(("batch",), "1"),
    "reshape": shaped(("batch", 2, 2), "4", more="reshape { shape: [2, 2] }"),
    "reshape to what the model has not": shaped(("batch", 4), "4", more="reshape { shape: [2, 2] }"),
    "scalar": sized((), "1", "1"),
    "scalar of two ones": sized((), "1, 1", "1"),
    "scalar of a two": sized((), "2", "1"),
    "scalar of minus one": sized((), "-1", "1"),
    "scalar output of a two": sized((), "1", "2"),
    "scalar, batched": sized((), "1", "1", batch=4),
    "shape unknown": {**onnx(), "m/1/model.onnx": edited(drop_input_shape)},
    "shape unknown, no batching": {**sized((4,), "4", "4"), "m/1/model.onnx": edited(drop_input_shape)},
    "shape unknown, dims of one, no batching": {**sized((4,), "1", "1"), "m/1/model.onnx": edited(drop_input_shape)},
    "output shape unknown but inferred": {**onnx(), "m/1/model.onnx": edited(drop_output_shape)},
    "output shape unknown but inferred, dims of another size": {**onnx(outputs=tensor("output", "5")), "m/1/model.onnx": edited(drop_output_shape)},
    "output less declared than inferred": {**onnx(), "m/1/model.onnx": edited(loosen_output)},
    "output less declared than inferred, another size": {**onnx(outputs=tensor("output", "5")), "m/1/model.onnx": edited(loosen_output)},
    "output less declared than inferred, config as declared": {**onnx(outputs=tensor("output", "-1")), "m/1/model.onnx": edited(loosen_output)},
    # The server loads these, and fails when requests of a batch arrive: MW612 has no verdict of the server.
    "rows of another name": onnx(Onnx(outputs=(("y", FP32, ("found", 4)),))),
    "rows of another name, no batching": onnx(Onnx(outputs=(("y", FP32, ("found", 4)),)), batch=0, inputs=tensor("input", "-1, 4"), outputs=tensor("output", "-1, 4")),
    "dim without a name": {**onnx(), "m/1/model.onnx": edited(unnamed_dims)},
    "dim of minus one": {**onnx(), "m/1/model.onnx": edited(negative_dims)},
    "dim of zero": {**onnx(), "m/1/model.onnx": edited(zero_dims)},
    "optional input": onnx(OPTIONAL, batch=0, inputs=f"{X} {tensor('input', '1', name='w', more='optional: true')}"),
    "overridable initializer not configured": onnx(OPTIONAL, batch=0),
    "overridable initializer as an input": onnx(OPTIONAL, batch=0, inputs=f"{X} {tensor('input', '1', name='w')}"),
    "optional input of another type": onnx(OPTIONAL, batch=0, inputs=f"{X} {tensor('input', '1', name='w', data_type='TYPE_INT32', more='optional: true')}"),
    "optional input that is required": onnx(graph_inputs_of(W), batch=0, inputs=f"{tensor('input', '-1, 4')} {tensor('input', '-1, 4', name='w', more='optional: true')}"),
    "optional input, batched": onnx(inputs=f"{X} {tensor('input', '4', name='w', more='optional: true')}"),
    "optional input unknown": onnx(OPTIONAL, batch=0, inputs=f"{X} {tensor('input', '1', name='v', more='optional: true')}"),
    "initializer that is no input": onnx(Onnx(initializers=(("w", FP32, (4,)),))),
    "IR of long ago": onnx(Onnx(ir=3, opset=8)),
    "IR 12": onnx(Onnx(ir=12)),
    "IR 13": onnx(Onnx(ir=13)),
    "IR 14": onnx(Onnx(ir=14)),
    "IR absent": {**onnx(), "m/1/model.onnx": edited(no_ir)},
    "IR 0": onnx(Onnx(ir=0)),
    "opset 6": onnx(Onnx(opset=6)),
    "opset 25": onnx(Onnx(opset=25)),
    "opset 26": onnx(Onnx(opset=26)),
    "opset 27": onnx(Onnx(opset=27)),
    "opset 99": onnx(Onnx(opset=99)),
    "opset 0": onnx(Onnx(opset=0)),
    "opset absent": {**onnx(), "m/1/model.onnx": edited(no_opset)},
    "opset of ai.onnx.ml 5": {**onnx(), "m/1/model.onnx": edited(ml_domain(5))},
    "opset of ai.onnx.ml 99": {**onnx(), "m/1/model.onnx": edited(ml_domain(99))},
    "operator unknown": {**onnx(), "m/1/model.onnx": edited(unknown_operator)},
    "domain unknown": {**onnx(), "m/1/model.onnx": edited(unknown_domain)},
    "domain unknown and unused": {**onnx(), "m/1/model.onnx": edited(unused_domain)},
    "domain undeclared": {**onnx(), "m/1/model.onnx": edited(undeclared_domain)},
    "graph absent": {**onnx(), "m/1/model.onnx": edited(no_graph)},
    "graph with a loose end": {**onnx(), "m/1/model.onnx": edited(broken_graph)},
    "graph output of nothing": {**onnx(), "m/1/model.onnx": edited(output_of_nothing)},
    "graph with a name twice": {**onnx(), "m/1/model.onnx": edited(duplicate_names)},
    "sequence output": {**onnx(), "m/1/model.onnx": edited(add_sequence_output)},
    "sequence input": {**onnx(), "m/1/model.onnx": edited(add_sequence_input)},
    "map output": {**onnx(), "m/1/model.onnx": edited(add_map_output)},
    "optional-type output": {**onnx(), "m/1/model.onnx": edited(add_optional_output)},
    "file empty": {**onnx(), "m/1/model.onnx": b""},
    "file of text": {**onnx(), "m/1/model.onnx": "not a model"},
    "file truncated": {**onnx(), "m/1/model.onnx": lambda: PLAIN.data()[:-10]},
    "file with bytes behind": {**onnx(), "m/1/model.onnx": lambda: PLAIN.data() + b"\xff\xff"},
    "file of git lfs": {**onnx(), "m/1/model.onnx": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"},
    "file absent": {**without(onnx(), "m/1/model.onnx"), "m/1/keep": ""},
    "file of another name": {**without(onnx(), "m/1/model.onnx"), "m/1/network.onnx": Onnx()},
    "file of another name, given": {**without(onnx(None, 'default_model_filename: "network.onnx"'), "m/1/model.onnx"), "m/1/network.onnx": Onnx()},
    "file given and absent": onnx(None, 'default_model_filename: "network.onnx"'),
    "file given and leaves the version": {**onnx(None, 'default_model_filename: "../model.onnx"'), "m/model.onnx": Onnx()},
    "file is a directory with model.onnx": {**without(onnx(), "m/1/model.onnx"), "m/1/model.onnx/model.onnx": Onnx()},
    "file is an empty directory": {**without(onnx(), "m/1/model.onnx"), "m/1/model.onnx": Dir()},
    "file given and leaves the model": {**onnx(None, 'default_model_filename: "../../../outside/model.onnx"'), "../outside/model.onnx": Onnx()},
    "file given and leaves the model for nothing": onnx(None, 'default_model_filename: "../../../outside/model.onnx"'),
    "file is a link inside the model": {**without(onnx(), "m/1/model.onnx"), "m/model.onnx": Onnx(), "m/1/model.onnx": Link("../model.onnx")},
    "file is a link outside": {**without(onnx(), "m/1/model.onnx"), "../outside/model.onnx": Onnx(), "m/1/model.onnx": Link("../../../outside/model.onnx")},
    "file is a dangling link": {**without(onnx(), "m/1/model.onnx"), "m/1/model.onnx": Link("gone.onnx")},
    "file broken in a version that is not served": {**onnx(), "m/2/model.onnx": Onnx(), "m/1/model.onnx": b"broken"},
    "file broken in a served version": {**onnx(None, "version_policy { all { } }"), "m/2/model.onnx": Onnx(), "m/1/model.onnx": b"broken"},
    "older version of other tensors": {**onnx(), "m/1/model.onnx": graph_inputs_of(W), "m/2/model.onnx": Onnx()},
    "served version of other tensors": {**onnx(None, "version_policy { all { } }"), "m/1/model.onnx": graph_inputs_of(W), "m/2/model.onnx": Onnx()},
    "external data": external("w.bin", {"m/1/w.bin": bytes(16)}),
    "external data absent": external("w.bin"),
    "external data too short": external("w.bin", {"m/1/w.bin": bytes(8)}),
    "external data empty": external("w.bin", {"m/1/w.bin": b""}),
    "external data longer": external("w.bin", {"m/1/w.bin": bytes(32)}),
    "external data in a folder": external("data/w.bin", {"m/1/data/w.bin": bytes(16)}),
    "external data in the model's folder": external("../w.bin", {"m/w.bin": bytes(16)}),
    "external data leaves and comes back": external("../1/w.bin", {"m/1/w.bin": bytes(16)}),
    "external data outside": external("../../../outside/w.bin", {"../outside/w.bin": bytes(16)}),
    "external data absolute": external("/dev/zero"),
    "external data without location": external(" "),
    "external data a link inside": external("w.bin", {"m/1/real.bin": bytes(16), "m/1/w.bin": Link("real.bin")}),
    "external data a link into the model": external("w.bin", {"m/w.bin": bytes(16), "m/1/w.bin": Link("../w.bin")}),
    "external data a link outside": external("w.bin", {"../outside/w.bin": bytes(16), "m/1/w.bin": Link("../../../outside/w.bin")}),
    "external data a hard link": external("w.bin", {"m/1/real.bin": bytes(16), "m/1/w.bin": Link("real.bin", hard=True)}),
    "external data of 16 kB": {
        **onnx(LARGE, inputs=tensor("input", "4096"), outputs=tensor("output", "4096")),
        "m/1/w.bin": bytes(16384),
    },
    "external data of 16 kB, a hard link": {
        **onnx(LARGE, inputs=tensor("input", "4096"), outputs=tensor("output", "4096")),
        "m/1/real.bin": bytes(16384),
        "m/1/w.bin": Link("real.bin", hard=True),
    },
    "external data of 16 kB, a link": {
        **onnx(LARGE, inputs=tensor("input", "4096"), outputs=tensor("output", "4096")),
        "m/1/real.bin": bytes(16384),
        "m/1/w.bin": Link("real.bin"),
    },
    "external data a directory": external("w.bin", {"m/1/w.bin": Dir()}),
    "external data beside a linked model": {
        **without(external("w.bin"), "m/1/model.onnx"),
        "m/files/model.onnx": Onnx(initializers=(("w", FP32, (4,)),), external="w.bin"),
        "m/files/w.bin": bytes(16),
        "m/1/model.onnx": Link("../files/model.onnx"),
    },
    "control": control(),
    "control of another type": control(data_type=FP32),
    "control of FP32": control(data_type=FP32, values="fp32_false_true: [0, 1]"),
    "control of BOOL": control(data_type="TYPE_BOOL", values="bool_false_true: [false, true]"),
    "control of two": control(("batch", 2)),
    "control without dim": control(("batch",)),
    "control of variable size": control(("batch", "n")),
    "control of fixed batch": control((1, 1)),
    "control unknown": onnx(None, 'sequence_batching { control_input [{ name: "c" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] }] }'),
    "control not configured": onnx(graph_inputs_of(("c", "TYPE_INT32", ("batch", 1))), "sequence_batching { }"),
    "control correlation id": control(data_type="TYPE_UINT64", values="data_type: TYPE_UINT64"),
    "control correlation id of another type": control(data_type="TYPE_UINT64", values="data_type: TYPE_INT64"),
    "control also an input": onnx(graph_inputs_of(("c", "TYPE_INT32", ("batch", 1))), 'sequence_batching { control_input [{ name: "c" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] }] }', inputs=f"{X} {tensor('input', '1', name='c', data_type='TYPE_INT32')}"),
    "nothing said but the backend": incomplete(),
    "nothing said": incomplete(head=""),
    "no config": {"m/1/model.onnx": Onnx()},
    "no inputs nor outputs, batched": incomplete(batch=4),
    "no inputs nor outputs, batch of one": incomplete(batch=1),
    "no inputs nor outputs, no batching": incomplete(batch=0),
    "no inputs nor outputs, fixed batch": incomplete(Onnx(inputs=(("x", FP32, (1, 4)),), outputs=(("y", FP32, (1, 4)),)), batch=4),
    "no inputs nor outputs, fixed batch, no batching": incomplete(Onnx(inputs=(("x", FP32, (1, 4)),), outputs=(("y", FP32, (1, 4)),))),
    "no inputs nor outputs, scalars": incomplete(Onnx(inputs=(("x", FP32, ()),), outputs=(("y", FP32, ()),))),
    "no inputs nor outputs, a zero": incomplete(Onnx(inputs=(("x", FP32, ("batch", 0)),), outputs=(("y", FP32, ("batch", 0)),))),
    "no outputs, batched": incomplete(batch=4, parts=X),
    "no inputs, batched": incomplete(batch=4, parts=Y),
    "no outputs, no batching": incomplete(parts=tensor("input", "-1, 4")),
    "no outputs, dims for batching, no batching": incomplete(parts=X),
    "no outputs, wrong input": incomplete(batch=4, parts=tensor("input", "5")),
    "no outputs, preferred sizes": incomplete(parts="dynamic_batching { preferred_batch_size: [2] }"),
    "no outputs, preferred sizes above the default": incomplete(parts="dynamic_batching { preferred_batch_size: [8] }"),
    "input without dims": onnx(inputs='input [{ name: "x" data_type: TYPE_FP32 }]'),
    "input without type": onnx(inputs='input [{ name: "x" dims: [4] }]'),
    "no max_batch_size": {"m/config.pbtxt": f"{ONNX} {ONE} {X} {Y}", "m/1/model.onnx": Onnx()},
    "no max_batch_size, dims with the batch": sized(("batch", 4), "-1, 4", "-1, 4"),
}  # fmt: skip
