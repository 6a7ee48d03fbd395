"""Reading model.yaml files: YAML with its traps closed, and errors that name the line, the field and the fix."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from modelwright.errors import KindError, SpecError
from modelwright.fsops import not_a_file, read_text
from modelwright.project.project import ProjectConfig
from modelwright.project.spec import (
    FILE,
    Builder,
    Gates,
    Lookups,
    MetricGate,
    ModelSpec,
    Slo,
    VariantSpec,
    is_model_name,
    parse_spec,
)
from modelwright.project.variants import models_of
from modelwright.suggest import did_you_mean
from modelwright.triton.file_types import ANNEX_POINTER, EMPTY, HTML, LFS_POINTER, file_type

_MAX_DEPTH = 100
_SHALLOW_CHARS = 8_000  # what fits in here cannot nest deeply enough to exhaust the C parser's stack
_MAX_BYTES = 1_000_000  # a model.yaml is a page; more than this is a mistake or an attack


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAME_LINE = re.compile(r"""^name:\s*["']?([^\s"'#]+)""", re.MULTILINE)
_VARIANTS = re.compile(r"^variants:.*\n(?:[ \t#-].*\n?|\n)*", re.MULTILINE)  # up to the next field of the file
_VARIANT_NAME = re.compile(r"""\bname:\s*["']?([^\s"'#,}]+)""")


@dataclass(frozen=True)
class Builders:
    """The builders of a project by model name, in order of name."""

    valid: dict[str, Builder]
    faulty: dict[str, Exception]  # what is wrong with each of the others: a ModelwrightError, unless it is a bug


def read_builders(project: ProjectConfig, lookups: Lookups) -> Builders:
    """Every builder of the project. One that is faulty keeps no other from being read.

    Errors name the file and line. Raises SpecError where there is no folder of builders.
    """
    if not project.builders.is_dir():
        raise SpecError(f"{project.shown(project.builders)}: there is no such folder", "make one: modelwright new NAME")
    valid: dict[str, Builder] = {}
    faulty: dict[str, Exception] = {}
    for folder in sorted(project.builders.iterdir()):
        try:
            if not os.path.lexists(folder / FILE):
                _check_no_other_name(folder, project.shown(folder))
                continue
            models = models_of(read_builder(folder, project.shown(folder / FILE), lookups))
        except Exception as error:
            faulty |= dict.fromkeys(_meant_names(folder), error)
            continue
        for builder in models:
            if builder.name in valid:
                message = f"{builder.file}: the name '{builder.name}' is taken by {valid[builder.name].file}"
                faulty[builder.name] = SpecError(message, "give one another name")
            valid.setdefault(builder.name, builder)
    # Two builders that claim one name: which of them is meant is not known.
    return _completed({name: valid[name] for name in sorted(valid) if name not in faulty}, faulty)


def _completed(valid: dict[str, Builder], faulty: dict[str, Exception]) -> Builders:
    """The builders with what follows from others."""
    found: dict[str, Builder] = {}
    wrong: dict[str, Exception] = {}
    for name, builder in valid.items():
        try:
            found[name] = replace(builder, spec=builder.spec.source.completed(builder, valid, faulty))
        except Exception as error:
            wrong[name] = error
    return Builders(found, faulty | wrong)


def _meant_names(folder: Path) -> list[str]:
    """The models that a faulty model.yaml is about, as far as they can be made out: the one that its `name` says, else
    that of its folder, and those of its variants."""
    text = ""
    with contextlib.suppress(OSError):
        if (folder / FILE).is_file():  # a pipe would make this wait
            text = read_text(folder / FILE, errors="replace")[:_MAX_BYTES]
    found = _NAME_LINE.search(text)
    below = _VARIANTS.search(text)
    variants = [name for name in _VARIANT_NAME.findall(below[0]) if is_model_name(name)] if below else []
    return [found[1] if found and is_model_name(found[1]) else folder.name, *variants]


def read_builder(folder: Path, shown: str, lookups: Lookups) -> Builder:
    """Read `folder`/model.yaml; `shown` is how messages call it. Raises SpecError.

    `lookups` finds the models of source kinds and techniques: `variants.registry.LOOKUPS`.
    """
    data = _parse(folder / FILE, shown)
    if not isinstance(data, dict):
        raise _no_mapping(folder / FILE, shown, data)
    data.setdefault("name", folder.name)
    try:
        spec = parse_spec(data, lookups)
    except ValidationError as error:
        raise _spec_error(error, folder / FILE, shown, data, lookups) from None
    except KindError as error:
        line = _line(folder / FILE, ("source", "kind"))
        raise SpecError(f"{shown}:{line}: source.kind: {error.message}", error.hint) from error
    return Builder(folder, shown, spec)


def _no_mapping(file: Path, shown: str, data: Any) -> SpecError:
    found = file_type(file)
    if found in (EMPTY, LFS_POINTER, ANNEX_POINTER, HTML):
        return SpecError(f"{shown}: it is {found.what}", found.fix)
    what = "nothing but comments" if data is None else "a list" if isinstance(data, list) else "one value"
    hint = "modelwright new NAME writes a builder with one that works, to compare with"
    return SpecError(f"{shown}: fields are needed (name: value), got {what}", hint)


def slo_of(project: ProjectConfig, model: str, lookups: Lookups) -> Slo | None:
    """A model's `slo:`, as its model.yaml says now; None where it says nothing, or nothing here builds the model.

    Only that one file is read, unless the builder's folder has another name. Raises SpecError.
    """
    folder = project.builders / model
    if (folder / FILE).is_file():
        builder = read_builder(folder, project.shown(folder / FILE), lookups)
        if builder.name == model:
            return builder.spec.slo
    if not project.builders.is_dir():
        return None
    builders = read_builders(project, lookups)
    if model in builders.faulty:
        raise builders.faulty[model]
    return builders.valid[model].spec.slo if model in builders.valid else None


def _check_no_other_name(folder: Path, shown: str) -> None:
    """A folder without a model.yaml is no builder; one with a model.yml was meant to be."""
    for name in ("model.yml", "Model.yaml", "model.yaml.txt"):
        if (folder / name).exists():
            raise SpecError(f"{shown}/{name}: is not read", f"rename it to {FILE}")


def _parse(file: Path, shown: str) -> Any:
    try:
        if problem := not_a_file(file):
            raise SpecError(f"{shown}: {problem}", "a builder's model.yaml is a file")
        if file.stat().st_size > _MAX_BYTES:
            raise SpecError(f"{shown}: larger than {_MAX_BYTES:,} bytes", "keep data in files of its own")
        text = read_text(file)
    except OSError as error:
        raise SpecError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{shown}: not UTF-8 at byte {error.start}") from error
    try:
        _check_depth(text)
        return _construct(_Loader(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SpecError(f"{shown}{where}: not valid YAML: {error.problem}", _yaml_hint(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{shown}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpecError(f"{shown}: nested too deeply") from None


def _check_depth(text: str) -> None:
    """The C parser composes recursively, and a stack that overflows there takes the process with it."""
    if len(text) <= _SHALLOW_CHARS:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                mark: Any = event.start_mark
                problem = f"nested more than {_MAX_DEPTH} levels deep"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _construct(loader: Any) -> Any:
    """The document as plain data. A key given twice is an error, and so is an alias: a page needs none, a bomb does."""
    node = loader.get_single_node()
    if node is None:
        return None
    seen, waiting = set(), [node]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=current.start_mark)
        seen.add(id(current))
        if isinstance(current, yaml.MappingNode):
            keys = set()
            for key, value in current.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a key must be a plain word", problem_mark=key.start_mark)
                if key.value in keys:
                    raise yaml.MarkedYAMLError(problem=f"'{key.value}' is given twice", problem_mark=key.start_mark)
                keys.add(key.value)
                waiting.append(value)
        elif isinstance(current, yaml.SequenceNode):
            waiting.extend(current.value)
    return loader.construct_document(node)


def _yaml_hint(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    if "mapping values are not allowed" in problem:
        return "quote a value that contains ': '"
    if "\\t" in problem or "found character" in problem:
        return "indent with spaces, not tabs"
    return ""


def _spec_error(error: ValidationError, file: Path, shown: str, data: dict[str, Any], lookups: Lookups) -> SpecError:
    """The first problem, as `file:line: field: what`; pydantic's own wording only where it reads well."""
    # A misspelt field makes two problems, one unknown and one missing: the first explains the second.
    first = min(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    path = _field_path(first["loc"])
    where = f"{shown}:{_line(file, path)}"
    field = _dotted(path)
    kind = first["type"]
    if kind == "extra_forbidden":
        known = _model_at(path, data, lookups).model_fields
        return SpecError(f"{where}: {field}: unknown field", did_you_mean(str(path[-1]), known))
    if kind == "missing":
        return SpecError(f"{where}: {field}: missing", "")
    if kind == "too_short":
        return SpecError(f"{where}: {field}: is empty: give at least {first['ctx']['min_length']}")
    message = first["msg"].removeprefix("Value error, ")
    prefix = f"{where}: {field}: " if path else f"{where}: "
    given = first["input"]
    got = f", got {given!r}" if kind != "value_error" and not isinstance(given, dict | list) else ""
    text = message if kind == "value_error" else message[0].lower() + message[1:].replace("a valid tuple", "a list")
    return SpecError(f"{prefix}{text}{got}")


def _field_path(loc: Sequence[int | str]) -> tuple[int | str, ...]:
    """pydantic's location, less the branches of plain unions, which are no fields."""
    return tuple(part for part in loc if part not in ("int", "str", "float", "[key]"))


def _dotted(path: Sequence[int | str]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _model_at(path: Sequence[int | str], data: dict[str, Any], lookups: Lookups) -> type[BaseModel]:
    """The model among whose fields the last part of a path was looked for."""
    model: type[BaseModel] = ModelSpec
    for part in path[:-1]:
        field = model.model_fields.get(str(part))
        if model is ModelSpec and part == "source":
            model = lookups.source(data["source"]["kind"])
        elif field is not None:
            model = _model_in(field.annotation) or model
        elif model is Gates:
            model = MetricGate
        elif model is VariantSpec and isinstance(part, str):  # a technique, below steps[0]
            model = lookups.options(part)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation: `tuple[EnsembleStep, ...]` has one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _line(file: Path, path: Sequence[int | str]) -> int:
    """The line of a field, or of the nearest field around it: found again in the file, since only errors need it."""
    node = yaml.compose(read_text(file), Loader=yaml.SafeLoader)
    line = 1
    for part in path:
        pairs: list[Any] = node.value if isinstance(node, yaml.MappingNode | yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in pairs if key.value == str(part)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(part, int) and part < len(pairs):
            node = pairs[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
