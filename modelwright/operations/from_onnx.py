"""`modelwright new NAME --from FILE`: a builder around an ONNX file, which builds at once.

The graph is copied with the files of weights that it lists. The tensors are those that onnxruntime says. Whether the
model batches, and which random samples it takes, is tried: the builder is the first that passes what its build will ask
of it. Where none does, the builder is written with the reason, and its samples are left to a person.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelwright.config.served import ServedView, served_view
from modelwright.errors import ModelwrightError, SpecError, StepError, located
from modelwright.fsops import not_a_file
from modelwright.onnx.check import check_limits, check_shapes, read_signature
from modelwright.onnx.ids import IdLimit, id_limits
from modelwright.onnx.rows import is_given, other_rows
from modelwright.onnx.runtime import load_session, session_values
from modelwright.onnx.signature import Signature, Value
from modelwright.onnx.weights import SAVE_WEIGHTS, check_weights, needed
from modelwright.operations.generated_samples import OPEN_RANGES, SAMPLES, Generated, Sizes
from modelwright.project.reader import read_builder
from modelwright.project.spec import FILE, Builder
from modelwright.project.writer import as_yaml
from modelwright.steps.samples import as_declared, as_samples
from modelwright.triton.file_types import SAFETENSORS, FileType, file_type
from modelwright.triton.releases import Release
from modelwright.triton.tensors import Tensors
from modelwright.variants.registry import LOOKUPS
from modelwright.verification.batches import check_rows
from modelwright.verification.comparison import check_repeatable
from modelwright.verification.runner import SampleRunner
from modelwright.verification.sizes import check_sizes
from modelwright.verification.tolerances import tolerances

MODEL = "model.onnx"
_URL = re.compile(r"[a-z][a-z0-9+]+:/", re.IGNORECASE)  # a path has lost one of its slashes
DATA = "data.py"
_MAX_BATCH_SIZE = 8
# Most networks halve an image five times, so that its sides are multiples of 32. Small sizes are tried first.
_SIZES = (32, 64, 16, 128, 224, 256, 512, 48, 320, 640, 8, 576, 4, 2, 1)
_LONGEST_SEARCH_S = 90


@dataclass(frozen=True)
class Written:
    """What was written into a builder's folder: what was decided, and what a person should know."""

    notes: tuple[str, ...]
    builds: bool  # whether the model takes the samples


@dataclass(frozen=True)
class _Model:
    """The copied model, in onnxruntime."""

    folder: Path
    session: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    signature: Signature


@dataclass(frozen=True)
class _Attempt:
    """A builder that was tried. `reason` says why it does not build; '' for one that does."""

    batched: bool
    generated: Generated
    reason: str = ""
    other_outputs: str = ""  # how answers differ from the shapes that the file declares
    note: str = ""


def check_is_onnx(path: Path) -> None:
    """Raise SpecError that says what the file is, if it is not ONNX."""
    where = f"--from {path}"
    if path.is_dir():
        raise SpecError(f"{where}: is a folder", _folder_hint(path))
    if _URL.match(str(path)):
        raise SpecError(f"{where}: is a URL; --from takes a file", "download it first; or --kind onnx, and source.url")
    if not os.path.lexists(path):
        raise SpecError(f"{where}: there is no such file", "name an ONNX file")
    if problem := not_a_file(path):
        raise SpecError(f"{where}: {problem}", "name an ONNX file")
    try:
        read_signature(path)
    except ModelwrightError as error:
        found = file_type(path)
        if found is None:
            raise SpecError(f"{where}: {error.message}", error.hint) from None
        raise SpecError(f"{where}: is {found.what}; --from takes ONNX files", _hint(found)) from None


def _hint(found: FileType) -> str:
    if found is SAFETENSORS:
        return "modelwright new NAME --kind huggingface starts from the directory that it lies in"
    return f"{found.fix}; modelwright new --help lists what other kinds start from"


def _folder_hint(path: Path) -> str:
    if any(path.glob("*.safetensors")) and (path / "config.json").is_file():
        return "a Hugging Face directory: modelwright new NAME --kind huggingface; then put its path into model.yaml"
    if any(path.glob("*/config.pbtxt")):
        return f"a model repository: modelwright adopt {shlex.quote(str(path))}"
    files = sorted(path.glob("*.onnx"))
    return f"name the file: --from {shlex.quote(str(files[0]))}" if files else "name an ONNX file"


def write_builder(source: Path, staged: Path, target: Path, head: Mapping[str, str], release: Release) -> Written:
    """Write a builder around `source` into `staged`, which will lie at `target`.

    `head` has the values of a scaffold's placeholders. Raises ModelwrightError for a model that Triton cannot serve,
    or that the release does not load.
    """
    with located(f"--from {source}"):
        model = _copied(source, staged, release)
        limits = id_limits(staged / MODEL)
        reason = _why_not_batched(model)
        deadline = time.monotonic() + _LONGEST_SEARCH_S
        attempts = []
        for batched in (False,) if reason else (True, False):
            (staged / FILE).write_text(_model_yaml(model, head, source, batched, reason), encoding="utf-8")
            builder = read_builder(staged, f"builders/{target.name}/{FILE}", LOOKUPS)
            view = served_view(builder, model.session)
            found = _Search(model, builder, view, limits, deadline).run()
            attempts.append(found)
            if not found.reason:
                text = _model_yaml(model, head, source, batched, reason, found.other_outputs)
                (staged / FILE).write_text(text, encoding="utf-8")
                return _written(model, found, reason)
            reason = reason or found.reason
        best = attempts[0]
        (staged / FILE).write_text(_model_yaml(model, head, source, best.batched, reason), encoding="utf-8")
        (staged / DATA).write_text(best.generated.text(target.name), encoding="utf-8")
        return Written((f"no generated samples ran: {best.reason}", f"write your own into {DATA}"), builds=False)


def _copied(source: Path, folder: Path, release: Release) -> _Model:
    """The graph and its weights, copied, within the limits of the release, and loaded."""
    declared = read_signature(source)
    check_limits(declared, release)
    check_weights(needed(declared), source.parent, source.name)
    taken = {FILE, DATA, MODEL} & set(declared.external)
    if taken:
        message = f"{source.name}: its weights are in '{min(taken)}', a name that a builder uses itself"
        raise SpecError(message, f"save the model with weights in another file: {SAVE_WEIGHTS}")
    shutil.copyfile(source, folder / MODEL)
    for name in declared.external:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / name, folder / name)
    if not declared.inputs:
        raise SpecError(f"{source.name}: the graph has no inputs", "a request carries at least one")
    session = load_session(folder / MODEL, quiet=True)
    inputs, outputs = session_values(session)
    found = replace(declared, inputs=inputs, outputs=outputs)
    check_shapes(declared, found, source.name)
    return _Model(folder, session, inputs, outputs, found)


def _why_not_batched(model: _Model) -> str:
    """Why the server cannot put requests together, as far as shapes say; '' where it can."""
    for value in (*model.inputs, *model.outputs):
        if not value.dims:
            return f"'{value.name}' has no dimensions"
        if isinstance(value.dims[0], int) and value.dims[0] >= 0:
            return f"the first dimension of '{value.name}' is {value.dims[0]}"
    for found in other_rows(model.inputs, model.outputs):
        return f"'{found.output}' has '{found.name}' rows, a request '{found.rows}'"
    return ""


def _written(model: _Model, found: _Attempt, reason: str) -> Written:
    size = _MAX_BATCH_SIZE if found.batched else 0
    why = "the first dimension of each tensor varies, and rows answer alike alone and together"
    notes = [f"max_batch_size is {size}: {why if found.batched else reason}"]
    if len(model.signature.external) > 0:
        notes.append(f"its weights are in {', '.join(model.signature.external)}")
    if found.other_outputs:
        notes.append(f"outputs are left out of {FILE}, as the file declares other shapes: {found.other_outputs}")
    return Written((*notes, *filter(None, [found.note])), builds=True)


# --- model.yaml ------------------------------------------------------------------------------------------------------


def _model_yaml(
    model: _Model, head: Mapping[str, str], source: Path, batched: bool, reason: str, other_outputs: str = ""
) -> str:
    why = "rows in one run of the model" if batched else f"requests have no batch dimension: {reason}"
    outputs = ["outputs:", *(_tensor(value, batched) for value in model.outputs)]
    if other_outputs:
        outputs = ["# No outputs: the file declares other shapes than it answers."]
    lines = [
        head["editor"],
        f"name: {head['yaml_name']}",
        f"description: {as_yaml(f'The model of {source.name}.')}",
        "source:",
        "  kind: onnx",
        f"  path: {MODEL} # with the files of weights that it lists",
        "# Tensors as clients see them, without the batch dimension. A named dimension varies, and is the same wherever"
        if batched
        else "# Tensors as clients see them, whole. A named dimension varies, and is the same wherever",
        "# it stands; -1 varies, too.",
        "inputs:",
        *(_tensor(value, batched) for value in model.inputs),
        *outputs,
        "samples: data:samples # golden inputs, random for now: replace them by what clients send",
        "serving: # Triton's ModelConfig, field by field: every field of it may stand here",
        f"  max_batch_size: {_MAX_BATCH_SIZE if batched else 0} # {' '.join(why.split())}",
    ]
    if batched:
        lines.append("  # Wait this long for more requests of the same shape, then run them together.")
        lines.append("  dynamic_batching: {max_queue_delay_microseconds: 100}")
    lines.append("  # instance_group: [{count: 2}] # copies that run at the same time")
    return "\n".join([*(line for line in lines if line), ""])


def _tensor(value: Value, batched: bool) -> str:
    shape = ", ".join(_dim(dim) for dim in (value.dims or ())[int(batched) :])
    return f"  - {{name: {as_yaml(value.name)}, dtype: {value.dtype}, shape: [{shape}]}}"


def _dim(dim: int | str) -> str:
    return as_yaml(dim) if isinstance(dim, str) and is_given(dim) else str(dim) if isinstance(dim, int) else "-1"


# --- samples ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Search:
    """Looks for random samples that pass what the build asks of the model."""

    model: _Model
    builder: Builder
    view: ServedView
    limits: Mapping[str, IdLimit]
    deadline: float

    def run(self) -> _Attempt:
        batched, first_reason = self.builder.spec.batched, ""
        for candidate in self._candidates():
            reason = self._answers(candidate)
            if reason:
                first_reason = first_reason or reason
                continue
            found = self._of_two_sizes(candidate)
            try:
                other_outputs, note = self._verified(found)
                return _Attempt(batched, found, other_outputs=other_outputs, note=note)
            except ModelwrightError as error:
                if batched:  # other samples would not make its rows independent
                    return _Attempt(batched, found, error.message)
                first_reason = first_reason or error.message
        return _Attempt(batched, next(self._candidates()), first_reason)

    def _candidates(self) -> Iterator[Generated]:
        """Each set of samples once; fewer when time is up."""
        seen: set[str] = set()
        for normal in (False, True):
            for integers in OPEN_RANGES:
                for size in _SIZES:
                    found = self._generated([Sizes(1, size)] * SAMPLES, integers, normal)
                    text = found.text("")
                    if text not in seen and (not seen or time.monotonic() < self.deadline):
                        seen.add(text)
                        yield found

    def _generated(self, sizes: Sequence[Sizes], integers: tuple[int, int], normal: bool) -> Generated:
        return Generated(self.model.inputs, self.limits, self.builder.spec.batched, sizes, integers, normal)

    def _of_two_sizes(self, found: Generated) -> Generated:
        """The same with two samples of another size, where the model takes one."""
        first = found.sizes[0]
        others = [2 * first.others, first.others // 2, *_SIZES[:6]] if found.variables else []
        for other in others:
            for rows in (2, 1):
                second = Sizes(rows, max(other, 1))
                both = self._generated([first, first, second, second], found.integers, found.normal)
                if second.others != first.others and not self._answers(both):
                    return both
        return found

    def _answers(self, candidate: Generated) -> str:
        """Why the model does not take the first and the last sample; '' if it does."""
        samples = self._samples(candidate)
        try:
            for sample in (samples[0], samples[-1]):
                self._runner.ask([sample])
        except ModelwrightError as error:
            return error.message
        return ""

    def _verified(self, candidate: Generated) -> tuple[str, str]:
        """Do what the verify step does. Raises ModelwrightError.

        Returns how the answers differ from the declared outputs, and which sizes could not be tested.
        """
        samples, spec = self._samples(candidate), self.builder.spec
        rows = len(samples) if spec.batched else 0
        actual, other_outputs = self._runner.ask_all(samples, rows), ""
        answers = actual
        try:
            answers = as_declared(actual, spec.outputs, "its answer")
        except StepError as error:
            other_outputs = error.message
        allowed = tolerances(spec.gates, answers[0])
        check_repeatable(answers, self._runner.ask_all(samples, rows), allowed)
        if spec.batched:
            check_rows(self._runner, samples, actual, allowed, rows, spec.max_batch_size)
        return other_outputs, check_sizes(self._runner, samples, self.view.dims)

    @property
    def _runner(self) -> SampleRunner:
        return SampleRunner(self.view.run, self.builder.spec.batched, self.view.scalars)

    def _samples(self, candidate: Generated) -> list[Tensors]:
        """The samples that data.py gives, from the file itself."""
        file = self.model.folder / DATA
        file.write_text(candidate.text(self.builder.name), encoding="utf-8")
        found = runpy.run_path(str(file))["samples"]()
        return as_declared(as_samples(found, DATA), self.builder.spec.inputs, DATA)
