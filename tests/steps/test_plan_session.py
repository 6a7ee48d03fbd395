"""What a plan is asked, kept and answered by the request itself; and what a plan's own tensors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import StepError
from modelwright.facts.made import OnnxSignature, OnnxTensor
from modelwright.facts.plan import ANSWERS, PlanProfile, PlanSidecar, PlanTensor, ShapeRange
from modelwright.steps.plan_session import AnsweringSession, RecordingSession, check_types, file_name, save_session
from modelwright.steps.tensorrt import as_built
from modelwright.triton.tensors import load_tensors, save_tensors

PROFILE = PlanProfile(inputs={"x": ShapeRange(min=(1, 2), opt=(2, 2), max=(4, 2))})


class FakeSession:
    """onnxruntime, with an input x and an output y that is twice as much."""

    def __init__(self) -> None:
        self.runs = 0

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_inputs

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        self.runs += 1
        return [feed["x"] * 2]


def signature(**dtypes: str) -> OnnxSignature:
    inputs, outputs = (OnnxTensor(name=name, dtype=dtypes.get(name, "FP32"), dims=("batch", 2)) for name in ("x", "y"))
    return OnnxSignature(inputs=(inputs,), outputs=(outputs,), opset=20, ir_version=9)


def x(rows: int, value: float = 1.0) -> dict[str, Any]:
    return {"x": np.full((rows, 2), value, dtype=np.float32)}


def test_each_request_is_kept_once_and_answered_by_what_it_is(tmp_path: Path) -> None:
    fake = FakeSession()
    recording = RecordingSession(fake, (PROFILE,), tmp_path / "asked")
    for feed in (x(1), x(2), x(1), x(1, 2.0)):
        recording.run(["y"], feed)
    assert fake.runs == 4
    asked = sorted((tmp_path / "asked").iterdir())
    assert len(asked) == 3
    (tmp_path / ANSWERS / "8.9").mkdir(parents=True)
    for file in asked:
        save_tensors(tmp_path / ANSWERS / "8.9" / file.name, {"y": load_tensors(file)["x"] * 3})
    save_session(tmp_path, signature(), (PROFILE,))
    answering = AnsweringSession(tmp_path, "8.9")
    assert [(node.name, node.type, node.shape) for node in answering.get_inputs()] == [
        ("x", "tensor(float)", ["batch", 2])
    ]
    assert answering.run(["y"], x(1, 2.0))[0].tolist() == [[6, 6]]
    with pytest.raises(StepError, match="the plan was asked something else when it was built"):
        answering.run(["y"], x(3))
    with pytest.raises(StepError, match="the plan has no output 'z', only y"):
        answering.run(["z"], x(1))
    with pytest.raises(StepError, match=r"no profile takes a request of x \[5, 2\]: x \[1, 2\] to \[4, 2\]"):
        answering.run(["y"], x(5))


def test_a_request_that_no_profile_takes_is_not_kept(tmp_path: Path) -> None:
    fake = FakeSession()
    with pytest.raises(StepError, match="no profile takes"):
        RecordingSession(fake, (PROFILE,), tmp_path).run(["y"], x(5))
    assert (fake.runs, list(tmp_path.iterdir())) == (0, [])


def test_a_file_is_named_by_names_types_shapes_and_values() -> None:
    one = np.ones((1, 2), dtype=np.float32)
    others: list[dict[str, Any]] = [
        {"z": one},
        {"x": one.astype(np.int32)},
        {"x": one.reshape(2, 1)},
        {"x": one * 2},
        {"x": one, "z": one},
    ]
    assert len({file_name(feed) for feed in ({"x": one}, *others)}) == 6
    assert file_name({"a": one, "b": one * 2}) == file_name({"b": one * 2, "a": one})


@pytest.mark.parametrize("dtype", ["BF16", "BYTES"])
def test_types_that_numpy_does_not_have_are_refused(dtype: str) -> None:
    check_types(signature())
    with pytest.raises(StepError, match=f"'y' is {dtype}, which a plan cannot be asked with"):
        check_types(signature(y=dtype))


def sidecar(dims: tuple[int, ...], dtype: str = "FP32") -> PlanSidecar:
    return PlanSidecar(
        tensorrt="11.0.0",
        compute_capability="8.9",
        gpu="NVIDIA L4",
        plan="",
        size_bytes=0,
        profiles=(),
        inputs=(PlanTensor(name="x", dtype="FP32", dims=(-1, 2)),),
        outputs=(PlanTensor(name="y", dtype=dtype, dims=dims),),
    )


def test_dims_are_those_of_the_plan_and_names_stay() -> None:
    """The server holds the dims of an output against the plan, to the number."""
    made = as_built(signature(), sidecar((-1, -1)))
    assert made.inputs[0].dims == ("batch", 2)
    assert made.outputs[0].dims == ("batch", -1)
    assert as_built(signature(), sidecar((3, 2))).outputs[0].dims == (3, 2)


def test_a_plan_of_other_types_or_ranks_is_refused() -> None:
    with pytest.raises(StepError, match="'y' is FP16 in the plan, and FP32 in the graph"):
        as_built(signature(), sidecar((-1, 2), "FP16"))
    with pytest.raises(StepError, match="'y' has dims"):
        as_built(signature(), sidecar((-1,)))
