"""[tracking] of modelwright.toml, and a project that has it where MLflow is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from modelwright.errors import ProjectError
from modelwright.project.tracking import Tracking, read_tracking
from tests.conftest import Sandbox


def with_tracking(sandbox: Sandbox, table: str = "mlflow = true") -> Sandbox:
    file = sandbox.root / "modelwright.toml"
    file.write_text(f"{file.read_text()}\n[tracking]\n{table}\n")
    return sandbox


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "tracking: a table is needed"),
        ({"mlfow": True}, r"tracking\.mlfow: unknown field\n.*did you mean 'mlflow'"),
        ({"mlflow": "yes"}, r"tracking\.mlflow: true or false is needed, got 'yes'"),
        ({"models": 1}, r"tracking\.models: true or false is needed, got 1"),
        ({"uri": 5000}, r"tracking\.uri: a text is needed, got 5000"),
        ({"uri": " "}, r"tracking\.uri: a text is needed"),
        ({"uri": "localhost:5000"}, r"tracking\.uri: is no URI that MLflow takes: 'localhost:5000'"),
        ({"uri": "ftp://host/x"}, r"tracking\.uri: is no URI that MLflow takes"),
        ({"uri": "http://:5000"}, r"tracking\.uri: names no server"),
        ({"uri": "http://host:99999"}, r"tracking\.uri: names no server"),
        ({"uri": "http://me:secret@host"}, r"credentials do not belong in a URI\n.*MLFLOW_TRACKING_PASSWORD"),
        ({"experiment": "a\nb"}, r"tracking\.experiment: a name of one line"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_named(table: object, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        read_tracking(table, "modelwright.toml")


def test_the_registry_is_a_server_or_a_database_of_the_project() -> None:
    assert read_tracking({"mlflow": True, "uri": "http://host:5000/"}, "").registry(Path("/p")) == "http://host:5000"
    assert read_tracking({"mlflow": True}, "").registry(Path("/p/state")) == "sqlite:////p/state/mlflow/mlflow.db"


def test_a_password_of_a_database_is_not_shown() -> None:
    tracking = read_tracking({"uri": "postgresql+psycopg2://me:secret@host/db"}, "")
    assert tracking.shown == "postgresql+psycopg2://…@host/db"
    assert tracking.server is None
    assert Tracking(uri="https://host/prefix").server == ("host", 443)


def test_a_build_says_what_to_install(sandbox: Sandbox) -> None:
    with_tracking(sandbox).onnx_builder()
    with mock.patch.dict(sys.modules, {"mlflow": None}):
        message = sandbox.error("build")
    assert "modelwright.toml: tracking.mlflow needs mlflow, which is not installed" in message
    assert "pip install 'modelwright[mlflow]'" in message


def test_track_needs_to_be_asked_for(sandbox: Sandbox) -> None:
    assert "builds are not recorded\n  hint: write: [tracking] and mlflow = true" in sandbox.error("track")


def test_where_nothing_is_tracked_nothing_of_it_is_imported(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    assert sandbox.build()["doubled"].status == "new"
    code = (
        "import sys; from modelwright import Project; "
        f"outcomes = Project.find({str(sandbox.root)!r}).build(); assert outcomes[0].status == 'unchanged', outcomes; "
        "assert not [name for name in sys.modules if name.startswith(('mlflow', 'modelwright.tracking'))]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
