"""MW9xx: configs that load and do not do what their author expects. All of them are warnings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelwright.lint.completion import MAX_BATCH_SIZE
from modelwright.lint.examples import PYTHON_MODEL
from modelwright.lint.manifests import manifest_record
from modelwright.lint.rule import Example, Found, Onnx, Severity, rule
from modelwright.lint.rules.model import STOCK_BACKENDS
from modelwright.lint.view import ConfigView
from modelwright.suggest import did_you_mean
from modelwright.triton.layout import own_file

# Parameters that the onnxruntime backend reads (its README and src/onnxruntime.cc); it ignores all others.
_ONNX_PARAMETERS = (
    *("intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_arena", "enable_mem_pattern"),
    *("memory.enable_memory_arena_shrinkage", "TRITON_BATCH_STRATEGY_PATH"),
    *("session.use_device_allocator_for_initializers", "cudnn_conv_algo_search", "gpu_mem_limit"),
    *("arena_extend_strategy", "do_copy_in_default_stream"),
)
# Parameters that people use and that no release has.
_UNRELEASED = {"share_session_between_instances": "Remove it: it was proposed for the backend, and is in no release."}


@rule(
    "MW901",
    "warm-up that is skipped",
    Severity.WARNING,
    why="Without batch_size it is 0, and the server silently skips a warm-up of batch size 0: the first request is as "
    "slow as without a warm-up.",
    fix="Write batch_size: 1, also for a model that does not batch.",
    example=Example(
        'model_warmup [ { name: "one", inputs { key: "x" value { data_type: TYPE_FP32, dims: [ 2 ], '
        "zero_data: true } } } ]",
        'model_warmup [ { name: "one", batch_size: 1, inputs { key: "x" value { data_type: TYPE_FP32, dims: [ 2 ], '
        "zero_data: true } } } ]",
    ),
)
def skipped_warmup(view: ConfigView) -> Iterator[Found]:
    for index, sample in enumerate(view.message.model_warmup):
        if not sample.batch_size:
            yield view.found(f"warm-up '{sample.name}' has no batch_size", "model_warmup", index)


@rule(
    "MW902",
    "rate limiter that servers ignore by default",
    Severity.WARNING,
    why="The server ignores rate_limiter unless it runs with --rate-limit=execution_count.",
    fix="Start the server with the flag and ignore this rule, or remove rate_limiter.",
    example=Example(
        'instance_group [ { kind: KIND_CPU, rate_limiter { resources [ { name: "R", count: 1 } ] } } ]',
        "instance_group [ { kind: KIND_CPU } ]",
    ),
)
def ignored_rate_limiter(view: ConfigView) -> Iterator[Found]:
    for index, group in enumerate(view.message.instance_group):
        if group.HasField("rate_limiter"):
            yield view.found("the server needs --rate-limit=execution_count", "instance_group", index, "rate_limiter")


@rule(
    "MW903",
    "accelerator that does nothing",
    Severity.WARNING,
    why="Of the backends in NVIDIA's container, only onnxruntime and tensorflow use execution_accelerators. Instances "
    "on the CPU ignore a GPU accelerator, instances on the GPU ignore a CPU one, and openvino's parameters are always "
    "ignored.",
    fix="Remove it, or use the backend and the instances that it is for.",
    example=Example(
        'optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] } }',
        "optimization { }",
    ),
)
def useless_accelerator(view: ConfigView) -> Iterator[Found]:
    accelerators = view.message.optimization.execution_accelerators
    path = ("optimization", "execution_accelerators")
    backend = view.message.backend
    if backend not in STOCK_BACKENDS:
        return  # others have their own: paddle and fastdeploy read them
    lists = {
        "gpu_execution_accelerator": (accelerators.gpu_execution_accelerator, {"KIND_CPU"}),
        "cpu_execution_accelerator": (accelerators.cpu_execution_accelerator, {"KIND_GPU"}),
    }
    for field, (entries, others) in lists.items():
        for index, entry in enumerate(entries):
            if backend not in ("onnxruntime", "tensorflow"):
                yield view.found(f"the {backend} backend ignores '{entry.name}'", *path, field, index)
            elif view.instance_kinds <= others:
                yield view.found(f"no instance runs on the device that '{entry.name}' is for", *path, field, index)
            elif entry.name == "openvino" and entry.parameters:
                yield view.found("openvino's parameters are ignored", *path, field, index, "parameters")


@rule(
    "MW904",
    "response cache of a version that may change",
    Severity.WARNING,
    why="The cache's key is the model's name, the version number and the inputs. If a version's files are replaced "
    "under the same number, the server answers with old responses until they are evicted.",
    fix="Give each change a new version number, and ignore this rule. Modelwright does so: the manifest.json that it "
    "writes lists a version's files, and they are compared with it here.",
    example=Example(
        "response_cache { enable: true }",
        "response_cache { enable: true }",
        fixed_files={"1/manifest.json": f'{{"files": {{"model.py": {{"size_bytes": {len(PYTHON_MODEL)}}}}}}}'},
    ),
)
def reused_version(view: ConfigView) -> Iterator[Found]:
    if view.message.response_cache.enable:
        for number in view.served:
            problem = _changeable(view, number)
            if problem:
                yield view.at(str(number), f"response_cache is on, and {problem}")


def _changeable(view: ConfigView, number: int) -> str:
    """Why a version's files may have changed under this number; '' if they are those of its manifest.

    Sizes are compared, not digests: this linter reads no weights. `modelwright verify` compares digests.
    """
    manifest = manifest_record(view, number)
    if manifest is None:
        return "no manifest.json says which files belong to the version"
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        return "its manifest cannot be read"
    for name, entry in files.items():
        if _size_bytes(view.model_file(number, name)) != entry.get("size_bytes"):
            return f"'{name}' is not the file of the manifest"
    return ""


def _size_bytes(path: Path) -> int:
    """-1 for what is not a file, and for names that no file can have."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except (OSError, ValueError):
        return -1


@rule(
    "MW905",
    "response cache that servers ignore by default",
    Severity.WARNING,
    why="The server ignores response_cache unless it runs with --cache-config.",
    fix="Start the server with --cache-config=local,size=… and ignore this rule, or remove response_cache.",
    example=Example("response_cache { enable: true }", ""),
)
def no_cache(view: ConfigView) -> Iterator[Found]:
    if view.message.response_cache.enable:
        yield view.found("the server needs --cache-config", "response_cache")


@rule(
    "MW906",
    "useless preferred batch size",
    Severity.WARNING,
    why="The batcher waits up to max_queue_delay_microseconds for a batch of a preferred size. A size above "
    "max_queue_size (or max_candidate_sequences) is never reached, so every batch waits for the whole delay. A size of "
    "1 is reached by every request: none waits for others, and if it is the only size, nothing is batched.",
    fix="Remove preferred_batch_size, or write sizes from 2 up to the number of requests that can wait together.",
    example=Example(
        "dynamic_batching { preferred_batch_size: [ 8 ], default_queue_policy { max_queue_size: 4 } }",
        "dynamic_batching { preferred_batch_size: [ 4 ], default_queue_policy { max_queue_size: 4 } }",
    ),
)
def useless_preference(view: ConfigView) -> Iterator[Found]:
    batching, oldest = view.message.dynamic_batching, view.message.sequence_batching.oldest
    bounds = (
        (
            ("dynamic_batching",),
            batching,
            batching.default_queue_policy.max_queue_size,
            "max_queue_size",
        ),
        (
            ("sequence_batching", "oldest"),
            oldest,
            oldest.max_candidate_sequences,
            "max_candidate_sequences",
        ),
    )
    for path, batcher, most, name in bounds:
        sizes, delay = batcher.preferred_batch_size, batcher.max_queue_delay_microseconds
        for index, size in enumerate(sizes):
            if size > most > 0:
                yield view.found(f"{size} is above {name} {most}", *path, "preferred_batch_size", index)
            elif size == 1 and view.message.max_batch_size > 1 and (set(sizes) == {1} or delay):
                what = (
                    "every request runs alone"
                    if set(sizes) == {1}
                    else "no request waits for others, despite the delay"
                )
                yield view.found(f"with a preferred size of 1 {what}", *path, "preferred_batch_size", index)


@rule(
    "MW907",
    "file of cc_model_filenames missing",
    Severity.WARNING,
    why="On a GPU with a listed compute capability the server loads the file named there. With another GPU, or none, "
    "it silently loads the default file.",
    fix="Put the files into every version that is served.",
    example=Example(
        'cc_model_filenames { key: "9.0" value: "hopper.onnx" }',
        'cc_model_filenames { key: "9.0" value: "hopper.onnx" }',
        base="onnxruntime",
        fixed_files={"1/hopper.onnx": Onnx()},
    ),
)
def silent_fallback(view: ConfigView) -> Iterator[Found]:
    for capability in sorted(view.message.cc_model_filenames):
        name = view.message.cc_model_filenames[capability]
        for number in view.served:
            if not view.model_file(number, name).exists():
                message = f"version {number} has no '{name}' for GPUs of compute capability {capability}"
                yield view.found(message, "cc_model_filenames", capability)


@rule(
    "MW908",
    "batching of a model that does not batch",
    Severity.WARNING,
    why="With max_batch_size 0 or 1 the dynamic batcher cannot form batches: it only adds a queue.",
    fix="Raise max_batch_size, or remove dynamic_batching.",
    example=Example("max_batch_size: 1\ndynamic_batching { }", "max_batch_size: 2\ndynamic_batching { }"),
)
def nothing_to_batch(view: ConfigView) -> Iterator[Found]:
    written = view.written
    few = view.message.max_batch_size < 2 and not view.may_complete(MAX_BATCH_SIZE)
    if written.HasField("dynamic_batching") and few and not _queues(written):
        yield view.found(f"max_batch_size is {view.message.max_batch_size}", "dynamic_batching")


def _queues(config: object) -> bool:
    """Whether the batcher is used for its queue: priorities and limits also work without batches."""
    batching = config.dynamic_batching  # type: ignore[attr-defined]
    return bool(batching.priority_levels or batching.HasField("default_queue_policy"))


@rule(
    "MW909",
    "priorities without priority_levels",
    Severity.WARNING,
    why="Without priority_levels there is one queue, and the server ignores priority_queue_policy and "
    "default_priority_level.",
    fix="Set priority_levels, or put the policy into default_queue_policy.",
    example=Example(
        "dynamic_batching { priority_queue_policy { key: 1 value { max_queue_size: 8 } } }",
        "dynamic_batching { default_queue_policy { max_queue_size: 8 } }",
    ),
)
def ignored_priorities(view: ConfigView) -> Iterator[Found]:
    batching = view.message.dynamic_batching
    if not batching.priority_levels:
        for field in ("priority_queue_policy", "default_priority_level"):
            if getattr(batching, field):
                yield view.found(f"{field} without priority_levels is ignored", "dynamic_batching", field)


@rule(
    "MW910",
    "unknown parameter of the onnxruntime backend",
    Severity.WARNING,
    why="The backend ignores parameters that it does not know, so a misspelt one does nothing.",
    fix="Use a name from the backend's documentation.",
    example=Example(
        'parameters { key: "intra_op_num_threads" value { string_value: "1" } }',
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }',
        base="onnxruntime",
    ),
)
def unknown_parameter(view: ConfigView) -> Iterator[Found]:
    if view.message.backend == "onnxruntime":
        for key in sorted(view.message.parameters):
            if key not in _ONNX_PARAMETERS:
                near = did_you_mean(key, _ONNX_PARAMETERS)
                fix = _UNRELEASED.get(key, near if near.startswith("did") else "")
                yield view.found(f"the backend ignores '{key}'", "parameters", key, fix=fix)


@rule(
    "MW911",
    "host policy that the server may not have",
    Severity.WARNING,
    why="host_policy refers to settings given to the server with --host-policy=<name>,…. The server ignores a name "
    "that it was not given.",
    fix="Start the server with the policy and ignore this rule, or remove host_policy.",
    example=Example(
        'instance_group [ { kind: KIND_CPU, host_policy: "node0" } ]', "instance_group [ { kind: KIND_CPU } ]"
    ),
)
def unknown_host_policy(view: ConfigView) -> Iterator[Found]:
    for index, group in enumerate(view.message.instance_group):
        if group.host_policy:
            message = f"the server needs --host-policy={group.host_policy},…"
            yield view.found(message, "instance_group", index, "host_policy")


@rule(
    "MW912",
    "no instance that takes requests",
    Severity.WARNING,
    why="Passive instances receive no requests. A model with only passive instances loads, reports ready, and never "
    "answers.",
    fix="Make one group not passive.",
    example=Example("instance_group [ { kind: KIND_CPU, passive: true } ]", "instance_group [ { kind: KIND_CPU } ]"),
)
def only_passive(view: ConfigView) -> Iterator[Found]:
    groups = view.message.instance_group
    if groups and all(group.passive for group in groups):
        yield view.found("every instance group is passive", "instance_group")


@rule(
    "MW913",
    "file that must be in the container",
    Severity.WARNING,
    why="The path is outside the model's folder, so the file must be in the serving container, which this linter "
    "cannot check. The model does not load without it.",
    fix="Put the file into the model's folder, or into the container and ignore this rule. A library's path is the one "
    "that the server sees: /models/NAME/FILE.",
    example=Example(
        'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "/opt/batching.so" } }',
        "",
    ),
)
def file_of_the_container(view: ConfigView) -> Iterator[Found]:
    config = view.message
    for key in ("EXECUTION_ENV_PATH", "TRITON_BATCH_STRATEGY_PATH"):
        value = config.parameters[key].string_value if key in config.parameters else ""
        if value and not value.startswith("$$TRITON_MODEL_DIRECTORY/"):
            yield view.found(f"{key}: '{value}'", "parameters", key)
    for index, name in enumerate(config.model_operations.op_library_filename):
        own = own_file(name, view.model.name)
        if own and view.model.locate(own).is_file():
            continue
        yield view.found(f"library of custom operations '{name}'", "model_operations", "op_library_filename", index)
