"""What a load test sends: the tensors of requests, and the expected answers if they are known.

    payloads = prepare(interface, repository=Path("model_repository"), batch=4)
    payloads.items[0].inputs  # {"image": float32 (4, 1, 8, 8)}

Golden samples of the served version, files (`sample_files`), or values generated from the metadata (`generated`).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelwright.errors import LoadError, VerifyError
from modelwright.facts.verified import GoldenComparison
from modelwright.loadtest.payloads.generated import Making, generate
from modelwright.loadtest.payloads.interface import ModelInterface
from modelwright.loadtest.payloads.ranges import golden_ranges
from modelwright.loadtest.payloads.ranges import hint as range_hint
from modelwright.loadtest.payloads.ranges import note as range_note
from modelwright.loadtest.payloads.sample_files import load_npz, read_samples
from modelwright.loadtest.payloads.samples import (
    check_fits,
    check_known,
    check_size,
    digest,
    selections,
    size_of,
    stacked,
)
from modelwright.project.spec import Tolerance
from modelwright.repository.repository import Repository
from modelwright.repository.versions import superseded
from modelwright.triton.arrays import is_float
from modelwright.triton.layout import GOLDEN
from modelwright.triton.tensors import Tensors
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.golden import part_of
from modelwright.verification.samples import request_of, requests

ENOUGH = 32  # distinct payloads; with fewer, the load test may measure a response cache

_Rows = tuple[int, ...]  # which samples make up a request


@dataclass(frozen=True)
class Payload:
    """One request. Arrays have the batch dimension where the model has one; strings are object arrays of bytes.

    `expected` is None if no answer is known, or if it depends on other requests of the same time.
    """

    inputs: Tensors
    expected: Tensors | None = None


@dataclass(frozen=True)
class Payloads:
    """`description`: "golden samples of version 3, 32 distinct". `notes` are for the reader of the result.

    `hint`: what to do if the model refuses them.
    """

    items: list[Payload]
    description: str
    tolerance: dict[str, Tolerance] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hint: str = ""


def prepare(
    interface: ModelInterface,
    *,
    source: str = "",
    repository: Path | None = None,
    batch: int = 1,
    distinct: int = 64,
    seed: int = 7,
    dims: Mapping[str, int | Sequence[int]] | None = None,
    ranges: Mapping[str, Sequence[float]] | None = None,
    ranges_of: Path | None = None,
    string_length: int = 16,
) -> Payloads:
    """At most `distinct` requests of `batch` rows, the same for the same seed. Raises LoadError.

    `source`: "golden", "random", "zero", or the path of a file or folder; "" is golden samples where `repository` has
    some of this version and neither `dims` nor `ranges` are given, else random. `dims` and `ranges`, per input: see
    generated.Making. Other numbers are in the range of the golden samples of this version, or of those at `ranges_of`.
    """
    _check_batch(interface, batch, distinct)
    dims, ranges = dims or {}, ranges or {}
    check_known(interface, ranges, f"payload for {interface.model}: --range")
    check_known(interface, dims, f"payload for {interface.model}: --shape")
    if source == "":
        known = repository is not None and not (dims or ranges) and _golden_path(interface, repository).is_file()
        source = "golden" if known else "random"
    if ranges and source != "random":
        raise LoadError(f"--range {min(ranges)}: for values that are drawn at random", "use --payload random")
    if source == "golden":
        return _golden(interface, repository, batch, distinct, seed, dims)
    if source in ("random", "zero"):
        golden = ranges_of or (_golden_path(interface, repository) if repository is not None else None)
        found = golden_ranges(interface, golden) if golden is not None and source == "random" else {}
        making = Making(dims, ranges, found, string_length, zero=source == "zero")
        made = generate(interface, making, batch=batch, distinct=distinct, seed=seed)
        return _generated(interface, making, made)
    shapes = {name: [size] if isinstance(size, int) else size for name, size in dims.items()}
    samples = read_samples(interface, Path(source), shapes)
    chosen = _selected(interface, samples, batch, distinct, seed)
    items = [Payload(stacked(samples, rows, interface.max_batch_size > 0)) for rows in chosen]
    return _described(items, f"{Path(source).name}, {_counted(len(samples), 'sample')}")


def _generated(interface: ModelInterface, making: Making, made: Sequence[Tensors]) -> Payloads:
    items = [Payload(inputs) for inputs in made]
    if making.zero:
        return _described(items, "zeros")
    followed = {name: found for name, found in making.golden.items() if name in made[0] and name not in making.ranges}
    notes = [range_note(followed)] if followed else []
    return replace(_described(items, "random values", notes=notes), hint=range_hint(interface, making.all_ranges()))


def check(expected: Tensors, actual: Tensors, tolerance: Mapping[str, Tolerance]) -> str:
    """How an answer differs from the expected one by more than is allowed; "" if it does not."""
    try:
        compare_outputs([expected], [actual], tolerance)
    except VerifyError as error:
        return error.message
    return ""


def _check_batch(interface: ModelInterface, batch: int, distinct: int) -> None:
    if distinct < 1:
        raise LoadError(f"{interface.model}: {distinct} distinct payloads: must be at least 1")
    if batch < 1:
        raise LoadError(f"{interface.model}: batch {batch}: must be at least 1")
    if batch > 1 and interface.max_batch_size == 0:
        hint = "its requests have no batch dimension (max_batch_size: 0): leave the batch at 1"
        raise LoadError(f"{interface.model}: batch {batch}: the model does not batch", hint)
    if batch > max(interface.max_batch_size, 1):
        allowed = interface.max_batch_size
        raise LoadError(
            f"{interface.model}: batch {batch}: the model takes at most {allowed} rows",
            f"give at most {allowed}, or raise serving.max_batch_size in its model.yaml and build",
        )


def _selected(
    interface: ModelInterface, samples: Sequence[Tensors], batch: int, distinct: int, seed: int
) -> list[_Rows]:
    chosen = selections(samples, batch, distinct, seed)
    sizes = [size_of(sample) for sample in samples]
    check_size(sum(sizes[index] for rows in chosen for index in rows), interface.model)
    return chosen


def _described(
    items: list[Payload], words: str, tolerance: dict[str, Tolerance] | None = None, notes: Sequence[str] = ()
) -> Payloads:
    count = len({digest(item.inputs) for item in items})
    found = [*notes, *_remarks(items)]
    if count < ENOUGH:
        found.append(f"{_counted(count, 'distinct payload')}: a response cache would answer them")
    return Payloads(items, f"{words}, {count} distinct", tolerance or {}, found)


def _remarks(items: Sequence[Payload]) -> list[str]:
    """NaN is a missing value for some models, and a mistake for most."""
    import numpy as np

    names = {
        name for item in items for name, array in item.inputs.items() if is_float(array.dtype) and np.isnan(array).any()
    }
    return [f"input '{name}' contains NaN" for name in sorted(names)]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


# --- golden samples ---------------------------------------------------------------------------------------------------


def _golden_path(interface: ModelInterface, repository: Path) -> Path:
    return repository / interface.model / interface.version / GOLDEN


def _golden(
    interface: ModelInterface,
    repository: Path | None,
    batch: int,
    distinct: int,
    seed: int,
    dims: Mapping[str, int | Sequence[int]],
) -> Payloads:
    samples, answers, comparison = _read_golden(interface, repository, dims)
    assert repository is not None
    for index, sample in enumerate(samples):
        check_fits(interface, sample, f"{_golden_path(interface, repository)}: sample {index}")
    known, note = _comparable(interface, Repository(repository, repository), comparison, samples, answers)
    items = [
        Payload(
            stacked(samples, rows, interface.max_batch_size > 0),
            stacked(answers, rows, interface.max_batch_size > 0) if known(rows) else None,
        )
        for rows in _selected(interface, samples, batch, distinct, seed)
    ]
    notes = [note] if note and any(item.expected is None for item in items) else []
    tolerance = comparison.tolerance if comparison else {}
    return _described(items, f"golden samples of version {interface.version}", tolerance, notes)


def _read_golden(
    interface: ModelInterface, repository: Path | None, dims: Mapping[str, Any]
) -> tuple[list[Tensors], list[Tensors], GoldenComparison | None]:
    """(samples, answers, how they are compared), as they are sent, without a batch dimension."""
    where = f"{interface.model} version {interface.version}"
    hint = "use --payload random, or give a file"
    if dims:
        raise LoadError(f"{where}: --shape {min(dims)}: golden samples already have shapes", hint)
    if repository is None or not _golden_path(interface, repository).is_file():
        raise LoadError(f"{where}: no golden samples in {repository or 'this project'}", hint)
    path = _golden_path(interface, repository)
    tensors = load_npz(path)
    if not all(array.ndim and len(array) for array in tensors.values()):
        raise LoadError(f"{path}: no samples", hint)
    inputs, outputs = (part_of(tensors, part) for part in ("input/", "output/"))
    if not inputs or not outputs:
        raise LoadError(f"{path}: no samples", hint)
    manifest = Repository(repository, repository).manifest(interface.model, int(interface.version))
    samples, answers = ([request_of([row], batched=False) for row in part] for part in (inputs, outputs))
    return samples, answers, manifest.verification.golden if manifest else None


def _comparable(
    interface: ModelInterface,
    repository: Repository,
    comparison: GoldenComparison | None,
    samples: Sequence[Tensors],
    answers: Sequence[Tensors],
) -> tuple[Callable[[_Rows], bool], str]:
    """Whether the golden answers hold for a request of these rows, and why not.

    They are the answers to whole requests of `batch` rows. If a row's answer depends on the other rows of its request,
    they hold for exactly these requests only, and for none if the server merges requests.
    """
    never: Callable[[_Rows], bool] = lambda rows: False  # noqa: E731
    moved_on = superseded(repository, interface.model, int(interface.version)) if comparison else ""
    if comparison is None or moved_on:
        return never, f"answers are not compared: {moved_on or 'the version has no manifest'}"
    if interface.sequence or interface.decoupled:
        return never, "answers are not compared: they depend on earlier requests, or come in parts"
    reason = _why_rows_mix(interface, repository, samples, answers)
    if not reason:
        return lambda rows: True, ""
    if interface.merges_requests:
        return never, f"answers are not compared: {reason}, and the server runs rows of several requests together"
    size = min(comparison.batch, interface.max_batch_size)
    whole, start = set(), 0
    for part in requests(samples, size):
        whole.add(tuple(range(start, start + len(part))))
        start += len(part)
    return whole.__contains__, f"only whole golden requests ({size} rows) are compared: {reason}"


def _why_rows_mix(
    interface: ModelInterface, repository: Repository, samples: Sequence[Tensors], answers: Sequence[Tensors]
) -> str:
    """Why a row's answer may depend on the other rows of its request; "" if it does not."""
    if interface.max_batch_size == 0:
        return ""
    for sample, answer in zip(samples, answers, strict=True):
        sizes = {
            array.shape[axis]
            for tensor in interface.inputs
            for axis, dim in enumerate(tensor.dims)
            if dim == -1 and tensor.name in sample and (array := sample[tensor.name]).dtype != object
        }
        for tensor in interface.outputs:
            shape = answer[tensor.name].shape if tensor.name in answer else ()
            # A size that no input has depends on all rows, such as the longest text of the request.
            if any(
                dim == -1 and axis < len(shape) and shape[axis] not in sizes for axis, dim in enumerate(tensor.dims)
            ):
                return f"rows are padded to one length in '{tensor.name}'"
    if any(_quantises_rows_together(path) for path in _model_files(interface, repository)):
        return "activations are quantised by the range of all rows together (DynamicQuantizeLinear)"
    return ""


def _model_files(interface: ModelInterface, repository: Repository) -> list[Path]:
    """The ONNX files of a version; for an ensemble, of the newest versions of its composing models."""
    folders = [repository.folder(interface.model, int(interface.version))]
    manifest = repository.manifest(interface.model, int(interface.version))
    for name in manifest.made.composing_models if manifest else ():
        latest = repository.latest(name)
        folders += [repository.folder(name, latest[0])] if latest else []
    return [path for folder in folders for path in folder.glob("*.onnx") if path.stat().st_size]


def _quantises_rows_together(path: Path) -> bool:
    """An operator's name is in the file as plain text. A match by chance only skips a check."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"DynamicQuantizeLinear") >= 0
