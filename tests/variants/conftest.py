from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.variants import registry, techniques
from tests.variants import toy


@pytest.fixture(autouse=True)
def toy_techniques(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The techniques of `toy/`, beside the real ones."""
    monkeypatch.setattr(techniques, "__path__", [*techniques.__path__, str(Path(next(iter(toy.__path__))))])
    registry.names.cache_clear()
    yield
    registry.names.cache_clear()
