"""What differs between two versions of a model, part by part and line by line.

    config: dynamic_batching.max_queue_delay_microseconds 200 → 5000
    torch: params.epochs 15 → 30
    torch: code train.py changed
    tools: onnxruntime 1.26.0 → 1.27.0
    files: model.onnx 234,925 → 258,113 bytes

What a build recorded comes from the manifests. A version that was not made by Modelwright has none: then its files are
compared by their content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.config.render import parse
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import ConfigError, RepositoryError
from modelwright.facts.key_content import KeyContent
from modelwright.fsops import read_file
from modelwright.repository.manifest import Manifest, read_ours
from modelwright.triton.layout import ABOUT, CONFIG, MANIFEST
from modelwright.triton.messages import compared

_MAX_CHARS = 60  # of a value


@dataclass(frozen=True)
class VersionSide:
    """One of two versions: what a message calls it, its folder, and the config.pbtxt that it is served with."""

    name: str  # "version 3", "the baseline"
    folder: Path
    config: Path


@dataclass(frozen=True)
class StepDifference:
    """A step whose key is another one, or that only one of the two has."""

    step: str
    keys: tuple[str | None, str | None]  # None: without that step
    lines: tuple[str, ...]  # what it was given itself: parameters, code, data
    inputs: tuple[str, ...]  # the roles under which another step gave it something else


@dataclass(frozen=True)
class Differences:
    """All that differs between two versions, a line each. Empty where nothing does.

    `note` says why it is not known how they were made: one of the two, or neither, has a manifest.
    """

    config: tuple[str, ...]
    note: str
    lineage: tuple[StepDifference, ...]
    tools: tuple[str, ...]
    target: tuple[str, ...]
    source: tuple[str, ...]
    tensors: tuple[str, ...]
    metrics: tuple[str, ...]
    files: tuple[str, ...]

    def lines(self) -> list[str]:
        """Each with the part that it is of in front. Steps that only follow from another one are left out."""
        steps = [f"{step.step}: {line}" for step in self.lineage for line in step.lines]
        parts = ("tools", "target", "source", "tensors", "metrics", "files")
        return [
            *(f"config: {line}" for line in self.config),
            *([f"manifest: {self.note}"] if self.note else []),
            *steps,
            *(f"{part}: {line}" for part in parts for line in getattr(self, part)),
        ]


def compare(before: VersionSide, after: VersionSide) -> Differences:
    """Compare two versions of one model, which may lie in different repositories.

    Raises RepositoryError for a manifest that cannot be read, or a version that is not there.
    """
    one, other = _read(before.folder), _read(after.folder)
    facts = [_summary(one), _summary(other)] if one and other else [{}, {}]

    def changed(part: str) -> tuple[str, ...]:
        return tuple(_values(facts[0].get(part), facts[1].get(part)))

    return Differences(
        config=tuple(_config(before, after)),
        note=_note(before, one, after, other),
        lineage=tuple(_steps(before.name, one, after.name, other)) if one and other else (),
        tools=tuple(_tools(one, other)) if one and other else (),
        target=changed("target"),
        source=changed("source"),
        tensors=changed("tensors"),
        metrics=changed("metrics"),
        files=tuple(_files(before.folder, one, after.folder, other)),
    )


def _read(folder: Path) -> Manifest | None:
    """A version's manifest; None where there is none."""
    if not folder.is_dir():
        raise RepositoryError(f"{folder}: there is no such version")
    return read_ours(folder / MANIFEST)


def _note(before: VersionSide, one: Manifest | None, after: VersionSide, other: Manifest | None) -> str:
    if (one is None) == (other is None):
        return ""
    return f"only {(before if one else after).name} has one: how it was made is not compared"


# --- config.pbtxt -----------------------------------------------------------------------------------------------------


def _config(before: VersionSide, after: VersionSide) -> Iterator[str]:
    if before.config.resolve() == after.config.resolve():
        return
    there = before.config.is_file(), after.config.is_file()
    if there[0] != there[1]:
        yield f"only {(before if there[0] else after).name} has a {CONFIG}"
    if not all(there):
        return
    try:
        messages = [parse(read_file(side.config), str(side.config)) for side in (before, after)]
    except ConfigError as error:
        yield f"cannot be compared: {error.message}"
        return
    for path, old, new in compared(*messages):
        yield _changed(path, old, new)


# --- manifests --------------------------------------------------------------------------------------------------------


def _steps(name: str, before: Manifest, other_name: str, after: Manifest) -> Iterator[StepDifference]:
    """What the steps of a build were given, by the content of their keys."""
    one, other = ({item.step: item for item in manifest.lineage} for manifest in (before, after))
    for step in {**one, **other}:
        if step not in one or step not in other:
            keys = (one[step].key if step in one else None, other[step].key if step in other else None)
            yield StepDifference(step, keys, (f"a step of {name if step in one else other_name} only",), ())
            continue
        mine, theirs = one[step].key_content, other[step].key_content
        lines = (
            *_values(mine.config, theirs.config),
            *_values({"revision": mine.revision}, {"revision": theirs.revision}),
            *(f"code {line}" for line in _digests(mine.code, theirs.code)),
            *(f"data {line}" for line in _digests(mine.data, theirs.data)),
        )
        roles = {**mine.inputs, **theirs.inputs}
        inputs = tuple(role for role in roles if mine.inputs.get(role) != theirs.inputs.get(role))
        if one[step].key != other[step].key or lines or inputs:
            yield StepDifference(step, (one[step].key, other[step].key), lines, inputs)


def _tools(before: Manifest, after: Manifest) -> Iterator[str]:
    """Each tool once, though many steps name it."""
    seen: dict[str, None] = {}
    one, other = _by_step(before), _by_step(after)
    for name in one:
        if name in other:
            seen |= dict.fromkeys(_values(one[name].tools, other[name].tools))
    yield from seen
    yield from _values({"modelwright": before.modelwright}, {"modelwright": after.modelwright})


def _summary(manifest: Manifest) -> dict[str, Any]:
    source = manifest.source.as_json()
    if manifest.source.commit:
        source["commit"] = manifest.source.commit[:10]  # as people name it
    return {
        "target": manifest.target.as_json(),
        "source": source,
        "tensors": manifest.tensors.as_json(),
        "metrics": manifest.metrics,
    }


def _by_step(manifest: Manifest) -> dict[str, KeyContent]:
    return {item.step: item.key_content for item in manifest.lineage}


def _values(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Plain data, key by key: `params.epochs 15 → 30`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            inside = f"{path}.{key}" if path else str(key)
            if key not in before or key not in after:
                yield _changed(inside, *(_shown(side[key]) if key in side else None for side in (before, after)))
            else:
                yield from _values(before[key], after[key], inside)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and _holds_more(before):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _values(one, other, f"{path}[{index}]")
    elif before != after:
        yield _changed(path, _shown(before), _shown(after))


def _holds_more(items: list[Any]) -> bool:
    return any(isinstance(item, dict | list) for item in items)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def _changed(path: str, before: str | None, after: str | None) -> str:
    if before is None:
        return f"{path} added: {after}"
    return f"{path} removed: {before}" if after is None else f"{path} {before} → {after}"


def _digests(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            yield f"{name} {'added' if name not in before else 'removed' if name not in after else 'changed'}"


# --- files ------------------------------------------------------------------------------------------------------------


def _files(baseline: Path, before: Manifest | None, candidate: Path, after: Manifest | None) -> Iterator[str]:
    one, other = _listed(baseline, before), _listed(candidate, after)
    for name in {**one, **other}:
        if name not in one or name not in other:
            size = (one.get(name) or other[name])[1]
            yield f"{name} {'removed' if name in one else 'added'}, {size:,} bytes"
        elif one[name] != other[name]:
            sizes = one[name][1], other[name][1]
            yield f"{name} " + (
                f"{sizes[0]:,} → {sizes[1]:,} bytes"
                if sizes[0] != sizes[1]
                else f"changed, {sizes[0]:,} bytes as before"
            )


def _listed(folder: Path, manifest: Manifest | None) -> dict[str, tuple[str, int]]:
    """{file: (SHA-256, bytes)} of what a server loads: not the files that tell of the version."""
    if manifest:
        found = {name: (item.sha256, item.size_bytes) for name, item in manifest.files.items()}
    else:
        found = {
            name: (sha256_file(path), path.stat().st_size) for name, path in list_tree(folder).items() if path.is_file()
        }
    return {name: item for name, item in found.items() if name not in ABOUT}
