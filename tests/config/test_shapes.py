"""The three shapes of a tensor: what model.yaml declares, what clients send, and what the model sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelwright.config.model_config import ConfigTensor, config_of, tensors_of
from modelwright.errors import ConfigError
from modelwright.facts.made import Made, OnnxSignature, OnnxTensor
from modelwright.project.spec import Builder, parse_spec
from modelwright.variants.registry import LOOKUPS

Dims = tuple[int | str, ...]


def builder(batch: int = 8, kind: str = "onnx", **fields: Any) -> Builder:
    source = {"kind": "onnx", "path": "model.onnx"} if kind == "onnx" else {"kind": kind, "entry": "a:b"}
    serving = {"max_batch_size": batch} | fields.pop("serving", {})
    data = {"name": "m", "source": source, "samples": "a:b", "serving": serving, **fields}
    return Builder(Path("/none"), "builders/m/model.yaml", parse_spec(data, LOOKUPS))


def made(inputs: dict[str, Dims], outputs: dict[str, Dims]) -> Made:
    sides = [
        tuple(OnnxTensor(name=name, dtype="FP32", dims=dims) for name, dims in side.items())
        for side in (inputs, outputs)
    ]
    return Made(signature=OnnxSignature(inputs=sides[0], outputs=sides[1], opset=17, ir_version=8))


def declared(**shapes: list[Any]) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": "FP32", "shape": shape} for name, shape in shapes.items()]


def entry(**fields: Any) -> dict[str, Any]:
    """`serving` with an entry for the input x."""
    return {"input": [{"name": "x", **fields}]}


def x_of(model: Dims, batch: int = 8, **fields: Any) -> ConfigTensor:
    """The input x of a model that has this shape."""
    facts = made({"x": model}, {"y": ("b", 2) if batch else (2,)})
    return tensors_of(builder(batch, **fields), facts).inputs[0]


def served(dims: tuple[int, ...], reshape: tuple[int, ...] | None = None, *, scalar: bool = False) -> ConfigTensor:
    return ConfigTensor("x", "FP32", dims, reshape=reshape, scalar=scalar)


@pytest.mark.parametrize(
    ("model", "batch", "fields", "expected"),
    [
        pytest.param(("b",), 8, {}, served((1,), (), scalar=True), id="a value a row"),
        pytest.param(("b",), 8, {"inputs": declared(x=[])}, served((1,), (), scalar=True), id="declared a scalar"),
        pytest.param(("b",), 8, {"inputs": declared(x=[1])}, served((1,), ()), id="declared [1]"),
        pytest.param((), 0, {}, served((1,), scalar=True), id="rank 0"),
        pytest.param((), 0, {"inputs": declared(x=[])}, served((1,), scalar=True), id="rank 0, declared"),
        pytest.param((), 0, {"inputs": declared(x=[1])}, served((1,)), id="rank 0, declared [1]"),
        pytest.param((1,), 0, {"inputs": declared(x=[])}, served((1,), scalar=True), id="[1], declared a scalar"),
        pytest.param(("b", 1), 8, {"inputs": declared(x=[])}, served((1,), scalar=True), id="[1] a row, a scalar"),
        pytest.param(
            ("b",), 8, {"serving": entry(dims=[1], reshape={"shape": []})}, served((1,), (), scalar=True), id="written"
        ),
        pytest.param(("b",), 8, {"serving": entry(dims=[1])}, served((1,), (), scalar=True), id="only dims written"),
        pytest.param(
            ("b",), 8, {"serving": entry(reshape={"shape": []})}, served((1,), (), scalar=True), id="only the reshape"
        ),
        pytest.param(
            ("b",),
            8,
            {"serving": entry(reshape={"shape": []}), "inputs": declared(x=[1])},
            served((1,), ()),
            id="reshape and declared",
        ),
        pytest.param(
            ("b", 1, 28, 28),
            8,
            {"serving": entry(dims=[784], reshape={"shape": [1, 28, 28]})},
            served((784,), (1, 28, 28)),
            id="any reshape",
        ),
        pytest.param(
            ("b", 1, 28, 28),
            8,
            {"serving": entry(reshape={"shape": [1, 28, 28]}), "inputs": declared(x=[784])},
            served((784,), (1, 28, 28)),
            id="any reshape, declared",
        ),
        pytest.param(
            (1, "n", 4),
            0,
            {"serving": entry(dims=[-1, 4], reshape={"shape": [1, -1, 4]})},
            served((-1, 4), (1, -1, 4)),
            id="a reshape without batching",
        ),
        pytest.param(
            ("b", "n", "m"),
            8,
            {"serving": entry(dims=[12], reshape={"shape": [3, 4]})},
            served((12,), (3, 4)),
            id="a reshape to narrower dims",
        ),
    ],
)
def test_what_clients_send_is_derived_from_what_the_model_sees(
    model: Dims, batch: int, fields: dict[str, Any], expected: ConfigTensor
) -> None:
    made = builder(batch, **fields)
    found = x_of(model, batch, **fields)
    assert found == expected
    config = config_of(made, tensors_of(made, _facts(model, batch)))
    assert list(config.input[0].dims) == list(expected.dims)
    assert config.input[0].HasField("reshape") == (expected.reshape is not None)
    assert tuple(config.input[0].reshape.shape) == (expected.reshape or ())


def _facts(model: Dims, batch: int) -> Made:
    return made({"x": model}, {"y": ("b", 2) if batch else (2,)})


@pytest.mark.parametrize(
    ("model", "batch", "fields", "message"),
    [
        pytest.param((), 8, {}, "'x' is a scalar, one value for all rows of a batch", id="rank 0 in a batch"),
        pytest.param(
            ("b", 3), 8, {"inputs": declared(x=[])}, r"\[3\] in the model, \[\] in model.yaml", id="no scalar"
        ),
        pytest.param(
            (), 0, {"serving": entry(reshape={"shape": []})}, "an empty reshape needs a batch", id="empty, unbatched"
        ),
        pytest.param(
            ("b", 1, 28, 28),
            8,
            {"serving": entry(dims=[784], reshape={"shape": [28, 28]})},
            r"serving.input: 'x': reshape to \[28, 28\], and the model's shape is \[1, 28, 28\]",
            id="another shape than the model's",
        ),
        pytest.param(
            ("b", 1, 28, 28),
            8,
            {"serving": entry(dims=[780], reshape={"shape": [1, 28, 28]})},
            r"dims \[780\] cannot become \[1, 28, 28\]",
            id="another number of elements",
        ),
        pytest.param(
            ("b", 1, 28, 28),
            8,
            {"serving": entry(dims=[784], reshape={"shape": [1, 28, 28]}), "inputs": declared(x=[28, 28])},
            r"dims \[784\] here, shape \[28, 28\] in model.yaml",
            id="dims and declared differ",
        ),
        pytest.param(
            ("b", 4), 8, {"serving": entry(reshape={"shape": [4]})}, "reshape without dims", id="client's dims unknown"
        ),
    ],
)
def test_what_contradicts_the_model_is_refused(model: Dims, batch: int, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        x_of(model, batch, **fields)


@pytest.mark.parametrize(
    ("model", "shape", "dims"),
    [
        pytest.param(("b", 3), [3], (3,), id="the same"),
        pytest.param(("b", "n"), [3], (-1,), id="a number, which the answers are held to: the config says the model's"),
        pytest.param(("b", 3), ["n"], (3,), id="dynamic, where the model knows the number"),
    ],
)
def test_an_output_is_served_with_the_shape_of_the_model(model: Dims, shape: list[Any], dims: tuple[int, ...]) -> None:
    """The stock backend refuses any other."""
    facts = made({"x": ("b", 2)}, {"y": model})
    assert tensors_of(builder(outputs=declared(y=shape)), facts).outputs[0].dims == dims


@pytest.mark.parametrize(("model", "batch"), [((0,), 0), ((2, 0), 0), (("b", 0, 3), 8)], ids=str)
def test_a_dimension_of_size_0_is_refused(model: Dims, batch: int) -> None:
    with pytest.raises(ConfigError, match=r"inputs: 'x' has a dimension of size 0 in the model: \[.*0.*\]") as caught:
        x_of(model, batch)
    assert caught.value.hint.startswith("remove it from the file")


def test_an_output_of_one_row_whatever_the_request_may_be_declared_wrongly() -> None:
    facts = made({"x": ("b", 4)}, {"label": (1,)})
    with pytest.raises(ConfigError, match=r"outputs: 'label' has the fixed shape \[1\]") as caught:
        tensors_of(builder(8), facts)
    assert caught.value.hint.startswith("if it has a row for each row of a request, the file declares it wrongly")


def test_an_output_of_another_size_is_refused() -> None:
    facts = made({"x": ("b", 2)}, {"y": ("b", 3)})
    with pytest.raises(ConfigError, match=r"outputs: 'y' has shape \[3\] in the model, \[4\] in model.yaml"):
        tensors_of(builder(outputs=declared(y=[4])), facts)


def test_only_the_outputs_that_are_named_are_served() -> None:
    facts = made({"x": ("b", 2)}, {"debug": ("b", 9), "y": ("b", 2)})
    assert [tensor.name for tensor in tensors_of(builder(), facts).outputs] == ["debug", "y"]
    assert [tensor.name for tensor in tensors_of(builder(outputs=declared(y=[2])), facts).outputs] == ["y"]
    with pytest.raises(ConfigError, match="outputs: the model has") as error:
        tensors_of(builder(outputs=declared(debog=[9])), facts)
    assert error.value.hint == "did you mean 'debug'?"


def test_every_input_must_be_named() -> None:
    facts = made({"x": ("b", 2), "z": ("b", 2)}, {"y": ("b", 2)})
    with pytest.raises(ConfigError, match=r"inputs: the model has \['x', 'z'\], model.yaml names \['x'\]"):
        tensors_of(builder(inputs=declared(x=[2])), facts)


START = {
    "control_input": [{"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "fp32_false_true": [0, 1]}]}]
}


def test_a_control_is_not_an_input_that_clients_send() -> None:
    facts = made({"x": ("b", 2), "START": ("b", 1)}, {"y": ("b", 2)})
    serving = {"sequence_batching": START}
    assert [tensor.name for tensor in tensors_of(builder(serving=serving), facts).inputs] == ["x"]
    with pytest.raises(ConfigError, match=r"inputs\[1\]: 'START' is a control of serving.sequence_batching"):
        tensors_of(builder(serving=serving, inputs=declared(x=[2], START=[1])), facts)


def test_a_declared_scalar_is_served_as_one_value_before_anything_is_built() -> None:
    found = tensors_of(builder(kind="torch", inputs=declared(x=[]), outputs=declared(y=[2])))
    assert found.inputs == (ConfigTensor("x", "FP32", (1,), scalar=True),)
