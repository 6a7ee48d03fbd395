"""A repository as people publish them: many backends, configs of 20 to 80 lines, files that are missing.

The models are made, always the same ones. What they are like follows public repositories: most come without the model's
file, since weights are kept elsewhere; every sixth is an ensemble; comments, lists over several lines, warm-ups,
parameters and accelerators; some words are misspelt, and some ensembles name a model that is not there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from modelwright.lint.examples import PYTHON_MODEL, onnx_bytes, write
from modelwright.lint.rule import FileContent, Folder, Onnx, TensorRtPlan

_TYPES = ("TYPE_FP32", "TYPE_INT64", "TYPE_INT32", "TYPE_STRING", "TYPE_FP16", "TYPE_UINT8", "TYPE_BOOL")
_WORDS = ("input_ids", "attention_mask", "token_type_ids", "images", "audio", "text", "prompt", "length", "boxes")
_RESULTS = ("logits", "embeddings", "scores", "labels", "boxes", "last_hidden_state", "text", "masks")
_FAMILIES = ("bert", "resnet50", "yolov8", "whisper", "llama", "clip", "tokenizer", "postprocess", "detector", "ocr")
_LICENCE = '# Licensed under the Apache License, Version 2.0 (the "License"); see the file LICENSE.\n' * 6
_FAULT_PERCENT = 4


def write_models(root: Path, count: int) -> None:
    """Write a repository of so many models."""
    draw = random.Random(count)
    names = [
        f"{draw.choice(_FAMILIES)}_{draw.choice(('encoder', 'large', 'v2', 'fp16', 'int8'))}_{number}"
        for number in range(count)
    ]
    files: dict[str, FileContent] = {}
    onnx = onnx_bytes(Onnx())
    for number, name in enumerate(names):
        steps = number < count // 20
        kind = "step" if steps else draw.choices(list(_KINDS), [weight for weight, _ in _KINDS.values()])[0]
        text, content = _KINDS[kind][1](draw, names)
        files[f"{name}/config.pbtxt"] = text
        files[f"{name}/1"] = Folder()
        for file, data in content.items():
            files[f"{name}/1/{file}"] = onnx if isinstance(data, Onnx) else data
    write(files, root)


def _chance(draw: random.Random, percent: float) -> bool:
    return draw.random() * 100 < percent


def _tensors(draw: random.Random, field: str, names: tuple[str, ...], most: int) -> str:
    """`input [ … ]` over several lines."""
    entries = []
    for name in draw.sample(names, draw.randint(1, most)):
        kind = "TYPE_FLOAT" if _chance(draw, _FAULT_PERCENT / 2) else draw.choice(_TYPES)
        dims = ", ".join(str(draw.choice((-1, 1, 3, 224, 512, 768))) for _ in range(draw.randint(1, 3)))
        entries.append(f'  {{\n    name: "{name}"\n    data_type: {kind}\n    dims: [ {dims} ]\n  }}')
    return f"{field} [\n" + ",\n".join(entries) + "\n]\n"


def _common(draw: random.Random, backend: str) -> str:
    """What configs of all backends have."""
    parts = [_LICENCE if _chance(draw, 40) else "", f'backend: "{backend}"\n']
    parts.append(f"max_batch_size: {draw.choice((0, 1, 8, 16, 64))}\n")
    parts.append(_tensors(draw, "input", _WORDS, 4))
    parts.append(_tensors(draw, "output", _RESULTS, 3))
    if _chance(draw, 70):
        kind = draw.choice(("KIND_GPU", "KIND_CPU", "KIND_AUTO"))
        parts.append(f"instance_group [\n  {{\n    count: {draw.randint(1, 4)}\n    kind: {kind}\n  }}\n]\n")
    if _chance(draw, 50):
        parts.append("# Requests that wait together become one batch.\ndynamic_batching {\n")
        parts.append("  preferred_batch_size: [ 4, 8 ]\n" if _chance(draw, 40) else "")
        parts.append(f"  max_queue_delay_microseconds: {draw.choice((100, 1000, 5000))}\n}}\n")
    if _chance(draw, _FAULT_PERCENT):
        parts.append("max_batchsize: 8\n" if _chance(draw, 50) else "version_polcy: { latest: { num_versions: 1 } }\n")
    if _chance(draw, 15):
        parts.append("version_policy: { latest { num_versions: 1 } }\n")
    return "".join(parts)


def _parameter(key: str, value: str) -> str:
    return f'parameters {{\n  key: "{key}"\n  value: {{ string_value: "{value}" }}\n}}\n'


def _onnx(draw: random.Random, _names: list[str]) -> tuple[str, dict[str, FileContent]]:
    if _chance(draw, 35):
        config = 'backend: "onnxruntime"\nmax_batch_size: 8\n'
        for field, name in (("input", "x"), ("output", "y")):
            config += f'{field} [\n  {{\n    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ 2 ]\n  }}\n]\n'
        return config + _parameter("intra_op_thread_count", "2"), {"model.onnx": Onnx()}
    config = _common(draw, "onnxruntime")
    if _chance(draw, 25):
        config += "optimization {\n  execution_accelerators {\n    gpu_execution_accelerator : [ {\n"
        config += '      name : "tensorrt"\n      parameters { key: "precision_mode" value: "FP16" }\n'
        config += '      parameters { key: "max_workspace_size_bytes" value: "1073741824" }\n    } ]\n  }\n}\n'
    if _chance(draw, 25):
        config += _parameter(draw.choice(("intra_op_thread_count", "inter_op_num_threads")), "4")
    return config, {}


def _python(draw: random.Random, _names: list[str]) -> tuple[str, dict[str, FileContent]]:
    config = _common(draw, "python")
    for number in range(draw.randint(0, 5)):
        config += _parameter(f"SETTING_{number}", f"/models/assets/{number}")
    if _chance(draw, 10):
        config += "model_transaction_policy {\n  decoupled: True\n}\n"
    body = "\n".join(f"    def helper_{number}(self, value):\n        return value + {number}" for number in range(30))
    return config, {"model.py": f"{PYTHON_MODEL}\n{body}\n"} if _chance(draw, 90) else {}


def _tensorrt(draw: random.Random, _names: list[str]) -> tuple[str, dict[str, FileContent]]:
    config = _common(draw, "tensorrt").replace('backend: "tensorrt"', 'platform: "tensorrt_plan"')
    if _chance(draw, 20):
        config += "optimization { cuda { graphs: true } }\n"
    return config, {"model.plan": TensorRtPlan("10.5.0.18")} if _chance(draw, 30) else {}


def _other(draw: random.Random, _names: list[str]) -> tuple[str, dict[str, FileContent]]:
    backend = draw.choice(("pytorch", "tensorflow", "fastdeploy", "dali", "openvino", "vllm", "onnx", "${backend}"))
    return _common(draw, backend), {}


def _step(draw: random.Random, _names: list[str]) -> tuple[str, dict[str, FileContent]]:
    """What ensembles run."""
    config = 'backend: "python"\nmax_batch_size: 8\n'
    for field, name in (("input", "text"), ("output", "logits")):
        config += f'{field} [\n  {{\n    name: "{name}"\n    data_type: TYPE_STRING\n    dims: [ 1 ]\n  }}\n]\n'
    return config, {"model.py": PYTHON_MODEL}


def _ensemble(draw: random.Random, names: list[str]) -> tuple[str, dict[str, FileContent]]:
    config = 'platform: "ensemble"\nmax_batch_size: 8\n'
    config += 'input [\n  {\n    name: "text"\n    data_type: TYPE_STRING\n    dims: [ 1 ]\n  }\n]\n'
    config += 'output [\n  {\n    name: "scores"\n    data_type: TYPE_STRING\n    dims: [ 1 ]\n  }\n]\n'
    steps, count = [], draw.randint(2, 4)
    for number in range(count):
        model = f"{draw.choice(names)}_trt" if _chance(draw, 15) else draw.choice(names[: len(names) // 20])
        before = "text" if number == 0 else f"between_{number}"
        after = "scores" if number == count - 1 else f"between_{number + 1}"
        steps.append(
            f'    {{\n      model_name: "{model}"\n      model_version: -1\n'
            f'      input_map {{\n        key: "text"\n        value: "{before}"\n      }}\n'
            f'      output_map {{\n        key: "logits"\n        value: "{after}"\n      }}\n    }}'
        )
    return config + "ensemble_scheduling {\n  step [\n" + ",\n".join(steps) + "\n  ]\n}\n", {}


_Made = Callable[[random.Random, list[str]], tuple[str, dict[str, FileContent]]]
_KINDS: dict[str, tuple[int, _Made]] = {
    "onnxruntime": (28, _onnx),
    "python": (26, _python),
    "tensorrt": (16, _tensorrt),
    "ensemble": (16, _ensemble),
    "other": (14, _other),
    "step": (0, _step),
}
