"""The Python API: its page, its types, and that a library neither prints nor exits."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import modelwright
from modelwright import ModelwrightError, Project, lint_repository
from modelwright.build.listener import Listener
from modelwright.errors import ProjectError, ProjectNotFoundError, RepositoryError, ServerError, SpecError, VerifyError
from modelwright.lint.examples import PYTHON_MODEL, base_text, write
from modelwright.server.environment import unsupported_reason
from tests.conftest import ROOT, Sandbox

PAGE = ROOT / "docs" / "python-api.md"


@pytest.fixture
def project(sandbox: Sandbox) -> Project:
    sandbox.onnx_builder()
    return Project.find(sandbox.root)


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert tuple(capfd.readouterr()) == ("", "")


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.skipif(unsupported_reason() is not None, reason=f"no local server: {unsupported_reason()}")
def test_the_examples_of_the_page_print_what_it_says(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "foreign"
    write({"ranker/config.pbtxt": base_text("python"), "ranker/3/model.py": PYTHON_MODEL}, foreign)
    text = PAGE.read_text().replace("/srv/models", str(foreign))
    monkeypatch.chdir(project.root)
    names: dict[str, Any] = {}
    examples = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)
    assert len(examples) > 8
    for code, expected in examples:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == expected, code


def test_the_page_has_every_method() -> None:
    methods = {name for name in vars(Project) if not name.startswith("_")} - {"find", "root", "repository"}
    named = set(re.findall(r"`project\.(\w+)\(", PAGE.read_text()))
    assert named == methods - {"verify_if_changed"}  # of the command line


# --- names and types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", modelwright.__all__)
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(modelwright, name) is not None
    assert name in dir(modelwright)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Projekt'"):
        _ = modelwright.Projekt


def test_importing_the_api_imports_nothing_heavy() -> None:
    heavy = ("pydantic", "numpy", "google.protobuf", "yaml", "rich", "click", "tritonclient")
    code = f"import sys, json; from modelwright import Project; print(json.dumps([*{{*{heavy!r}}} & {{*sys.modules}}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(modelwright.__file__).parent / "py.typed").is_file()


# --- finding a project ------------------------------------------------------------------------------------------------


def test_a_project_is_found_from_below(project: Project) -> None:
    found = Project.find(str(project.root / "builders" / "doubled"))
    assert found.root == project.root
    assert found.repository == project.root / "model_repository"
    assert repr(found) == f"Project({str(project.root)!r})"


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(ProjectNotFoundError, match=r"no modelwright\.toml in"):
        Project.find(tmp_path)


def test_a_faulty_project_is_another_error_than_none(tmp_path: Path) -> None:
    (tmp_path / "modelwright.toml").write_text("triton = 26\n")
    with pytest.raises(ProjectError, match="triton") as caught:
        Project.find(tmp_path)
    assert not isinstance(caught.value, ProjectNotFoundError)


# --- methods ----------------------------------------------------------------------------------------------------------


class _Recorder(Listener):
    def __init__(self) -> None:
        self.steps: list[str] = []

    def started(self, step: Any, reason: str) -> None:
        self.steps.append(step.name)


def test_a_build_tells_its_listener(project: Project) -> None:
    listener = _Recorder()
    (outcome,) = project.build(listener=listener, jobs=1)
    assert (outcome.model, outcome.version, outcome.status, outcome.error) == ("doubled", 1, "new", None)
    assert listener.steps == ["samples", "onnx", "verify"]
    (again,) = project.build()
    assert (again.status, again.ran) == ("unchanged", False)


def test_a_model_that_fails_is_an_outcome(sandbox: Sandbox, project: Project) -> None:
    sandbox.onnx_builder("tripled", factor=3.0)
    by_model = {outcome.model: outcome for outcome in project.build()}
    assert by_model["doubled"].status == "new"
    assert by_model["tripled"].status == "failed"
    assert "gate" in str(by_model["tripled"].error)


@pytest.mark.parametrize(
    "names", ["doubled", ["doubled"], ("doubled",), iter(["doubled"])], ids=["text", "list", "tuple", "iterator"]
)
def test_names_are_one_or_several(sandbox: Sandbox, project: Project, names: Any) -> None:
    sandbox.onnx_builder("other")
    assert {entry.step.model for entry in project.plan(names)} == {"doubled"}


def test_one_url_need_not_be_in_a_list(project: Project) -> None:
    project.build()
    with pytest.raises(ServerError, match=re.escape("http://127.0.0.1:9")):
        project.verify(urls="http://127.0.0.1:9")


def test_an_unknown_name(project: Project) -> None:
    with pytest.raises(SpecError, match="no builder makes a model named 'doubed'") as caught:
        project.plan("doubed")
    assert "doubled" in caught.value.hint


def test_status_has_a_state_and_a_reason(sandbox: Sandbox, project: Project) -> None:
    assert [(item.state, item.versions, item.created) for item in project.status()] == [("not built", (), None)]
    project.build()
    (built,) = project.status()
    assert (built.state, built.reason, built.versions, built.metrics) == ("up to date", "", (1,), {"accuracy": 1.0})
    code = sandbox.root / "builders/doubled/data.py"
    code.write_text(code.read_text() + "\nimport math\n")
    (changed,) = project.status()
    assert changed.state == "to rebuild"
    assert "data.py" in changed.reason
    (sandbox.root / "builders/doubled/model.yaml").unlink()
    assert [item.state for item in project.status()] == ["no builder"]


def test_lint_returns_findings(sandbox: Sandbox, project: Project) -> None:
    project.build()
    config = sandbox.root / "model_repository/doubled/config.pbtxt"
    config.write_text(config.read_text() + "dynamic_batching { preferred_batch_size: [ 9 ] }\n")
    report = project.lint()
    assert [finding.model for finding in report.errors] == ["doubled"]
    assert report.errors == lint_repository(str(sandbox.root / "model_repository")).errors


def test_lint_needs_no_project(tmp_path: Path) -> None:
    write({"a/config.pbtxt": base_text("python"), "a/1/model.py": PYTHON_MODEL}, tmp_path)
    assert lint_repository(tmp_path).models == 1
    with pytest.raises(ModelwrightError, match="no such folder"):
        lint_repository(tmp_path / "nowhere")


def test_verify_without_anything_published(project: Project) -> None:
    with pytest.raises(VerifyError, match="nothing is published"):
        project.verify()


def test_verify_of_an_unknown_model(project: Project) -> None:
    project.build()
    with pytest.raises(RepositoryError, match="doubed"):
        project.verify(["doubed"])


def test_new_and_adopt_write_builders(project: Project, tmp_path: Path) -> None:
    assert project.new("edges", "onnx").name == "edges"
    foreign = tmp_path / "foreign"
    write({"a/config.pbtxt": base_text("python"), "a/3/model.py": PYTHON_MODEL}, foreign)
    adoption = project.adopt(str(foreign), "a")
    assert [(item.model, item.status, item.versions) for item in adoption.models] == [("a", "adopted", (3,))]
    assert {entry.step.model for entry in project.plan()} == {"doubled", "edges", "a"}
