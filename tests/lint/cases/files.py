"""Files that are not what their names say: Git LFS pointers, web pages, archives, empty files."""

from tests.lint.cases.build import onnx, python
from tests.lint.cases.onnx import external
from tests.lint.trees import Tree

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:9c1185a5c5e9fc54612808977ee8f548b2258d31f2f1c4dbf4d3a3b3c1c0f0aa\n"
    "size 90387630\n"
)

TREES: dict[str, Tree] = {
    "ONNX a Git LFS pointer": onnx(POINTER),
    "ONNX a web page": onnx("<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"),
    "ONNX a store's error": onnx('<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'),
    "ONNX a JSON answer": onnx('{"error": "Repository not found"}'),
    "ONNX compressed": onnx(lambda: b"\x1f\x8b\x08\x00" + bytes(40)),
    "ONNX a zip archive": onnx(lambda: b"PK\x03\x04\x14\x00" + bytes(60)),
    "ONNX a TensorRT plan": onnx(lambda: b"ftrt" + bytes(20) + bytes([10, 13, 0, 35]) + bytes(100)),
    "ONNX an empty file": onnx(lambda: b""),
    "ONNX a blank line": onnx("\n"),
    "weights a Git LFS pointer": external("w.bin", {"m/1/w.bin": POINTER[:12]}),
    "weights a Git LFS pointer that is long enough": external("w.bin", {"m/1/w.bin": POINTER}),
    "weights a web page that is long enough": external("w.bin", {"m/1/w.bin": "<html>404 Not Found</html>"}),
    "model.py a Git LFS pointer": {**python(), "m/1/model.py": POINTER},
    "model.py a web page": {**python(), "m/1/model.py": "<!DOCTYPE html>\n<html>TritonPythonModel</html>\n"},
    "a file beside model.py a Git LFS pointer": {**python(), "m/1/weights.bin": POINTER},
    "labels a Git LFS pointer": {
        **python(outputs='output [{ name: "y" data_type: TYPE_FP32 dims: [4] label_filename: "labels.txt" }]'),
        "m/labels.txt": POINTER,
    },
}
