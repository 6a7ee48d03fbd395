"""What MLflow is told of one build of one model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from modelwright.facts.part import Integer, Number, Part

VERSION_FOLDER = "version"  # of a run's artifacts: what a registered version points at
LONGEST_PARAM = 6000  # characters: what MLflow's store takes
_LONGEST_TAG = 8000
_MOST_ITEMS = 50  # of a list that is written out item by item


class Epoch(Part):
    """Metrics at one step of a curve: an epoch of a training, or a fold."""

    step: Integer
    metrics: dict[str, Number]


class BuildRecord(Part):
    """One run. With a `version`, it is registered, too."""

    uid: str
    model: str
    status: str  # of the outcome: new, unchanged, failed, …; "published" for a version that was there before
    started_ms: Integer  # since 1970
    ended_ms: Integer
    version: Integer | None = None
    version_digest: str = ""
    description: str = ""
    params: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, Number] = Field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.status == "failed"


def flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """A value of model.yaml as parameters: `source.params.epochs`. What is empty is left out."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flat(f"{prefix}.{name}", inner)
    elif (
        isinstance(value, list | tuple)
        and any(isinstance(item, Mapping) for item in value)
        and len(value) <= _MOST_ITEMS
    ):
        for index, inner in enumerate(value):
            yield from flat(f"{prefix}.{index}", inner)
    elif value not in (None, "", [], ()):
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        yield key(prefix), cut(text, LONGEST_PARAM)


def key(name: str) -> str:
    """A name as MLflow takes it for a parameter, a metric or a tag."""
    clean = "".join(char if char.isascii() and (char.isalnum() or char in "_-. /") else "_" for char in name)
    parts = [part for part in clean.split("/") if part not in ("", ".", "..")]
    return cut("/".join(parts), 250) or "_"


def cut(text: str, most: int = _LONGEST_TAG) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key(name): float(value) for name, value in metrics.items() if math.isfinite(value)}
