"""`N/sbom.cdx.json`: the software bill of materials of a version, as CycloneDX 1.6.

    metadata.component   the version: a machine-learning model, with what its files were measured at
    components           what a server runs: the model's files, the packages vendored beside them, with their licences;
                         of an ensemble the models that it runs
    formulation          how it was made: the tools of each step with their versions, and the data they read

It depends on the version alone: no time, no random number, so the same version gives the same bytes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modelwright.digest import canonical
from modelwright.fsops import read_file
from modelwright.repository.licences import licences
from modelwright.repository.manifest import Manifest, PublishedFile
from modelwright.tools import distribution
from modelwright.triton.layout import GOLDEN, SBOM

SPEC_VERSION = "1.6"
_NAMESPACE = uuid.UUID("5d2b3a1e-6f9c-5b47-9c0e-3f6d1c8a7e42")  # of the serial numbers made here
_PACKAGES = "site-packages"
_METADATA = ".dist-info/METADATA"
# Files that hold a model or its weights; the others are files.
_MODEL_SUFFIXES = (".onnx", ".plan", ".pt", ".pt2", ".safetensors", ".onnx_data", ".data", ".savedmodel", ".graphdef")
_ROOT = "model"
_Json = dict[str, Any]


def sbom_of(manifest: Manifest, files: Mapping[str, Path]) -> bytes:
    """The bill of materials of a version. `files` says where each file of `manifest.files` lies."""
    own = {name: record for name, record in manifest.files.items() if name not in (SBOM, GOLDEN)}
    packages = _packages(manifest, files)
    components = [
        *(_file(name, record) for name, record in own.items() if PurePosixPath(name).parts[0] != _PACKAGES),
        *(_composing(name, digest) for name, digest in manifest.made.composing_models.items()),
        *(package for package, _ in packages.values()),
    ]
    tools = _tools(manifest)
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "modelwright", "version": manifest.modelwright}]},
            "component": _model(manifest),
        },
        "components": components,
        "dependencies": [
            {"ref": _ROOT, "dependsOn": [component["bom-ref"] for component in components]},
            *({"ref": item["bom-ref"], "dependsOn": needs} for item, needs in packages.values()),
        ],
        "formulation": [{"bom-ref": "build", "components": [*tools, *_data(manifest)]}],
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, canonical(document).decode())}"
    return (json.dumps(document, indent=1) + "\n").encode()


def _model(manifest: Manifest) -> _Json:
    """The version itself, with its metrics as a model card has them."""
    facts = {
        "version_digest": manifest.version_digest,
        "builder": manifest.source.builder,
        "commit": manifest.source.commit,
        "triton": manifest.target.triton,
        **{f"step:{step.step}": step.key for step in manifest.lineage},
    }
    component: _Json = {
        "type": "machine-learning-model",
        "bom-ref": _ROOT,
        "name": manifest.model,
        "version": str(manifest.version),
    }
    if manifest.description:
        component["description"] = manifest.description
    component["properties"] = _properties(facts)
    metrics = [{"type": name, "value": str(value)} for name, value in manifest.metrics.items()]
    if metrics:
        component["modelCard"] = {"quantitativeAnalysis": {"performanceMetrics": metrics}}
    return component


def _file(name: str, record: PublishedFile) -> _Json:
    """A file of the version, or one with the model's weights."""
    kind = "machine-learning-model" if name.endswith(_MODEL_SUFFIXES) else "file"
    return {"type": kind, "bom-ref": f"file:{name}", "name": name, "hashes": _hashes(record.sha256)}


def _composing(name: str, version_digest: str) -> _Json:
    """A model that an ensemble runs: it has a bill of materials of its own."""
    properties = _properties({"version_digest": version_digest})
    return {"type": "machine-learning-model", "bom-ref": f"model:{name}", "name": name, "properties": properties}


def _packages(manifest: Manifest, files: Mapping[str, Path]) -> dict[str, tuple[_Json, list[str]]]:
    """{name: (component, the references of what it depends on)} of the vendored packages."""
    found: dict[str, tuple[_Json, list[str]]] = {}
    wheels = _locked(manifest)
    for file in manifest.files:
        path = PurePosixPath(file)
        if path.parts[0] != _PACKAGES or not file.endswith(_METADATA) or len(path.parts) != 3:
            continue
        metadata, _ = parse_email(read_file(files[file]))
        stem_name, _, stem_version = path.parts[1].removesuffix(".dist-info").partition("-")
        name, version = canonicalize_name(metadata.get("name", stem_name)), metadata.get("version", stem_version)
        component = _library(name, version)
        if wheels.get(name, "").startswith(f"{version} "):
            component["hashes"] = _hashes(wheels[name].partition(" ")[2])
        if known := licences(metadata):
            component["licenses"] = known
        if inner := _own_boms(manifest.files, str(path.parent)):
            component["externalReferences"] = inner
        found[name] = component, list(metadata.get("requires_dist", ()))
    return {name: (component, _vendored(name, needs, found)) for name, (component, needs) in found.items()}


def _own_boms(files: Mapping[str, PublishedFile], folder: str) -> list[_Json]:
    """The bills of materials that a package brings along (PEP 770), for what is compiled into it."""
    names = [name for name in files if name.startswith(f"{folder}/sboms/") and name.endswith(".json")]
    return [{"type": "bom", "url": name, "hashes": _hashes(files[name].sha256)} for name in names]


def _vendored(name: str, requirements: Iterable[str], packages: Mapping[str, tuple[_Json, list[str]]]) -> list[str]:
    """The references of those requirements of a package that are vendored, too."""
    names = set()
    for text in requirements:
        try:
            names.add(canonicalize_name(Requirement(text).name))
        except InvalidRequirement:
            continue
    return sorted(packages[needed][0]["bom-ref"] for needed in names - {name} if needed in packages)


def _locked(manifest: Manifest) -> dict[str, str]:
    """{name: "version SHA-256"} of the wheels in requirements.lock, from the key of the step that unpacked them."""
    locks = [step.key_content.config.get("lock") for step in manifest.lineage]
    return {str(name): str(wheel) for lock in locks if isinstance(lock, dict) for name, wheel in lock.items()}


def _tools(manifest: Manifest) -> list[_Json]:
    """What the steps ran with. Two versions of a tool are two tools: a step from the store is older than the rest."""
    steps = (step.key_content.tools.items() for step in manifest.lineage)
    known = sorted({(distribution(name), version) for tools in steps for name, version in tools if version})
    return [{**_library(name, version), "bom-ref": f"tool:{name}@{version}"} for name, version in known]


def _data(manifest: Manifest) -> list[_Json]:
    """What the steps read beside code: weights, vocabularies, data sets."""
    contents = sorted({item for step in manifest.lineage for item in step.key_content.data.items()})
    return [
        {
            "type": "data",
            "bom-ref": f"data:{name}@{digest[:16]}",
            "name": name,
            "properties": _properties({"sha256": digest}),
        }
        for name, digest in contents
    ]


def _library(name: str, version: str) -> _Json:
    """A package of a Python package index; the interpreter comes from elsewhere."""
    known = {"bom-ref": f"package:{name}", "name": name, "version": version}
    if name == "python":
        return {"type": "platform", **known}
    return {"type": "library", **known, "purl": f"pkg:pypi/{name}@{quote(version)}"}


def _hashes(sha256: str) -> list[_Json]:
    return [{"alg": "SHA-256", "content": sha256}]


def _properties(values: Mapping[str, str | None]) -> list[_Json]:
    return [{"name": f"modelwright:{name}", "value": value} for name, value in values.items() if value]
