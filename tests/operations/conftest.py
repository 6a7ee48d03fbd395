"""Projects with several versions of a model. They are built once: a test gets a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.facts.made import Made
from modelwright.repository.move import carry_out
from modelwright.repository.moves import tidy
from modelwright.repository.repository import Change
from modelwright.triton.layout import CONFIG, ENSEMBLE
from tests.conftest import Sandbox
from tests.repository.manifests import a_manifest


@pytest.fixture(scope="session")
def _three_versions(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    sandbox = sandbox_factory()
    sandbox.doubled_versions(3)
    return sandbox


@pytest.fixture
def three(_three_versions: Sandbox, tmp_path: Path) -> Sandbox:
    """A project with `doubled` in versions 1 to 3."""
    root = tmp_path.resolve() / "project"
    shutil.copytree(_three_versions.root, root, symlinks=True)
    return Sandbox(root)


def publish_pipeline(sandbox: Sandbox, versions: dict[int, int], name: str = "both") -> None:
    """An ensemble of one step, {its version: the version of `doubled` that it runs}, as if it had been verified so.

    The config is that of its newest version, and `doubled` serves what it needs.
    """
    repository = sandbox.repository
    for version, runs in versions.items():
        text = _PIPELINE.format(name=name, version=runs)
        composing = repository.manifest("doubled", runs) or repository.retired_manifest("doubled", runs)
        assert composing is not None
        files = sandbox.root / f"pipeline-{version}"
        files.mkdir()
        (files / ENSEMBLE).write_text(json.dumps({"doubled": composing.version_digest}))
        (files / CONFIG).write_text(text)
        manifest = a_manifest(
            {item.name: item for item in files.iterdir()},
            model=name,
            version=version,
            version_digest=f"{version:064}",
            tensors=composing.tensors,
            made=Made(composing_models={"doubled": composing.version_digest}),
        )
        version_files = {item.name: item for item in files.iterdir()}
        repository.publish(Change(name, version, version_files, manifest, top_files={CONFIG: text.encode()}))
    repository.reserve(fixed={name: {max(versions): ""}})
    carry_out(repository, tidy(repository))


_PIPELINE = """\
name: "{name}"
platform: "ensemble"
max_batch_size: 8

input [
  {{ name: "x", data_type: TYPE_FP32, dims: [ 2 ] }}
]

output [
  {{ name: "y", data_type: TYPE_FP32, dims: [ 2 ] }}
]

ensemble_scheduling {{
  step {{
    model_name: "doubled"
    model_version: {version}
    input_map {{ key: "x", value: "x" }}
    output_map {{ key: "y", value: "y" }}
  }}
}}
"""
