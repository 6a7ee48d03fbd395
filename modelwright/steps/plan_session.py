"""A plan in place of an onnxruntime session: what it is asked is written down first, and answered later, elsewhere.

A verification runs twice. First with the graph in onnxruntime, here: every request is kept. Then the plan, where a GPU
is, answers these requests. Then the verification itself, here again: each request finds the plan's answer. So neither
the builder's code nor its data go anywhere, and one plan builder serves this machine, a container and a cluster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.facts.made import OnnxSignature, OnnxTensor
from modelwright.facts.plan import ANSWERS, PlanProfile
from modelwright.triton.arrays import BF16, datatype_of
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.tensors import Tensors, load_tensors, save_tensors

_FILE = "session.json"
# onnxruntime's names of types, by Triton's.
_TYPES = {"FP32": "float", "FP64": "double", "FP16": "float16", "BF16": "bfloat16", "BYTES": "string"}


@dataclass(frozen=True)
class PlanNode:
    """An input or output, with the fields of onnxruntime's."""

    name: str
    type: str
    shape: list[int | str | None]


class RecordingSession:
    """An onnxruntime session that keeps what it is asked in a folder, each request once."""

    def __init__(self, session: Any, profiles: Sequence[PlanProfile], folder: Path) -> None:
        self._session = session
        self._profiles = profiles
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def get_inputs(self) -> list[Any]:
        inputs: list[Any] = self._session.get_inputs()
        return inputs

    def get_outputs(self) -> list[Any]:
        outputs: list[Any] = self._session.get_outputs()
        return outputs

    def get_overridable_initializers(self) -> list[Any]:
        return []  # constants, for TensorRT

    def run(self, names: Sequence[str], feed: Tensors) -> list[Any]:
        check_shapes(self._profiles, feed)
        file = self._folder / file_name(feed)
        if not file.exists():
            save_tensors(file, feed)
        answers: list[Any] = self._session.run(list(names), feed)
        return answers


class AnsweringSession:
    """A plan as a session, as far as it was asked before."""

    def __init__(self, folder: Path, capability: str) -> None:
        """`folder` is that of the step that made the plan."""
        kept = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        self._inputs, self._outputs = ([PlanNode(**node) for node in kept[side]] for side in ("inputs", "outputs"))
        self._profiles = tuple(PlanProfile.model_validate(profile) for profile in kept["profiles"])
        self._answers = folder / ANSWERS / capability

    def get_inputs(self) -> list[PlanNode]:
        return self._inputs

    def get_outputs(self) -> list[PlanNode]:
        return self._outputs

    def get_overridable_initializers(self) -> list[PlanNode]:
        return []

    def run(self, names: Sequence[str], feed: Tensors) -> list[Any]:
        check_shapes(self._profiles, feed)
        file = self._answers / file_name(feed)
        if not file.is_file():
            raise StepError(
                "the plan was asked something else when it was built: `evaluate` or `samples` do not ask the same each"
                " time, or ask by what a model answered",
                "make them depend on nothing but their files: seed what is random, and ask everything in any case",
            )
        answers = load_tensors(file)
        missing = [name for name in names if name not in answers]
        if missing:
            raise StepError(f"the plan has no output '{missing[0]}', only {', '.join(sorted(answers))}")
        return [answers[name] for name in names]


def save_session(folder: Path, signature: OnnxSignature, profiles: Sequence[PlanProfile]) -> None:
    """Keep what an `AnsweringSession` says of a plan: the inputs and outputs of the graph, which the plan keeps."""
    sides = {"inputs": signature.inputs, "outputs": signature.outputs}
    kept: dict[str, Any] = {side: [vars(_node(tensor)) for tensor in tensors] for side, tensors in sides.items()}
    kept["profiles"] = [profile.as_json() for profile in profiles]
    (folder / _FILE).write_text(json.dumps(kept, indent=1), encoding="utf-8")


def check_types(signature: OnnxSignature) -> None:
    """Raise StepError for an input or output that numpy cannot hold: a plan is asked with numpy's arrays."""
    for tensor in (*signature.inputs, *signature.outputs):
        if tensor.dtype in (BF16, "BYTES"):
            raise StepError(
                f"'{tensor.name}' is {tensor.dtype}, which a plan cannot be asked with",
                "cast it inside the graph, and serve it as FP32" if tensor.dtype == BF16 else "TensorRT has no strings",
            )


def check_shapes(profiles: Sequence[PlanProfile], feed: Tensors) -> None:
    """Raise StepError for a request that no profile takes."""
    if not any(_takes(profile, feed) for profile in profiles):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        ranges = " or ".join(
            ", ".join(f"{name} {list(given.min)} to {list(given.max)}" for name, given in profile.inputs.items())
            for profile in profiles
        )
        raise StepError(
            f"no profile takes a request of {shapes}: {ranges}",
            "widen min and max of a profile, under tensorrt.profiles",
        )


def _takes(profile: PlanProfile, feed: Tensors) -> bool:
    return all(
        len(feed[name].shape) == len(given.opt)
        and all(low <= size <= high for low, size, high in zip(given.min, feed[name].shape, given.max, strict=True))
        for name, given in profile.inputs.items()
    )


def file_name(feed: Mapping[str, Any]) -> str:
    """A request's own: of its names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(feed):
        array = feed[name]
        digest.update(f"{name}\0{datatype_of(array)}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return f"{digest.hexdigest()}.npz"


def _node(tensor: OnnxTensor) -> PlanNode:
    numpy_name = BY_NAME[tensor.dtype].numpy
    return PlanNode(tensor.name, f"tensor({_TYPES.get(tensor.dtype, numpy_name)})", list(tensor.dims))
