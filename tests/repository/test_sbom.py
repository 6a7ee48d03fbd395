"""The bill of materials of a version: valid CycloneDX, and the same bytes for the same version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.key_content import KeyContent
from modelwright.facts.made import Made
from modelwright.facts.verified import Verified
from modelwright.repository.licences import licences
from modelwright.repository.manifest import LineageStep, Manifest
from modelwright.repository.sbom import sbom_of
from tests.repository.manifests import a_manifest

METADATA = """Metadata-Version: 2.4
Name: {name}
Version: 1.2
{more}
"""
PACKAGES = {
    "first_package": "License-Expression: MIT OR Apache-2.0\nRequires-Dist: second\nRequires-Dist: absent>=1",
    "second": "Classifier: License :: OSI Approved :: BSD License\nRequires-Dist: second[extra]; extra == 'all'",
    "third": "License: see the file",
}


def step(name: str, **fields: Any) -> LineageStep:
    content = {"step": name, "revision": 1, "config": {}, "code": {}, "data": {}, "tools": {}, "inputs": {}} | fields
    return LineageStep(step=name, key="a" * 64, output="b" * 64, seconds=1, key_content=KeyContent(**content))


def a_version(folder: Path) -> tuple[Manifest, dict[str, Path]]:
    """A Python model with an ONNX file and three vendored packages."""
    texts = {"model.py": "code", "weights/model.onnx": "graph", "golden.npz": "samples"}
    for name, more in PACKAGES.items():
        texts[f"site-packages/{name}-1.2.dist-info/METADATA"] = METADATA.format(name=name, more=more)
        texts[f"site-packages/{name}/__init__.py"] = ""
    texts["site-packages/third-1.2.dist-info/sboms/inner.cyclonedx.json"] = "{}"
    files = {}
    for name, text in texts.items():
        files[name] = folder / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_text(text)
    lineage = (
        step("python", config={"lock": {"second": f"1.2 {'c' * 64}"}}, data={"model.py": "d" * 64}),
        step("onnx", tools={"torch": "2.13.0+cpu", "sklearn": "1.9", "missing": None, "python": "3.11"}),
    )
    made = Made(composing_models={"tokenizer": "e" * 64})
    verification = Verified(compared_with=ComparedWith.SOURCE, metrics={"accuracy": 0.99})
    return a_manifest(files, lineage=lineage, made=made, verification=verification), files


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom_of(*a_version(tmp_path)))
    return found


def named(components: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in components}


def test_it_is_valid_cyclonedx(tmp_path: Path) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom_of(*a_version(tmp_path)).decode()) is None


def test_the_same_version_gives_the_same_bytes(tmp_path: Path) -> None:
    assert sbom_of(*a_version(tmp_path / "one")) == sbom_of(*a_version(tmp_path / "two"))


def test_vendored_packages_have_version_licence_and_the_digest_of_their_wheel(document: dict[str, Any]) -> None:
    found = named(document["components"])
    assert found["first-package"]["version"] == "1.2"
    assert found["first-package"]["purl"] == "pkg:pypi/first-package@1.2"
    assert found["first-package"]["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert found["second"]["licenses"] == [{"license": {"name": "BSD License"}}]
    assert found["second"]["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert found["third"]["externalReferences"][0]["url"].endswith("sboms/inner.cyclonedx.json")


def test_dependencies_name_what_is_vendored_too(document: dict[str, Any]) -> None:
    needs = {entry["ref"]: entry["dependsOn"] for entry in document["dependencies"]}
    assert needs["package:first-package"] == ["package:second"]
    assert needs["package:second"] == []
    assert set(needs["model"]) == {component["bom-ref"] for component in document["components"]}


def test_a_model_file_is_a_model_and_golden_samples_are_not_listed(document: dict[str, Any]) -> None:
    found = named(document["components"])
    assert found["weights/model.onnx"]["type"] == "machine-learning-model"
    assert found["model.py"]["type"] == "file"
    assert found["tokenizer"]["properties"][0]["value"] == "e" * 64
    assert "golden.npz" not in found


def test_the_tools_that_made_it_stand_in_the_formulation(document: dict[str, Any]) -> None:
    tools = named(document["formulation"][0]["components"])
    assert tools["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert tools["scikit-learn"]["version"] == "1.9"
    assert tools["python"]["type"] == "platform"
    assert "missing" not in tools
    assert tools["model.py"]["type"] == "data"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        pytest.param({"license_expression": "MIT", "license": "BSD"}, [{"expression": "MIT"}], id="expression first"),
        pytest.param(
            {"classifiers": ["License :: OSI Approved", "License :: OSI Approved :: MIT License"], "license": "x"},
            [{"license": {"id": "MIT"}}],
            id="classifier with an SPDX name",
        ),
        pytest.param({"license": " BSD-3-Clause "}, [{"license": {"name": "BSD-3-Clause"}}], id="free text"),
        pytest.param({"license": "Permission is hereby\ngranted"}, [], id="a whole licence"),
        pytest.param({}, [], id="nothing"),
    ],
)
def test_licences(metadata: dict[str, Any], expected: list[Any]) -> None:
    assert licences(metadata) == expected
