"""How long the local server may take to load models before it counts as stuck: in proportion to what it loads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

RAISE_IT = (
    "give it longer: --startup-timeout SECONDS with serve, verify, infer or build; "
    "or [server] and startup_timeout = SECONDS in modelwright.toml"
)
_BASE_S = 600  # whatever one model does: a Python model may compile, or fetch its weights, when it is initialized
_MODEL_S = 30
_REQUEST_S = 60
_BYTES_PER_S = 10e6  # a slow disk, read through a network


def patience_s(repository: Path, models: Iterable[str]) -> float:
    """For the models of these names in a repository, together; `["*"]` is all of them."""
    folders = [repository / model for model in models]
    if folders == [repository / "*"]:
        folders = [path for path in repository.iterdir() if path.is_dir()]
    return float(round(_BASE_S + sum(_MODEL_S + _size_bytes(folder) / _BYTES_PER_S for folder in folders)))


def request_patience_s(repository: Path) -> float:
    """For one request to a model of this repository: a first one can make a large model read what it had left."""
    return float(round(_REQUEST_S + _size_bytes(repository) / _BYTES_PER_S))


def _size_bytes(folder: Path) -> int:
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found += os.stat(f"{parent}/{name}").st_size  # noqa: PTH116  (of thousands)
            except OSError:
                continue
    return found
