"""The files beside a model's versions, all made from model.yaml:

    config.pbtxt            what the server reads
    configs/<name>.pbtxt    the same for an environment (environments.py)
    labels.txt, …           class names: outputs[].labels, or label_filename in serving.output
    warmup/…                data for model_warmup: golden samples, or files of the builder's folder warmup/
    initial_state/…         data for sequence states: files of the builder's folder initial_state/
    libops.so, …            custom operators: files of the builder's folder (project/operators.py)

config.pbtxt ends with a line that names the other files. A publish replaces all of them together, and removes a file
that this line names and that is no longer made. Files that are not named are never touched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from modelwright.config import environments, warmup
from modelwright.config.environments import environments_of
from modelwright.config.model_config import SERVING, ConfigTensors, config_of, parse_serving
from modelwright.config.render import render
from modelwright.errors import ConfigError
from modelwright.fsops import read_file
from modelwright.kinds.kind import EnsembleStep
from modelwright.kinds.registry import kind_of
from modelwright.project.files import local_file
from modelwright.project.spec import Builder
from modelwright.triton.layout import CONFIG, DATA_FOLDERS, INITIAL_STATE, WARMUP, environment_config, own_file

_RECORD = "# Made with it: "
_NAMING = ("output", "model_warmup", "sequence_batching", "model_operations")  # fields that can name a file


def sources(builder: Builder) -> dict[str, Path]:
    """{name below the model's folder: file of the builder's folder} of files that are copied.

    Raises SpecError or ConfigError for an invalid name or a missing file.
    """
    found: dict[str, Path] = {}
    if kind_of(builder).whole_config:
        return found  # they are the kind's `files_beside`
    for index, tensor in enumerate(builder.spec.outputs):
        if tensor.labels:
            field = f"outputs[{index}].labels"
            name = _label_name(builder, field, Path(tensor.labels).name)
            path = local_file(builder, field, tensor.labels)
            if found.setdefault(name, path) != path:
                raise ConfigError(f"{builder.file}: {field}: two label files are named '{path.name}'")
    for where, serving in _servings(builder):
        if any(name in serving for name in _NAMING):
            for field, name in _named(builder, parse_serving(builder, serving, where), where):
                if name not in found:  # labels may be named in both places
                    found[name] = local_file(builder, field, name)
    return found


def warms_up(builder: Builder) -> bool:
    """Whether the files can contain golden samples, as data of a warm-up."""
    whole = kind_of(builder).whole_config
    return not whole and any("model_warmup" in serving for _, serving in _servings(builder))


def make(
    builder: Builder,
    tensors: ConfigTensors,
    golden: Path,
    templates: Sequence[Path],
    pins: Mapping[str, int] | None = None,
    steps: Sequence[EnsembleStep] | None = None,
) -> dict[str, bytes]:
    """{name: content} of every file. `golden` is the verified golden.npz; `templates` are the project's folders; `pins`
    the versions of composing models that an ensemble's steps run, `steps` these where they are not its own.

    The publisher copies a kind's `files_beside`; the record names them, too. Raises ConfigError.
    """
    kind = kind_of(builder)
    files = {name: read_file(path) for name, path in sources(builder).items()}
    for where, serving in _servings(builder):
        config = config_of(builder, tensors, serving, where, pins, steps)
        if not kind.whole_config:
            for name, data in warmup.complete(config, serving, tensors, golden, f"{builder.file}: {where}").items():
                if files.setdefault(name, data) != data:
                    raise ConfigError(
                        f"{builder.file}: {where}: '{name}' is the name of a golden sample", "rename your file"
                    )
            _check_data(builder, config, files, where)
            _check_labels(builder, config, files)
        files |= _rendered(builder, config, where, templates)
    files[CONFIG] += _record({*files, *kind.files_beside(builder.spec.source)})
    return files


def _rendered(builder: Builder, config: Any, where: str, templates: Sequence[Path]) -> dict[str, bytes]:
    environment = where.removeprefix(environments.where_of("")) if where != SERVING else ""
    text = render(config, builder.file, templates, builder.folder, environment)
    return {environment_config(environment) if environment else CONFIG: text.encode()}


def recorded(config: str) -> list[str]:
    """The files that a published config.pbtxt names as made with it; invalid names are left out."""
    line = config.rstrip("\n").rpartition("\n")[2]
    try:
        names = json.loads(line.removeprefix(_RECORD)) if line.startswith(_RECORD) else []
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str) and is_ours(name)] if isinstance(names, list) else []


def is_ours(name: str) -> bool:
    """Whether a name can be one of these files: inside the model's folder, outside versions, not config.pbtxt."""
    path = PurePosixPath(name)
    plain = path.as_posix() == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name
    return plain and bool(path.parts) and not path.parts[0].isdecimal() and name != CONFIG


def _record(files: Collection[str]) -> bytes:
    names = sorted(name for name in files if name != CONFIG)
    return f"\n{_RECORD}{json.dumps(names)}\n".encode() if names else b""


def _servings(builder: Builder) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name in messages, the whole `serving`) of the base, then of each environment."""
    yield SERVING, builder.spec.serving
    for name, serving in environments_of(builder).items():
        yield environments.where_of(name), serving


def _named(builder: Builder, config: Any, where: str) -> Iterator[tuple[str, str]]:
    """(field, name below the model's folder) of every file that a config refers to."""
    for index, output in enumerate(config.output):
        if output.label_filename:
            field = f"{where}.output[{index}].label_filename"
            yield field, _label_name(builder, field, output.label_filename)
    found = [(field, name) for field, name, _ in _data_files(config, where)]
    for index, path in enumerate(config.model_operations.op_library_filename):
        if name := own_file(path, builder.name):
            found.append((f"{where}.model_operations.op_library_filename[{index}]", name))
    for field, name in found:
        if not is_ours(name):
            raise ConfigError(f"{builder.file}: {field}: '{name}' is not a plain path inside the model's folder")
        yield field, name


def _data_files(config: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """(field, name below the model's folder, its message) of tensors that come from files."""
    for index, entry in enumerate(config.model_warmup):
        for key in sorted(entry.inputs):
            if entry.inputs[key].input_data_file:
                field = f"{where}.model_warmup[{index}].inputs.{key}.input_data_file"
                yield field, f"{WARMUP}/{entry.inputs[key].input_data_file}", entry.inputs[key]
    for index, state in enumerate(config.sequence_batching.state):
        for number, initial in enumerate(state.initial_state):
            if initial.data_file:
                field = f"{where}.sequence_batching.state[{index}].initial_state[{number}].data_file"
                yield field, f"{INITIAL_STATE}/{initial.data_file}", initial


def _label_name(builder: Builder, field: str, name: str) -> str:
    if not is_ours(name) or PurePosixPath(name).parts[0] in DATA_FOLDERS:
        hint = "write a name like labels.txt: label files are beside config.pbtxt"
        raise ConfigError(f"{builder.file}: {field}: '{name}' cannot name a label file", hint)
    return name


def _check_data(builder: Builder, config: Any, files: Mapping[str, bytes], where: str) -> None:
    for field, name, tensor in _data_files(config, where):
        warmup.check_size(tensor.data_type, list(tensor.dims), files[name], f"{builder.file}: {field}")


def _check_labels(builder: Builder, config: Any, files: Mapping[str, bytes]) -> None:
    """Check that a label file has one line per class: Triton gives the other classes no name. Raises ConfigError."""
    for output in config.output:
        if not output.label_filename or not output.dims or -1 in output.dims:
            continue
        count = math.prod(output.dims)
        lines = files[output.label_filename].decode("utf-8", "replace").splitlines()
        if len(lines) != count:
            where = f"{builder.file}: outputs: '{output.name}' has {count} class{'es' * (count != 1)}"
            # A label is the number of a class, and Triton names the positions in an output.
            scores = "labels name the values of an output of scores, one for each class: give them to that output"
            raise ConfigError(
                f"{where}, {output.label_filename} has {len(lines)} lines",
                "write one name per line, in the order of the classes" if count != 1 else scores,
            )
