"""source.kind python with `calls`: verified together with the models that it calls."""

from __future__ import annotations

from pathlib import Path

from modelwright.digest import list_tree
from modelwright.facts.verified import Verified
from modelwright.kinds.python import PythonSource
from modelwright.steps.context import StepContext
from modelwright.steps.python import PACKAGES
from modelwright.steps.verify import run_served
from modelwright.triton.layout import PINS


def verify(context: StepContext, out: Path) -> Verified:
    """In the real server, with a note where model.py does not choose the versions that it calls."""
    verified = run_served(context, out)
    version = context.inputs["model"] / "version"
    own = [path for name, path in list_tree(version).items() if name.endswith(".py") and not name.startswith(PACKAGES)]
    if any(PINS in path.read_text(encoding="utf-8", errors="replace") for path in own):
        return verified
    called = " and ".join(context.source(PythonSource).calls)
    note = f"model.py never reads the parameter `{PINS}`, so it runs the newest version of {called}, whichever that is"
    fix = "a rollback does not move them together: docs/python-models.md shows the lines to add"
    return verified.model_copy(update={"notes": (*verified.notes, f"{note}; {fix}")})
