"""`N/manifest.json`: what a published version is, and how it came about.

    read(path).files["model.onnx"].sha256

A version's manifest is never rewritten, so older schemas stay, and are brought into today's form when they are read:

    schema 1    `payload` is `version_digest`, in `lineage` it is `key_content`; `made.members` are `composing_models`;
                `verification.compared_with` is a phrase; `metrics` stand beside `verification`
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, cast

from pydantic import Field, JsonValue, PlainSerializer

from modelwright import __version__
from modelwright.digest import parse_json
from modelwright.errors import RepositoryError
from modelwright.facts.key_content import KeyContent
from modelwright.facts.made import Made
from modelwright.facts.part import SCHEMA, Boolean, DamagedError, Integer, JsonObject, Number, Part, validated
from modelwright.facts.verified import Verified
from modelwright.fsops import MOST_TEXT_BYTES, read_file
from modelwright.triton.layout import SBOM

_HINT = (
    "restore the file from a copy of the repository; or remove that version's directory and build again, "
    "which publishes the model under the next number"
)


class TargetVersions(Part):
    """What the version was made for."""

    triton: str
    onnxruntime: str
    python: str


class SourceCommit(Part):
    """The builder that made the version, and its state in git; `commit` is None outside git."""

    builder: str  # its model.yaml, relative to the project
    commit: str | None = None
    dirty: Boolean | None = None  # whether the builder's folder had changes on top of the commit


class PublishedFile(Part):
    sha256: str
    size_bytes: Integer


class PublishedTensor(Part):
    """An input or output as config.pbtxt states it: without the batch dimension, -1 where dynamic."""

    name: str
    dtype: str
    dims: tuple[Integer, ...]


class PublishedTensors(Part):
    """What a config must say for the version to load: versions that differ here cannot be served together."""

    batched: Boolean
    inputs: tuple[PublishedTensor, ...]
    outputs: tuple[PublishedTensor, ...]


class LineageStep(Part):
    """One step that led to the version."""

    step: str
    key: str
    output: str  # the digest of the files it made
    seconds: Number
    key_content: KeyContent
    facts: JsonObject = Field(default_factory=dict)  # what a technique learnt: which layers stay in float, and why


class Manifest(Part):
    schema_: Annotated[Integer, Field(alias="schema")] = Field(SCHEMA, alias="schema")
    model: str
    version: Integer
    description: str
    created: Annotated[datetime, PlainSerializer(datetime.isoformat)]
    modelwright: str  # its version
    target: TargetVersions
    source: SourceCommit
    version_digest: str  # of the files, without the golden samples: another digest makes another version
    files: dict[str, PublishedFile]
    tensors: PublishedTensors
    made: Made
    verification: Verified
    lineage: tuple[LineageStep, ...]

    @property
    def metrics(self) -> dict[str, float]:
        return self.verification.metrics

    @property
    def size_bytes(self) -> int:
        """Of what it holds: the bill of materials tells of it."""
        return sum(file.size_bytes for name, file in self.files.items() if name != SBOM)

    def text(self) -> str:
        """The file as it is written."""
        return json.dumps(self.as_json(), indent=1) + "\n"


def read(path: Path) -> Manifest | None:
    """A version's manifest; None where there is no such file.

    Raises RepositoryError, naming the file and the field, for one that is damaged or that a newer Modelwright wrote.
    """
    try:
        return _manifest(path, _load(path))
    except FileNotFoundError:
        return None


def read_ours(path: Path) -> Manifest | None:
    """The same where other tools may have written a file of this name: None for theirs, too."""
    try:
        data = _load(path)
    except FileNotFoundError:
        return None
    return _manifest(path, data) if _names_modelwright(data) else None


def is_ours(path: Path) -> bool:
    """Whether Modelwright wrote a file, damaged or not."""
    try:
        return _names_modelwright(_load(path))
    except (FileNotFoundError, RepositoryError):
        return False


def _names_modelwright(data: JsonValue) -> bool:
    return isinstance(data, dict) and {"schema", "modelwright"} <= data.keys()


def parse(data: bytes, where: str) -> Manifest | None:
    """The manifest in the content of a file that lies elsewhere; None for one that Modelwright did not write."""
    content = _parsed(data, where)
    return _manifest(where, content) if _names_modelwright(content) else None


def _load(path: Path) -> JsonValue:
    """The file's JSON. A FileNotFoundError passes through."""
    try:
        data = read_file(path, MOST_TEXT_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RepositoryError(f"{path}: cannot be read: {error.strerror}") from None
    return _parsed(data, path)


def _parsed(data: bytes, path: Path | str) -> JsonValue:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, f"not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise _damaged(path, "the file is empty")
    try:
        return cast(JsonValue, parse_json(text))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON, or cut short: {error}") from None


def _manifest(path: Path | str, data: JsonValue) -> Manifest:
    if not isinstance(data, dict):
        raise _damaged(path, f"expected a JSON object, got {json.dumps(data)[:40]}")
    schema = data.get("schema")
    if type(schema) is not int or schema < 1:
        problem = "missing" if schema is None else f"expected a whole number from 1, got {schema!r}"
        raise _damaged(path, f"schema: {problem}")
    if schema > SCHEMA:
        raise RepositoryError(
            f"{path}: schema {schema}: written by a newer Modelwright ({data.get('modelwright', 'unknown version')})",
            f"update Modelwright: this one ({__version__}) reads schemas up to {SCHEMA}",
        )
    for older in range(schema, SCHEMA):
        data = _MIGRATIONS[older](data)
    try:
        return validated(Manifest, data)
    except DamagedError as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path | str, problem: str) -> RepositoryError:
    return RepositoryError(f"{path}: damaged: {problem}", _HINT)


def _from_1(data: JsonObject) -> JsonObject:
    """Damaged parts are left as they are: their type says what is wrong with them."""
    new = _renamed(data, {"payload": "version_digest"}) | {"schema": 2}
    if "made" in data:
        new["made"] = Made.from_schema_1(data["made"])
    verification = Verified.from_schema_1(data.get("verification"))
    if isinstance(verification, dict) and "metrics" in data:
        new["verification"] = {**verification, "metrics": new.pop("metrics")}
    lineage = data.get("lineage")
    if isinstance(lineage, list):
        new["lineage"] = [
            _renamed(step, {"payload": "key_content"}) if isinstance(step, dict) else step for step in lineage
        ]
    return new


def _renamed(data: JsonObject, names: dict[str, str]) -> JsonObject:
    return {names.get(name, name): value for name, value in data.items()}


_MIGRATIONS: dict[int, Callable[[JsonObject], JsonObject]] = {1: _from_1}  # schema → to the next one
