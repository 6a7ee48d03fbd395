"""source.kind alias: verified against the model that it serves."""

from __future__ import annotations

from pathlib import Path

from modelwright.facts.verified import Verified
from modelwright.kinds.alias import AliasSource
from modelwright.steps.context import StepContext
from modelwright.steps.verify import run_served


def verify(context: StepContext, out: Path) -> Verified:
    """An alias must answer as the model does that it serves, in the same server."""
    return run_served(context, out, source=context.source(AliasSource).serves)
