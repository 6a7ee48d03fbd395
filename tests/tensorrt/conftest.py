from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelwright import tools
from tests.tensorrt.packages import CHECK, why_not


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Path:
    """TensorRT for RTX, for this process and those that it starts. Nothing here imports it: a process of its own does."""
    if why_not():
        pytest.skip(why_not())
    monkeypatch.syspath_prepend(str(CHECK))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CHECK), os.environ.get("PYTHONPATH", "")]))
    tools.version.cache_clear()
    return CHECK
