"""The rules, by group. Importing this package registers them all."""

from modelwright.lint.rules import (  # noqa: F401
    batching,
    ensembles,
    instances,
    layout,
    model,
    onnx,
    sequences,
    syntax,
    tensorrt,
    tensors,
    traps,
    warmup,
)
