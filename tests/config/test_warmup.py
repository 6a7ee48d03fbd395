"""serving.model_warmup: what is filled in, what is refused, and that the real server runs it."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.config.model_config import ConfigTensor, ConfigTensors, config_of
from modelwright.config.warmup import check_size, complete
from modelwright.errors import ConfigError
from modelwright.server.environment import ensure
from modelwright.server.local import running
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.tensor_files import raw
from modelwright.verification.golden import save_golden
from modelwright.verification.samples import unstacked
from tests.config.test_config import builder
from tests.conftest import ONNX_YAML, Recorder, Sandbox

TENSORS = ConfigTensors(
    (ConfigTensor("x", "FP32", (2,)), ConfigTensor("ids/0", "INT64", (-1,))), (ConfigTensor("y", "FP32", (2,)),)
)
SAMPLES: dict[str, Any] = {
    "x": np.array([[1, 2], [3, 4]], dtype=np.float32),
    "ids/0": np.array([[5, 6, 7], [8, 9, 10]], dtype=np.int64),
}


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    save_golden(tmp_path / "golden.npz", unstacked(SAMPLES), unstacked({"y": SAMPLES["x"]}), 2)
    return tmp_path / "golden.npz"


def completed(golden: Path, *entries: dict[str, Any]) -> tuple[list[Any], dict[str, bytes]]:
    serving = {"max_batch_size": 8, "model_warmup": list(entries)}
    inputs = [
        {"name": "x", "dtype": "FP32", "shape": [2]},
        {"name": "ids/0", "dtype": "INT64", "shape": ["n"]},
    ]
    outputs = [{"name": "y", "dtype": "FP32", "shape": [2]}]
    made = builder(serving, inputs=inputs, outputs=outputs)
    config = config_of(made, TENSORS)
    return list(config.model_warmup), complete(config, serving, TENSORS, golden, "m: serving")


def test_an_entry_alone_gets_the_first_golden_sample_of_every_input(golden: Path) -> None:
    entries, files = completed(golden, {"name": "w"})
    name = next(name for name in files if name != "warmup/golden-x").removeprefix("warmup/")
    assert re.fullmatch(r"golden-ids_0-[0-9a-f]{8}", name)
    assert files == {"warmup/golden-x": SAMPLES["x"][0].tobytes(), f"warmup/{name}": SAMPLES["ids/0"][0].tobytes()}
    assert entries[0] == schema().ModelWarmup(
        name="w",
        batch_size=1,
        inputs={
            "x": {"data_type": "TYPE_FP32", "dims": [2], "input_data_file": "golden-x"},
            "ids/0": {"data_type": "TYPE_INT64", "dims": [3], "input_data_file": name},
        },
    )


def test_only_the_inputs_that_are_named_are_there(golden: Path) -> None:
    entries, files = completed(golden, {"name": "w", "inputs": {"x": {}}})
    assert list(entries[0].inputs) == ["x"]
    assert list(files) == ["warmup/golden-x"]


@pytest.mark.parametrize("source", [{"zero_data": True}, {"random_data": True}, {"input_data_file": "mine"}], ids=str)
def test_another_source_gets_its_type_and_shape(golden: Path, source: dict[str, Any]) -> None:
    entries, files = completed(golden, {"name": "w", "inputs": {"ids/0": source}})
    assert entries[0].inputs["ids/0"] == schema().ModelWarmup.Input(data_type="TYPE_INT64", dims=[3], **source)
    assert files == {}


def test_what_is_written_stays(golden: Path) -> None:
    given = {"data_type": "TYPE_INT32", "dims": [9], "random_data": False}
    entry = {"name": "w", "batch_size": 4, "count": 3, "inputs": {"ids/0": given, "START": {**given, "dims": [1]}}}
    entries, _ = completed(golden, entry)
    assert entries[0] == schema().ModelWarmup(**{**entry, "inputs": {
        "ids/0": {**given, "data_type": "TYPE_INT32"}, "START": {**given, "dims": [1]}}})  # fmt: skip


def test_a_dynamic_dim_is_the_samples(golden: Path) -> None:
    entries, _ = completed(golden, {"name": "w", "inputs": {"ids/0": {"dims": [-1], "zero_data": True}}})
    assert list(entries[0].inputs["ids/0"].dims) == [3]


def test_a_batch_size_of_0_is_kept_where_it_is_written(golden: Path) -> None:
    entries, _ = completed(golden, {"name": "a", "batch_size": 0}, {"name": "b"}, {"name": "c", "batch_size": None})
    assert [entry.batch_size for entry in entries] == [0, 1, 1]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": {}}, r"m: serving\.model_warmup\[0\]\.inputs\.z: the model has no such input\n  hint: known: ids/0, x"),
        ({"x": {"dims": [3]}}, r"inputs\.x: dims are \[3\], .*golden sample \[2\]"),
        ({"ids/0": {"dims": [-1, -1]}}, r"dims \[-1, -1\] .*golden sample.* \[3\]"),
    ],
    ids=["an unknown input", "another shape", "another rank"],
)  # fmt: skip
def test_what_cannot_be_filled_in(golden: Path, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        completed(golden, {"name": "w", "inputs": inputs})


@pytest.mark.parametrize(
    ("array", "data"),
    [
        (np.array([[1, 2]], dtype=">i4"), b"\1\0\0\0\2\0\0\0"),
        (np.array([[1, 2], [3, 4]], dtype=np.uint8).T, b"\1\3\2\4"),
        (np.array([True, False]), b"\1\0"),
        (np.array([b"ab", b"", "é"], dtype=object), b"\2\0\0\0ab\0\0\0\0\2\0\0\0\xc3\xa9"),
    ],
    ids=["big-endian", "columns", "bool", "strings"],
)
def test_tensors_as_triton_reads_them(array: Any, data: bytes) -> None:
    assert raw(array) == data


@pytest.mark.parametrize(
    ("data_type", "dims", "data", "message"),
    [
        ("TYPE_FP32", [2, 3], bytes(23), r"f: TYPE_FP32 \[2, 3\] .*24 bytes.* 23"),
        ("TYPE_FP32", [2, 3], bytes(24), None),
        ("TYPE_FP32", [2, 3], bytes(30), None),
        ("TYPE_BOOL", [2], bytes(1), "2 bytes, .* 1"),
        ("TYPE_INT64", [1], bytes(7), "8 bytes, .* 7"),
        ("TYPE_FP16", [2], bytes(4), None),
        ("TYPE_STRING", [2], b"\1\0\0\0a\0\0\0\0", None),
        (
            "TYPE_STRING",
            [3],
            b"\1\0\0\0a\0\0\0\0",
            r"3 strings, the file has 2\n  hint: .*length",
        ),
        ("TYPE_STRING", [1], b"\5\0\0\0a", "ends in the middle"),
        ("TYPE_STRING", [1], b"hello", "ends in the middle"),
        ("TYPE_FP32", [-1], b"", None),
    ],
)
def test_a_file_must_hold_a_tensor(data_type: str, dims: list[int], data: bytes, message: str | None) -> None:
    number = schema().DataType.Value(data_type)
    if message is None:
        check_size(number, dims, data, "f")
        return
    with pytest.raises(ConfigError, match=message):
        check_size(number, dims, data, "f")


# --- built and published ----------------------------------------------------------------------------------------------

WARM_YAML = ONNX_YAML.replace("max_batch_size: 8", "max_batch_size: 8, model_warmup: [{name: w}]")
FILE_YAML = ONNX_YAML.replace(
    "max_batch_size: 8", "max_batch_size: 8, model_warmup: [{name: w, inputs: {x: {input_data_file: mine.bin}}}]"
)


def warm_files(sandbox: Sandbox, model: str = "doubled") -> dict[str, bytes]:
    folder = sandbox.root / "model_repository" / model / "warmup"
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def with_file(folder: Path, data: bytes) -> Path:
    (folder / "warmup").mkdir(exist_ok=True)
    (folder / "warmup/mine.bin").write_bytes(data)
    return folder


def test_other_golden_samples_are_other_warm_up_data(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(yaml=WARM_YAML)
    sandbox.build()
    assert warm_files(sandbox) == {"golden-x": np.array([0, 1], dtype=np.float32).tobytes()}
    (folder / "data.py").write_text((folder / "data.py").read_text().replace("np.arange(8", "1 + np.arange(8"))
    assert sandbox.build()["doubled"].status == "config"
    assert warm_files(sandbox) == {"golden-x": np.array([1, 2], dtype=np.float32).tobytes()}


def test_warm_up_makes_no_step_run_and_a_build_that_changes_nothing_changes_nothing(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    (folder / "model.yaml").write_text(WARM_YAML)
    recorder = Recorder()
    outcome = sandbox.build(listener=recorder)["doubled"]
    assert (recorder.ran, outcome.status, outcome.version) == ([], "config", 1)
    before = sandbox.published()
    assert sandbox.build()["doubled"].status == "unchanged"
    assert sandbox.published() == before


def test_a_file_of_the_builder_is_published_and_followed(sandbox: Sandbox) -> None:
    folder = with_file(sandbox.onnx_builder(yaml=FILE_YAML), bytes(8))
    sandbox.build()
    assert warm_files(sandbox) == {"mine.bin": bytes(8)}
    with_file(folder, b"\1" * 9)
    assert sandbox.build()["doubled"].status == "config"
    assert warm_files(sandbox) == {"mine.bin": b"\1" * 9}
    (folder / "model.yaml").write_text(WARM_YAML)
    sandbox.build()
    assert list(warm_files(sandbox)) == ["golden-x"]
    (folder / "model.yaml").write_text(ONNX_YAML)
    sandbox.build()
    assert not (sandbox.root / "model_repository/doubled/warmup").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mien.bin", "input_data_file: there is no file 'warmup/mien.bin'\n  hint: did you mean 'warmup/mine.bin'?"),
        ("../data.py", "input_data_file: 'warmup/../data.py' is not a plain path inside the model's folder"),
        ("/etc/passwd", "'warmup//etc/passwd' is not a plain path"),
        ("link.bin", "'warmup/link.bin' is a link that leaves the builder's folder"),
        ("short.bin", "input_data_file: TYPE_FP32 [2] needs 8 bytes, the file has 5"),
    ],
    ids=["missing", "above", "absolute", "a link", "too short"],
)
def test_files_that_cannot_be_warmed_up_with(sandbox: Sandbox, tmp_path: Path, name: str, message: str) -> None:
    folder = with_file(sandbox.onnx_builder(yaml=FILE_YAML.replace("mine.bin", name)), bytes(8))
    (tmp_path / "secret").write_bytes(bytes(8))
    (folder / "warmup/link.bin").symlink_to(tmp_path / "secret")
    (folder / "warmup/short.bin").write_bytes(bytes(5))
    error = sandbox.error()
    assert "Error: builders/doubled/model.yaml: serving.model_warmup[0].inputs.x.input_data_file: " in error
    assert message in error


def test_a_file_with_the_name_of_a_golden_one(sandbox: Sandbox) -> None:
    yaml = FILE_YAML.replace("[{name: w,", "[{name: v}, {name: w,").replace("mine.bin", "golden-x")
    folder = sandbox.onnx_builder(yaml=yaml)
    (folder / "warmup").mkdir()
    (folder / "warmup/golden-x").write_bytes(b"other data")
    assert "serving: 'warmup/golden-x' is the name of a golden sample\n  hint: rename" in sandbox.error()


def test_an_environment_may_warm_up_by_itself(sandbox: Sandbox) -> None:
    environment = "environments: {gpu: {model_warmup: [{name: w, batch_size: 8}]}}"
    sandbox.onnx_builder(yaml=ONNX_YAML.replace("max_batch_size: 8", f"max_batch_size: 8, {environment}"))
    sandbox.build()
    model = sandbox.root / "model_repository/doubled"
    assert list(warm_files(sandbox)) == ["golden-x"]
    assert "warmup {" not in (model / "config.pbtxt").read_text()
    assert 'input_data_file: "golden-x"' in (model / "configs/gpu.pbtxt").read_text()


# --- on the real server -----------------------------------------------------------------------------------------------

ENTRIES = """[
  {name: golden}, {name: batch, batch_size: SEVERAL, count: 2}, {name: zero, inputs: {x: {zero_data: true}}},
  {name: random, inputs: {x: {random_data: true}}}, {name: file, inputs: {x: {input_data_file: mine.bin}}},
  {name: skipped, batch_size: 0}]"""
SEEN_YAML = """
source: {kind: python}
inputs: [{name: x, dtype: DTYPE, shape: [n]}]
outputs: [{name: y, dtype: INT32, shape: [1]}]
samples: data:samples
serving: {BATCH model_warmup: ENTRIES}
"""
SEEN_DATA_PY = """
import numpy as np


def samples():
    return {"x": np.array(VALUES).reshape(2, 3)}
"""
# Says what it gets: the server's log then shows what a warm-up was made of.
SEEN_MODEL_PY = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_name"]

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            pb_utils.Logger.log_info(f"{self.name} got {json.dumps(x.tolist(), default=bytes.hex)}")
            y = np.zeros((*x.shape[:-1], 1), dtype=np.int32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return answers
"""
STRINGS = '["a", "", "é", "b", "c", "d"], dtype=object'
NUMBERS = "[1, 2, 3, 4, 5, 6], dtype=np.int16"


def seen_builder(sandbox: Sandbox, name: str, *, strings: bool, batch: int) -> None:
    yaml = SEEN_YAML.replace("ENTRIES", ENTRIES.replace("SEVERAL", str(min(batch, 4) or 1)))
    yaml = yaml.replace("DTYPE", "STRING" if strings else "INT16")
    yaml = yaml.replace("BATCH", f"max_batch_size: {batch}," if batch else "")
    data = SEEN_DATA_PY.replace("VALUES", STRINGS if strings else NUMBERS)
    folder = sandbox.write(name, model_yaml=yaml, data_py=data, model_py=SEEN_MODEL_PY)
    array = np.array([b"x", b"yz", b""], dtype=object) if strings else np.array([7, 8, 9], dtype=np.int16)
    with_file(folder, raw(array))


@pytest.mark.server
def test_the_server_warms_up_with_what_was_meant(sandbox: Sandbox) -> None:
    for name, strings, batch in (("bs", True, 8), ("s", True, 0), ("bn", False, 8), ("n", False, 0)):
        seen_builder(sandbox, name, strings=strings, batch=batch)
    entries = ENTRIES.replace("SEVERAL", "4")
    with_file(
        sandbox.onnx_builder("onnx", ONNX_YAML.replace("_size: 8", f"_size: 8, model_warmup: {entries}")), bytes(8)
    )
    failed = {name: outcome.error for name, outcome in sandbox.build().items() if outcome.error}
    assert failed == {}
    environment = ensure(sandbox.project.server, sandbox.project.target, lambda text: None)
    log = sandbox.root / "server.log"
    arguments = ["--log-verbose=1"]
    repository = sandbox.project.repository
    with running(environment, repository, log=log, models=["*"], stop_grace_s=0, extra_arguments=arguments) as server:
        assert server.failures() == {}
        with urllib.request.urlopen(f"http://{server.http}/v2/models/onnx/stats", timeout=60) as answer:
            statistics = json.load(answer)["model_stats"][0]
    text = log.read_text()
    runs = re.findall(r"model '(\w+)' instance \w+_0 is running warmup sample '(\w+)' for iteration (\d)", text)
    order = [(name, "1") for name in ("golden", "batch", "zero", "random", "file")]
    for model in ("bs", "s", "bn", "n", "onnx"):
        assert [run[1:] for run in runs if run[0] == model] == [*order[:2], ("batch", "2"), *order[2:]]
    assert text.count("Skipping batch 0 warmup sample 'skipped'") == 4 + 2  # one for each instance
    # Two instances of onnx, each with four single requests and two batches of four.
    assert statistics["inference_count"] == 2 * (4 + 2 * 4)
    got: dict[str, list[Any]] = {}
    for model, shown in re.findall(r'"(\w+) got (.*)"', text):
        got.setdefault(model, []).append(json.loads(shown.replace('\\"', '"')))
    golden, zero, mine = [1, 2, 3], [0, 0, 0], [7, 8, 9]
    assert [*got["n"][:4], got["n"][5]] == [golden, golden, golden, zero, mine]
    assert [*got["bn"][:10], got["bn"][11]] == [[golden]] * 9 + [[zero], [mine]]  # twice 4 copies of one request
    words, empty, mine_too = (["61", "", "c3a9"], ["", "", ""], ["78", "797a", ""])
    assert got["s"] == [words, words, words, empty, empty, mine_too]
    assert got["bs"] == [[words]] * 9 + [[empty], [empty], [mine_too]]
