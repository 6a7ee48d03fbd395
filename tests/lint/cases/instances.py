"""Instance groups: kinds, counts, devices, rate limiter."""

from tests.lint.cases.build import X, Y, onnx, python
from tests.lint.trees import Tree


def group(fields: str, *more: str) -> Tree:
    return python("instance_group [" + ", ".join(f"{{ {group} }}" for group in (fields, *more)) + "]")


def resource(fields: str) -> Tree:
    return group(f"rate_limiter {{ resources [{{ {fields} }}] }}")


TREES: dict[str, Tree] = {
    "empty group": group(""),
    "count zero": group("count: 0"),
    "count zero, KIND_CPU": group("count: 0 kind: KIND_CPU"),
    "count one": group("count: 1"),
    "count two": group("count: 2"),
    "count negative": group("count: -1"),
    "count negative, KIND_CPU": group("count: -1 kind: KIND_CPU"),
    "KIND_CPU": group("count: 1 kind: KIND_CPU"),
    "KIND_CPU with gpus": group("kind: KIND_CPU gpus: [0]"),
    "KIND_CPU with a negative gpu": group("kind: KIND_CPU gpus: [-1]"),
    "KIND_AUTO with a negative gpu": group("kind: KIND_AUTO gpus: [-1]"),
    "KIND_GPU with a negative gpu": group("kind: KIND_GPU gpus: [-1]"),
    "KIND_MODEL": group("count: 1 kind: KIND_MODEL"),
    "KIND_MODEL with gpus": group("kind: KIND_MODEL gpus: [0]"),
    "KIND_AUTO": group("kind: KIND_AUTO"),
    "unknown kind": group("kind: KIND_TPU"),
    "unknown kind's number": group("kind: 9"),
    "profile": group('kind: KIND_CPU profile: ["0"]'),
    "profile that is no number": group('kind: KIND_CPU profile: ["fast"]'),
    "profile of onnxruntime": {**onnx(), "m/config.pbtxt": f'backend: "onnxruntime" max_batch_size: 4 {X} {Y} instance_group [{{ count: 1 profile: ["0"] }}]'},
    "name": group('name: "group"'),
    "names equal": group('name: "group"', 'name: "group"'),
    "name empty": group('name: ""'),
    "name with a space": group('name: "two words"'),
    "name with a slash": group('name: "a/b"'),
    "two groups": group("count: 1", "count: 1"),
    "passive": group("passive: true"),
    "passive beside another": group("count: 1", "passive: true"),
    "secondary device on KIND_CPU": group("kind: KIND_CPU secondary_devices [{ kind: KIND_NVDLA device_id: 0 }]"),
    "secondary device on KIND_MODEL": group("kind: KIND_MODEL secondary_devices [{ kind: KIND_NVDLA device_id: 0 }]"),
    "secondary device without kind": group("secondary_devices [{ device_id: 0 }]"),
    "host policy": group('host_policy: "policy"'),
    "host policy empty": group('host_policy: ""'),
    "host policy with odd characters": group('host_policy: "a b/c,d=e"'),
    "host policy gpu_0": group('host_policy: "gpu_0"'),
    "rate limiter": group("rate_limiter { priority: 1 }"),
    "rate limiter, priority zero": group("rate_limiter { priority: 0 }"),
    "resource": resource('name: "R" count: 1'),
    "resource without name": resource("count: 1"),
    "resource without count": resource('name: "R"'),
    "resource of count zero": resource('name: "R" count: 0'),
    "resource negative": resource('name: "R" count: -1'),
    "resource global": resource('name: "R" count: 1 global: true'),
    "resource huge": resource('name: "R" count: 4294967295'),
    "resource global and per device in one group": group('rate_limiter { resources [{ name: "R" count: 1 global: true }, { name: "R" count: 1 }] }'),
    "resource global and per device in two groups": group(
        'rate_limiter { resources [{ name: "R" count: 1 global: true }] }', 'rate_limiter { resources [{ name: "R" count: 1 }] }'
    ),
    "resource twice": group('rate_limiter { resources [{ name: "R" count: 1 }, { name: "R" count: 2 }] }'),
    "resource global in one model and per device in another": {
        **resource('name: "R" count: 1 global: true'),
        **python('instance_group [{ rate_limiter { resources [{ name: "R" count: 1 }] } }]', name="n"),
    },
}  # fmt: skip
