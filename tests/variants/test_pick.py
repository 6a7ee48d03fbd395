"""`bench` and `pick` of variants, and the alias that serves the best one. Times are made up; models are built."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelwright.bench.bench import Asked
from modelwright.bench.contenders import contests
from modelwright.bench.document import ContenderResult, place, write
from modelwright.bench.rounds import BenchPlan
from modelwright.errors import LoadError, RepositoryError, SpecError
from modelwright.facts.compared_with import ComparedWith
from modelwright.loadtest.measure.progress import Progress
from modelwright.operations.bench import bench_models
from modelwright.operations.pick import Picked, pick
from tests.bench.results import result, row
from tests.conftest import Sandbox
from tests.variants.test_variants import EVALUATE_PY

YAML = """
source: {{kind: onnx, path: model.onnx}}
inputs: [{{name: x, dtype: FP32, shape: [2]}}]
outputs: [{{name: y, dtype: FP32, shape: [2]}}]
samples: data:samples
evaluate: data:evaluate
serving: {{max_batch_size: 8}}
variants: [{variants}]
"""
VARIANTS = (
    "{name: doubled_tidy, steps: [tidy], serving: {max_batch_size: 4}}",
    "{name: doubled_int8, steps: [{shift: {by: 0.1}}], gates: {accuracy: {min: 0.9}}}",
    "{name: doubled_later, steps: [tidy], on_request: true}",
    "{name: doubled_gpu, steps: [{shift: {here: 'no'}}], gates: {accuracy: {min: 0.9}}}",
)
LIVE = "# Clients ask for this one.\nsource: {kind: alias, of: doubled, serves: doubled}  # today\n"


def family(sandbox: Sandbox, *variants: str) -> None:
    folder = sandbox.onnx_builder(yaml=YAML.format(variants=", ".join(variants or VARIANTS)))
    (folder / "data.py").write_text(EVALUATE_PY)


_kept: list[Path] = []  # the project, once it is built: tests get copies of it


@pytest.fixture
def built(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    if _kept:
        shutil.copytree(_kept[0], sandbox.root, symlinks=True, dirs_exist_ok=True, copy_function=copy_over)
        return sandbox
    family(sandbox)
    outcomes = sandbox.build()
    assert {name for name, outcome in outcomes.items() if outcome.status == "new"} == {
        "doubled",
        "doubled_tidy",
        "doubled_int8",
    }
    _kept.append(tmp_path_factory.mktemp("built") / "project")
    ignored = shutil.ignore_patterns("server")
    shutil.copytree(sandbox.root, _kept[0], symlinks=True, ignore=ignored)
    return sandbox


def copy_over(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    shutil.copy2(source, target)


def kept(sandbox: Sandbox, rows: dict[str, float], **fields: Any) -> None:
    """A result of the bench, on this machine, of what is published: {model: milliseconds of a call}."""
    (contest,) = contests(sandbox.project, ["doubled"])
    there = [item.row for item in contest.contenders]
    measured = [with_time(known, rows.get(known.name)) for known in there]
    found = result(measured, here=True, model="doubled", **fields)
    write(found, place(sandbox.project.state, "doubled"))


def with_time(known: ContenderResult, median_ms: float | None) -> ContenderResult:
    return known.model_copy(update={"latencies": row("made up", median_ms).latencies}) if median_ms else known


def best(sandbox: Sandbox, **options: Any) -> Picked:
    return pick(sandbox.project, "doubled", "latency", **options)


# --- bench ------------------------------------------------------------------------------------------------------------


def test_every_variant_is_a_row_and_what_is_not_there_says_why(built: Sandbox) -> None:
    asked = Asked(BenchPlan(rounds=6, seconds=0.001, warmup_s=0.0), served=None)
    (found,) = bench_models(built.project, ["doubled_int8"], asked, Progress())
    assert found.model == "doubled"
    rows = {item.name: item for item in found.contenders}
    assert [(name, item.form) for name, item in rows.items()] == [
        ("doubled", "onnx"),
        *((name, "variant") for name in ("doubled_gpu", "doubled_int8", "doubled_later", "doubled_tidy")),
    ]
    assert rows["doubled_later"].reason == "not built: modelwright build doubled_later"
    assert rows["doubled_gpu"].reason == "cannot be made here: there is no machine that shifts"
    assert rows["doubled_int8"].metrics["accuracy"] == pytest.approx(0.99)
    assert [latency.batch for latency in rows["doubled_int8"].latencies] == [1, 2, 8]
    assert [latency.batch for latency in rows["doubled_tidy"].latencies] == [1, 2]  # it takes four rows at most
    assert rows["doubled_int8"].latencies[0].speedup is not None


def test_the_plain_model_has_the_metrics_that_its_variants_evaluate_of_it(sandbox: Sandbox) -> None:
    family(sandbox, "{name: doubled_int8, steps: [{shift: {by: 0.1}}], evaluate: 'data:again', gates: {gap: {max: 1}}}")
    data = sandbox.root / "builders/doubled/data.py"
    data.write_text(EVALUATE_PY.replace("def against_source", "def again"))
    sandbox.build()
    (contest,) = contests(sandbox.project, ["doubled"])
    assert contest.plain.row.metrics == {"accuracy": 1.0, "gap": 0.0}


def test_a_batch_that_one_variant_does_not_take_is_an_error(built: Sandbox) -> None:
    with pytest.raises(LoadError, match=r"--batch 8: doubled_tidy takes at most 4 \(max_batch_size is 4\)"):
        bench_models(built.project, ["doubled"], Asked(served=None, batches=[8]), Progress())


# --- pick -------------------------------------------------------------------------------------------------------------


def test_the_best_of_what_is_published_is_named(built: Sandbox) -> None:
    kept(built, {"doubled": 1.0, "doubled_int8": 0.5, "doubled_tidy": 0.9})
    found = best(built)
    assert (found.choice.best, found.choice.second, found.alias) == ("doubled_int8", "doubled_tidy", "")
    printed = built.cli("pick", "doubled_tidy", "--objective", "latency").output
    assert printed.startswith("doubled_int8\n  doubled_int8: 0.500 ms, doubled_tidy: 0.900 ms")
    assert "not compared: doubled_gpu: cannot be made here: there is no machine that shifts" in printed


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("missing", "doubled: there is no result of a bench"),
        ("damaged", "damaged, or of another Modelwright: Invalid JSON"),
        ("field", "damaged, or of another Modelwright: threads: Field required"),
        ("machine", "the last bench is of another machine: cpu A CPU, here"),
        ("version", "the last bench did not measure version 2 of doubled_int8"),
        ("variant", "the last bench did not measure version 1 of doubled_later"),
    ],
)
def test_a_result_that_is_not_about_what_is_here_now_is_refused(built: Sandbox, spoil: str, message: str) -> None:
    kept(built, {"doubled": 1.0, "doubled_int8": 0.5})
    path = place(built.project.state, "doubled")
    if spoil == "missing":
        path.unlink()
    elif spoil == "damaged":
        path.write_text(path.read_text()[:100])
    elif spoil == "field":
        path.write_text(path.read_text().replace('"threads"', '"treads"'))
    elif spoil == "machine":
        kept(built, {"doubled": 1.0}, machine=result([]).machine)
    elif spoil == "version":
        family(built, VARIANTS[1].replace("0.1", "0.2"))
        built.build()
    else:
        built.build("doubled_later")
    with pytest.raises(LoadError) as raised:
        best(built)
    assert message in raised.value.message
    assert raised.value.hint.endswith("modelwright bench doubled")


def test_write_makes_the_alias_serve_the_best_and_keeps_comments(built: Sandbox) -> None:
    folder = built.write("live", model_yaml=LIVE)
    kept(built, {"doubled": 1.0, "doubled_int8": 0.5})
    printed = built.cli("pick", "doubled", "--objective", "latency", "--write").output
    assert (folder / "model.yaml").read_text() == LIVE.replace("serves: doubled}", "serves: doubled_int8}")
    assert "builders/live/model.yaml: live serves doubled_int8 now" in printed
    assert built.builders["live"].composing == ("doubled_int8",)
    assert "live serves doubled_int8 already" in built.cli("pick", "live", "--objective", "latency", "--write").output


def test_write_keeps_line_ends_and_leaves_the_file_whole_on_a_full_disk(
    built: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = built.write("live", model_yaml="") / "model.yaml"
    before = LIVE.replace("\n", "\r\n").encode()
    file.write_bytes(before)
    kept(built, {"doubled": 1.0, "doubled_int8": 0.5})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", no_space)
        assert "No space left on device" in built.cli("pick", "live", "--objective", "latency", "--write").output
    assert file.read_bytes() == before
    built.cli("pick", "live", "--objective", "latency", "--write")
    assert file.read_bytes() == before.replace(b"serves: doubled}", b"serves: doubled_int8}")
    assert [path.name for path in file.parent.iterdir()] == ["model.yaml"]


def no_space(path: Path, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_write_without_an_alias_says_which_one_to_make(built: Sandbox) -> None:
    kept(built, {"doubled": 1.0, "doubled_int8": 0.5})
    with pytest.raises(SpecError, match="doubled has no alias that could serve doubled_int8") as raised:
        best(built, write=True)
    assert raised.value.hint == (
        "write builders/doubled_live/model.yaml with the line: source: {kind: alias, of: doubled, serves: doubled_int8}"
    )


def test_with_several_aliases_one_must_be_named(built: Sandbox) -> None:
    built.write("live", model_yaml=LIVE)
    built.write("stage", model_yaml=LIVE)
    kept(built, {"doubled": 1.0, "doubled_int8": 0.5})
    with pytest.raises(SpecError, match="doubled has several aliases: live, stage"):
        best(built, write=True)
    with pytest.raises(SpecError, match="--alias liv: is no alias of doubled") as raised:
        best(built, write=True, alias="liv")
    assert raised.value.hint == "its aliases: live, stage"
    assert best(built, write=True, alias="stage").alias == "stage"


def test_an_alias_never_gets_other_tensors(built: Sandbox) -> None:
    folder = built.write("live", model_yaml=LIVE)
    kept(built, {"doubled": 1.0, "doubled_int8": 0.5})
    manifest = built.root / "model_repository/doubled_int8/1/manifest.json"
    manifest.write_text(manifest.read_text().replace('"dtype": "FP32"', '"dtype": "FP16"'))
    with pytest.raises(SpecError, match="doubled_int8 has other tensors than doubled, which live serves now") as raised:
        best(built, write=True)
    assert "x FP16 [2], y FP16 [2], not x FP32 [2], y FP32 [2]" in raised.value.message
    assert (folder / "model.yaml").read_text() == LIVE


def test_nothing_published_is_an_error(sandbox: Sandbox) -> None:
    family(sandbox)
    with pytest.raises(RepositoryError, match="nothing of it is published"):
        best(sandbox)


# --- alias ------------------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_an_alias_answers_as_what_it_serves_and_gets_a_version_when_that_changes(built: Sandbox) -> None:
    folder = built.write("live", model_yaml=LIVE)
    assert built.build()["live"].status == "new"
    assert "max_batch_size: 8" in built.config("live")
    assert built.manifest("live").verification.max_abs_error == {"y": 0.0}
    assert built.manifest("live").verification.compared_with is ComparedWith.SOURCE
    (folder / "model.yaml").write_text(LIVE.replace("serves: doubled}", "serves: doubled_tidy}"))
    outcome = built.build()["live"]
    assert (outcome.status, outcome.version) == ("new", 2), outcome
    assert "max_batch_size: 4" in built.config("live")
    assert 'model_name: "doubled_tidy"' in built.config("live")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("{kind: alias, of: doubld, serves: doubled}", "source.of: no builder makes a model named 'doubld'"),
        ("{kind: alias, of: doubled, serves: other}", "source.serves: 'other' is neither doubled nor one of its"),
        ("{kind: alias, of: doubled, serves: doubled_int}", "is neither doubled nor one of its variants"),
        ("{kind: alias, of: live, serves: live}", "source.of: live is an alias, too"),
        ("{kind: alias, of: other, serves: other}", "source.serves: other declares no inputs, which an alias takes"),
        ("{kind: alias, of: broken, serves: broken}", "source: broken is faulty itself"),
        ("{kind: alias, of: doubled}", "source.serves: missing"),
    ],
    ids=["of", "serves", "variant", "itself", "undeclared", "faulty", "missing"],
)
def test_an_alias_of_what_cannot_be_served_is_an_error(sandbox: Sandbox, yaml: str, message: str) -> None:
    family(sandbox)
    sandbox.onnx_builder("other")
    sandbox.write("broken", model_yaml="nonsense: 1\n")
    sandbox.write("live", model_yaml=f"source: {yaml}\n")
    outcome = sandbox.build()["live"]
    assert outcome.error is not None
    assert message in outcome.error.message


@pytest.mark.parametrize("line", ["samples: data:samples", "serving: {max_batch_size: 4}"])
def test_an_alias_has_nothing_of_its_own(sandbox: Sandbox, line: str) -> None:
    family(sandbox)
    sandbox.write("live", model_yaml=f"{LIVE}{line}\n")
    outcome = sandbox.build()["live"]
    assert outcome.error is not None
    assert "an alias has" in outcome.error.message
