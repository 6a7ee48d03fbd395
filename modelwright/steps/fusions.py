"""Graphs with onnxruntime's fused operators, made by libraries, and by two patterns that these miss.

onnxruntime.transformers knows the graphs that older exporters made, onnxscript's `ort_fusions` those of torch's own
exporter. The attention of transformers 5, as torch 2.13 exports it, fits neither: its shapes are computed in the graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto

_OWN = "com.microsoft"


def fused_by_transformers(file: Path, architecture: str, heads: int, hidden_size: int) -> ModelProto:
    """onnxruntime.transformers' fusions for an architecture."""
    from onnxruntime.transformers.optimizer import optimize_model

    made = optimize_model(str(file), architecture, num_heads=heads, hidden_size=hidden_size, opt_level=0)
    model: ModelProto = made.model
    return model


def fused_by_onnxscript(model: ModelProto, heads: int) -> ModelProto:
    """onnxscript's fusions, after those of this module. `heads` 0: read from the graph."""
    import onnx_ir
    from onnx_ir.passes.common import ShapeInferencePass
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    graph = onnx_ir.from_proto(model)
    ShapeInferencePass()(graph)
    attention = [
        _attention(heads, scaling=scaling, masked=mask) for scaling in ("Mul", "Div") for mask in (True, False)
    ]
    graph = rewrite(graph, [*attention, _skip_normalization()])
    graph, _ = optimize_for_ort(graph)
    made: ModelProto = onnx_ir.to_proto(graph)
    return made


def _attention(heads: int, *, scaling: str, masked: bool) -> Any:
    """Softmax(Q Kᵀ · scale + mask) V over heads that Reshape and Transpose make → MultiHeadAttention."""
    from onnxscript.rewriter import pattern

    def attention(op: Any, q: Any, k: Any, v: Any, q_shape: Any, k_shape: Any, v_shape: Any, scale: Any, mask: Any,
                  shape: Any) -> Any:  # fmt: skip
        query = op.Transpose(op.Reshape(q, q_shape), perm=[0, 2, 1, 3])
        key = op.Transpose(op.Reshape(k, k_shape), perm=[0, 2, 3, 1])
        value = op.Transpose(op.Reshape(v, v_shape), perm=[0, 2, 1, 3])
        product = op.MatMul(query, key)
        scores = op.Mul(product, scale) if scaling == "Mul" else op.Div(product, scale)
        weights = op.Softmax(op.Add(scores, mask) if masked else scores, axis=-1)
        return op.Reshape(op.Transpose(op.MatMul(weights, value), perm=[0, 2, 1, 3]), shape)

    def unmasked(op: Any, q: Any, k: Any, v: Any, q_shape: Any, k_shape: Any, v_shape: Any, scale: Any,
                 shape: Any) -> Any:  # fmt: skip
        return attention(op, q, k, v, q_shape, k_shape, v_shape, scale, None, shape)

    def fits(context: Any, q: Any, q_shape: Any, scale: Any, **_: Any) -> bool:
        constant = scale.const_value
        return constant is not None and constant.size == 1 and bool(heads or _heads(q, q_shape))

    def fused(op: Any, q: Any, k: Any, v: Any, q_shape: Any, scale: Any, mask: Any = None, **_: Any) -> Any:
        factor = float(scale.const_value.numpy().item())
        return op.MultiHeadAttention(
            q, k, v, None, None, mask,
            num_heads=heads or _heads(q, q_shape),
            scale=factor if scaling == "Mul" else 1 / factor,
            _domain=_OWN,
        )  # fmt: skip

    return pattern.RewriteRule(attention if masked else unmasked, fused, fits)


def _skip_normalization() -> Any:
    """LayerNormalization(a + b) → SkipLayerNormalization."""
    from onnxscript.rewriter import pattern

    def normalized(op: Any, a: Any, b: Any, scale: Any, bias: Any, epsilon: Any) -> Any:
        return op.LayerNormalization(op.Add(a, b), scale, bias, axis=-1, epsilon=epsilon)

    def fused(op: Any, a: Any, b: Any, scale: Any, bias: Any, epsilon: Any) -> Any:
        return op.SkipLayerNormalization(a, b, scale, bias, epsilon=epsilon, _domain=_OWN)

    return pattern.RewriteRule(normalized, fused)


def _heads(query: Any, shape: Any) -> int:
    """The heads that a Reshape of (batch, sequence, width) to (batch, sequence, heads, size) makes; 0: not known."""
    sizes = _last_two(shape)
    if sizes is None:
        return 0
    heads, size = sizes
    if heads > 0:
        return heads
    width = query.shape[-1] if query.shape is not None and len(query.shape) else None
    return width // size if isinstance(width, int) and size > 0 and width % size == 0 else 0


def _last_two(shape: Any) -> tuple[int, int] | None:
    """The last two sizes of a shape that is constant, or a Concat of single sizes whose last two are constant."""
    if shape.const_value is not None:
        known = shape.const_value.numpy().ravel().tolist()
        return (known[-2], known[-1]) if len(known) == 4 else None
    node = shape.producer()
    if node is None or node.op_type != "Concat" or len(node.inputs) != 4:
        return None
    parts = [value.const_value for value in node.inputs[-2:]]
    if any(part is None or part.size != 1 for part in parts):
        return None
    heads, size = (int(part.numpy().item()) for part in parts)
    return heads, size
