"""Send one request to a server: to one that runs, or to one that is started for this call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelwright.errors import ModelwrightError, ServerError
from modelwright.operations.replay import serving_all
from modelwright.project.project import ProjectConfig
from modelwright.repository.repository import Repository
from modelwright.repository.versions import composing_first, readable
from modelwright.server.session import Say
from modelwright.suggest import did_you_mean
from modelwright.triton.access import NO_ACCESS, Access
from modelwright.triton.arrays import numpy_dtype
from modelwright.triton.client import Client, connect
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.layout import GOLDEN
from modelwright.triton.sequences import whole_sequence
from modelwright.triton.tensors import Tensors
from modelwright.verification.golden import load_golden
from modelwright.verification.samples import request_of

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class ScoredClass:
    """One entry of an output that has labels. `label` is '' where the labels file has no line for the index."""

    label: str
    index: int
    score: float


@dataclass(frozen=True)
class Answer:
    """What a model answers. An output with labels is in `classes`, best first; any other is an array in `outputs`.

    Arrays have the batch dimension, where the model has one; strings are object arrays of bytes.
    """

    model: str
    classes: Mapping[str, tuple[ScoredClass, ...]] = field(default_factory=dict)
    outputs: Tensors = field(default_factory=dict)


def infer(
    project: ProjectConfig,
    model: str,
    *,
    url: str | None = None,
    access: Access | None = None,
    version: str = "",
    sample: int = 0,
    inputs: Mapping[str, Any] | None = None,
    top: int = 3,
    say: Say,
    default_url: str = DEFAULT_URL,
) -> Answer:
    """Send one request: the golden sample of this number, or `inputs`, which are arrays or nested lists.

    `access` has headers and certificates for `url`. Without `url`, the server at `default_url` is asked; when it does
    not have the model, a server is started for this call. `version` is the newest that is served unless given. `top`
    classes are returned of an output with labels. Raises ServerError when the server refuses the request,
    ModelwrightError for inputs that are not the model's.
    """
    with _server(project, model, url, access or NO_ACCESS, default_url, say) as client:
        config = client.config(model)
        tensors = _given(model, config, inputs) if inputs else _sample(project, model, config, sample)
        labelled = [entry["name"] for entry in config.get("output", []) if entry.get("label_filename")]
        others = [entry["name"] for entry in config.get("output", []) if entry["name"] not in labelled]
        classes: Tensors = {}
        place = whole_sequence(client, model)
        if labelled:
            classes = client.infer(model, tensors, version, labelled, class_count=top, sequence=place)
        outputs = client.infer(model, tensors, version, others, sequence=place) if others else {}
    return Answer(model, {name: tuple(map(_scored, array.ravel())) for name, array in classes.items()}, outputs)


@contextlib.contextmanager
def _server(
    project: ProjectConfig, model: str, url: str | None, access: Access, default_url: str, say: Say
) -> Iterator[Client]:
    """The server that was asked for; else the default one, if it has the model; else one for this call."""
    with connect(url or default_url, access=access if url else NO_ACCESS) as client:
        if url or _has_model(client, model):
            yield client
            return
    say(f"no server with {model} at {default_url}: starting one for this call (modelwright serve keeps one up)")
    repository = Repository.of(project)
    versions, unreadable = readable(repository, composing_first(repository, [model]))
    if unreadable and not versions:
        raise unreadable[0].error
    log = project.logs / "infer.log"
    with serving_all(project, versions, log, say) as served, connect(served.http, served.request_timeout_s) as client:
        yield client


def _has_model(client: Client, model: str) -> bool:
    try:
        return bool(client.server()["name"]) and client.model_ready(model)
    except ServerError:  # most likely there is no server, and then one is started
        return False


def _sample(project: ProjectConfig, model: str, config: Mapping[str, Any], number: int) -> Tensors:
    """One golden sample of the newest version here, with the batch dimension if the model has one."""
    repository = Repository.of(project)
    latest = repository.latest(model)
    golden = repository.folder(model, latest[0]) / GOLDEN if latest else None
    if golden is None or not golden.is_file():
        raise ServerError(f"{model}: no golden samples here", "give the inputs: --input NAME=JSON")
    inputs, _ = load_golden(golden)
    if not 0 <= number < len(inputs):
        raise ServerError(f"{model}: has no sample {number}", f"its samples are 0 to {len(inputs) - 1}")
    return request_of([inputs[number]], batched=bool(config.get("max_batch_size")))


def _given(model: str, config: Mapping[str, Any], given: Mapping[str, Any]) -> Tensors:
    known = {entry["name"]: entry for entry in config.get("input", [])}
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or f"its inputs are {', '.join(known)}"
            raise ModelwrightError(f"{model}: has no input '{name}'", hint)
    batched = bool(config.get("max_batch_size"))
    return {name: _array(f"{model}: input '{name}'", value, known[name], batched) for name, value in given.items()}


def _array(where: str, value: Any, entry: Mapping[str, Any], batched: bool) -> Any:
    """A value as the input's type. Leading dimensions that it lacks, such as the batch, become 1.

    Of an input with one value a row, a plain list has a value for each row.
    """
    import numpy as np

    dtype = BY_NAME[entry["data_type"].removeprefix("TYPE_")]
    try:
        array = np.array(value, dtype=numpy_dtype(dtype.name))
    except (TypeError, ValueError) as error:
        raise ModelwrightError(f"{where}: not {dtype.name}: {error}") from None
    if dtype.numpy == "object":
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in array.ravel()]
        array = np.array(parts, dtype=object).reshape(array.shape)
    if batched and array.ndim == 1 and [int(dim) for dim in entry.get("dims", [])] == [1]:
        return array[:, None]
    rank = len(entry.get("dims", [])) + batched
    return array if array.ndim >= rank else array.reshape((1,) * (rank - array.ndim) + array.shape)


def _scored(item: bytes) -> ScoredClass:
    """Triton's classification extension: b"score:index" or b"score:index:label"."""
    score, index, *label = item.decode("utf-8", "replace").split(":", 2)
    return ScoredClass(label[0] if label else "", int(index), float(score))
