"""Which models have sequences, so that each request must say what its place in one is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelwright.triton.client import Client, SequencePlace

_CORRID = "CONTROL_SEQUENCE_CORRID"


def whole_sequence(client: Client, model: str) -> SequencePlace | None:
    """The place of a request that is a sequence of its own. None for a model that has no sequences.

    An ensemble has them where one of its composing models does.
    """
    for config in configs_with_composing(client, client.config(model)):
        if "sequence_batching" in config:
            return SequencePlace("1" if has_string_ids(config["sequence_batching"]) else 1)
    return None


def configs_with_composing(client: Client, config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A model's config; for an ensemble, those of its composing models too, each once."""
    seen, waiting = {config["name"]}, [config]
    while waiting:
        current = waiting.pop(0)
        yield current
        names = dict.fromkeys(step["model_name"] for step in current.get("ensemble_scheduling", {}).get("step", ()))
        waiting += [client.config(name) for name in names if name not in seen]
        seen |= set(names)


def has_string_ids(batching: Mapping[str, Any]) -> bool:
    """Whether correlation ids are strings; else they are unsigned integers."""
    controls = [control for entry in batching.get("control_input", ()) for control in entry.get("control", ())]
    return any(item.get("kind") == _CORRID and item.get("data_type") == "TYPE_STRING" for item in controls)
