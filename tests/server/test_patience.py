"""How long the local server gets: in proportion to what it loads, or what the user says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelwright.errors import ProjectError
from modelwright.project.project import load
from modelwright.server.patience import patience_s, request_patience_s


def model(repository: Path, name: str, size_bytes: int) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.onnx").touch()
    os.truncate(repository / name / "1" / "model.onnx", size_bytes)


def test_it_grows_with_the_number_of_models_and_with_their_size(tmp_path: Path) -> None:
    assert patience_s(tmp_path, []) == 600
    model(tmp_path, "small", 1_000)
    model(tmp_path, "large", 20_000_000_000)
    assert patience_s(tmp_path, ["small"]) == 630
    assert patience_s(tmp_path, ["large"]) == 2630
    assert patience_s(tmp_path, ["*"]) == patience_s(tmp_path, ["small", "large"]) == 2660
    assert request_patience_s(tmp_path) == 2060


def test_a_model_that_is_not_there_takes_no_time_of_its_own(tmp_path: Path) -> None:
    assert patience_s(tmp_path, ["nowhere"]) == 630


def test_a_project_can_say_how_long(tmp_path: Path) -> None:
    file = tmp_path / "modelwright.toml"
    file.write_text('triton = "26.07"\n')
    assert load(tmp_path).startup_timeout_s is None
    file.write_text('triton = "26.07"\n[server]\nstartup_timeout = 1800\n')
    assert load(tmp_path).startup_timeout_s == 1800


@pytest.mark.parametrize("value", ["0", "-1", '"60"', "true", "nan", "inf"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "modelwright.toml").write_text(f'triton = "26.07"\n[server]\nstartup_timeout = {value}\n')
    with pytest.raises(ProjectError, match=r"modelwright.toml: server.startup_timeout: seconds are needed, got "):
        load(tmp_path)
