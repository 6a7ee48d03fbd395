"""Manifests for tests that publish a version without building it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from modelwright.digest import sha256_file
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.made import Made
from modelwright.facts.verified import GoldenComparison, Verified
from modelwright.project.spec import Tolerance
from modelwright.repository.manifest import Manifest, PublishedFile, PublishedTensors, SourceCommit, TargetVersions


def a_manifest(files: Mapping[str, Path] | None = None, **fields: Any) -> Manifest:
    """The manifest of a version that holds copies of `files`, {name in the version: where it lies}."""
    standard: dict[str, Any] = {
        "model": "m",
        "version": 1,
        "description": "",
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        "modelwright": "0.1.0",
        "target": TargetVersions(triton="26.07", onnxruntime="1.27.0", python="3.12"),
        "source": SourceCommit(builder="builders/m/model.yaml"),
        "version_digest": "d" * 64,
        "files": {
            name: PublishedFile(sha256=sha256_file(path), size_bytes=path.stat().st_size)
            for name, path in (files or {}).items()
        },
        "tensors": PublishedTensors(batched=True, inputs=(), outputs=()),
        "made": Made(),
        "verification": Verified(compared_with=ComparedWith.ITSELF),
        "lineage": (),
    }
    return Manifest(**(standard | fields))


def compared_with_golden(batch: int, tolerance: Mapping[str, Tolerance]) -> Verified:
    """The verification of a version that has golden samples."""
    golden = GoldenComparison(batch=batch, tolerance=dict(tolerance))
    return Verified(compared_with=ComparedWith.SOURCE, golden=golden)
