"""The parameters of a router's config.pbtxt: how requests are split. In the server, `steps/router_model.py` reads them.

arm.MODEL, arm.MODEL:VERSION          the arm's weight
shadow.MODEL, shadow.MODEL:VERSION    the share of requests of which this model gets a copy
sticky                                the request parameter whose value decides
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ARM, SHADOW, STICKY = "arm.", "shadow.", "sticky"


@dataclass(frozen=True)
class Routed:
    """A model that a router calls, or one version of it; without `version` the newest that is served."""

    model: str
    version: int | None = None

    @property
    def name(self) -> str:
        return self.model if self.version is None else f"{self.model}:{self.version}"


def routed_by(config: Any) -> list[Routed]:
    """The arms and the shadows that a ModelConfig names; none where it is no router's."""
    return _named(key for key in config.parameters if key.startswith((ARM, SHADOW)))


def answering_arms(config: Mapping[str, Any]) -> list[Routed]:
    """The arms with a weight, in a config as a server tells it."""
    parameters = config.get("parameters", {})
    weights = {key: str(item.get("string_value", "")) for key, item in parameters.items() if key.startswith(ARM)}
    return _named(key for key, weight in weights.items() if weight.strip("0. "))


def only_arm(config: Any, arm: Routed) -> None:
    """Change a router's ModelConfig so that one model alone answers, and none gets copies."""
    for key in list(config.parameters):
        if key == STICKY or key.startswith((ARM, SHADOW)):
            del config.parameters[key]
    config.parameters[ARM + arm.name].string_value = "1"


def _named(keys: Iterable[str]) -> list[Routed]:
    names = [key.partition(".")[2] for key in sorted(keys)]
    return [_routed(name) for name in names if name]


def _routed(name: str) -> Routed:
    model, _, number = name.partition(":")
    return Routed(model, int(number) if number.isascii() and number.isdigit() else None)
