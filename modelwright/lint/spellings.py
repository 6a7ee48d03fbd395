"""Words that people write in place of Triton's: data types of other frameworks, short names of backends, lower case.

`enum_value` and `backend` give the word that was meant, also where its letters are no help: TYPE_FLOAT is TYPE_FP32,
and not TYPE_INT8 or TYPE_FP16, which look more like it.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.suggest import Names

# Without prefixes such as TYPE_, DT_ or torch., and in lower case. C's, NumPy's, torch's, TensorFlow's, ONNX's words.
_DATA_TYPES = {
    "TYPE_BOOL": ("boolean", "bool_", "bool8"),
    "TYPE_UINT8": ("byte", "ubyte", "uchar", "u8", "quint8"),
    "TYPE_UINT16": ("ushort", "u16"),
    "TYPE_UINT32": ("uint", "u32"),
    "TYPE_UINT64": ("ulong", "u64"),
    "TYPE_INT8": ("char", "i8", "qint8", "sint8"),
    "TYPE_INT16": ("short", "i16"),
    "TYPE_INT32": ("int", "integer", "i32", "intc"),
    "TYPE_INT64": ("long", "longlong", "i64", "int_"),
    "TYPE_FP16": ("half", "float16", "f16"),
    "TYPE_BF16": ("bfloat16", "bfloat", "brain"),
    "TYPE_FP32": ("float", "float32", "single", "f32", "float_"),
    "TYPE_FP64": ("double", "float64", "f64"),
    "TYPE_STRING": ("bytes", "str", "string", "text", "object", "object_", "utf8", "bytes_", "str_"),
}
_TYPE_OF = {word: name for name, words in _DATA_TYPES.items() for word in words}
_OTHER_WORDS = {"CUDA": "KIND_GPU", "CHANNELS_LAST": "FORMAT_NHWC", "CHANNELS_FIRST": "FORMAT_NCHW"}
_BACKENDS = {
    "onnxruntime": ("onnx", "ort", "onnxrt", "onnxruntimeonnx", "onnxruntimegpu", "onnxmodel"),
    "tensorrt": ("trt", "tensorrtplan", "plan", "tensorrtengine", "nvidiatensorrt", "rt"),
    "tensorflow": ("tf", "tf2", "tensorflow2", "tensorflowsavedmodel", "tensorflowgraphdef", "savedmodel", "graphdef"),
    "pytorch": ("torch", "libtorch", "pytorchlibtorch", "torchscript", "jit", "pt"),
    "python": ("py", "python3", "pythonbackend", "tritonpythonbackend"),
    "openvino": ("ov", "openvinoir", "ir"),
    "tensorrtllm": ("trtllm", "tensorrtllmengine"),
    "fil": ("xgboost", "lightgbm", "sklearn", "scikitlearn", "cuml", "rapids", "forest", "treelite"),
    "vllm": ("vllmengine",),
}
_BACKEND_OF = {word: name for name, words in _BACKENDS.items() for word in (name, *words)}
_FRAMEWORKS = ("torch.", "np.", "numpy.", "tf.", "tensor(", "dt_", "type_", "k")


def enum_value(word: str, known: Sequence[str]) -> str | None:
    """The value of an enum that was meant: the word in capitals, with the enum's prefix, or of another framework."""
    upper = word.upper()
    prefixes = {name[: name.find("_") + 1] for name in known}
    whole = next((name for name in (upper, *(prefix + upper for prefix in prefixes)) if name in known), None)
    ending = [name for name in known if name.endswith(f"_{upper}")]
    meant = whole or (ending[0] if len(ending) == 1 else _OTHER_WORDS.get(upper))
    if meant in known:
        return meant
    by_type = _data_type(word, known) if "TYPE_FP32" in known else None
    return by_type or Names(known).nearest(upper) or _without_prefix(upper, known)


def _without_prefix(word: str, known: Sequence[str]) -> str | None:
    shorter = {name.partition("_")[2]: name for name in known}
    return shorter.get(Names(shorter).nearest(word) or "")


def _data_type(word: str, known: Sequence[str]) -> str | None:
    plain = word.lower()
    for start in _FRAMEWORKS:
        if plain.startswith(start):
            plain = plain.removeprefix(start).rstrip(")")
            break
    name = _TYPE_OF.get(plain) or f"TYPE_{plain.upper()}"
    return name if name in known else None


def backend(word: str, known: Sequence[str]) -> str | None:
    """The backend that was meant by a word that is none of `known`."""
    plain = "".join(letter for letter in word.lower() if letter.isalnum())
    return _BACKEND_OF.get(plain) or Names(known).nearest(word.lower())
