"""`model_history/remotes.json`: what the remotes of a project serve, as far as this project pushed or pulled it.

    {"s3://bucket/models": {"time": "2026-11-26T07:00:00+00:00",
                            "models": {"digits": {"versions": {"3": "<version digest>"}}}}}

`gc` keeps these versions, and `fsck` names the remotes that a damaged one can be fetched from. A push writes down what
it is about to serve before the remote changes, beside what was served, so that the record never says too little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

from pydantic import Field, PlainSerializer

from modelwright.errors import RepositoryError
from modelwright.facts.part import DamagedError, Part, validated
from modelwright.fsops import disk_errors, fsync_path, read_file, rename_durably
from modelwright.repository.sealed import sealed, unsealed

RECORD = "remotes.json"


class RemoteModel(Part):
    versions: dict[int, str] = Field(default_factory=dict)  # number → version digest, "" where it has no manifest


class RemoteRecord(Part):
    """What one remote serves."""

    time: Annotated[datetime, PlainSerializer(datetime.isoformat)]
    models: dict[str, RemoteModel] = Field(default_factory=dict)


@dataclass(frozen=True)
class Copy:
    """A remote that has a version, and the version's digest there."""

    url: str
    digest: str


def read_record(history: Path) -> dict[str, RemoteRecord]:
    """{url: what it serves}. Raises RepositoryError for a damaged file."""
    path = history / RECORD
    try:
        return {str(url): validated(RemoteRecord, item) for url, item in unsealed(read_file(path)).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, DamagedError) as error:
        hint = "remove it, and then write it again: modelwright diff-remote URL, for each remote"
        raise RepositoryError(f"{path}: cannot be read: {error}", hint) from None


def copies(history: Path) -> dict[tuple[str, int], list[Copy]]:
    """{(model, version): the remotes that serve it}."""
    found: dict[tuple[str, int], list[Copy]] = {}
    for url, record in read_record(history).items():
        for model, entry in record.models.items():
            for version, digest in entry.versions.items():
                found.setdefault((model, version), []).append(Copy(url, digest))
    return found


def write_record(history: Path, url: str, models: Mapping[str, Mapping[int, str]], *, keep_old: bool = False) -> None:
    """Note what a remote serves, {model: {version: digest}}; with `keep_old` beside what was noted before.

    Only for the holder of the build lock.
    """
    records = read_record(history)
    served = {name: RemoteModel(versions=dict(versions)) for name, versions in models.items()}
    if keep_old and url in records:
        for name, entry in records[url].models.items():
            new = served.get(name, RemoteModel())
            served[name] = RemoteModel(versions={**entry.versions, **new.versions})
    records[url] = RemoteRecord(time=datetime.now(timezone.utc).replace(microsecond=0), models=served)
    text = sealed({name: record.as_json() for name, record in sorted(records.items())})
    path = history / RECORD
    with disk_errors(path):
        history.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(text)
        fsync_path(part)
        rename_durably(part, path)
