"""Versions that have numbers of their own: those that model.yaml lists, and those that a step made of numbered sources.

`made` is the artifact of the model's version step, with each version's files under `versions/<N>/`.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.build.store import Artifact
from modelwright.facts.made import Made
from modelwright.kinds.kind import FixedVersion
from modelwright.kinds.registry import kind_of
from modelwright.project.spec import Builder
from modelwright.triton.layout import GOLDEN

_VERSIONS = "versions/"


def numbered_versions(builder: Builder, made: Artifact) -> Mapping[int, FixedVersion]:
    """{number: version} of a model whose versions have numbers of their own; empty for another one."""
    kind = kind_of(builder)
    if not kind.numbered:
        listed: Mapping[int, FixedVersion] = kind.fixed_versions(builder.spec.source)
        return listed
    found: dict[int, dict[str, str]] = {}
    for path, digest in made.files.items():
        if path.startswith(_VERSIONS):
            number, _, name = path.removeprefix(_VERSIONS).partition("/")
            found.setdefault(int(number), {})[name] = digest
    return {number: FixedVersion(files) for number, files in sorted(found.items())}


def source_digest(made: Made | None, number: int) -> str:
    """The digest of what a numbered version was made of; '' where that is not known."""
    sources = made.details.get("sources") if made else None
    return str(sources.get(str(number), "")) if isinstance(sources, dict) else ""


def newest_golden(verified: Artifact) -> str:
    """The golden samples among a verification's files: of the only version, or of the one with the highest number."""
    if GOLDEN in verified.files:
        return GOLDEN
    numbers = [int(name.partition("/")[0]) for name in verified.files if name.endswith(f"/{GOLDEN}")]
    return f"{max(numbers)}/{GOLDEN}" if numbers else GOLDEN
