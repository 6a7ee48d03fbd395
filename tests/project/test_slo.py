"""`slo:` of model.yaml: what load tests read, and nothing that is built depends on."""

from __future__ import annotations

import pytest

from modelwright.errors import SpecError
from modelwright.project.reader import slo_of
from modelwright.project.spec import Slo, SloMargins
from modelwright.variants.registry import LOOKUPS
from tests.conftest import ONNX_YAML, Recorder, Sandbox

SLO = "slo: {p99_ms: 20, throughput_min: 1000, margins: {p99: 0.25}}\n"


@pytest.mark.parametrize(("before", "after"), [("", SLO), (SLO, ""), (SLO, SLO.replace("20", "30"))])
def test_a_change_of_objectives_rebuilds_nothing(sandbox: Sandbox, before: str, after: str) -> None:
    folder = sandbox.onnx_builder(yaml=ONNX_YAML + before)
    sandbox.build()
    published = sandbox.published()
    (folder / "model.yaml").write_text(ONNX_YAML + after)
    recorder = Recorder()
    assert sandbox.build(listener=recorder)["doubled"].status == "unchanged"
    assert recorder.ran == []
    assert sandbox.published() == published


def test_objectives_are_read_as_they_stand_now_without_a_build(sandbox: Sandbox) -> None:
    sandbox.write("doubled", model_yaml=ONNX_YAML + SLO)
    found = slo_of(sandbox.project, "doubled", LOOKUPS)
    assert found == Slo(p99_ms=20, throughput_min=1000, margins=SloMargins(p99=0.25))
    assert found.margins.throughput == 0.05


def test_a_model_without_objectives_has_none(sandbox: Sandbox) -> None:
    sandbox.write("doubled", model_yaml=ONNX_YAML)
    assert slo_of(sandbox.project, "doubled", LOOKUPS) is None


def test_a_model_that_nothing_here_builds_has_none(sandbox: Sandbox) -> None:
    sandbox.write("doubled", model_yaml=ONNX_YAML + SLO)
    assert slo_of(sandbox.project, "other", LOOKUPS) is None
    (sandbox.root / "builders").rename(sandbox.root / "elsewhere")
    assert slo_of(sandbox.project, "doubled", LOOKUPS) is None


def test_a_model_is_found_in_a_folder_of_another_name(sandbox: Sandbox) -> None:
    sandbox.write("first", model_yaml="name: second\n" + ONNX_YAML + SLO)
    sandbox.write("second", model_yaml="name: first\n" + ONNX_YAML)
    assert slo_of(sandbox.project, "second", LOOKUPS) is not None
    assert slo_of(sandbox.project, "first", LOOKUPS) is None


def test_a_fault_of_another_builder_does_not_matter(sandbox: Sandbox) -> None:
    sandbox.write("doubled", model_yaml=ONNX_YAML + SLO)
    sandbox.write("faulty", model_yaml="source: {}\n")
    assert slo_of(sandbox.project, "doubled", LOOKUPS) is not None


def test_a_fault_of_its_own_is_told(sandbox: Sandbox) -> None:
    sandbox.write("doubled", model_yaml=ONNX_YAML + "slo: {p99_ms: fast}\n")
    with pytest.raises(SpecError, match=r"builders/doubled/model.yaml:6: slo.p99_ms: input should be a valid number"):
        slo_of(sandbox.project, "doubled", LOOKUPS)
