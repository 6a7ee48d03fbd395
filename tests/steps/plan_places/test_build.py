"""A whole build whose plan comes from another place: from model.yaml to the published version.

What builds there is the double of tests/variants/plan_double.py; `modelwright` there is the code that was sent.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from modelwright.project.plan_places import PlanPlaces
from modelwright.variants import placement
from modelwright.variants.places import Place, PlanMachine, WantedPlans
from tests.conftest import ROOT, Sandbox
from tests.steps.plan_places.places import FakeCluster, put_on_path
from tests.variants.test_variants import with_variants

PLANNED = "{name: doubled_trt, steps: [tensorrt]}"


@pytest.fixture
def cluster(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    put_on_path(monkeypatch, tmp_path / "bin", "kubectl")
    monkeypatch.setenv("FAKE_BUILDER", "answers")
    config = sandbox.root / "modelwright.toml"
    config.write_text(config.read_text() + '\n[tensorrt.kubernetes]\ncontext = "lab"\ngpus = {"8.9" = "NVIDIA-L4"}\n')
    with_variants(sandbox, PLANNED)
    return FakeCluster(tmp_path / "cluster", monkeypatch)


def test_a_plan_from_a_job_is_published(sandbox: Sandbox, cluster: FakeCluster) -> None:
    result = sandbox.cli("build", "doubled_trt", "--plan-builder", "kubernetes")
    assert result.exit_code == 0, result.output
    manifest = sandbox.manifest("doubled_trt")
    assert manifest.made.tensorrt is not None
    assert (manifest.made.tensorrt.place, manifest.made.tensorrt.compute_capability) == ("kubernetes", "8.9")
    assert (sandbox.repository.root / "doubled_trt/1/model.plan").read_bytes().startswith(b"ftrt")
    assert cluster.deleted == [cluster.job["metadata"]["name"]]
    again = sandbox.cli("build", "doubled_trt", "--plan-builder", "kubernetes")
    assert again.exit_code == 0, again.output
    assert len(cluster.deleted) == 1


def test_a_job_whose_builder_dies_fails_the_model_and_publishes_nothing(
    sandbox: Sandbox, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_BUILDER", "dies")
    result = sandbox.cli("build", "doubled_trt", "--plan-builder", "kubernetes")
    assert result.exit_code == 1
    assert "doubled_trt: tensorrt (kubernetes, 8.9): Job modelwright-plan-doubled-trt-" in result.output
    assert "the plan builder died half-way, exit code 9; its log ends:" in result.output
    assert not (sandbox.repository.root / "doubled_trt").exists()


def test_the_plan_of_a_build_says_where_and_without_the_option_why_not(sandbox: Sandbox, cluster: FakeCluster) -> None:
    asked = sandbox.cli("plan", "doubled_trt", "--plan-builder", "kubernetes").output
    where = "; kubernetes: a Job on NVIDIA-L4 (8.9); context lab; nvcr.io/nvidia/tensorrt:"
    assert "maybe doubled_trt tensorrt: after onnx and samples and tensorrt_requests" + where in asked
    plain = sandbox.cli("plan", "doubled_trt", "--plan-builder", "none").output
    # Where TensorRT for RTX is installed it is "checked, not built".
    assert re.search(r"Skipped: doubled_trt: (checked, )?not built \(plan builder: none was chosen\)", plain)
    assert cluster.calls == [["config", "current-context"]]


def test_require_all_makes_a_plan_that_no_place_builds_an_error(sandbox: Sandbox) -> None:
    with_variants(sandbox, PLANNED)
    assert sandbox.cli("build", "doubled_trt", "--plan-builder", "none").exit_code == 0
    assert sandbox.cli("build", "doubled_trt", "--plan-builder", "none", "--require-all").exit_code == 1


def test_a_plan_from_the_container_is_published(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(wanted: WantedPlans, places: PlanPlaces, machine: PlanMachine) -> Place:
        builder = "modelwright.steps.plan_places.container:build"
        return Place(
            "container", builder, "", ("8.9",), places.image_for(wanted.release.name), "a GPU that is not here"
        )

    put_on_path(monkeypatch, tmp_path / "bin", "docker")
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["plan-builder"]
    monkeypatch.setenv("FAKE_COMPOSE_COMMAND", json.dumps(service["command"]))
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path / "calls"))
    monkeypatch.setenv("FAKE_BUILDER", "answers")
    monkeypatch.setitem(placement.FINDERS, "container", found)
    with_variants(sandbox, PLANNED)
    result = sandbox.cli("build", "doubled_trt", "--plan-builder", "container")
    assert result.exit_code == 0, result.output
    manifest = sandbox.manifest("doubled_trt")
    assert manifest.made.tensorrt is not None
    assert manifest.made.tensorrt.place == "container"
