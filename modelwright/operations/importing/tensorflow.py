"""SavedModels, Keras files and base directories of TensorFlow Serving: a builder around one.

What their tensors are is asked of TensorFlow, where its environment is there already. `new` downloads nothing: where
it is not there, the builder is written with samples that a person fills in.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.environments.own import find
from modelwright.environments.tensorflow import TENSORFLOW
from modelwright.errors import StepError
from modelwright.onnx.signature import Value
from modelwright.operations.importing.generated_samples import SAMPLES, Generated, Sizes
from modelwright.operations.importing.recogniser import NewBuilder, Recogniser, Seen, Written
from modelwright.project.spec import FILE
from modelwright.project.writer import as_yaml
from modelwright.steps.tensorflow_process import inspected
from modelwright.triton.dtypes import BY_NAME

DATA = "data.py"
_SAVED, _DEFAULT = "saved_model.pb", "serving_default"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LENGTH = 8  # of a dynamic dimension
_MAX_BATCH_SIZE = 8
_PLACEHOLDER = '''"""Golden samples of NAME."""

from __future__ import annotations

from typing import Any


def samples() -> dict[str, Any]:
    """{input: array of (N, *shape)}: what clients send."""
    raise NotImplementedError("write samples for the model's inputs")
'''


def recognise(path: Path) -> Seen | None:
    """By the names in a folder, and by the first bytes of a file."""
    if path.is_dir():
        if (path / _SAVED).is_file():
            return Seen("tensorflow", "a SavedModel of TensorFlow", path, path)
        versions = {int(item.parent.name): item.parent for item in path.glob(f"*/{_SAVED}") if _is_number(item.parent)}
        if not versions:
            return None
        shown = ", ".join(map(str, sorted(versions)[:5])) + (", …" if len(versions) > 5 else "")
        return Seen(
            "tf_serving", f"a base directory of TensorFlow Serving: versions {shown}", path, versions[max(versions)]
        )
    version = _keras_version(path)
    return None if version is None else Seen("keras", f"a Keras file{version}", path, path)


def _is_number(folder: Path) -> bool:
    return folder.name.isascii() and folder.name.isdecimal()


def _keras_version(path: Path) -> str | None:
    """What a Keras file says of its version: " of Keras 3.12.4", ''; None for another file."""
    with path.open("rb") as file:
        if file.read(len(_HDF5)) == _HDF5:
            return " (HDF5)"
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if not {"config.json", "metadata.json"} <= {*archive.namelist()}:
                return None
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    except (zipfile.BadZipFile, ValueError, AttributeError, KeyError, NotImplementedError, RuntimeError):
        return None
    return f" of Keras {version}" if str(version).replace(".", "").isalnum() else ""


def _write(seen: Seen, new: NewBuilder) -> Written:
    suffix = "" if seen.path.is_dir() else seen.path.suffix if seen.path.suffix in (".keras", ".h5") else ".keras"
    path = new.take(seen.path, f"model{suffix}")
    source = [f"  kind: {seen.kind}", f"  path: {as_yaml(path)}"]
    state = new.project.environments
    if find(state, TENSORFLOW) is None:
        reason = "TensorFlow's environment is not there, so its tensors are not known; a build makes it, once: "
        return _placeholder(new, source, reason + TENSORFLOW.size)
    try:
        form = "keras" if seen.kind == "keras" else "saved_model"
        told: Mapping[str, Any] = inspected(
            state, {"form": form, "model": str(seen.details.resolve()), "trusted": False}, _quiet
        )
    except StepError as error:
        return _placeholder(new, source, f"TensorFlow says: it {error.message}; {error.hint}")
    notes: tuple[str, ...] = ()
    if seen.kind != "keras":
        name, told, others = _chosen(told)
        if not name:
            return _placeholder(new, source, "it has no signature with the tag 'serve'")
        if others:
            source.append(f"  signature: {as_yaml(name)} # or {', '.join(map(as_yaml, others))}")
            notes = (f"signature '{name}' is served; it has {', '.join(others)}, too",)
    return _with_tensors(new, source, told["inputs"], told["outputs"], notes)


def _chosen(told: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], list[str]]:
    """(signature, its tensors, the others) of the graph that is served; '' for none."""
    graphs = [graph["signatures"] for graph in told["graphs"] if graph["tags"] == ["serve"]]
    known = graphs[0] if graphs else {}
    if not known:
        return "", {}, []
    name = _DEFAULT if _DEFAULT in known else min(known)
    return name, known[name], [other for other in known if other != name]


def _with_tensors(
    new: NewBuilder, source: Sequence[str], inputs: Sequence[Any], outputs: Sequence[Any], notes: tuple[str, ...]
) -> Written:
    batched = all(tensor["dims"] and tensor["dims"][0] == -1 for tensor in (*inputs, *outputs))
    if any(tensor["dims"] is None or tensor["dtype"] not in BY_NAME for tensor in inputs):
        return _placeholder(new, source, "it does not say what shape or type an input has")
    size = _MAX_BATCH_SIZE if batched else 0
    new.write(FILE, _model_yaml(new, source, ["inputs:", *(_tensor(tensor, batched) for tensor in inputs)], size))
    values = [Value(item["name"], "tensor", BY_NAME[item["dtype"]].onnx, tuple(item["dims"])) for item in inputs]
    new.write(DATA, Generated(values, {}, batched, [Sizes(_LENGTH, _LENGTH)] * SAMPLES).text(new.name))
    why = (
        "the first dimension of each tensor varies" if batched else "not every tensor has a first dimension that varies"
    )
    return Written((*notes, f"max_batch_size is {size}: {why}"))


def _tensor(tensor: Mapping[str, Any], batched: bool) -> str:
    shape = ", ".join(map(str, tensor["dims"][int(batched) :]))
    return f"  - {{name: {as_yaml(tensor['name'])}, dtype: {tensor['dtype']}, shape: [{shape}]}}"


def _placeholder(new: NewBuilder, source: Sequence[str], reason: str) -> Written:
    new.write(FILE, _model_yaml(new, source, ["# inputs and outputs are those of the signature"], _MAX_BATCH_SIZE))
    new.write(DATA, _PLACEHOLDER.replace("NAME", new.name))
    return Written((reason,), (f"samples in {DATA}, of what the model takes",), builds=False)


def _model_yaml(new: NewBuilder, source: Sequence[str], tensors: Sequence[str], size: int) -> str:
    lines = [
        *new.head,
        f"description: {as_yaml(f'The model of {Path(new.given).name}.')}",
        "source:",
        *source,
        *tensors,
        "samples: data:samples # golden inputs, random for now: replace them by what clients send",
        "serving: # Triton's ModelConfig, field by field: every field of it may stand here",
        f"  max_batch_size: {size}",
    ]
    if size:
        lines.append("  dynamic_batching: {max_queue_delay_microseconds: 100}")
    return "\n".join([*lines, ""])


def _quiet(text: str) -> None:
    pass


RECOGNISER = Recogniser("SavedModels, Keras files and base directories of TensorFlow Serving", recognise, _write)
