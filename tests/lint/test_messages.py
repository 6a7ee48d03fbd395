"""What findings say: the word that was meant, a template named as one, one note for many plans, examples over lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelwright.lint.engine import Finding, lint
from modelwright.lint.examples import PYTHON_MODEL, base_text, files_of, write
from modelwright.lint.explain import explain
from modelwright.lint.pretty import config_lines
from modelwright.lint.registry import all_rules
from modelwright.lint.rule import FileContent, TensorRtPlan
from modelwright.lint.spellings import enum_value
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import MAX_SUGGESTIONS, Options
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.pbtext import PbtxtError, parse_message
from modelwright.triton.releases import release

PYTHON = base_text("python")
TYPES = tuple(schema().DataType.keys())
KINDS = ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL")
STEP = 'step [ {{ model_name: "{0}", model_version: -1, input_map {{ key: "x" value: "x" }}, output_map {{ key: "y" value: "y" }} }} ]'


def findings(root: Path, rule: str, files: dict[str, FileContent]) -> list[Finding]:
    write(files, root)
    report = lint(RepositoryTree.read(root), Options(release("24.10")))
    assert report.crashes == ()
    return [item for item in report.findings if item.rule.id == rule]


def found(root: Path, rule: str, config: str) -> list[Finding]:
    """What a rule finds in a model of this config."""
    return findings(root, rule, {"m/config.pbtxt": config, "m/1/model.py": PYTHON_MODEL})


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *[("TYPE_BYTES", "TYPE_STRING"), ("TYPE_FLOAT", "TYPE_FP32"), ("TYPE_DOUBLE", "TYPE_FP64"), ("fp32", "TYPE_FP32")],
        *[("TYPE_LONG", "TYPE_INT64"), ("TYPE_HALF", "TYPE_FP16"), ("TYPE_INT", "TYPE_INT32"), ("TYPE_STR", "TYPE_STRING")],
        *[("float32", "TYPE_FP32"), ("DT_INT64", "TYPE_INT64"), ("TYPE_BFLOAT16", "TYPE_BF16"), ("TYPE_IN64", "TYPE_INT64")],
    ],
)  # fmt: skip
def test_words_for_data_types_are_understood(word: str, meant: str) -> None:
    assert enum_value(word, TYPES) == meant


@pytest.mark.parametrize(
    ("word", "meant"), [("CPU", "KIND_CPU"), ("gpu", "KIND_GPU"), ("CUDA", "KIND_GPU"), ("TPU3", None)]
)
def test_words_for_instance_kinds_are_understood(word: str, meant: str | None) -> None:
    assert enum_value(word, KINDS) == meant


@pytest.mark.parametrize(
    ("line", "rule", "fix"),
    [
        ('backend: "onnx"', "MW105", "did you mean 'onnxruntime'?"),
        ('backend: "trt"', "MW105", "did you mean 'tensorrt'?"),
        ('backend: "tf"', "MW105", "did you mean 'tensorflow'?"),
        ('backend: "pytorch_libtorch"', "MW105", "did you mean 'pytorch'?"),
        ('backend: "ensemble"', "MW105", 'platform: "ensemble" and no backend'),
        ('backend: "${backend}"', "MW105", "placeholder of a template"),
        ('platform: "tensorrt"', "MW102", 'backend: "tensorrt" instead of platform'),
        ('platform: "tensorflow_saved_model"', "MW102", "did you mean 'tensorflow_savedmodel'?"),
        ('backend: "python"\npreferred_batch_size: [ 4 ]', "MW002", "Write it inside dynamic_batching { … }"),
        ('backend: "python"\ndynamic_batching { max_batch_size: 4 }', "MW002", "at the top level"),
    ],
)
def test_a_fix_names_what_was_meant(tmp_path: Path, line: str, rule: str, fix: str) -> None:
    config = line + PYTHON.partition("\n")[2].join(["\n", ""])
    (finding,) = found(tmp_path, rule, config)
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("value", "by"),
    [
        ("${max_batch_size}", "fill_template.py"),
        ("{{ rows }}", "Jinja"),
        ("{% if x %} 8", "Jinja"),
        ("<ROWS>", "Write a value"),
        ("%(rows)s", "operator %"),
        ("{rows}", "str.format"),
        ("$ROWS", "envsubst"),
        ("@ROWS@", "CMake"),
    ],
)
def test_a_template_is_named_as_one(tmp_path: Path, value: str, by: str) -> None:
    config = f"{PYTHON}model_repository_agents {{ }}\n".replace("max_batch_size: 8", f"max_batch_size: {value}")
    (finding,) = found(tmp_path, "MW009", config)
    assert value.removesuffix(" 8") in finding.message
    assert by in finding.fix
    assert finding.line == 2
    assert found(tmp_path, "MW001", config) == []


def test_a_mistake_beside_a_placeholder_is_a_mistake(tmp_path: Path) -> None:
    assert found(tmp_path, "MW001", "max_batch_size 8  # was ${rows}\n")
    assert found(tmp_path, "MW009", "max_batch_size 8  # was ${rows}\n") == []


def ensemble(model: str) -> str:
    return f"{base_text('ensemble')}ensemble_scheduling {{ {STEP.format(model)} }}\n"


def test_a_missing_model_is_not_taken_for_the_ensemble_itself(tmp_path: Path) -> None:
    files: dict[str, FileContent] = {"bert_large/config.pbtxt": ensemble("bert_larg"), "bert_lite/config.pbtxt": PYTHON}
    (finding,) = findings(tmp_path, "MW706", files)
    assert finding.fix == "did you mean 'bert_lite'? If not, add 'bert_larg' to the repository."


def test_so_many_models_are_looked_for_and_no_more(tmp_path: Path) -> None:
    models = MAX_SUGGESTIONS + 5
    files: dict[str, FileContent] = {f"m{number}/config.pbtxt": ensemble(f"m{number}x") for number in range(models)}
    fixes = [finding.fix for finding in findings(tmp_path, "MW706", files)]
    assert len(fixes) == models
    assert sum(fix.startswith("did you mean") for fix in fixes) == MAX_SUGGESTIONS


def test_fields_of_a_backend_are_not_held_against_a_model_that_is_no_ensemble(tmp_path: Path) -> None:
    config = f"{PYTHON}instance_group [ {{ kind: KIND_CPU }} ]\nensemble_scheduling {{ {STEP.format('m')} }}\n"
    assert found(tmp_path, "MW701", config) == []
    (finding,) = found(tmp_path, "MW702", config)
    assert "backend 'python'" in finding.message


def test_plans_without_manifests_are_one_finding(tmp_path: Path) -> None:
    files: dict[str, FileContent] = {}
    for name in ("a", "b", "c"):
        files |= {f"{name}/config.pbtxt": base_text("tensorrt"), f"{name}/1/model.plan": TensorRtPlan("10.5.0.18")}
    files["b/1/manifest.json"] = "{}"
    unrecorded, own = findings(tmp_path, "MW802", files)
    assert (unrecorded.model, own.model) == ("a", "b")
    assert unrecorded.message.endswith("nothing records; the same holds for 1 other plan")


@pytest.mark.parametrize(("backend", "count"), [("python", 1), ("paddle", 0), ("fastdeploy", 0)])
def test_accelerators_are_ignored_only_by_backends_that_are_known(tmp_path: Path, backend: str, count: int) -> None:
    accelerator = 'optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] } }'
    assert len(found(tmp_path, "MW903", PYTHON.replace("python", backend) + accelerator)) == count


@pytest.mark.parametrize(
    ("batching", "said"),
    [
        ("preferred_batch_size: [ 1 ]", "every request runs alone"),
        ("preferred_batch_size: [ 1, 4 ], max_queue_delay_microseconds: 100", "no request waits for others"),
        ("preferred_batch_size: [ 1, 4 ]", ""),
    ],
)
def test_a_preferred_size_of_1_alone_means_no_batches(tmp_path: Path, batching: str, said: str) -> None:
    messages = [finding.message for finding in found(tmp_path, "MW906", f"{PYTHON}dynamic_batching {{ {batching} }}\n")]
    assert len(messages) == bool(said)
    assert all(said in message for message in messages)


def test_every_example_over_lines_is_the_same_config() -> None:
    for rule in all_rules().values():
        for fault in (True, False):
            text = files_of(rule.example, fault=fault).get("m/config.pbtxt")
            lines = config_lines(text) if isinstance(text, str) else [""]
            assert max(map(len, lines)) <= 100, rule.id
            assert _parsed("\n".join(lines)) == _parsed(text if isinstance(text, str) else ""), rule.id


def _parsed(text: str) -> Any:
    try:
        return parse_message(text)
    except PbtxtError:
        return None


def test_an_example_is_laid_out() -> None:
    assert (
        '    parameters {\n      key: "intra_op_thread_count"\n      value { string_value: "two" }\n    }'
        in explain(all_rules()["MW109"])
    )
