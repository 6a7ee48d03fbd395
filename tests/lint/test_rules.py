"""Every rule finds the fault of its own example, and nothing in the fixed one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from modelwright.lint.engine import LintReport, lint
from modelwright.lint.examples import files_of, write
from modelwright.lint.explain import document, explain
from modelwright.lint.registry import all_rules
from modelwright.lint.rule import GROUPS, Example, Locked, Rule, Severity
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.onnx.identity import identity_model
from modelwright.triton.releases import release
from tests.conftest import ROOT
from tests.lint.cases.native import TREES as NATIVE
from tests.lint.trees import write as write_tree

RULES = list(all_rules().values())


def linted(example: Example, root: Path, *, fault: bool) -> LintReport:
    write(files_of(example, fault=fault), root)
    return lint(RepositoryTree.read(root), Options(release(example.target), example.auto_complete))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_finds_the_fault_of_its_example(rule: Rule, tmp_path: Path) -> None:
    if os.geteuid() == 0 and any(isinstance(content, Locked) for content in rule.example.fault_files.values()):
        pytest.skip("root may list every folder")
    found = linted(rule.example, tmp_path, fault=True).findings
    assert rule.id in {item.rule.id for item in found}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_finds_nothing_in_the_fixed_example(rule: Rule, tmp_path: Path) -> None:
    report = linted(rule.example, tmp_path, fault=False)
    assert rule.id not in {item.rule.id for item in report.findings}
    assert report.errors == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_says_what_why_and_how_to_fix_it(rule: Rule) -> None:
    assert re.fullmatch(r"MW\d{3}", rule.id)
    assert rule.id[2] in GROUPS
    assert rule.why.endswith(".")
    assert rule.fix.endswith(".")
    assert not rule.title.endswith(".")
    assert rule.id in explain(rule)
    assert rule.fix in explain(rule)


def test_traps_are_warnings_and_refusals_are_errors() -> None:
    traps = {rule.severity for rule in RULES if rule.id.startswith("MW9")}
    assert traps == {Severity.WARNING}
    assert {rule.severity for rule in RULES if rule.id[2] in "36"} == {Severity.ERROR}


def test_the_document_lists_every_rule_and_is_current() -> None:
    text = (ROOT / "docs/lint.md").read_text()
    assert text == document(), "run: make docs"
    assert all(f"{rule.id} {rule.title}" in text for rule in RULES)


@pytest.mark.parametrize(
    ("target", "rules"), [("25.02", ["MW608"]), ("26.02", ["MW608"]), ("26.03", []), ("26.07", [])]
)
def test_bfloat16_is_served_from_the_release_on_whose_backend_takes_it(
    tmp_path: Path, target: str, rules: list[str]
) -> None:
    tensor = 'put [ {{ name: "{}", data_type: TYPE_BF16, dims: [ 2 ] }} ]'
    config = f'backend: "onnxruntime"\nmax_batch_size: 4\nin{tensor.format("x")}\nout{tensor.format("y")}\n'
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/config.pbtxt").write_text(config)
    (tmp_path / "m/1/model.onnx").write_bytes(identity_model(["batch", 2], "BF16"))
    report = lint(RepositoryTree.read(tmp_path), Options(release(target)))
    assert [item.rule.id for item in report.errors] == rules * 2  # the input and the output
    assert all("is of BFLOAT16" in item.message for item in report.errors)
    assert all("with Triton 26.03 or later" in item.fix for item in report.errors)


@pytest.mark.parametrize(("kind", "rules"), [("KIND_CPU", []), ("KIND_GPU", ["MW109", "MW109"])])
def test_parameters_of_the_cuda_provider_matter_on_gpus(tmp_path: Path, kind: str, rules: list[str]) -> None:
    fields = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in {"cudnn_conv_algo_search": "3", "arena_extend_strategy": "kNextPowerOfTwo"}.items()
    )
    example = Example(f"{fields}instance_group [ {{ kind: {kind} }} ]", "", base="onnxruntime")
    assert [item.rule.id for item in linted(example, tmp_path, fault=True).errors] == rules


@pytest.mark.parametrize("case", ["ragged input", "batch input", "batch output of other dims"])
def test_rows_of_ragged_tensors_are_no_batch(tmp_path: Path, case: str) -> None:
    write_tree(NATIVE[case], tmp_path / "repository")
    report = lint(RepositoryTree.read(tmp_path / "repository"), Options(release("26.07")))
    assert report.findings == ()
