"""Payloads made up from a model's metadata."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.errors import LoadError
from modelwright.loadtest.payloads.generated import Making, generate
from modelwright.loadtest.payloads.interface import InterfaceTensor, ModelInterface
from modelwright.triton.arrays import is_float
from modelwright.triton.dtypes import BY_NAME


def model(*inputs: InterfaceTensor, max_batch_size: int = 8) -> ModelInterface:
    return ModelInterface("m", "1", max_batch_size, inputs, (InterfaceTensor("y", "FP32", (1,)),))


def made(interface: ModelInterface, batch: int = 1, distinct: int = 1, seed: int = 7, **making: Any) -> list[Any]:
    return generate(interface, Making(**making), batch=batch, distinct=distinct, seed=seed)


def test_every_data_type_gets_values_of_its_range() -> None:
    interface = model(*(InterfaceTensor(name, name, (50,)) for name in BY_NAME if name != "STRING"))
    request = made(interface, batch=2)[0]
    for name, array in request.items():
        assert (array.shape, str(array.dtype)) == ((2, 50), BY_NAME[name].numpy)
        if is_float(array.dtype):
            assert 0 <= array.min() < array.max() <= 1
        elif array.dtype.kind in "iu":
            assert 0 <= array.min() < array.max() <= 99
    assert set(request["BOOL"].ravel().tolist()) == {True, False}
    assert {(type(item), len(item)) for item in request["BYTES"].ravel()} == {(bytes, 16)}


def test_integers_and_strings_are_as_asked_for() -> None:
    interface = model(InterfaceTensor("ids", "INT64", (100,)), InterfaceTensor("text", "BYTES", (1,)))
    request = made(interface, ranges={"ids": (5, 6)}, string_length=3)[0]
    assert set(request["ids"].ravel().tolist()) == {5, 6}
    assert len(request["text"][0, 0]) == 3


ENDS = {
    "UINT64": (2**64 - 2, 2**64 - 1),
    "INT8": (-128, -127),
    "FP32": (-2.5, -2),
    "BF16": (-2, 3),
    "FP64": (-1e308, 1e308),
}


def test_ranges_of_any_type_are_kept() -> None:
    interface = model(*(InterfaceTensor(name, name, (100,)) for name in ENDS))
    for name, array in made(interface, ranges=ENDS)[0].items():
        low, high = ENDS[name]
        assert low <= array.min() < array.max() <= high


def test_zeros_are_one_request_of_zeros_and_empty_strings() -> None:
    requests = made(
        model(InterfaceTensor("x", "INT8", (2,)), InterfaceTensor("s", "BYTES", (1,))), distinct=64, zero=True
    )
    assert [{name: array.tolist() for name, array in request.items()} for request in requests] == [
        {"x": [[0, 0]], "s": [[b""]]}
    ]


def test_requests_differ_and_follow_from_the_seed() -> None:
    interface = model(InterfaceTensor("x", "FP32", (4,)), InterfaceTensor("s", "BYTES", (1,)))
    requests = [str(request) for request in made(interface, distinct=64)]
    assert len(set(requests)) == 64
    assert requests == [str(request) for request in made(interface, distinct=64)]
    assert requests != [str(request) for request in made(interface, distinct=64, seed=8)]


def test_a_model_without_batching_gets_no_batch_dimension() -> None:
    assert made(model(InterfaceTensor("x", "FP32", (4,)), max_batch_size=0))[0]["x"].shape == (4,)


@pytest.mark.parametrize(
    ("dims", "given", "shape"),
    [
        pytest.param((-1,), 128, (1, 128), id="one value"),
        pytest.param((3, -1, -1), [224, 256], (1, 3, 224, 256), id="a value for each variable size"),
        pytest.param((3, -1, -1), [3, 224, 256], (1, 3, 224, 256), id="the whole shape"),
        pytest.param((-1, -1), [2, 5], (1, 2, 5), id="all variable"),
        pytest.param((-1,), 0, (1, 0), id="empty"),
    ],
)
def test_variable_sizes_are_given(dims: tuple[int, ...], given: Any, shape: tuple[int, ...]) -> None:
    assert made(model(InterfaceTensor("x", "FP32", dims)), dims={"x": given})[0]["x"].shape == shape


def test_optional_inputs_are_left_out_unless_they_are_named() -> None:
    interface = model(
        InterfaceTensor("x", "FP32", (1,)), InterfaceTensor("bias", "FP32", (-1,), optional=True), max_batch_size=0
    )
    assert made(interface)[0].keys() == {"x"}
    assert made(interface, dims={"bias": 3})[0].keys() == {"x", "bias"}
    assert made(model(InterfaceTensor("only", "FP32", (1,), optional=True)))[0].keys() == {"only"}


@pytest.mark.parametrize(
    ("tensor", "making", "message"),
    [
        pytest.param(
            InterfaceTensor("input_ids", "INT64", (-1,)),
            {},
            r"payload for m: input 'input_ids' has variable sizes, \[-1\], without a value\n"
            r"  hint: give them: --shape input_ids:128$",
            id="no value",
        ),
        pytest.param(InterfaceTensor("x", "FP32", (3, -1)), {}, r"--shape x:3,128$", id="no value for one of two"),
        pytest.param(
            InterfaceTensor("x", "FP32", (3, -1)),
            {"dims": {"x": [4, 5]}},
            r"--shape x:4,5 does not fit \[3, -1\]",
            id="fixed size",
        ),
        pytest.param(
            InterfaceTensor("x", "FP32", (-1, -1)), {"dims": {"x": 5}}, r"x:5 does not fit \[-1, -1\]", id="too few"
        ),
        pytest.param(
            InterfaceTensor("x", "FP32", (-1,)), {"dims": {"x": -1}}, r"x:-1 does not fit \[-1\]", id="negative"
        ),
        pytest.param(
            InterfaceTensor("x", "FP32", (2,)), {"dims": {"x": 3}}, r"x:3 does not fit \[2\]", id="another size"
        ),
        pytest.param(
            InterfaceTensor("x", "UINT8", (2,)),
            {"ranges": {"x": (0, 256)}},
            r"input 'x': range 0\.\.256: does not fit UINT8 \(0\.\.255\)\n  hint: give it: --range x=LOW:HIGH",
            id="range",
        ),
        pytest.param(
            InterfaceTensor("x", "INT8", (2,)),
            {"ranges": {"x": (3, 2)}},
            r"range 3\.\.2: must be from a lower to a higher number",
            id="reversed",
        ),
        pytest.param(
            InterfaceTensor("x", "INT8", (2,)), {"ranges": {"x": (0, 0.5)}}, r"must be whole numbers", id="a part"
        ),
        pytest.param(
            InterfaceTensor("x", "FP16", (2,)), {"ranges": {"x": (0, 1e5)}}, r"beyond FP16 \(±6.55e\+04\)", id="FP16"
        ),
        pytest.param(
            InterfaceTensor("x", "BOOL", (2,)),
            {"ranges": {"x": (0, 1)}},
            r"its values are BOOL, not numbers",
            id="BOOL",
        ),
        pytest.param(InterfaceTensor("x", "FP8", (2,)), {}, r"tensors of type FP8 cannot be sent", id="unknown type"),
        pytest.param(
            InterfaceTensor("x", "FP32", (-1, -1)),
            {"dims": {"x": [10**9, 10**9]}},
            r"GB of payloads, at most 1.1 GB",
            id="huge",
        ),
    ],
)
def test_what_cannot_be_generated_is_refused(tensor: InterfaceTensor, making: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        made(model(tensor), **making)
