"""Chooses where plans are built: the first place that can, in this order; or the one that was asked for."""

from __future__ import annotations

from modelwright.project.plan_places import PlanPlaces
from modelwright.variants import places as local
from modelwright.variants import places_container, places_kubernetes
from modelwright.variants.places import LOCAL, Finder, NoPlace, Place, PlanMachine, WantedPlans
from modelwright.variants.places_container import CONTAINER
from modelwright.variants.places_kubernetes import KUBERNETES

FINDERS: dict[str, Finder] = {
    LOCAL: local.find,
    CONTAINER: places_container.find,
    KUBERNETES: places_kubernetes.find,
}
# No Job starts in a cluster just because kubectl knows one.
_ON_REQUEST = (KUBERNETES,)


def place(wanted: WantedPlans, places: PlanPlaces, machine: PlanMachine | None = None) -> Place | NoPlace:
    """The place that builds the plans, or why there is none. `places` is [tensorrt] of modelwright.toml."""
    chosen = places.plan_builder
    if chosen == "none":
        return NoPlace({"plan builder": "none was chosen"})
    reasons: dict[str, str] = {}
    for name, find in FINDERS.items():
        if chosen not in ("auto", name):
            continue
        if chosen == "auto" and name in _ON_REQUEST:
            reasons[name] = f"only where it is asked for: --plan-builder {name}, or plan_builder in modelwright.toml"
            continue
        found = find(wanted, places, machine or PlanMachine())
        if isinstance(found, Place):
            return found
        reasons[name] = found
    return NoPlace(reasons)
