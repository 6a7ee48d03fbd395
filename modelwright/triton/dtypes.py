"""One table of tensor types: Triton's names, ModelConfig's enum, numpy, ONNX.

Triton calls strings BYTES on the wire and TYPE_STRING in config.pbtxt; model.yaml accepts BYTES and STRING.
Source: the KServe v2 protocol's table of data types, and Triton's model_config.proto.

numpy has no bfloat16: the package ml_dtypes adds it, which onnx and tritonclient bring along. `arrays` has what needs
either of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    name: str  # on the wire: "FP32", "BYTES"
    config: str  # in config.pbtxt: "TYPE_FP32", "TYPE_STRING"
    numpy: str  # "float32"; "object" holds bytes
    onnx: int  # onnx.TensorProto.DataType
    onnxruntime_since: str = ""  # the first Triton release whose onnxruntime backend takes it; empty: all of them


_TABLE = (
    DType("BOOL", "TYPE_BOOL", "bool", 9),
    DType("UINT8", "TYPE_UINT8", "uint8", 2),
    DType("UINT16", "TYPE_UINT16", "uint16", 4),
    DType("UINT32", "TYPE_UINT32", "uint32", 12),
    DType("UINT64", "TYPE_UINT64", "uint64", 13),
    DType("INT8", "TYPE_INT8", "int8", 3),
    DType("INT16", "TYPE_INT16", "int16", 5),
    DType("INT32", "TYPE_INT32", "int32", 6),
    DType("INT64", "TYPE_INT64", "int64", 7),
    DType("FP16", "TYPE_FP16", "float16", 10),
    DType("BF16", "TYPE_BF16", "bfloat16", 16, onnxruntime_since="26.03"),
    DType("FP32", "TYPE_FP32", "float32", 1),
    DType("FP64", "TYPE_FP64", "float64", 11),
    DType("BYTES", "TYPE_STRING", "object", 8),
)

BY_NAME = {dtype.name: dtype for dtype in _TABLE} | {"STRING": _TABLE[-1]}
BY_CONFIG = {dtype.config: dtype for dtype in _TABLE}
BY_ONNX = {dtype.onnx: dtype for dtype in _TABLE}
BY_NUMPY = {dtype.numpy: dtype for dtype in _TABLE}
