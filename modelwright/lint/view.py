"""What rules look at: one config of one model as the server reads it, and the repository around it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.fsops import TooLargeError, read_file
from modelwright.lint import completion
from modelwright.lint.python_code import PythonCode
from modelwright.lint.rule import Found
from modelwright.lint.tree import ModelFolder, RepositoryTree
from modelwright.onnx.scan import OnnxScanError, scan
from modelwright.onnx.signature import Signature
from modelwright.suggest import Names
from modelwright.triton.file_types import ORT, FileType, file_type
from modelwright.triton.layout import CONFIG
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.pbtext import PbtxtError, Tree, Unknown, message_of, parse_tree, unknown_fields, without_unknown
from modelwright.triton.policy import selected
from modelwright.triton.releases import Release

MAX_BYTES = 1_000_000  # a config is a page or two; ten thousand instance groups fit
MAX_SUGGESTIONS = 100  # of models: whoever misspells more of them has another problem
ORT_SUFFIX = ".ort"  # onnxruntime goes by it: what has it is in its own format, and nothing else is
EVERYWHERE = "*"  # all environments: a model's folder is the same in each
Scanned = Signature | OnnxScanError | OSError


@dataclass(frozen=True)
class Options:
    """The server that will load the repository: its release, and whether it completes configs."""

    target: Release
    auto_complete: bool = True


@dataclass(frozen=True)
class ConfigText:
    """The bytes of a config file, or why it could not be read."""

    data: bytes = b""
    error: str = ""


@dataclass
class ConfigView:
    """One config of a model. Rules of scope 'config' run only if it parses."""

    model: ModelFolder
    environment: str  # '' for config.pbtxt, 'cpu' for what a server with --model-config-name=cpu reads
    repository: RepositoryView = field(repr=False)
    kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # what several rules need, read once

    # --- the file -----------------------------------------------------------------------------------------------------

    @cached_property
    def _relative(self) -> str:
        files = self.model.config_files
        return files.get(self.environment) or files.get("", "")

    @property
    def exists(self) -> bool:
        return bool(self._relative)

    @property
    def file(self) -> str:
        """Relative to the repository, as messages show it."""
        return f"{self.model.name}/{self._relative or CONFIG}"

    @property
    def options(self) -> Options:
        return self.repository.options

    @cached_property
    def source(self) -> ConfigText:
        return read_text(self.model.locate(self._relative)) if self.exists else ConfigText()

    @cached_property
    def _parsed(self) -> tuple[Tree | None, PbtxtError | None]:
        try:
            return parse_tree(self.source.data), None
        except PbtxtError as error:
            return None, error

    @property
    def tree(self) -> Tree | None:
        """Where each field is in the text; None if the text does not parse."""
        return self._parsed[0]

    @cached_property
    def _message(self) -> tuple[Any, PbtxtError | None, tuple[Unknown, ...]]:
        """(message, why it does not parse, unknown fields). The message leaves unknown fields out."""
        if self.tree is None or self.source.error:
            return None, self._parsed[1], ()
        try:
            return message_of(self.tree), None, ()
        except PbtxtError as error:
            problem = error
        descriptor = schema().ModelConfig.DESCRIPTOR
        unknown = tuple(unknown_fields(self.tree, descriptor))
        try:
            return (
                (message_of(without_unknown(self.tree, descriptor)), None, unknown) if unknown else (None, problem, ())
            )
        except PbtxtError as error:
            return None, error, unknown

    @property
    def unknown_fields(self) -> tuple[Unknown, ...]:
        return self._message[2]

    @property
    def problem(self) -> PbtxtError | None:
        """Why the text does not parse, apart from unknown fields."""
        return self._message[1]

    @property
    def written(self) -> Any:
        """The message in the file; None if it does not parse."""
        return self._message[0]

    # --- what the server makes of it ----------------------------------------------------------------------------------

    @cached_property
    def filled(self) -> Any:
        """The message with name, backend and file names filled in; None if it does not parse."""
        return None if self.written is None else completion.with_backend(self.written, self.model)

    @cached_property
    def message(self) -> Any:
        """`filled`, with what the backend adds from the newest version's ONNX file."""
        newest = self.onnx.get(self.served[0]) if self.written is not None and self.served else None
        return self.completed(newest) if newest else self.filled

    def completed(self, scan: Signature) -> Any:
        """The config with what the onnxruntime backend adds from this file, if the server completes configs."""
        return completion.with_tensors(self.filled, scan) if self.options.auto_complete else self.filled

    @property
    def batched(self) -> bool:
        return bool(self.message.max_batch_size > 0)

    @property
    def is_ensemble(self) -> bool:
        return bool(self.message.HasField("ensemble_scheduling"))

    @property
    def decoupled(self) -> bool:
        """Whether a request gets any number of responses. For an ensemble, its composing models decide that."""
        if not self.is_ensemble:
            return bool(self.message.model_transaction_policy.decoupled)
        return any(view.message.model_transaction_policy.decoupled for view in self.reached() if not view.is_ensemble)

    def reached(self) -> list[ConfigView]:
        """The config itself, and those of everything that an ensemble runs, directly or through another one."""
        found: dict[str, ConfigView] = {}
        waiting: list[ConfigView | None] = [self]
        while waiting:
            view = waiting.pop()
            if view is not None and view.message is not None and view.model.name not in found:
                found[view.model.name] = view
                steps = [step for step in view.message.ensemble_scheduling.step if not step.model_namespace]
                waiting += [self.repository.view(step.model_name, self.environment) for step in steps]
        return list(found.values())

    def may_complete(self, field: str) -> bool:
        """Whether auto-completion may change a field of `message`, in a way that only the server knows.

        Fields are those of `completion.completable`. What it may change is not written wrong, and not missing.
        """
        return field in self._completable

    @cached_property
    def _completable(self) -> frozenset[str]:
        if not self.options.auto_complete or self.onnx:  # `message` has what onnxruntime completes
            return frozenset()
        fields = completion.completable(self.filled)
        if fields and self.filled.backend == "python":
            code = [self.python_code(number) for number in self.served]
            if not all(version.may_complete for version in code):
                return frozenset()
            if not all(version.may_set_policy for version in code):
                return fields - {completion.POLICY}
        return fields

    @cached_property
    def served(self) -> list[int]:
        """The versions that version_policy selects, highest first."""
        return selected(self.written.version_policy, self.model.versions)

    @cached_property
    def instance_kinds(self) -> set[str]:
        """The kinds of its instance groups; KIND_AUTO without instance groups."""
        groups = self.message.instance_group
        known = [group for group in groups if group.kind in group.Kind.values()]
        return {group.Kind.Name(group.kind) for group in known} or {"KIND_AUTO"}

    # --- the model's file ---------------------------------------------------------------------------------------------

    def model_file(self, version: int, name: str) -> Path:
        """Where the server looks for a file of a version: in the folder with the plain number."""
        return self.model.locate(f"{version}/{name}")

    def file_of(self, version: int) -> str:
        """The model's file of a version, as findings name it."""
        return f"{version}/{self.filled.default_model_filename}"

    def leaves(self, name: str) -> bool:
        """Whether a file that the config names for its versions lies outside the model's folder. None is opened."""
        return posixpath.normpath(f"version/{name}").split("/")[0] == ".."

    @cached_property
    def scans(self) -> dict[int, Scanned]:
        """{version: what its ONNX file declares, or why it cannot be read}. Empty for other backends."""
        if self.filled.backend != "onnxruntime" or self.leaves(self.filled.default_model_filename):
            return {}
        found = {}
        for number in self.served:
            path = self.onnx_file(number)
            if path.exists() and not (path.suffix.lower() == ORT_SUFFIX and seen(path) is ORT):
                found[number] = self.repository.scan(path)
        return found

    def onnx_file(self, version: int) -> Path:
        """A version's ONNX file: the model file, or model.onnx in the folder of that name."""
        path = self.model_file(version, self.filled.default_model_filename)
        return path / "model.onnx" if path.is_dir() else path

    @property
    def onnx(self) -> dict[int, Signature]:
        return {number: found for number, found in self.scans.items() if isinstance(found, Signature)}

    def python_code(self, version: int) -> PythonCode:
        """A version's model.py, or what default_model_filename names."""
        name = self.filled.default_model_filename
        return PythonCode(None) if self.leaves(name) else self.repository.python_code(self.model_file(version, name))

    def inferred(self, version: int) -> dict[str, list[int]]:
        """{output: dims} as onnxruntime infers them, -1 where dynamic; empty where it does not load the file.

        Loads the model, weights included: for questions that the file itself leaves open.
        """
        path = self.model_file(version, self.filled.default_model_filename)
        path = path / "model.onnx" if path.is_dir() else path
        return self.repository.inferred(path, self.filled.optimization.graph.level)

    # --- findings -----------------------------------------------------------------------------------------------------

    def found(self, message: str, *path: str | int, fix: str = "") -> Found:
        """A finding at a field of this config."""
        return Found(message, self.file, path, fix=fix)

    def at(self, relative: str, message: str, fix: str = "") -> Found:
        """A finding about a file or folder of the model."""
        return Found(message, f"{self.model.name}/{relative}", fix=fix)

    def line(self, path: tuple[str | int, ...]) -> int | None:
        return self.tree.line(*path) if self.exists and self.tree else None


@dataclass
class RepositoryView:
    """Every model of a repository and each of its configs, read once, when first needed."""

    tree: RepositoryTree
    options: Options
    failing: set[tuple[str, str]] = field(default_factory=set)  # (model, environment) with errors so far
    _views: dict[tuple[str, str], ConfigView] = field(default_factory=dict, repr=False)
    _scans: dict[Path, Scanned] = field(default_factory=dict, repr=False)
    _inferred: dict[tuple[Path, int], dict[str, list[int]]] = field(default_factory=dict, repr=False)
    unasked: set[Path] = field(default_factory=set, repr=False)  # files about which onnxruntime would be asked
    _suggested: int = field(default=0, repr=False)
    _code: dict[Path, PythonCode] = field(default_factory=dict, repr=False)

    def view(self, model: str, environment: str = "") -> ConfigView | None:
        """A model's config in an environment; None for an unknown model."""
        folder = self.tree.models.get(model)
        if folder is None:
            return None
        if (model, environment) not in self._views:
            self._views[model, environment] = ConfigView(folder, environment, self)
        return self._views[model, environment]

    def fails(self, model: str, environment: str) -> bool:
        """Whether a model has errors in an environment, or in the config for all environments."""
        folder = self.tree.models.get(model)
        own = environment if folder and environment in folder.config_files else ""
        return bool(self.failing & {(model, own), (model, environment), (model, EVERYWHERE)})

    @cached_property
    def _names(self) -> Names:
        return Names(self.tree.models)

    def nearest_model(self, name: str, besides: str) -> str | None:
        """The model that was meant by a name that no model has, other than `besides`; None after MAX_SUGGESTIONS."""
        self._suggested += 1
        return self._names.nearest(name, (besides,)) if self._suggested <= MAX_SUGGESTIONS else None

    def scan(self, path: Path) -> Scanned:
        if path not in self._scans:
            try:
                if path.suffix.lower() == ORT_SUFFIX:
                    raise OnnxScanError(
                        "onnxruntime reads a file of this name in its own format (ORT), which it is not"
                    )
                self._scans[path] = scan(path)
            except (OnnxScanError, OSError) as error:
                self._scans[path] = error
        return self._scans[path]

    def _weights(self, path: Path) -> set[str]:
        """The files with weights of an ONNX file, as it names them."""
        found = self.scan(path)
        return {tensor.location for tensor in found.external_tensors} if isinstance(found, Signature) else set()

    def python_code(self, path: Path) -> PythonCode:
        if path not in self._code:
            self._code[path] = PythonCode.read(path)
        return self._code[path]

    def inferred(self, path: Path, graph_level: int) -> dict[str, list[int]]:
        if find_spec("onnxruntime") is None:
            self.unasked.add(path)
            return {}
        if (path, graph_level) not in self._inferred:
            from modelwright.onnx.runtime import load_session, session_values  # for the few rules that load a model

            try:
                # onnxruntime opens what it is told to, and reading a pipe never ends.
                able = all((path.parent / name).is_file() for name in self._weights(path))
                outputs = session_values(load_session(path, graph_level=graph_level))[1] if able else ()
            except StepError:
                outputs = ()
            self._inferred[path, graph_level] = {value.name: completion.plain_dims(value) for value in outputs}
        return self._inferred[path, graph_level]


def seen(path: Path) -> FileType | None:
    """What a file is, if it is known and can be read."""
    try:
        return file_type(path) if path.is_file() else None
    except OSError:
        return None


def read_text(path: Path) -> ConfigText:
    """Read a config file, up to MAX_BYTES."""
    try:
        if not path.is_file():
            return ConfigText(error="not a file")
        return ConfigText(read_file(path, MAX_BYTES))
    except TooLargeError as error:
        return ConfigText(error=f"{error.strerror}: too large for a config")
    except OSError as error:
        return ConfigText(error=f"cannot be read: {error.strerror or error}")
