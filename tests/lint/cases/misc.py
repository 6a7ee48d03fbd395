"""Response cache, transaction policy, metrics, agents, parameters, optimization."""

from tests.lint.cases.build import onnx, python
from tests.lint.trees import Onnx, Tree


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


START = 'control_input [{ name: "c" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] }]'
CACHE = "response_cache { enable: true }"
DECOUPLED = "model_transaction_policy { decoupled: true }"

TREES: dict[str, Tree] = {
    "cache": python(CACHE),
    "cache off": python("response_cache { enable: false }"),
    "cache empty": python("response_cache { }"),
    "cache and sequences": python(f"{CACHE} sequence_batching {{ }}"),
    "cache off and sequences": python("response_cache { enable: false } sequence_batching { }"),
    "cache and decoupled": python(f"{CACHE} {DECOUPLED}"),
    "cache and not decoupled": python(f"{CACHE} model_transaction_policy {{ decoupled: false }}"),
    "cache and dynamic batching": python(f"{CACHE} dynamic_batching {{ }}"),
    "decoupled": python(DECOUPLED),
    "decoupled and dynamic batching": python(f"{DECOUPLED} dynamic_batching {{ }}"),
    "decoupled and order kept": python(f"{DECOUPLED} dynamic_batching {{ preserve_ordering: true }}"),
    "decoupled onnxruntime": onnx(None, DECOUPLED),
    "metrics of a later release": python('model_metrics { metric_control [{ metric_identifier { family: "f" } }] }'),
    "metric tag": python('metric_tags { key: "a" value: "b" }'),
    "metric tag with odd characters": python('metric_tags { key: "a b-\\"" value: "\\n" }'),
    "metric tag named model": python('metric_tags { key: "model" value: "other" }'),
    "metric tag with an empty key": python('metric_tags { key: "" value: "b" }'),
    "agent unknown": python('model_repository_agents { agents [{ name: "nonsense" }] }'),
    "agent without name": python("model_repository_agents { agents [{ }] }"),
    "agents none": python("model_repository_agents { }"),
    "parameter unknown": python(parameter("anything", "1")),
    "parameter without value": python('parameters { key: "a" }'),
    "parameter with an empty key": python(parameter("", "1")),
    "parameter of another type": python('parameters { key: "a" value { int64_value: 1 } }'),
    "python environment absent": python(parameter("EXECUTION_ENV_PATH", "/nowhere/env.tar.gz")),
    "python environment absent beside the model": python(parameter("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/env.tar.gz")),
    "python environment is no archive": {**python(parameter("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/env.tar.gz")), "m/env.tar.gz": "no"},
    "python environment empty": python(parameter("EXECUTION_ENV_PATH", "")),
    "python environment is a folder": {**python(parameter("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/env")), "m/env/keep": ""},
    "python GPU tensors forced to CPU no": python(parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "no")),
    "python GPU tensors forced to CPU maybe": python(parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "maybe")),
    "python GPU tensors forced to CPU in lower case": python(parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "YES")),
    "batching strategy absent": python(parameter("TRITON_BATCH_STRATEGY_PATH", "/nowhere/batch.so") + " dynamic_batching { }"),
    "batching strategy absent, no dynamic batching": python(parameter("TRITON_BATCH_STRATEGY_PATH", "/nowhere/batch.so")),
    "batching strategy absent, sequences": python(parameter("TRITON_BATCH_STRATEGY_PATH", "/nowhere/batch.so") + " sequence_batching { }"),
    "batching strategy in the model, dynamic batching": {**python("dynamic_batching { }"), "m/batchstrategy.so": "no"},
    "batching strategy in the version, dynamic batching": {**python("dynamic_batching { }"), "m/1/batchstrategy.so": "no"},
    "batching strategy in the model, no batching": {**python(), "m/batchstrategy.so": "no"},
    "execution_mode 0": onnx(None, parameter("execution_mode", "0")),
    "execution_mode 1": onnx(None, parameter("execution_mode", "1")),
    "execution_mode 2": onnx(None, parameter("execution_mode", "2")),
    "execution_mode -1": onnx(None, parameter("execution_mode", "-1")),
    "execution_mode abc": onnx(None, parameter("execution_mode", "abc")),
    "execution_mode empty": onnx(None, parameter("execution_mode", "")),
    "intra threads 2": onnx(None, parameter("intra_op_thread_count", "2")),
    "intra threads 0": onnx(None, parameter("intra_op_thread_count", "0")),
    "intra threads -1": onnx(None, parameter("intra_op_thread_count", "-1")),
    "intra threads abc": onnx(None, parameter("intra_op_thread_count", "abc")),
    "intra threads 1.5": onnx(None, parameter("intra_op_thread_count", "1.5")),
    "inter threads abc": onnx(None, parameter("inter_op_thread_count", "abc")),
    "mem arena 1": onnx(None, parameter("enable_mem_arena", "1")),
    "mem arena true": onnx(None, parameter("enable_mem_arena", "true")),
    "mem arena maybe": onnx(None, parameter("enable_mem_arena", "maybe")),
    "mem pattern maybe": onnx(None, parameter("enable_mem_pattern", "maybe")),
    "shared session maybe": onnx(None, parameter("share_session_between_instances", "maybe")),
    "onnxruntime parameter unknown": onnx(None, parameter("threads", "many")),
    "accelerator openvino": onnx(None, 'optimization { execution_accelerators { cpu_execution_accelerator [{ name: "openvino" }] } }'),
    "accelerator unknown": onnx(None, 'optimization { execution_accelerators { cpu_execution_accelerator [{ name: "vino" }] } }'),
    "accelerator without name": onnx(None, "optimization { execution_accelerators { cpu_execution_accelerator [{ }] } }"),
    "accelerator unknown for python": python('optimization { execution_accelerators { cpu_execution_accelerator [{ name: "vino" }] } }'),
    "GPU accelerator on the CPU": onnx(None, 'optimization { execution_accelerators { gpu_execution_accelerator [{ name: "nonsense" }] } }'),
    "graph level -1": onnx(None, "optimization { graph { level: -1 } }"),
    "graph level 2": onnx(None, "optimization { graph { level: 2 } }"),
    "graph level 9": onnx(None, "optimization { graph { level: 9 } }"),
    "priority": python("optimization { priority: PRIORITY_MAX }"),
    "cuda graphs": python("optimization { cuda { graphs: true graph_spec [{ batch_size: 1 }] } }"),
    "cuda graph spec of a negative batch": python("optimization { cuda { graphs: true graph_spec [{ batch_size: -1 }] } }"),
    "pinned memory": python("optimization { input_pinned_memory { enable: true } }"),
    "eager batching": python("optimization { eager_batching: true gather_kernel_buffer_threshold: 0 }"),
    "custom operations absent": onnx(None, 'model_operations { op_library_filename: ["absent.so"] }'),
    "custom operations empty": onnx(None, "model_operations { }"),
    "onnxruntime with a sequence control": onnx(
        Onnx(inputs=(("x", "TYPE_FP32", ("batch", 4)), ("c", "TYPE_INT32", ("batch", 1)))), f"sequence_batching {{ {START} }}"
    ),
    "onnxruntime with dynamic batching": onnx(None, "dynamic_batching { }"),
}  # fmt: skip
