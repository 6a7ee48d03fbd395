"""Checks that the models which a router calls can take each other's place: same tensors, one answer to a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.config.model_config import ConfigTensor, ConfigTensors
from modelwright.errors import ConfigError
from modelwright.kinds.registry import kind_of
from modelwright.project.family import family_of
from modelwright.project.spec import Builder
from modelwright.suggest import did_you_mean


def check_arms(
    builder: Builder, builders: Mapping[str, Builder], tensors: Mapping[str, ConfigTensors | None], own: ConfigTensors
) -> None:
    """Check every model that a router calls against the router's tensors, which are those of its first arm.

    `tensors` has each one's inputs and outputs, None if it is not built yet and does not declare them. Raises
    ConfigError naming the model and the tensor.
    """
    routed = kind_of(builder).routed(builder.spec.source)
    first = routed[0][1].model if routed else ""
    for field, item in routed:
        where, other = f"{builder.file}: {field}: {item.model}", builders[item.model]
        _check_requests(where, other, builders)
        if other.spec.batched != builders[first].spec.batched:
            sizes = f"{other.spec.max_batch_size}, {first} has {builders[first].spec.max_batch_size}"
            raise ConfigError(
                f"{where} has max_batch_size {sizes}",
                "either all of them take batches, or none: serving.max_batch_size",
            )
        known = tensors[item.model]
        if known is not None:
            _check_side(where, "input", known.inputs, own.inputs, first)
            _check_side(where, "output", known.outputs, own.outputs, first)


def _check_requests(where: str, model: Builder, builders: Mapping[str, Builder]) -> None:
    """Refuse models that keep state between requests, or give any number of answers; also inside an ensemble."""
    for name in family_of(model, builders):
        serving = builders[name].spec.serving
        if serving.get("sequence_batching") is not None:
            reason = "takes sequences, whose requests would go to several arms"
        elif _decoupled(serving):
            reason = "is decoupled: it gives any number of answers to a request, and a router gives one"
        else:
            continue
        runs = "" if name == model.name else f" runs {name}, which"
        raise ConfigError(f"{where}{runs} {reason}", "remove it here; clients ask it directly")


def _decoupled(serving: Mapping[str, Any]) -> bool:
    policy = serving.get("model_transaction_policy")
    return isinstance(policy, Mapping) and bool(policy.get("decoupled"))


def _check_side(where: str, side: str, theirs: Sequence[ConfigTensor], own: Sequence[ConfigTensor], first: str) -> None:
    """Check one side's tensors. An output may have a size that the other leaves open: answers say which."""
    expected = {tensor.name: tensor for tensor in own}
    for tensor in theirs:
        if tensor.name not in expected:
            message = f"{where} has an {side} '{tensor.name}', which {first} has not"
            raise ConfigError(message, did_you_mean(tensor.name, expected))
    found = {tensor.name: tensor for tensor in theirs}
    for name, tensor in expected.items():
        if name not in found:
            raise ConfigError(f"{where} has no {side} '{name}', which {first} has", did_you_mean(name, found))
        if not _fits(found[name], tensor, may_be_open=side == "output"):
            message = f"{where}: {side} '{name}' is {_shown(found[name])}, and {_shown(tensor)} of {first}"
            raise ConfigError(message, "the models that a router calls have the same tensors")


def _fits(one: ConfigTensor, other: ConfigTensor, *, may_be_open: bool) -> bool:
    return (
        one.dtype == other.dtype
        and len(one.dims) == len(other.dims)
        and all(a == b or (may_be_open and -1 in (a, b)) for a, b in zip(one.dims, other.dims, strict=True))
    )


def _shown(tensor: ConfigTensor) -> str:
    return f"{tensor.dtype} {list(tensor.dims)}"
