"""The program that runs where the plan is built: what it needs there, and what it makes of a request."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modelwright.facts.plan import GRAPH
from modelwright.steps.plan_places.parcel import check
from modelwright.steps.plan_places.program import main
from modelwright.steps.plan_places.request import CODE, START, seal_request
from tests.conftest import ROOT
from tests.steps.plan_places.places import Request, new_request, put_on_path

# What start.sh looks for and installs, with what these packages bring; Polygraphy and TensorRT are imported later.
THERE = ("numpy", "packaging", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection", "annotated_types")
IMPORTS = f"""
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = {THERE!r} + ("modelwright",)
        if top not in known and not top.startswith("_") and top not in sys.stdlib_module_names:
            raise ImportError(f"the container has no {{top}}")

sys.meta_path.insert(0, Nothing())
import modelwright.steps.plan_places.program, modelwright.steps.plan_folders, modelwright.steps.plan_builder
"""


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return new_request(tmp_path / "request")


def test_the_code_that_is_sent_imports_with_what_the_container_has(tmp_path: Path, request_: Request) -> None:
    seal_request(request_.folder)
    with zipfile.ZipFile(request_.folder / CODE) as archive:
        archive.extractall(tmp_path / "code")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "code")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_same_code_is_sent_as_the_same_bytes(tmp_path: Path) -> None:
    first, second = (seal_request(new_request(tmp_path / name).folder) for name in ("first", "second"))
    assert first == second


def test_what_is_not_as_it_was_sent_is_not_built(
    tmp_path: Path, request_: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    seal_request(request_.folder)
    (request_.folder / GRAPH).write_bytes(b"graph" * 999)
    assert main(request_.folder, tmp_path / "out", lambda *_: pytest.fail("it was built")) == 2
    assert "Error: the request: model.onnx is damaged: it has 4995 bytes, expected 5000" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_result_names_its_request(tmp_path: Path, request_: Request) -> None:
    sealed = seal_request(request_.folder)
    assert main(request_.folder, tmp_path / "out", lambda inside, out: 0) == 0
    check(tmp_path / "out", "here", sealed.digest)


PYTHON3 = """#!/bin/sh
echo "python3 $*" >>'{record}'
case "$*" in "-c import "*) exit {lacks} ;; esac
"""


@pytest.mark.parametrize("lacks", [0, 1], ids=["has all", "lacks all"])
def test_what_the_image_lacks_is_installed_before_the_program_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: int
) -> None:
    folder, record = put_on_path(monkeypatch, tmp_path / "bin"), tmp_path / "record"
    (folder / "python3").write_text(PYTHON3.format(record=record, lacks=lacks))
    start = ROOT / "modelwright/steps/plan_places" / START
    done = subprocess.run(["sh", str(start), "/request", "/result"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    told = record.read_text().splitlines()
    assert told[-1] == "python3 -m modelwright.steps.plan_places.program /request /result"
    installed = [line for line in told if " -m pip install " in line]
    assert len(installed) == lacks
    if lacks:
        assert installed[0].endswith(" numpy>=1.26 packaging>=24 pydantic>=2.11 polygraphy>=0.49")
        assert "installing numpy>=1.26" in done.stdout
