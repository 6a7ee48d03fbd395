"""What a version can be compared with. Apart from the other facts: the command line names it, and needs no pydantic."""

from __future__ import annotations

from enum import Enum


class ComparedWith(Enum):
    """What the outputs of a version were compared with. The values are written: a new member needs a new schema."""

    SOURCE = "source"  # what it was made from, or the builder's `reference`
    GOLDEN_SAMPLES = "golden_samples"  # those that came with a prebuilt version
    ITSELF = "itself"  # a second run: there was nothing else
    NOTHING = "nothing"  # a prebuilt version that could not be run here, or has no samples
