from __future__ import annotations

from tests.loadtest.conftest import browser

__all__ = ["browser"]
