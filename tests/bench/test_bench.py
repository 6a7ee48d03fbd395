"""Benches of tiny models, in real processes and on the real server. What they take is not asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelwright.bench.bench import Asked
from modelwright.bench.contenders import contests
from modelwright.bench.document import BenchResult, place
from modelwright.bench.rounds import BenchPlan
from modelwright.bench.served import ServedPlan
from modelwright.errors import LoadError, RepositoryError, SpecError
from modelwright.loadtest.measure.progress import Progress
from modelwright.operations.bench import bench_models
from tests.conftest import ONNX_YAML, PYTHON_YAML, TORCH_YAML, Sandbox

QUICK = BenchPlan(rounds=6, seconds=0.001, warmup_s=0.0)
IN_PROCESS = Asked(QUICK, served=None)


def measured(sandbox: Sandbox, name: str, asked: Asked = IN_PROCESS) -> BenchResult:
    (found,) = bench_models(sandbox.project, [name], asked, Progress())
    return found


def test_a_builder_without_a_framework_or_variants_is_the_plain_model_alone(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    found = measured(sandbox, "doubled")
    (row,) = found.contenders
    assert (row.name, row.form, row.version, row.metrics) == ("doubled", "onnx", 1, {"accuracy": 1.0})
    assert [latency.batch for latency in row.latencies] == [1, 2, 8]
    assert all(len(latency.rounds_ms) == 6 and latency.speedup is None for latency in row.latencies)
    assert row.memory_bytes is not None
    assert row.size_bytes == sandbox.manifest("doubled").files["model.onnx"].size_bytes
    assert found.source == "doubled"
    assert found.inputs == "golden samples: x [2]"


def test_the_result_is_kept_and_printed(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    page = sandbox.root / "out" / "report.html"
    options = ["--no-served", "--rounds", "6", "--seconds", "0.01", "--warmup", "0", "--batch", "1,8"]
    printed = sandbox.cli("bench", "doubled", *options, "--html", str(page))
    assert printed.exit_code == 0, printed.output
    assert "model    batch  median" in printed.output
    assert "doubled  1        " in printed.output.replace("n/a", "   ")
    assert page.read_text().startswith("<!DOCTYPE html>")
    kept = BenchResult.model_validate_json(place(sandbox.project.state, "doubled").read_bytes())
    assert kept.batches == [1, 8]
    (document,) = json.loads(sandbox.cli("bench", "doubled", *options, "--json").stdout)
    assert document["model"] == "doubled"


@pytest.mark.torch
def test_the_source_in_its_framework_is_the_first_row(sandbox: Sandbox) -> None:
    yaml = TORCH_YAML + "evaluate: data:evaluate\n"
    sandbox.torch_builder(yaml=yaml)
    sandbox.build()
    found = measured(sandbox, "scaled", Asked(QUICK, None, batches=[1], compiled=False))
    eager, plain = found.contenders
    assert (eager.name, eager.form, eager.reason, eager.metrics) == ("PyTorch", "eager", "", {"accuracy": 1.0})
    assert found.source == "PyTorch"
    assert plain.latencies[0].speedup is not None
    assert eager.latencies[0].speedup is None


@pytest.mark.torch
def test_what_torch_compile_cannot_do_is_a_row_with_the_reason(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.torch_builder()
    sandbox.build()
    monkeypatch.setenv("CXX", "/nonexistent/c++")  # inductor's compiler
    found = measured(sandbox, "scaled", Asked(QUICK, None, batches=[1]))
    compiled = found.contender("torch.compile")
    assert compiled is not None
    assert compiled.latencies == []
    assert compiled.reason.startswith("torch.compile: ")
    assert [row.name for row in found.contenders if row.latencies] == ["PyTorch", "scaled"]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("code", "builders/scaled/train.py is not what version 1 was built from: modelwright build scaled"),
        ("store", "the module of version 1 is not in the store any more: modelwright build scaled"),
    ],
)
def test_a_module_that_is_not_that_of_the_version_is_not_measured(sandbox: Sandbox, what: str, reason: str) -> None:
    folder = sandbox.torch_builder()
    sandbox.build()
    if what == "code":
        (folder / "train.py").write_text((folder / "train.py").read_text() + "\n")
    else:
        key = next(entry.key for entry in sandbox.manifest("scaled").lineage if entry.step == "torch")
        (sandbox.project.store / key[:2] / key / "artifact.json").unlink()
    (contest,) = contests(sandbox.project, ["scaled"])
    assert [item.row.reason for item in contest.contenders] == [reason, reason, ""]


def test_a_contender_whose_process_dies_is_a_row_with_the_reason(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    (sandbox.root / "model_repository/doubled/1/model.onnx").write_bytes(b"damaged")
    found = measured(sandbox, "doubled")
    assert found.contenders[0].latencies == []
    assert found.contenders[0].reason.startswith("model.onnx: onnxruntime does not load it")


@pytest.mark.server
def test_the_server_measures_models_that_no_process_can_run(sandbox: Sandbox) -> None:
    sandbox.python_builder(yaml=PYTHON_YAML)
    sandbox.onnx_builder()
    sandbox.build()
    served = ServedPlan(rounds=6, seconds=0.05, warmup_s=0.05, concurrency=2)
    python = measured(sandbox, "plus_one", Asked(QUICK, served)).contenders[0]
    assert python.reason == "a Python model runs in the server only"
    assert python.form == "served only"
    assert python.served is not None
    assert (len(python.served.rounds_per_s), python.served.failed) == (6, 0)
    plain = measured(sandbox, "doubled", Asked(QUICK, served)).contenders[0]
    assert plain.served is not None
    assert plain.latencies


# --- bad input --------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_an_error(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    with pytest.raises(SpecError, match="no builder makes a model named 'doubld'") as raised:
        contests(sandbox.project, ["doubld"])
    assert "'doubled'" in raised.value.hint


def test_a_faulty_builder_is_its_own_error(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=ONNX_YAML + "nonsense: 1\n")
    with pytest.raises(SpecError, match="nonsense"):
        contests(sandbox.project, ["doubled"])


def test_a_model_that_is_not_published_is_an_error(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    with pytest.raises(RepositoryError, match="doubled: nothing of it is published") as raised:
        contests(sandbox.project, ["doubled"])
    assert raised.value.hint == "modelwright build doubled"


def test_a_batch_above_max_batch_size_is_an_error_before_anything_is_measured(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    with pytest.raises(LoadError, match=r"--batch 9: doubled takes at most 8 \(max_batch_size is 8\)"):
        measured(sandbox, "doubled", Asked(QUICK, None, batches=[9]))


@pytest.mark.parametrize("text", ["sequence", "sequence=", "=3", "x=0", "x=-1"])
def test_a_size_without_a_number_is_an_error(sandbox: Sandbox, text: str) -> None:
    sandbox.onnx_builder()
    assert "a name and a number are needed" in sandbox.error("bench", "doubled", "--size", text)


def test_a_report_that_cannot_be_written_is_an_error(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    (tmp_path / "file").touch()
    options = ["--no-served", "--rounds", "6", "--seconds", "0.01", "--batch", "1"]
    assert "--html" in sandbox.error("bench", "doubled", *options, "--html", str(tmp_path / "file" / "report.html"))


def test_samples_come_from_a_version(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    (sandbox.root / "model_repository/doubled/1/golden.npz").unlink()
    with pytest.raises(LoadError, match="no published version has golden samples"):
        measured(sandbox, "doubled")


@pytest.mark.parametrize("seconds", ["nan", "inf"])
def test_a_time_that_is_no_number_is_refused(sandbox: Sandbox, seconds: str) -> None:
    result = sandbox.cli("bench", "doubled", "--seconds", seconds)
    assert result.exit_code == 2
    assert "is not a finite number" in result.output
