"""Payloads: golden samples with the answers that hold for them, files, and values made up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelwright.errors import LoadError, ModelwrightError
from modelwright.facts.made import Made
from modelwright.loadtest.payloads import samples
from modelwright.loadtest.payloads.interface import InterfaceTensor, ModelInterface, SequencePolicy, read_interface
from modelwright.loadtest.payloads.payloads import Payloads, check, prepare
from modelwright.project.spec import Tolerance
from modelwright.triton.client import Client
from modelwright.verification.golden import save_golden
from modelwright.verification.samples import unstacked
from tests.repository.manifests import a_manifest, compared_with_golden
from tests.server.models import graph, node

INTERFACE = ModelInterface("m", "3", 8, (InterfaceTensor("x", "FP32", (2,)),), (InterfaceTensor("y", "FP32", (2,)),))
FIXED = ModelInterface("m", "3", 0, INTERFACE.inputs, INTERFACE.outputs)
EXACT = {"y": Tolerance(atol=0)}


def publish(
    repository: Path, count: int = 40, batch: int = 16, *, model: str = "m", version: int = 3, **more: Any
) -> None:
    """A version with golden samples: x = [i, i], y = x + 1; or the given arrays."""
    folder = repository / model / str(version)
    folder.mkdir(parents=True)
    x = np.repeat(np.arange(count, dtype=np.float32), 2).reshape(count, 2)
    save_golden(
        folder / "golden.npz",
        unstacked(more.get("inputs", {"x": x})),
        unstacked(more.get("outputs", {"y": x + 1})),
        batch,
    )
    manifest = a_manifest(
        model=model,
        version=version,
        version_digest="d",
        made=Made(composing_models=more.get("composing_models", {})),
        verification=compared_with_golden(batch, {"y": Tolerance(atol=0.5)}),
    )
    (folder / "manifest.json").write_text(manifest.text())


def rows(payloads: Payloads) -> list[list[float]]:
    return [item.inputs["x"][..., 0].tolist() for item in payloads.items]


def test_golden_samples_come_one_by_one_with_their_answers(tmp_path: Path) -> None:
    publish(tmp_path)
    payloads = prepare(INTERFACE, repository=tmp_path)
    assert rows(payloads) == [[index] for index in range(40)]
    for item in payloads.items:
        assert item.expected is not None
        np.testing.assert_array_equal(item.expected["y"], item.inputs["x"] + 1)
    assert payloads.description == "golden samples of version 3, 40 distinct"
    assert payloads.tolerance == {"y": Tolerance(atol=0.5)}
    assert payloads.notes == []


@pytest.mark.parametrize("batch", [2, 5, 8])
def test_golden_rows_are_combined_to_as_many_requests_as_are_asked_for(tmp_path: Path, batch: int) -> None:
    publish(tmp_path, count=7, batch=7)
    payloads = prepare(INTERFACE, repository=tmp_path, batch=batch)
    assert len({tuple(row) for row in rows(payloads)}) == len(payloads.items) == 64 if batch > 2 else 42  # 7 * 6 pairs
    for item in payloads.items:
        assert item.expected is not None
        assert item.inputs["x"].shape == (batch, 2)
        np.testing.assert_array_equal(item.expected["y"], item.inputs["x"] + 1)


def test_every_sample_is_used_before_they_are_combined(tmp_path: Path) -> None:
    publish(tmp_path, count=16)
    assert rows(prepare(INTERFACE, repository=tmp_path, batch=4))[:4] == [
        [first, first + 1, first + 2, first + 3] for first in (0, 4, 8, 12)
    ]


def test_the_same_seed_gives_the_same_requests(tmp_path: Path) -> None:
    publish(tmp_path)
    one, same, other = (rows(prepare(INTERFACE, repository=tmp_path, batch=3, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_a_model_without_batching_gets_samples_as_they_are(tmp_path: Path) -> None:
    publish(tmp_path, batch=0)
    payloads = prepare(FIXED, repository=tmp_path)
    assert len(payloads.items) == 40
    assert payloads.items[3].inputs["x"].tolist() == [3, 3]
    assert payloads.items[3].expected is not None
    assert payloads.items[3].expected["y"].tolist() == [4, 4]


def test_few_samples_are_a_danger_where_answers_are_cached(tmp_path: Path) -> None:
    publish(tmp_path, count=5)
    payloads = prepare(INTERFACE, repository=tmp_path)
    assert payloads.description == "golden samples of version 3, 5 distinct"
    assert payloads.notes == ["5 distinct payloads: a response cache would answer them"]


TOKENS = ModelInterface(
    "m", "3", 64, (InterfaceTensor("text", "BYTES", (1,)),), (InterfaceTensor("ids", "INT64", (-1,)),)
)
TEXTS = {"text": np.array([[f"text {index}".encode()] for index in range(40)], object)}
IDS = {"ids": np.ones((40, 9), np.int64)}


@pytest.mark.parametrize(
    ("batch", "compared"),
    [
        pytest.param(1, 0, id="one row"),
        pytest.param(32, 1, id="a whole request"),
        pytest.param(8, 1, id="the rest, which is a request too"),
    ],
)
def test_rows_that_are_padded_together_are_compared_in_whole_requests(
    tmp_path: Path, batch: int, compared: int
) -> None:
    publish(tmp_path, inputs=TEXTS, outputs=IDS, batch=32)
    payloads = prepare(TOKENS, repository=tmp_path, batch=batch)
    assert sum(item.expected is not None for item in payloads.items) == compared
    assert payloads.notes == [
        "only whole golden requests (32 rows) are compared: rows are padded to one length in 'ids'"
    ]


def test_sizes_that_follow_the_inputs_are_not_padding(tmp_path: Path) -> None:
    interface = ModelInterface(
        "m", "3", 8, (InterfaceTensor("ids", "INT64", (-1,)),), (InterfaceTensor("tags", "FP32", (-1, 4)),)
    )
    publish(tmp_path, inputs={"ids": np.ones((40, 9), np.int64)}, outputs={"tags": np.ones((40, 9, 4), np.float32)})
    payloads = prepare(interface, repository=tmp_path)
    assert all(item.expected is not None for item in payloads.items)


def quantised(folder: Path) -> None:
    model = graph(
        [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
        [("x", "TYPE_FP32", ["batch", 2])],
        [("y", "TYPE_FP32", ["batch", 2])],
    )
    onnx.save(model, folder / "model.onnx")


@pytest.mark.parametrize(
    ("merges", "compared", "note"),
    [
        pytest.param(False, 2, r"only whole golden requests \(8 rows\) are compared: activations are quantised", id="alone"),
        pytest.param(True, 0, r"not compared: .*\(DynamicQuantizeLinear\), and the server runs rows of several", id="merged"),
    ],
)  # fmt: skip
def test_rows_that_are_quantised_together(tmp_path: Path, merges: bool, compared: int, note: str) -> None:
    publish(tmp_path, count=16, batch=8)
    quantised(tmp_path / "m" / "3")
    interface = ModelInterface("m", "3", 8, INTERFACE.inputs, INTERFACE.outputs, merges_requests=merges)
    payloads = prepare(interface, repository=tmp_path, batch=8)
    assert sum(item.expected is not None for item in payloads.items) == compared
    assert re.search(note, payloads.notes[0])


def test_an_ensemble_is_quantised_where_a_composing_model_is(tmp_path: Path) -> None:
    publish(tmp_path, model="inner", version=1)
    quantised(tmp_path / "inner" / "1")
    publish(tmp_path, composing_models={"inner": "d"})
    payloads = prepare(INTERFACE, repository=tmp_path)
    assert {item.expected for item in payloads.items} == {None}
    assert "DynamicQuantizeLinear" in payloads.notes[0]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        pytest.param({"sequence": SequencePolicy(False)}, "earlier requests", id="sequence"),
        pytest.param({"decoupled": True}, "come in parts", id="decoupled"),
    ],
)
def test_answers_with_a_history_are_not_compared(tmp_path: Path, change: dict[str, Any], note: str) -> None:
    publish(tmp_path)
    payloads = prepare(ModelInterface("m", "3", 8, INTERFACE.inputs, INTERFACE.outputs, **change), repository=tmp_path)
    assert {item.expected for item in payloads.items} == {None}
    assert note in payloads.notes[0]


def test_an_ensembles_older_version_has_no_answers_of_its_own_any_more(tmp_path: Path) -> None:
    publish(tmp_path, model="inner", version=2)
    publish(tmp_path, composing_models={"inner": "of an older one"})
    publish(tmp_path, composing_models={"inner": "d"}, version=4)
    payloads = prepare(INTERFACE, repository=tmp_path)
    assert {item.expected for item in payloads.items} == {None}
    assert payloads.notes == ["answers are not compared: it runs another version of inner now"]


def test_a_version_without_a_manifest_is_sent_and_not_compared(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "m/3/manifest.json").unlink()
    payloads = prepare(INTERFACE, repository=tmp_path)
    assert {item.expected for item in payloads.items} == {None}
    assert payloads.notes == ["answers are not compared: the version has no manifest"]


def test_without_golden_samples_of_that_version_values_are_generated(tmp_path: Path) -> None:
    publish(tmp_path, version=2)
    payloads = prepare(INTERFACE, repository=tmp_path, batch=2)
    assert payloads.description == "random values, 64 distinct"
    assert {item.inputs["x"].shape for item in payloads.items} == {(2, 2)}


def test_a_given_shape_generates_values(tmp_path: Path) -> None:
    publish(tmp_path)
    assert prepare(INTERFACE, repository=tmp_path, dims={"x": 2}).description == "random values, 64 distinct"
    with pytest.raises(LoadError, match=r"m version 3: --shape x: golden samples already have shapes"):
        prepare(INTERFACE, source="golden", repository=tmp_path, dims={"x": 2})


def test_random_numbers_follow_the_golden_samples(tmp_path: Path) -> None:
    """As they are sent: NaN is none of them, and a range that is given goes first."""
    types = {"ids": "INT32", "x": "FP32", "other": "INT64", "flag": "BOOL"}
    inputs = tuple(InterfaceTensor(name, datatype, (4,)) for name, datatype in types.items())
    golden = {
        "ids": np.array([[1, 2, 3, 4], [4, 5, 6, 19]], np.int32),
        "x": np.array([[np.nan, -2.5, 0, 1], [7.5, 0, 0, np.inf]], np.float32),
        "other": np.array([[100, 200, 300, 400]] * 2),
        "flag": np.zeros((2, 4), bool),
    }
    publish(tmp_path, inputs=golden, outputs={"y": np.zeros((2, 2), np.float32)})
    interface = replace(INTERFACE, inputs=inputs)
    made = prepare(interface, source="random", repository=tmp_path, ranges={"other": [7, 8]})
    drawn = {name: np.stack([item.inputs[name] for item in made.items]) for name in types}
    ends = {name: (values.min(), values.max()) for name, values in drawn.items()}
    assert (ends["ids"], ends["other"]) == ((1, 19), (7, 8))
    assert -2.5 <= ends["x"][0] < -2
    assert 7 < ends["x"][1] <= 7.5
    assert made.notes == ["values are drawn from the range of the golden samples: ids 1..19, x -2.5..7.5"]
    assert "--range ids=LOW:HIGH gives another range" in made.hint


def test_a_given_range_is_for_random_values(tmp_path: Path) -> None:
    publish(tmp_path)
    assert prepare(INTERFACE, repository=tmp_path, ranges={"x": [5, 6]}).description.startswith("random values")
    with pytest.raises(LoadError, match="--range x: for values that are drawn at random"):
        prepare(INTERFACE, source="golden", repository=tmp_path, ranges={"x": [5, 6]})
    with pytest.raises(LoadError, match="m has no input 'y'"):
        prepare(INTERFACE, ranges={"y": [5, 6]})


def test_zeros_are_one_payload(tmp_path: Path) -> None:
    payloads = prepare(INTERFACE, source="zero")
    assert (payloads.description, len(payloads.items), len(payloads.notes)) == ("zeros, 1 distinct", 1, 1)
    assert payloads.notes[0].startswith("1 distinct payload: ")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps([{"x": [index % 2, 0]} for index in range(5)]))
    payloads = prepare(INTERFACE, source=str(tmp_path / "s.json"))
    assert rows(payloads) == [[0], [1], [0], [1], [0]]
    assert payloads.description == "s.json, 5 samples, 2 distinct"
    assert len(prepare(INTERFACE, source=str(tmp_path / "s.json"), distinct=3).items) == 3


def test_rows_of_one_request_have_one_shape(tmp_path: Path) -> None:
    interface = ModelInterface("m", "1", 8, (InterfaceTensor("x", "FP32", (-1,)),), ())
    (tmp_path / "s.json").write_text(json.dumps([{"x": [0.0] * length} for length in (1, 2, 1, 2, 1, 3)]))
    payloads = prepare(interface, source=str(tmp_path / "s.json"), batch=2)
    assert {item.inputs["x"].shape for item in payloads.items} == {(2, 1), (2, 2), (2, 3)}


def test_nan_is_sent_and_named(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('[{"x": [NaN, 1]}]')
    payloads = prepare(INTERFACE, source=str(tmp_path / "s.json"))
    assert payloads.notes[0] == "input 'x' contains NaN"


@pytest.mark.parametrize(
    ("interface", "options", "message"),
    [
        pytest.param(INTERFACE, {"batch": 9}, r"m: batch 9: the model takes at most 8 rows", id="large"),
        pytest.param(FIXED, {"batch": 2}, r"m: batch 2: the model does not batch\n  hint: .*batch at 1", id="none"),
        pytest.param(INTERFACE, {"batch": 0}, r"m: batch 0: must be at least 1", id="zero"),
        pytest.param(INTERFACE, {"distinct": 0}, r"0 distinct payloads: must be at least 1", id="none asked for"),
        pytest.param(INTERFACE, {"source": "golden"}, r"m version 3: no golden samples in this project\n  hint: use --payload random", id="golden"),
        pytest.param(INTERFACE, {"dims": {"xx": 2}}, r"--shape: m has no input 'xx'\n  hint: did you mean 'x'|known: x", id="shape"),
        pytest.param(INTERFACE, {"source": "no.json"}, r"no\.json: no such file", id="file"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused(interface: ModelInterface, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        prepare(interface, **options)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param({"inputs": {"x": np.zeros((3, 5), np.float32)}}, r"golden\.npz: sample 0: input 'x': the model takes \[2\]", id="shape"),
        pytest.param({"inputs": {"z": np.zeros((3, 2), np.float32)}}, r"golden\.npz: sample 0: m has no input 'z'", id="name"),
        pytest.param({"inputs": {}}, r"golden\.npz: empty file", id="none"),
    ],
)  # fmt: skip
def test_golden_samples_of_another_model_are_refused(tmp_path: Path, damage: dict[str, Any], message: str) -> None:
    publish(tmp_path, **damage)
    with pytest.raises(LoadError, match=message):
        prepare(INTERFACE, repository=tmp_path)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "m/3/manifest.json").write_text("{")
    with pytest.raises(ModelwrightError, match=r"manifest\.json: .*\n  hint: restore"):
        prepare(INTERFACE, repository=tmp_path)


def test_payloads_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path)
    monkeypatch.setattr(samples, "MAX_BYTES", 1000)
    with pytest.raises(LoadError, match=r"m: .* kB of payloads, at most .*\n  hint: ask for fewer distinct payloads"):
        prepare(INTERFACE, repository=tmp_path, batch=8)


@pytest.mark.parametrize(
    ("actual", "difference"),
    [
        pytest.param({"y": np.array([[1.0, 2.0]])}, "", id="equal"),
        pytest.param({"y": np.array([[1.0, 2.4]])}, "", id="within"),
        pytest.param({"y": np.array([[1.0, 2.0]]), "z": np.zeros(1)}, "", id="one more output"),
        pytest.param({"y": np.array([[1.0, 2.6]])}, "'y' differs by 6.0e-01 from the source, allowed 5.0e-01", id="over"),
        pytest.param({"y": np.array([[1.0, np.nan]])}, "NaN", id="NaN"),
        pytest.param({"y": np.array([1.0, 2.0])}, "shape", id="shape"),
        pytest.param({}, "'y'", id="missing"),
    ],
)  # fmt: skip
def test_answers_are_checked(actual: dict[str, Any], difference: str) -> None:
    found = check({"y": np.array([[1.0, 2.0]])}, actual, {"y": Tolerance(atol=0.5)})
    assert (found == "") == (difference == "")
    assert difference in found


def test_a_real_server_takes_generated_values(client: Client) -> None:
    interface = read_interface(client, "identity")
    payloads = prepare(interface, batch=3, dims={"NUMBERS": 5, "TEXTS": 2})
    for item in payloads.items[:4]:
        answer = client.infer("identity", item.inputs)
        expected = {f"SAME_{name}": array for name, array in item.inputs.items()}
        assert check(expected, answer, payloads.tolerance) == ""
