"""Dynamic batching: preferred sizes, priorities, queue policies."""

from tests.lint.cases.build import python
from tests.lint.trees import Tree


def dynamic(fields: str = "", *, batch: int = 4) -> Tree:
    return python(f"dynamic_batching {{ {fields} }}", batch=batch)


def queue(fields: str, more: str = "") -> Tree:
    return dynamic(f"{more} default_queue_policy {{ {fields} }}")


LEVELS = "priority_levels: 2 default_priority_level: 1"

TREES: dict[str, Tree] = {
    "empty": dynamic(),
    "without batching": dynamic(batch=0),
    "with batches of one": dynamic(batch=1),
    "preferred zero": dynamic("preferred_batch_size: [0]"),
    "preferred one": dynamic("preferred_batch_size: [1]"),
    "preferred the maximum": dynamic("preferred_batch_size: [4]"),
    "preferred above the maximum": dynamic("preferred_batch_size: [5]"),
    "preferred negative": dynamic("preferred_batch_size: [-1]"),
    "preferred two": dynamic("preferred_batch_size: [2, 4]"),
    "preferred in falling order": dynamic("preferred_batch_size: [4, 2]"),
    "preferred twice the same": dynamic("preferred_batch_size: [2, 2]"),
    "preferred, the last above the maximum": dynamic("preferred_batch_size: [2, 5]"),
    "preferred without batching": dynamic("preferred_batch_size: [1]", batch=0),
    "delay": dynamic("max_queue_delay_microseconds: 100"),
    "delay huge": dynamic("max_queue_delay_microseconds: 9223372036854775808"),
    "order kept": dynamic("preserve_ordering: true"),
    "levels without default": dynamic("priority_levels: 2"),
    "levels and default zero": dynamic("priority_levels: 2 default_priority_level: 0"),
    "levels and default one": dynamic(LEVELS),
    "levels and default the last": dynamic("priority_levels: 2 default_priority_level: 2"),
    "levels and default above": dynamic("priority_levels: 2 default_priority_level: 3"),
    "default without levels": dynamic("default_priority_level: 1"),
    "one level": dynamic("priority_levels: 1 default_priority_level: 1"),
    "one level without default": dynamic("priority_levels: 1"),
    "levels zero and default zero": dynamic("priority_levels: 0 default_priority_level: 0"),
    "levels many": dynamic("priority_levels: 100000 default_priority_level: 1"),
    "order kept with one level": dynamic("preserve_ordering: true priority_levels: 1 default_priority_level: 1"),
    "order kept with two levels": dynamic(f"preserve_ordering: true {LEVELS}"),
    "policy for level 0": dynamic(f"{LEVELS} priority_queue_policy {{ key: 0 value {{ max_queue_size: 1 }} }}"),
    "policy for level 1": dynamic(f"{LEVELS} priority_queue_policy {{ key: 1 value {{ max_queue_size: 1 }} }}"),
    "policy for the last level": dynamic(f"{LEVELS} priority_queue_policy {{ key: 2 value {{ max_queue_size: 1 }} }}"),
    "policy above the levels": dynamic(f"{LEVELS} priority_queue_policy {{ key: 3 value {{ max_queue_size: 1 }} }}"),
    "policy without levels": dynamic("priority_queue_policy { key: 1 value { max_queue_size: 1 } }"),
    "policy for level 0 without levels": dynamic("priority_queue_policy { key: 0 value { max_queue_size: 1 } }"),
    "policy for a level, empty": dynamic(f"{LEVELS} priority_queue_policy {{ key: 1 value {{ }} }}"),
    "queue size": queue("max_queue_size: 1"),
    "queue size zero": queue("max_queue_size: 0"),
    "queue size negative": queue("max_queue_size: -1"),
    "timeout rejects": queue("timeout_action: REJECT default_timeout_microseconds: 100"),
    "timeout delays": queue("timeout_action: DELAY default_timeout_microseconds: 100"),
    "timeout unknown action": queue("timeout_action: WAIT"),
    "order kept, delay without timeout": queue("timeout_action: DELAY", "preserve_ordering: true"),
    "order kept, delay with timeout": queue("timeout_action: DELAY default_timeout_microseconds: 1", "preserve_ordering: true"),
    "order kept, delay with override": queue("timeout_action: DELAY allow_timeout_override: true", "preserve_ordering: true"),
    "order kept, reject with timeout": queue("timeout_action: REJECT default_timeout_microseconds: 1", "preserve_ordering: true"),
    "order kept, reject with override": queue("allow_timeout_override: true", "preserve_ordering: true"),
    "order kept, one level delays with timeout": dynamic(
        "preserve_ordering: true priority_levels: 1 default_priority_level: 1 "
        "priority_queue_policy { key: 1 value { timeout_action: DELAY default_timeout_microseconds: 1 } }"
    ),
    "order kept, one level delays without timeout": dynamic(
        "preserve_ordering: true priority_levels: 1 default_priority_level: 1 "
        "priority_queue_policy { key: 1 value { timeout_action: DELAY } }"
    ),
    "order kept, no level, policy delays with timeout": dynamic(
        "preserve_ordering: true "
        "priority_queue_policy { key: 1 value { timeout_action: DELAY default_timeout_microseconds: 1 } }"
    ),
    "order kept, one level, default delays but level rejects": dynamic(
        "preserve_ordering: true priority_levels: 1 default_priority_level: 1 "
        "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1 } "
        "priority_queue_policy { key: 1 value { timeout_action: REJECT } }"
    ),
}  # fmt: skip
