"""MW30x: the dynamic batcher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.view import ConfigView

_FIELD = "dynamic_batching"


@rule(
    "MW301",
    "preferred batch size out of range",
    Severity.ERROR,
    why="A preferred batch size must be from 1 to max_batch_size.",
    fix="Keep the sizes within that range, or remove preferred_batch_size: most models do not need it.",
    example=Example(
        "dynamic_batching { preferred_batch_size: [ 4, 9 ] }", "dynamic_batching { preferred_batch_size: [ 4, 8 ] }"
    ),
)
def preferred_size(view: ConfigView) -> Iterator[Found]:
    yield from sizes_out_of_range(view, view.message.dynamic_batching.preferred_batch_size, _FIELD)


def sizes_out_of_range(view: ConfigView, sizes: Any, *path: str) -> Iterator[Found]:
    most = view.filled.max_batch_size  # the server also checks before a backend completes the config
    for index, size in enumerate(sizes):
        where: tuple[str | int, ...] = (*path, "preferred_batch_size", index)
        if size <= 0:
            yield view.found(f"preferred_batch_size {size} is below 1", *where)
        elif size > most:
            yield view.found(f"preferred_batch_size {size} is above max_batch_size {most}", *where)


@rule(
    "MW302",
    "default priority out of range",
    Severity.ERROR,
    why="With priority_levels, requests without a priority get default_priority_level, from 1 (the highest) to "
    "priority_levels.",
    fix="Set default_priority_level to a number from 1 to priority_levels.",
    example=Example(
        "dynamic_batching { priority_levels: 2 }", "dynamic_batching { priority_levels: 2, default_priority_level: 2 }"
    ),
)
def default_priority(view: ConfigView) -> Iterator[Found]:
    batching = view.message.dynamic_batching
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        where = "default_priority_level" if default else "priority_levels"
        yield view.found(f"default_priority_level is {default}; it must be from 1 to {levels}", _FIELD, where)


@rule(
    "MW303",
    "queue policy of a priority that does not exist",
    Severity.ERROR,
    why="The keys of priority_queue_policy are priority levels, from 1 to priority_levels.",
    fix="Use a level from 1 to priority_levels as the key.",
    example=Example(
        "dynamic_batching { priority_levels: 1, default_priority_level: 1, "
        "priority_queue_policy { key: 2 value { } } }",
        "dynamic_batching { priority_levels: 1, default_priority_level: 1, "
        "priority_queue_policy { key: 1 value { } } }",
    ),
)
def policy_of_unknown_priority(view: ConfigView) -> Iterator[Found]:
    batching = view.message.dynamic_batching
    for level in sorted(batching.priority_queue_policy) if batching.priority_levels else ():
        if not 1 <= level <= batching.priority_levels:
            message = f"priority level {level} does not exist: levels are from 1 to {batching.priority_levels}"
            yield view.found(message, _FIELD, "priority_queue_policy", level)


@rule(
    "MW304",
    "preserve_ordering with priorities",
    Severity.ERROR,
    why="Requests of several priorities overtake each other; preserve_ordering forbids that.",
    fix="Use one priority level, or remove preserve_ordering.",
    example=Example(
        "dynamic_batching { preserve_ordering: true, priority_levels: 2, default_priority_level: 1 }",
        "dynamic_batching { preserve_ordering: true, priority_levels: 1, default_priority_level: 1 }",
    ),
)
def ordering_with_priorities(view: ConfigView) -> Iterator[Found]:
    batching = view.message.dynamic_batching
    if batching.preserve_ordering and batching.priority_levels > 1:
        message = f"preserve_ordering with {batching.priority_levels} priority levels"
        yield view.found(message, _FIELD, "preserve_ordering")


@rule(
    "MW305",
    "preserve_ordering with delayed requests",
    Severity.ERROR,
    why="With timeout_action DELAY, a request that times out moves to the back of the queue; preserve_ordering forbids "
    "that.",
    fix="Use timeout_action: REJECT, or remove preserve_ordering.",
    example=Example(
        "dynamic_batching { preserve_ordering: true, "
        "default_queue_policy { timeout_action: DELAY, default_timeout_microseconds: 100 } }",
        "dynamic_batching { preserve_ordering: true, "
        "default_queue_policy { timeout_action: REJECT, default_timeout_microseconds: 100 } }",
    ),
)
def ordering_with_delay(view: ConfigView) -> Iterator[Found]:
    batching = view.message.dynamic_batching
    if not batching.preserve_ordering:
        return
    policies: dict[tuple[str | int, ...], Any] = {("default_queue_policy",): batching.default_queue_policy}
    policies |= {("priority_queue_policy", level): policy for level, policy in batching.priority_queue_policy.items()}
    for path, policy in policies.items():
        if policy.timeout_action == policy.DELAY and policy.default_timeout_microseconds:
            yield view.found("timeout_action DELAY with preserve_ordering", _FIELD, *path)
