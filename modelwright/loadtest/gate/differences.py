"""What differs between two versions of a model, one line each, to find the cause of a change.

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
from pathlib import Path
from typing import Any

from modelwright.config.render import parse
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import ConfigError, RepositoryError
from modelwright.facts.key_content import KeyContent
from modelwright.repository.manifest import Manifest, read_ours
from modelwright.triton.layout import CONFIG, GOLDEN, MANIFEST
from modelwright.triton.messages import compared

_MAX_CHARS = 60  # of a value
_MAX_LINES = 40


def differences(baseline: Path, baseline_version: int, candidate: Path, candidate_version: int) -> list[str]:
    """`baseline` and `candidate` are the models' folders: with one repository the same, and so is the config then.

    Raises RepositoryError for a manifest that cannot be read, or a version that is not there.
    """
    lines = list(_config(baseline / CONFIG, candidate / CONFIG))
    before, after = (_read(baseline / str(baseline_version)), _read(candidate / str(candidate_version)))
    if before is not None and after is not None:
        lines += [line for part in (_steps, _tools, _facts) for line in part(before, after)]
    elif before is not None or after is not None:
        lines.append(
            f"manifest: only the {'baseline' if before else 'candidate'} has one: how it was made is not compared"
        )
    lines += _files(baseline / str(baseline_version), before, candidate / str(candidate_version), after)
    more = len(lines) - _MAX_LINES
    return lines if more <= 0 else [*lines[:_MAX_LINES], f"… and {more:,} more"]


def _read(folder: Path) -> Manifest | None:
    """A version's manifest; None where there is none."""
    if not folder.is_dir():
        raise RepositoryError(f"{folder}: there is no such version")
    return read_ours(folder / MANIFEST)


# --- config.pbtxt -----------------------------------------------------------------------------------------------------


def _config(baseline: Path, candidate: Path) -> Iterator[str]:
    if baseline.resolve() == candidate.resolve():
        return
    there = baseline.is_file(), candidate.is_file()
    if there[0] != there[1]:
        yield f"config: only the {'baseline' if there[0] else 'candidate'} has a {CONFIG}"
    if not all(there):
        return
    try:
        found = compared(parse(baseline.read_bytes(), str(baseline)), parse(candidate.read_bytes(), str(candidate)))
    except ConfigError as error:
        yield f"config: cannot be compared: {error.message}"
        return
    for path, before, after in found:
        yield f"config: {_changed(path, before, after)}"


# --- manifests --------------------------------------------------------------------------------------------------------


def _steps(before: Manifest, after: Manifest) -> Iterator[str]:
    """What the steps of a build were given, by the inputs of their keys."""
    one, other = _by_step(before), _by_step(after)
    for name in {**one, **other}:
        if name not in one or name not in other:
            yield f"{name}: a step of the {'baseline' if name in one else 'candidate'} only"
            continue
        mine, theirs = one[name], other[name]
        lines = [
            *_values(mine.config, theirs.config),
            *_values({"revision": mine.revision}, {"revision": theirs.revision}),
            *(f"code {line}" for line in _digests(mine.code, theirs.code)),
            *(f"data {line}" for line in _digests(mine.data, theirs.data)),
        ]
        yield from (f"{name}: {line}" for line in lines)


def _tools(before: Manifest, after: Manifest) -> Iterator[str]:
    """Each tool once, though many steps name it."""
    seen: dict[str, None] = {}
    one, other = _by_step(before), _by_step(after)
    for name in one:
        if name in other:
            seen |= dict.fromkeys(_values(one[name].tools, other[name].tools))
    yield from (f"tools: {line}" for line in seen)


def _facts(before: Manifest, after: Manifest) -> Iterator[str]:
    one, other = _summary(before), _summary(after)
    for name in one:
        yield from (f"{name}: {line}" for line in _values(one[name], other[name]))
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
            yield f"files: {name} {'removed' if name in one else 'added'}, {size:,} bytes"
        elif one[name] != other[name]:
            sizes = one[name][1], other[name][1]
            yield f"files: {name} " + (
                f"{sizes[0]:,} → {sizes[1]:,} bytes"
                if sizes[0] != sizes[1]
                else f"changed, {sizes[0]:,} bytes as before"
            )


def _listed(folder: Path, manifest: Manifest | None) -> dict[str, tuple[str, int]]:
    """{file: (SHA-256, bytes)} of what a server loads: not the manifest itself, nor the golden samples."""
    if manifest:
        found = {name: (item.sha256, item.size_bytes) for name, item in manifest.files.items()}
    else:
        found = {
            name: (sha256_file(path), path.stat().st_size) for name, path in list_tree(folder).items() if path.is_file()
        }
    return {name: item for name, item in found.items() if name not in (MANIFEST, GOLDEN)}
