"""MW40x, MW41x, MW43x: instance groups, the response cache, metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.view import ConfigView

_LABEL = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*|")  # Prometheus reserves names that start with __
_FAMILY = 'metric_identifier { family: "nv_inference_first_response_histogram_ms" }'


@rule(
    "MW401",
    "gpus for instances that do not use them",
    Severity.ERROR,
    why="KIND_CPU runs on the CPU and KIND_MODEL leaves devices to the model; neither accepts `gpus`.",
    fix="Remove `gpus`, or use KIND_GPU.",
    example=Example("instance_group [ { kind: KIND_CPU, gpus: [ 0 ] } ]", "instance_group [ { kind: KIND_CPU } ]"),
)
def gpus_without_use(view: ConfigView) -> Iterator[Found]:
    for index, group in enumerate(view.message.instance_group):
        if len(group.gpus) and group.kind in (group.KIND_CPU, group.KIND_MODEL):
            name = group.Kind.Name(group.kind)
            yield view.found(f"{name} with gpus {list(group.gpus)}", "instance_group", index, "gpus")


@rule(
    "MW402",
    "invalid profile",
    Severity.ERROR,
    why="`profile` lists TensorRT optimisation profiles by index. Other backends do not have them.",
    fix='Remove `profile`; for TensorRT write an index from 0 as a string: profile: [ "0" ].',
    example=Example('instance_group [ { kind: KIND_CPU, profile: [ "0" ] } ]', "instance_group [ { kind: KIND_CPU } ]"),
)
def bad_profile(view: ConfigView) -> Iterator[Found]:
    for index, group in enumerate(view.message.instance_group):
        for place, profile in enumerate(group.profile):
            path = ("instance_group", index, "profile", place)
            if view.message.platform != "tensorrt_plan":
                yield view.found(f"profile '{profile}' of a model that is not TensorRT", *path)
            elif not re.match(r"\s*\+?\d", profile):
                yield view.found(f"profile '{profile}' is not a number from 0", *path)


@rule(
    "MW403",
    "resource that is both global and per device",
    Severity.WARNING,
    why="A server with --rate-limit=execution_count refuses a model that uses one resource both as a global one and as "
    "one per device. Without the flag it ignores rate_limiter.",
    fix="Give `global` the same value everywhere the name is used.",
    example=Example(
        'instance_group [ { kind: KIND_CPU, rate_limiter { resources [ { name: "R", count: 1 }, '
        '{ name: "R", global: true, count: 1 } ] } } ]',
        'instance_group [ { kind: KIND_CPU, rate_limiter { resources [ { name: "R", count: 1 } ] } } ]',
    ),
    unexercised="only with --rate-limit, which the differential servers run without; one test starts a server with it",
)
def resource_of_two_kinds(view: ConfigView) -> Iterator[Found]:
    first: dict[str, bool] = {}
    for index, group in enumerate(view.message.instance_group):
        for place, resource in enumerate(group.rate_limiter.resources):
            is_global = getattr(resource, "global")
            if first.setdefault(resource.name, is_global) != is_global:
                path = ("instance_group", index, "rate_limiter", "resources", place)
                yield view.found(f"resource '{resource.name}' is global in one place and not in another", *path)


@rule(
    "MW404",
    "unknown instance kind",
    Severity.ERROR,
    why="protobuf accepts any number for an enum. The server refuses a model with a number that is not a kind.",
    fix="Write KIND_CPU, KIND_GPU, KIND_MODEL or KIND_AUTO.",
    example=Example("instance_group [ { kind: 9 } ]", "instance_group [ { kind: KIND_CPU } ]"),
)
def unknown_kind(view: ConfigView) -> Iterator[Found]:
    for index, group in enumerate(view.message.instance_group):
        if group.kind not in group.Kind.values():
            yield view.found(f"{group.kind} is not an instance kind", "instance_group", index, "kind")


@rule(
    "MW405",
    "negative GPU",
    Severity.ERROR,
    why="`gpus` lists GPUs by their numbers, from 0. A negative number is no GPU, and does not stand for all of them.",
    fix="Remove `gpus` for instances on every GPU, or write numbers from 0.",
    example=Example("instance_group [ { kind: KIND_GPU, gpus: [ -1 ] } ]", "instance_group [ { kind: KIND_GPU } ]"),
)
def negative_gpu(view: ConfigView) -> Iterator[Found]:
    for index, group in enumerate(view.message.instance_group):
        for place, gpu in enumerate(group.gpus if group.kind in (group.KIND_GPU, group.KIND_AUTO) else ()):
            if gpu < 0:
                yield view.found(f"GPU {gpu} does not exist", "instance_group", index, "gpus", place)


@rule(
    "MW411",
    "response cache with sequences",
    Severity.ERROR,
    why="The response to a request of a sequence depends on earlier requests, so the server refuses to cache it.",
    fix="Remove response_cache.",
    example=Example("response_cache { enable: true }\nsequence_batching { }", "sequence_batching { }"),
)
def cache_with_sequences(view: ConfigView) -> Iterator[Found]:
    if view.message.response_cache.enable and view.message.HasField("sequence_batching"):
        yield view.found("response_cache with sequence_batching", "response_cache")


@rule(
    "MW412",
    "response cache of a decoupled model",
    Severity.ERROR,
    why="A decoupled model sends any number of responses to a request; the cache holds one. An ensemble is decoupled "
    "if it runs a decoupled model.",
    fix="Remove response_cache.",
    example=Example(
        "response_cache { enable: true }\nmodel_transaction_policy { decoupled: true }",
        "model_transaction_policy { decoupled: true }",
    ),
)
def cache_of_decoupled(view: ConfigView) -> Iterator[Found]:
    if view.message.response_cache.enable and view.decoupled:
        yield view.found("response_cache with a decoupled model", "response_cache")


@rule(
    "MW431",
    "incomplete metric_control",
    Severity.ERROR,
    why="A metric_control needs a metric family and its buckets; the server refuses one without them.",
    fix="Write metric_identifier { family: … } and histogram_options { buckets: [ … ] }.",
    example=Example(
        f"model_metrics {{ metric_control [ {{ {_FAMILY} }} ] }}",
        f"model_metrics {{ metric_control [ {{ {_FAMILY} histogram_options {{ buckets: [ 1, 10 ] }} }} ] }}",
    ),
    unexercised="model_metrics came with 24.11; the local server is 24.10 and does not know the field",
)
def empty_metric_control(view: ConfigView) -> Iterator[Found]:
    for index, control in enumerate(view.message.model_metrics.metric_control):
        path = ("model_metrics", "metric_control", index)
        if not control.metric_identifier.family:
            yield view.found("metric_identifier.family is missing", *path)
        if not control.histogram_options.buckets:
            yield view.found("histogram_options.buckets are missing", *path)


@rule(
    "MW432",
    "metric tag that crashes the server",
    Severity.ERROR,
    why="The keys of metric_tags become Prometheus labels: letters, digits and '_', not starting with a digit or '__'. "
    "Any other key raises an exception that the server does not catch: the whole process aborts.",
    fix="Rename the key.",
    example=Example('metric_tags { key: "cost-centre" value: "7" }', 'metric_tags { key: "cost_centre" value: "7" }'),
)
def bad_metric_tag(view: ConfigView) -> Iterator[Found]:
    for key in sorted(view.message.metric_tags):
        if not _LABEL.fullmatch(key):
            yield view.found(f"'{key}' is not a valid Prometheus label", "metric_tags", key)
