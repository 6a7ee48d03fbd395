"""The model itself: name, backend, platform, runtime, batch size, and the files of a version."""

from tests.lint.cases.build import ONNX, PYTHON, config, python, text, without
from tests.lint.trees import MODEL_PY, Dir, Link, Onnx, Tree


def named(folder: str, name: str | None) -> Tree:
    head = PYTHON if name is None else f'name: "{name}" {PYTHON}'
    return {f"{folder}/config.pbtxt": config(head=head), f"{folder}/1/model.py": MODEL_PY}


def head(text: str) -> Tree:
    return {"m/config.pbtxt": config(head=text), "m/1/model.py": MODEL_PY}


def onnx_head(text: str) -> Tree:
    return {"m/config.pbtxt": config(head=f"{text} instance_group [{{ count: 1 }}]"), "m/1/model.onnx": Onnx()}


TREES: dict[str, Tree] = {
    "name given": named("m", "m"),
    "name of another": named("m", "other"),
    "name empty": named("m", ""),
    "name in other case": named("m", "M"),
    "name with a blank at the end": named("m", "m "),
    "name with spaces": named("two words", "two words"),
    "name with dots": named("m.v2", "m.v2"),
    "name of two dots within": named("a..b", "a..b"),
    "name starting with a dot": named(".m", None),
    "name starting with two dots": named("..m", None),
    "name with a dash": named("-m", "-m"),
    "name with a plus": named("a+b", "a+b"),
    "name with a percent sign": named("a%20b", "a%20b"),
    "name with a quote": named("it's", None),
    "name with a backslash": named("a\\b", None),
    "name with a colon": named("a:b", None),
    "name in other letters": named("m\u00fcll", "m\u00fcll"),
    "name is a number": named("1", "1"),
    "name is long": named("n" * 200, "n" * 200),
    "name is too long for shared memory": named("n" * 255, "n" * 255),
    "name is versions": named("versions", None),
    "no backend": head(""),
    "no backend, onnx file": onnx_head(""),
    "no backend, default_model_filename of onnx": {
        "m/config.pbtxt": config('default_model_filename: "model.onnx" instance_group [{ count: 1 }]', head=""),
        "m/1/model.onnx": Onnx(),
    },
    "backend empty": head('backend: ""'),
    "backend unknown": head('backend: "nonsense"'),
    "backend in capitals": head('backend: "Python"'),
    "backend with a blank": head('backend: "python "'),
    "backend with a path": head('backend: "../python"'),
    "backend without its library": head('backend: "pytorch"'),
    "backend tensorrt": head('backend: "tensorrt"'),
    "platform python": head('platform: "python"'),
    "platform of the backend": onnx_head('platform: "onnxruntime_onnx"'),
    "platform and backend agree": onnx_head('platform: "onnxruntime_onnx" backend: "onnxruntime"'),
    "platform and backend disagree": onnx_head('platform: "tensorrt_plan" backend: "onnxruntime"'),
    "platform unknown": onnx_head('platform: "onnx"'),
    "platform unknown beside a backend": onnx_head('platform: "onnx" backend: "onnxruntime"'),
    "platform unknown beside backend python": head('platform: "anything" backend: "python"'),
    "platform empty beside a backend": onnx_head('platform: "" backend: "onnxruntime"'),
    "platform of onnx beside backend python": head('platform: "onnxruntime_onnx" backend: "python"'),
    "platform of another beside backend python": head('platform: "tensorrt_plan" backend: "python"'),
    "platform ensemble without scheduling": head('platform: "ensemble"'),
    "backend ensemble": head('backend: "ensemble"'),
    "platform tensorflow": head('platform: "tensorflow_savedmodel"'),
    "platform pytorch": head('platform: "pytorch_libtorch"'),
    "backend named in parts of files only": {"m/config.pbtxt": config(head=ONNX), "m/1/model.py": MODEL_PY},
    "max_batch_size negative": text(config(batch=-1)),
    "max_batch_size zero": text(config(batch=0)),
    "max_batch_size one": text(config(batch=1)),
    "max_batch_size absent": text(config().replace("max_batch_size: 4", "")),
    "max_batch_size huge": text(config(batch=1_000_000)),
    "runtime of the backend": python('runtime: "libtriton_python.so"'),
    "runtime unknown": python('runtime: "libtriton_nonsense.so"'),
    "runtime empty": python('runtime: ""'),
    "runtime model.py": python('runtime: "model.py"'),
    "runtime model.py in the version": {**python('runtime: "model.py"', name="m"), "m/model.py": MODEL_PY},
    "runtime with a path": python('runtime: "../python/libtriton_python.so"'),
    "runtime with a path that starts at the root": python('runtime: "/libtriton_python.so"'),
    "runtime with a path to the same folder": python('runtime: "./libtriton_python.so"'),
    "runtime with a path above all": python('runtime: "../../../../../../../../../libtriton_python.so"'),
    "runtime with a path that leads nowhere": python('runtime: "../nowhere/libtriton_python.so"'),
    "runtime with a path through a missing folder": python('runtime: "nowhere/../libtriton_python.so"'),
    "runtime with a path to another backend": python('runtime: "../onnxruntime/model.py"'),
    "runtime with a path out of the version": {**python('runtime: "../libtriton_own.so"'), "m/libtriton_own.so": "no library"},
    "runtime a folder": {**python('runtime: "data"'), "m/data/file": ""},
    "runtime of onnxruntime": onnx_head('backend: "onnxruntime" runtime: "libtriton_onnxruntime.so"'),
    "runtime model.py of onnxruntime": onnx_head('backend: "onnxruntime" runtime: "model.py"'),
    "default_model_filename present": {**without(python('default_model_filename: "main.py"'), "m/1/model.py"), "m/1/main.py": MODEL_PY},
    "default_model_filename absent": python('default_model_filename: "main.py"'),
    "default_model_filename empty": python('default_model_filename: ""'),
    "default_model_filename is a directory": {**python("default_model_filename: \"main.py\""), "m/1/main.py": Dir()},
    "default_model_filename below the version": {**without(python('default_model_filename: "code/main.py"'), "m/1/model.py"), "m/1/code/main.py": MODEL_PY},
    "default_model_filename leaves the version": {**python('default_model_filename: "../main.py"'), "m/main.py": MODEL_PY},
    "default_model_filename leaves the model": {**python('default_model_filename: "../../../outside/main.py"'), "../outside/main.py": MODEL_PY},
    "default_model_filename absolute": python('default_model_filename: "/dev/null"'),
    "default_model_filename leaves and comes back": {**without(python('default_model_filename: "../1/main.py"'), "m/1/model.py"), "m/1/main.py": MODEL_PY},
    "cc_model_filenames": python('cc_model_filenames { key: "8.0" value: "none.py" }'),
    "cc_model_filenames without default": {**without(python('cc_model_filenames { key: "8.0" value: "main.py" }'), "m/1/model.py"), "m/1/main.py": MODEL_PY},
    "cc_model_filenames no number": python('cc_model_filenames { key: "ampere" value: "none.py" }'),
    "model.py absent": without({**python(), "m/1/keep": ""}, "m/1/model.py"),
    "model.py empty": {**python(), "m/1/model.py": ""},
    "model.py with a syntax error": {**python(), "m/1/model.py": "class TritonPythonModel\n"},
    "model.py without the class": {**python(), "m/1/model.py": "class Model:\n    pass\n"},
    "model.py without execute": {**python(), "m/1/model.py": "class TritonPythonModel:\n    pass\n"},
    "model.py is a directory": {**without(python(), "m/1/model.py"), "m/1/model.py": Dir()},
    "model.py beside the versions": {**without(python(), "m/1/model.py"), "m/model.py": MODEL_PY, "m/1/keep": ""},
    "model.py is a link inside the model": {**without(python(), "m/1/model.py"), "m/model.py": MODEL_PY, "m/1/model.py": Link("../model.py")},
    "model.py is a link outside": {**without(python(), "m/1/model.py"), "../outside/model.py": MODEL_PY, "m/1/model.py": Link("../../../outside/model.py")},
    "model_operations for python": python('model_operations { op_library_filename: ["absent.so"] }'),
}  # fmt: skip
