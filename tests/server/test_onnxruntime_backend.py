"""The onnxruntime shim in a real tritonserver: what it loads, what it refuses, and what it computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc

from modelwright.errors import ServerError
from modelwright.server.local import RunningServer
from modelwright.triton.arrays import numpy_dtype
from modelwright.triton.client import Client, connect
from modelwright.triton.dtypes import BY_CONFIG
from tests.server.models import Tensor, config, config_for, double, graph, identity, node, power, publish

Array = np.ndarray[Any, Any]
Load = Callable[[onnx.ModelProto, str], str]  # publishes and loads; returns the model's name

X = ("x", "TYPE_FP32", [4])
Y = ("y", "TYPE_FP32", [4])
SEQUENCE = """sequence_batching { control_input [{ name: "%s"
    control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] }] }"""
STATE = 'sequence_batching { state [{ input_name: "x" output_name: "y" data_type: TYPE_FP32 dims: [4] }] }'


@pytest.fixture
def load(repository: Path, client: Client, name: str) -> Iterator[Load]:
    """Publish a model under the test's own name and load it."""

    def load(model: onnx.ModelProto, config: str) -> str:
        client.load(publish(repository, name, model, config))
        return name

    yield load
    client.unload(name)


def floats(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        pytest.param(
            identity(),
            config(inputs=[("z", "TYPE_FP32", [4])]),
            r"unexpected inference input 'z', allowed inputs are: x$",
            id="unknown input",
        ),
        pytest.param(
            identity(),
            config(inputs=[X, ("z", "TYPE_FP32", [4])]),
            r"configuration expects 2 inputs, model provides 1$",
            id="too many inputs",
        ),
        pytest.param(
            graph([node("Add", ["x", "w"], ["y"])], [("x", "TYPE_FP32", ["n", 4]), ("w", "TYPE_FP32", ["n", 4])], [Y]),
            config(),
            r"configuration expects 1 inputs, model provides 2$",
            id="missing input",
        ),
        pytest.param(
            identity(),
            config(outputs=[("z", "TYPE_FP32", [4])]),
            r"unexpected inference output 'z', allowed outputs are: y$",
            id="unknown output",
        ),
        pytest.param(
            identity(),
            config(inputs=[("x", "TYPE_INT32", [4])]),
            r"configuration expects datatype TYPE_INT32 for input 'x', model provides TYPE_FP32$",
            id="input data type",
        ),
        pytest.param(
            identity(),
            config(outputs=[("y", "TYPE_FP16", [4])]),
            r"configuration expects datatype TYPE_FP16 for output 'y', model provides TYPE_FP32$",
            id="output data type",
        ),
        pytest.param(
            identity(),
            config(inputs=[("x", "TYPE_FP32", [5])]),
            r"tensor 'x': the model expects 2 dimensions \(shape \[-1,4\]\) but the model configuration specifies 2 "
            r"dimensions \(an initial batch dimension because max_batch_size > 0 .* complete shape \[-1,5\]\)$",
            id="input dims",
        ),
        pytest.param(
            identity(dims=["n", "m"]),
            config(outputs=[("y", "TYPE_FP32", [4])]),
            r"tensor 'y': the model expects 2 dimensions \(shape \[-1,-1\]\)",
            id="an output may not narrow a variable dimension",
        ),
        pytest.param(
            identity(dims=[1, 4]),
            config(),
            r"tensor 'x': for the model to support batching the shape should have at least 1 dimension and the first "
            r"dimension must be -1; but shape expected by the model is \[1,4\]$",
            id="fixed batch dimension of an input",
        ),
        pytest.param(
            graph([node("Reshape", ["x", "s"], ["y"])], [("x", "TYPE_FP32", ["n", 4])], [("y", "TYPE_FP32", [1, 4])], [
                onnx.helper.make_tensor("s", onnx.TensorProto.INT64, [2], [1, 4])
            ]),
            config(),
            r"tensor 'y': for the model to support batching",
            id="fixed batch dimension of an output",
        ),
        pytest.param(
            identity(dims=[4]),
            config(max_batch_size=0, outputs=[("y", "TYPE_FP32", [1, 4])]),
            r"the model expects 1 dimensions \(shape \[4\]\) but the model configuration specifies 2 dimensions "
            r"\(shape \[1,4\]\)$",
            id="dims without batching",
        ),
        pytest.param(
            identity(dims=[]),
            config(max_batch_size=0, inputs=[("x", "TYPE_FP32", [2])], outputs=[("y", "TYPE_FP32", [1])]),
            r"scalar tensor 'x', should only provide 1 in the model configuration when the model doesn't support "
            r"batching. Model configuration provided: \[2\]\.$",
            id="scalar",
        ),
        pytest.param(
            identity(),
            config(inputs=[X, ("w; optional: true", "TYPE_FP32", [4])]),
            r"optional input 'w' is not supported for models that support batching$",
            id="optional input with batching",
        ),
        pytest.param(
            identity(),
            config(extra='default_model_filename: "other.onnx"'),
            r"unable to find '.*/1/other.onnx' for model instance '",
            id="missing file",
        ),
        pytest.param(
            identity(),
            config(extra='parameters { key: "execution_mode" value { string_value: "2" } }'),
            r"Expected values for execution_mode are 0 or 1 but got 2",
            id="execution mode",
        ),
        pytest.param(
            identity(),
            config(extra='parameters { key: "intra_op_thread_count" value { string_value: "two" } }'),
            r"failed to convert 'two' to integral number",
            id="thread count",
        ),
        pytest.param(
            identity(),
            config(extra='parameters { key: "inter_op_thread_count" value { string_value: "2147483648" } }'),
            r"failed to convert '2147483648' to integral number",
            id="thread count beyond 32 bits",
        ),
        pytest.param(
            identity(),
            config(extra='parameters { key: "enable_mem_arena" value { string_value: "maybe" } }'),
            r"failed to convert 'maybe' to boolean",
            id="memory arena",
        ),
        pytest.param(
            identity(),
            config(extra='optimization { execution_accelerators { cpu_execution_accelerator [{ name: "vino" }] } }'),
            r"unknown Execution Accelerator 'vino' is requested",
            id="accelerator",
        ),
        pytest.param(
            identity(),
            config(extra=SEQUENCE % "START"),
            r"configuration specified sequence control 'START', but model does not provide that input",
            id="sequence control",
        ),
        pytest.param(
            identity(), config(extra=STATE), r"configuration expects 2 inputs, model provides 1$", id="unknown state"
        ),
        pytest.param(
            identity(),
            config(inputs=[("x; allow_ragged_batch: true", "TYPE_FP32", [-1])]),
            r"expects model provides input with shape \[-1\] for ragged input 'x', model provides \[-1,4\]$",
            id="ragged input with a batch dimension",
        ),
        pytest.param(
            identity(dims=["n"]),
            config(inputs=[("x; allow_ragged_batch: true", "TYPE_FP32", [-1])], outputs=[("y; reshape { }", "TYPE_FP32", [1])]),
            r"input.allow_ragged_batch: supported by the stock container's onnxruntime backend, but not by the local server$",
            id="what the stock server serves and this one does not",
        ),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_the_model_is_refused(
    load: Load, model: onnx.ModelProto, text: str, message: str
) -> None:
    with pytest.raises(ServerError, match=message):
        load(model, text)


def test_a_model_with_an_output_that_is_no_tensor_is_refused(load: Load) -> None:
    model = identity()
    model.graph.node.append(node("SequenceConstruct", ["x"], ["s"]))
    model.graph.output.append(onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None))
    with pytest.raises(ServerError, match=r"Unsupported ONNX Type 'ONNX_TYPE_SEQUENCE' for I/O 's'"):
        load(model, config())


def test_a_file_that_onnxruntime_cannot_read_is_refused_with_its_reason(load: Load) -> None:
    model = identity()
    model.ir_version = 99
    with pytest.raises(ServerError, match=r"Unsupported model IR version: 99, max supported IR version: \d+"):
        load(model, config())


@pytest.mark.parametrize(
    "extra",
    [pytest.param(f"optimization {{ graph {{ level: {level} }} }}", id=f"graph level {level}") for level in (-1, 1, 2)]
    + [
        pytest.param(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}', id=key)
        for key, value in {
            "intra_op_thread_count": " 1.5",
            "inter_op_thread_count": "1e3",
            "execution_mode": "1",
            "enable_mem_arena": "false",
            "enable_mem_pattern": "off",
            "memory.enable_memory_arena_shrinkage": "cpu:0",
            "session.use_device_allocator_for_initializers": "1",
            "share_session_between_instances": "unknown to it",
            "cudnn_conv_algo_search": "1",
        }.items()
    ]
    + [
        pytest.param(
            'optimization { execution_accelerators { cpu_execution_accelerator [{ name: "openvino" }] } }',
            id="openvino",
        )
    ],
)
def test_every_option_of_the_stock_backend_loads_and_computes(load: Load, client: Client, extra: str) -> None:
    name = load(double(), config(extra=extra))
    np.testing.assert_array_equal(client.infer(name, {"x": floats(2, 4)})["y"], 2 * floats(2, 4))


@pytest.mark.parametrize("data_type", BY_CONFIG)
def test_every_data_type_passes_unchanged(load: Load, client: Client, data_type: str) -> None:
    name = load(identity(data_type), config_for(data_type, [4]))
    values = np.array([[0, 1, 0, 1]]).astype(numpy_dtype(BY_CONFIG[data_type].name))
    if data_type == "TYPE_STRING":
        values = np.array([[b"a", b"", "ü€".encode(), b"two words"]], dtype=object)
    answer = client.infer(name, {"x": values})["y"]
    assert answer.dtype == values.dtype
    np.testing.assert_array_equal(answer, values)


def test_a_string_that_is_not_utf8_fails_its_request_and_no_other(load: Load, client: Client) -> None:
    name = load(identity("TYPE_STRING", ["n", 1]), config_for("TYPE_STRING", [1]))
    with pytest.raises(ServerError, match="input 'x': the local server takes strings in UTF-8 only"):
        client.infer(name, {"x": np.array([[b"\xff"]], dtype=object)})
    assert client.infer(name, {"x": np.array([[b"fine"]], dtype=object)})["y"].item() == b"fine"


def test_an_input_may_give_a_size_to_a_variable_dimension(load: Load, client: Client) -> None:
    model = graph(
        [node("ReduceSum", ["x"], ["y"], keepdims=1)], [("x", "TYPE_FP32", ["n", "m"])], [("y", "TYPE_FP32", [1, 1])]
    )
    name = load(model, config(0, [("x", "TYPE_FP32", [2, 3])], [("y", "TYPE_FP32", [1, 1])]))
    assert client.infer(name, {"x": floats(2, 3)})["y"].item() == 15


def test_a_scalar_model_takes_and_gives_a_one(load: Load, client: Client) -> None:
    name = load(double(dims=[]), config(0, [("x", "TYPE_FP32", [1])], [("y", "TYPE_FP32", [1, 1])]))
    answer = client.infer(name, {"x": np.array([3], np.float32)})["y"]
    assert (answer.shape, answer.item()) == ((1, 1), 6)


def test_an_optional_input_keeps_the_model_s_own_value(load: Load, client: Client) -> None:
    inputs = [X, ("exponent; optional: true", "TYPE_FP32", [1])]
    name = load(power(), config(0, inputs))
    x = floats(4)
    np.testing.assert_allclose(client.infer(name, {"x": x})["y"], x**2)
    np.testing.assert_allclose(client.infer(name, {"x": x, "exponent": np.array([3], np.float32)})["y"], x**3)


def test_reshape_gives_the_model_its_own_shapes(load: Load, client: Client) -> None:
    inputs: list[Tensor] = [("x; reshape: { shape: [] }", "TYPE_FP32", [1])]
    outputs: list[Tensor] = [("y; reshape: { shape: [] }", "TYPE_FP32", [1])]
    name = load(double(dims=["n"]), config(8, inputs, outputs))
    np.testing.assert_array_equal(client.infer(name, {"x": floats(3, 1)})["y"], 2 * floats(3, 1))


def test_only_requested_outputs_come_back(load: Load, client: Client) -> None:
    model = double()
    model.graph.node.append(node("Neg", ["x"], ["negative"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("negative", onnx.TensorProto.FLOAT, ["batch", 4]))
    name = load(model, config(outputs=[Y, ("negative", "TYPE_FP32", [4])]))
    assert set(client.infer(name, {"x": floats(1, 4)})) == {"y", "negative"}
    assert set(client.infer(name, {"x": floats(1, 4)}, outputs=["negative"])) == {"negative"}


def test_a_zero_sized_tensor_passes(load: Load, client: Client) -> None:
    name = load(identity(dims=["n", "m"]), config_for("TYPE_FP32", [-1]))
    assert client.infer(name, {"x": np.empty((2, 0), np.float32)})["y"].shape == (2, 0)


def test_sequence_controls_reach_the_model(load: Load, server: RunningServer) -> None:
    inputs: list[Tensor] = [("x", "TYPE_INT32", ["n", 1]), ("START", "TYPE_INT32", ["n", 1])]
    model = graph([node("Add", ["x", "START"], ["y"])], inputs, [("y", "TYPE_INT32", ["n", 1])])
    text = config(8, [("x", "TYPE_INT32", [1])], [("y", "TYPE_INT32", [1])], SEQUENCE % "START")
    name = load(model, text)
    with grpc.InferenceServerClient(server.grpc) as sequences:
        tensor = grpc.InferInput("x", [1, 1], "INT32").set_data_from_numpy(np.array([[10]], np.int32))
        first = sequences.infer(name, [tensor], sequence_id=7, sequence_start=True)
        last = sequences.infer(name, [tensor], sequence_id=7, sequence_end=True)
    assert (first.as_numpy("y").item(), last.as_numpy("y").item()) == (11, 10)


BATCHING = "dynamic_batching { max_queue_delay_microseconds: 100000 preferred_batch_size: [ 8 ] }"


def infer_together(server: RunningServer, name: str, requests: list[Array]) -> list[Array | ServerError]:
    """Send requests at the same time, each from a thread of its own."""
    answers: list[Array | ServerError] = [ServerError("no answer")] * len(requests)
    barrier = threading.Barrier(len(requests))

    def send(index: int) -> None:
        with connect(f"grpc://{server.grpc}") as client:
            client.ready()
            barrier.wait()
            try:
                answers[index] = client.infer(name, {"x": requests[index]})["y"]
            except ServerError as error:
                answers[index] = error

    threads = [threading.Thread(target=send, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_requests_of_a_dynamic_batch_run_as_one_and_get_their_own_rows(
    load: Load, client: Client, server: RunningServer
) -> None:
    name = load(double(), config(extra=BATCHING))
    requests = [floats(rows, 4) + 100 * index for index, rows in enumerate((1, 3, 2, 2))]
    for request, answer in zip(requests, infer_together(server, name, requests), strict=True):
        np.testing.assert_array_equal(answer, 2 * request)
    assert client.statistics(name)["model_stats"][0]["execution_count"] < len(requests)


def test_strings_of_a_dynamic_batch_are_split_too(load: Load, server: RunningServer) -> None:
    name = load(identity("TYPE_STRING", ["n", 1]), config_for("TYPE_STRING", [1], BATCHING))
    requests = [np.array([[f"{index}-{row}".encode()] for row in range(2)], dtype=object) for index in range(4)]
    for request, answer in zip(requests, infer_together(server, name, requests), strict=True):
        np.testing.assert_array_equal(answer, request)


def test_requests_of_different_shapes_are_answered_apart(load: Load, server: RunningServer) -> None:
    text = config_for("TYPE_FP32", [-1], BATCHING)
    name = load(double(dims=["n", "m"]), text)
    requests = [floats(1, width) for width in (3, 5, 3, 5)]
    for request, answer in zip(requests, infer_together(server, name, requests), strict=True):
        np.testing.assert_array_equal(answer, 2 * request)


def test_a_request_that_fails_fails_those_that_run_with_it(load: Load, server: RunningServer) -> None:
    inputs: list[Tensor] = [("x", "TYPE_INT64", ["n", 1])]
    table = onnx.helper.make_tensor("table", onnx.TensorProto.FLOAT, [2], [10.0, 20.0])
    model = graph([node("Gather", ["table", "x"], ["y"])], inputs, [("y", "TYPE_FP32", ["n", 1])], [table])
    batching = "dynamic_batching { max_queue_delay_microseconds: 60000000 preferred_batch_size: [ 4 ] }"
    text = config(4, [("x", "TYPE_INT64", [1])], [("y", "TYPE_FP32", [1])], batching)
    name = load(model, text)
    answers = infer_together(server, name, [np.array([[index]], np.int64) for index in (0, 7, 1, 0)])
    failures = [answer.message for answer in answers if isinstance(answer, ServerError)]
    assert len(failures) == 4
    assert all("indices element out of data bounds" in message for message in failures)


def test_a_string_ends_at_its_first_nul(load: Load, client: Client) -> None:
    name = load(identity("TYPE_STRING", ["n", 3]), config_for("TYPE_STRING", [3]))
    strings = np.array([[b"a\0b", b"\0", b"whole"]], dtype=object)
    assert client.infer(name, {"x": strings})["y"].tolist() == [[b"a", b"", b"whole"]]


def test_auto_completion_fills_in_what_the_configuration_leaves_out(
    completing_server: RunningServer, repository: Path, name: str
) -> None:
    publish(repository, name, double(), 'backend: "onnxruntime"')
    with connect(completing_server.http) as client:
        client.load(name)
        completed = client.config(name)
        assert completed["max_batch_size"] == 4
        assert "dynamic_batching" in completed
        assert [(io["name"], io["data_type"], io["dims"]) for io in completed["input"] + completed["output"]] == [
            ("x", "TYPE_FP32", [4]),
            ("y", "TYPE_FP32", [4]),
        ]
        np.testing.assert_array_equal(client.infer(name, {"x": floats(2, 4)})["y"], 2 * floats(2, 4))


def test_auto_completion_keeps_a_complete_configuration_as_it_is(
    completing_server: RunningServer, repository: Path, name: str
) -> None:
    publish(repository, name, identity(), config(max_batch_size=2))
    with connect(completing_server.http) as client:
        client.load(name)
        completed = client.config(name)
    assert (completed["max_batch_size"], "dynamic_batching" in completed) == (2, False)


def test_auto_completion_reshapes_a_batched_tensor_without_dims(
    completing_server: RunningServer, repository: Path, name: str
) -> None:
    publish(repository, name, double(dims=["n"]), 'backend: "onnxruntime"')
    with connect(completing_server.http) as client:
        client.load(name)
        assert client.config(name)["input"][0]["reshape"] == {"shape": []}
        np.testing.assert_array_equal(client.infer(name, {"x": floats(3, 1)})["y"], 2 * floats(3, 1))


def test_auto_completion_refuses_batching_that_the_model_has_not(
    completing_server: RunningServer, repository: Path, name: str
) -> None:
    publish(repository, name, identity(dims=[4]), 'backend: "onnxruntime"\nmax_batch_size: 8')
    with (
        connect(completing_server.http) as client,
        pytest.raises(ServerError, match="model does not support batching while non-zero max_batch_size is specified"),
    ):
        client.load(name)
