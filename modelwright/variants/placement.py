"""Chooses where plans are built: the first place that can, in this order."""

from __future__ import annotations

from modelwright.project.plan_places import PlanPlaces
from modelwright.variants import places as local
from modelwright.variants.places import LOCAL, Finder, NoPlace, Place, PlanMachine, WantedPlans

FINDERS: dict[str, Finder] = {LOCAL: local.find}


def place(wanted: WantedPlans, places: PlanPlaces, machine: PlanMachine | None = None) -> Place | NoPlace:
    """The place that builds the plans, or why there is none. `places` is [tensorrt] of modelwright.toml."""
    chosen = places.plan_builder
    if chosen == "none":
        return NoPlace({"tensorrt.plan_builder": "it is none in modelwright.toml"})
    reasons: dict[str, str] = {}
    for name, find in FINDERS.items():
        if chosen not in ("auto", name):
            continue
        found = find(wanted, places, machine or PlanMachine())
        if isinstance(found, Place):
            return found
        reasons[name] = found
    return NoPlace(reasons)
