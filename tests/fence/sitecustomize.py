"""What every Python process of a test runs first: `tests.needs` puts this folder on PYTHONPATH.

It refuses the imports that the test has no mark for. And it writes nothing through to the disk: no test cuts the power,
so waiting for the disk checks nothing, and on a machine with a busy one it takes most of the time.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence

FRAMEWORKS = frozenset({"torch", "torchvision", "transformers", "sentence_transformers", "onnxscript", "sklearn"})
MARK_OF = {**dict.fromkeys(FRAMEWORKS, "torch"), "mlflow": "mlflow"}  # what is fenced → the mark that lets it through
MARKS = "MODELWRIGHT_TEST_MARKS"  # the marks of the test that runs


class Fence(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the frameworks, so that asking whether one is installed still works, and refuses to import them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        mark = MARK_OF.get(name)
        if mark and mark not in os.environ.get(MARKS, mark).split():
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        raise ImportError(f"this test needs pytest.mark.{MARK_OF[spec.name]}: it imports {spec.name}")

    def exec_module(self, module: types.ModuleType) -> None: ...


sys.meta_path.insert(0, Fence())
os.fsync = lambda fd: None
