"""A pipeline whose tokenizer and encoder change together, so that old and new do not fit each other.

`tokens` gives words numbers, `encoder` gives the mean of the vectors of these numbers, and `pipe` runs both. In each
generation they have another order of the vocabulary and other vectors: the tensors are the same and mean other things.
An answer of one generation's tokenizer and another's encoder is one that no version gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

WORDS = [f"word{number}" for number in range(64)]
_WIDTH = 4  # of a vector
_LENGTH = 8  # words in a request

_TOKENS_YAML = """\
source: {kind: onnx, path: model.onnx}
inputs: [{name: words, dtype: STRING, shape: [8]}]
outputs: [{name: ids, dtype: INT64, shape: [8]}]
samples: data:samples
serving: {max_batch_size: 8, instance_group: [{kind: KIND_CPU, count: 1}]}
"""
_ENCODER_YAML = """\
source: {kind: onnx, path: model.onnx}
inputs: [{name: ids, dtype: INT64, shape: [8]}]
outputs: [{name: vector, dtype: FP32, shape: [4]}]
samples: data:samples
serving: {max_batch_size: 8, instance_group: [{kind: KIND_CPU, count: 1}]}
"""
_PIPE_YAML = """\
source:
  kind: ensemble
  keep: {keep}
  steps:
    - {{model_name: tokens, input_map: {{words: words}}, output_map: {{ids: ids}}}}
    - {{model_name: encoder, input_map: {{ids: ids}}, output_map: {{vector: vector}}}}
inputs: [{{name: words, dtype: STRING, shape: [8]}}]
outputs: [{{name: vector, dtype: FP32, shape: [4]}}]
samples: data:samples
serving: {{max_batch_size: 8}}
"""
_WORDS_DATA = """\
import numpy as np


def samples():
    words = np.array([f"word{number}" for number in range(64)], dtype=object)
    return {"words": words[np.random.default_rng(1).integers(0, 64, size=(32, 8))]}
"""
_IDS_DATA = """\
import numpy as np


def samples():
    return {"ids": np.random.default_rng(2).integers(0, 64, size=(32, 8))}
"""


def write(root: Path, generation: int, pipes: Mapping[str, int] | None = None) -> None:
    """The builders as they are in this generation; `pipes` are the pipelines, {name: versions that are kept}."""
    random = np.random.default_rng(generation)
    order = random.permutation(len(WORDS))
    vectors = random.standard_normal((len(WORDS), _WIDTH)).astype(np.float32)
    builders = [("tokens", _TOKENS_YAML, _WORDS_DATA), ("encoder", _ENCODER_YAML, _IDS_DATA)]
    builders += [(name, _PIPE_YAML.format(keep=keep), _WORDS_DATA) for name, keep in (pipes or {"pipe": 1}).items()]
    for model, yaml, data in builders:
        folder = root / "builders" / model
        folder.mkdir(parents=True, exist_ok=True)
        _write_if_changed(folder / "model.yaml", yaml)
        _write_if_changed(folder / "data.py", data)
    _save_tokens(root / "builders" / "tokens" / "model.onnx", order)
    _save_encoder(root / "builders" / "encoder" / "model.onnx", vectors)


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def _save_tokens(path: Path, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    from onnx import TensorProto, helper

    node = helper.make_node(
        "LabelEncoder", ["words"], ["ids"], domain="ai.onnx.ml",
        keys_strings=WORDS, values_int64s=[int(number) for number in order], default_int64=0,
    )  # fmt: skip
    given = helper.make_tensor_value_info("words", TensorProto.STRING, ["batch", _LENGTH])
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", _LENGTH])
    _save(path, helper.make_graph([node], "tokens", [given], [ids]))


def _save_encoder(path: Path, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["vectors", "ids"], ["chosen"]),
        helper.make_node("ReduceMean", ["chosen", "axes"], ["vector"], keepdims=0),
    ]
    weights = [
        numpy_helper.from_array(vectors, "vectors"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "axes"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", _LENGTH])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", _WIDTH])
    _save(path, helper.make_graph(nodes, "encoder", [ids], [vector], weights))


def _save(path: Path, graph: object) -> None:
    import onnx
    from onnx import helper

    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
