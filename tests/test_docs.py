"""The documents say what is so."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from modelwright.cli.main import main
from modelwright.lint.examples import PYTHON_MODEL, base_text, write
from tests.conftest import ROOT

DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "docs/bench.md",
    "docs/ci.md",
    "docs/kinds.md",
    "docs/variants.md",
    "docs/lint.md",
    "docs/mlflow.md",
    "docs/load.md",
    "docs/operations.md",
    "docs/pipelines.md",
    "docs/python-api.md",
    "docs/tensorrt.md",
    "docs/training.md",
    "docs/verification.md",
    "docs/load-result.md",
    "examples/solar_cells/README.md",
)


def test_the_readme_quotes_files_as_they_are() -> None:
    text = (ROOT / "README.md").read_text()
    assert runpy.run_path(str(ROOT / "scripts/readme.py"))["current"](text) == text, "run: python scripts/readme.py"


def test_the_readme_has_every_command() -> None:
    table = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^\| `modelwright ([\w-]+)", table, re.MULTILINE))
    assert named == set(main.list_commands(click.Context(main)))


def test_architecture_names_tests_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    file = ""
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", text)
    assert sum(bool(test) for _, test in named) >= 8
    for path, test in named:
        file = path or file
        if file:
            assert (ROOT / file).is_file()
            assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^\.PHONY: ([\w-]+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert [target for target in targets if f"make {target} " not in listed] == []


def test_the_release_data_agrees_with_the_shared_one() -> None:
    """The package's own file may hold more (later releases, numpy, notes); what the shared one holds is equal."""
    shared_file = ROOT.parent / "shared" / "data" / "triton_releases.json"
    if not shared_file.is_file():
        pytest.skip("no shared folder beside this checkout")
    shared = json.loads(shared_file.read_text())
    own = json.loads((ROOT / "modelwright/triton/data/triton_releases.json").read_text())
    releases = shared.pop("releases")
    for name, facts in shared.items():
        assert facts.items() <= own[name].items(), name
    assert list(own["releases"])[: len(releases)] == list(releases)
    for version, facts in releases.items():
        assert facts.items() <= own["releases"][version].items(), version


def test_the_environment_has_the_targets_onnxruntime() -> None:
    from modelwright.project.project import load

    pins = (ROOT / "constraints.txt").read_text()
    assert f"onnxruntime=={load(ROOT).target.onnxruntime} ;" in pins


def test_the_readme_shows_what_lint_prints(tmp_path: Path) -> None:
    good = base_text("python")
    odd = 'name: "ranker"\n' + good.replace("max_batch_size: 8", "max_batchsize: 8")
    files = {f"{name}/1/model.py": PYTHON_MODEL for name in ("ranker", "a", "b")} | {
        "ranker/5.tmp/model.py": PYTHON_MODEL
    }
    configs = {f"{name}/config.pbtxt": text for name, text in (("ranker", odd), ("a", good), ("b", good))}
    write(files | configs, tmp_path)
    shown = (
        (ROOT / "README.md")
        .read_text()
        .partition("$ modelwright lint /srv/models --target 26.07\n")[2]
        .partition("```")[0]
    )
    printed = CliRunner().invoke(main, ["lint", str(tmp_path), "--target", "26.07"]).output
    assert len(shown.splitlines()) == len(printed.splitlines())
    for ours, theirs in zip(shown.splitlines(), printed.splitlines(), strict=True):
        assert theirs.startswith(ours.removesuffix(" …"))
