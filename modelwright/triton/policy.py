"""Which versions a server serves: a config's version_policy, applied to the versions that are there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def selected(policy: Any, versions: Iterable[int]) -> list[int]:
    """The versions that a ModelConfig's version_policy selects, highest first (VersionsToLoad in model_lifecycle.cc).

    `latest` without a number selects none; a config without a policy is served by its highest version.
    """
    there = sorted(set(versions), reverse=True)
    if policy.HasField("specific"):
        return [number for number in there if number in policy.specific.versions]
    if policy.HasField("all"):
        return there
    return there[: policy.latest.num_versions if policy.HasField("latest") else 1]
