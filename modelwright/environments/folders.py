"""How an environment of its own lies on disk, and how it comes there: complete, by a rename.

It has the layout of a virtual environment, made without `venv`: a Python finds its packages through the `pyvenv.cfg`
beside the link by which it was started.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.environments.interpreters import Interpreter

FACTS = "environment.json"  # what was installed, for which interpreter


def digest(value: object) -> str:
    """A short name for what an environment is made from."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def site_packages(root: Path, full_version: str) -> Path:
    """Where the Python of an environment finds its packages. `full_version` is that of its interpreter: "3.11.7"."""
    return root / f"lib/python{full_version.rpartition('.')[0]}/site-packages"


def read_facts(root: Path) -> dict[str, Any] | None:
    """What an environment says it is; None where there is none."""
    try:
        facts = json.loads((root / FACTS).read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and "identity" in facts else None


def link_python(root: Path, interpreter: Interpreter) -> None:
    """Give an environment its Python."""
    executable = Path(interpreter.executable)
    (root / "bin").mkdir()
    (root / "bin/python3").symlink_to(executable)
    (root / "pyvenv.cfg").write_text(
        f"home = {executable.parent}\ninclude-system-site-packages = false\nversion = {interpreter.full_version}\n"
    )


def clean_variables() -> dict[str, str]:
    """The caller's environment variables, without those that change where a Python looks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept.pop("VIRTUAL_ENV", None)
    return kept


@contextlib.contextmanager
def staged(state: Path) -> Iterator[Path]:
    """A folder in which an environment is put together; whoever made it renames it into place."""
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=state))
    staging.chmod(0o755)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_leftovers(state: Path) -> None:
    """Remove staging directories. Under the lock, they can only belong to killed processes."""
    for path in state.glob(".staging-*"):
        shutil.rmtree(path, ignore_errors=True)
