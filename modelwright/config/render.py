"""ModelConfig → config.pbtxt with Jinja. The text is parsed again and must give the same message.

The project's template is `templates/config.pbtxt.j2`. A builder's folder can have its own: a complete template, or one
that begins with `{% extends "project/config.pbtxt.j2" %}` and overrides blocks. Templates run sandboxed, can read only
the `*.j2` files of these two folders, and may not use undefined names.

A template gets `config`, the set fields by name; `source`, the file to edit; `environment`, the name of the environment
or ""; and `rest(name)`, one field as protobuf prints it.
"""

from __future__ import annotations

import json
import re
import struct
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from modelwright.errors import ConfigError
from modelwright.fsops import read_text
from modelwright.triton.messages import differences, is_map, is_repeated, map_value

TEMPLATE = "config.pbtxt.j2"
_PROJECT = "project/"  # prefix for a template of the project, also if the builder has one with this name
_LINE_CHARS = 100  # a field that fits is written on one line
_MOST_DIFFERENCES = 10
# In these messages kind 0 has a meaning, such as CONTROL_SEQUENCE_START, though protobuf leaves a 0 out.
_KINDS = {
    "inference.BatchInput",
    "inference.BatchOutput",
    "inference.ModelInstanceGroup.SecondaryDevice",
    "inference.ModelSequenceBatching.Control",
}
_TEMPLATE_NAME = re.compile(r"[\w-][\w.-]*\.j2")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile(r'[\\"\x00-\x1f\x7f]')
_ESCAPED_BYTES = re.compile(r'[\\"\x00-\x1f\x7f-\xff]')


@cache
def shipped_templates() -> Path:
    """The templates of this package: inside it when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


def template_files(folders: Sequence[Path]) -> list[Path]:
    """Every template that rendering may read; a key covers them."""
    return sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*.j2"))


def render(config: Any, source: str, folders: Sequence[Path], own: Path | None = None, environment: str = "") -> str:
    """The text of config.pbtxt. Templates are searched in `own` (the builder's folder), then in `folders` in order.

    `source` is the file to edit. Raises ConfigError for a template that fails, or whose text differs from `config`.
    """
    # Builders without a template of their own share a Jinja environment, which compiles each template once.
    jinja = _environment(tuple(folders), own if own and template_files([own]) else None)
    values = {
        "config": _fields(config),
        "source": source,
        "environment": environment,
        "rest": lambda name: _rest(config, name),
    }
    try:
        text = str(jinja.get_template(TEMPLATE).render(values))
    except Exception as error:  # a template is a program and can fail in any way
        raise _template_error(error, source) from None
    # One empty line between sections, however many the templates write; strings of a config contain no line breaks.
    lines = [line.rstrip() for line in text.strip().split("\n")]
    text = "\n".join(line for index, line in enumerate(lines) if line or lines[index - 1]) + "\n"
    _check(text, config, source)
    return text


def parse(text: str | bytes, source: str, kind: Any = None) -> Any:
    """Parse a config.pbtxt as a ModelConfig or a message of `kind`, as the server does. Raises ConfigError."""
    from modelwright.triton.pbtext import PbtxtError, parse_message

    try:
        return parse_message(text, kind)
    except PbtxtError as error:
        raise ConfigError(f"{source}: not a ModelConfig: {error}") from None


def plain_text(config: Any) -> str:
    """A config as protobuf prints it, for configs that nobody reads."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))


def as_json(config: Any) -> str:
    """A config as the server's load API takes it."""
    from google.protobuf import json_format

    return json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True))


def _check(text: str, config: Any, source: str) -> None:
    rendered = parse(text, f"{source}: rendered {TEMPLATE}", type(config))
    found = list(islice(differences(config, rendered), _MOST_DIFFERENCES + 1))
    if not found:
        return
    shown = [f"\n    {line}" for line in found[:_MOST_DIFFERENCES]]
    more = "\n    …" if len(found) > _MOST_DIFFERENCES else ""
    raise ConfigError(
        f"{source}: the text that {TEMPLATE} renders differs from the builder's config:{''.join(shown)}{more}",
        "a template only lays out fields; change values in model.yaml",
    )


# --- Jinja ------------------------------------------------------------------------------------------------------------


@cache
def _environment(folders: tuple[Path, ...], own: Path | None) -> Any:
    from jinja2 import FunctionLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def find(name: str) -> Path | None:
        """The builder's folder comes first, except for names below project/."""
        shared, name = name.startswith(_PROJECT), name.removeprefix(_PROJECT)
        for folder in folders if shared or own is None else (own, *folders):
            if _TEMPLATE_NAME.fullmatch(name) and _is_inside(folder / name, folder):
                return folder / name
        return None

    def load(name: str) -> tuple[str, str, Callable[[], bool]] | None:
        path = find(name)
        if path is None:
            return None
        changed = path.stat().st_mtime_ns
        return read_text(path), name, lambda: find(name) == path and path.stat().st_mtime_ns == changed

    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(load),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pbtxt"] = _inline
    environment.tests["map_field"] = lambda value: isinstance(value, _Map)
    environment.tests["message"] = lambda value: isinstance(value, dict) and not isinstance(value, _Map)
    environment.tests["messages"] = lambda value: isinstance(value, list) and isinstance(value[0], dict)
    environment.tests["short"] = _is_short
    return environment


def _is_inside(path: Path, folder: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _template_error(error: Exception, source: str) -> ConfigError:
    """The error with template and line: from a syntax error itself, otherwise from the traceback."""
    from jinja2 import TemplateNotFound, TemplateSyntaxError, UndefinedError

    if isinstance(error, TemplateSyntaxError):
        name, line = error.name or TEMPLATE, error.lineno
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
        name, line = (frames[-1].filename, frames[-1].lineno or 0) if frames else (TEMPLATE, 0)
    where = f"{source}: template {name}{f':{line}' if line else ''}"
    if isinstance(error, TemplateNotFound):
        hint = f"use a *.j2 file of the builder's folder, or {_PROJECT}NAME for one of the project"
        return ConfigError(f"{where}: unknown template '{error.name}'", hint)
    kind = "" if isinstance(error, TemplateSyntaxError | UndefinedError) else f"{type(error).__name__}: "
    return ConfigError(f"{where}: {kind}{' '.join(str(error).split())}")


# --- a message as templates see it ------------------------------------------------------------------------------------


class _Enum(str):
    """The name of an enum's value, which is written without quotes."""


class _Map(dict[Any, Any]):
    """A map field, whose entries are written as { key: …, value: … }; a plain dict is a message."""


def _fields(message: Any) -> dict[str, Any]:
    """The set fields of a message, as dicts, lists, numbers and strings; 64-bit integers are numbers."""
    found = {field.name: _value(field, value) for field, value in message.ListFields()}
    if message.DESCRIPTOR.full_name in _KINDS and "kind" not in found:
        found["kind"] = _Enum(message.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number[0].name)
    return found


def _value(field: Any, value: Any) -> Any:
    if is_map(field):
        return _Map({key: _one(map_value(field), value[key]) for key in sorted(value)})
    return [_one(field, item) for item in value] if is_repeated(field) else _one(field, value)


def _one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _fields(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return _Enum(known.name) if known else value
    return _shortest(value) if field.cpp_type == field.CPPTYPE_FLOAT else value


def _shortest(value: float) -> float:
    """The shortest decimal form of a 32-bit number: 0.1, not 0.10000000149011612."""
    for digits in range(6, 9):
        rounded = float(f"{value:.{digits}g}")
        if abs(rounded) <= abs(value) * 2 and struct.pack("f", rounded) == struct.pack("f", value):
            return rounded
    return value


# --- protobuf's text format -------------------------------------------------------------------------------------------


def inline(message: Any) -> str:
    """A message on one line."""
    return _inline(_fields(message))


def _inline(value: Any) -> str:
    """Any value on one line."""
    if isinstance(value, _Enum):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | bytes):
        return quoted(value)
    if isinstance(value, list):
        return f"[ {', '.join(map(_inline, value))} ]" if value else "[ ]"
    if isinstance(value, dict):
        parts = [part for name, item in value.items() for part in _inline_field(name, item)]
        return f"{{ {', '.join(parts)} }}" if parts else "{ }"
    return str(value)


def _inline_field(name: str, value: Any) -> list[str]:
    if isinstance(value, _Map):
        return [f"{name} {{ key: {_inline(key)}, value: {_inline(item)} }}" for key, item in value.items()]
    return [f"{name} {_inline(value)}" if isinstance(value, dict) else f"{name}: {_inline(value)}"]


def quoted(value: str | bytes) -> str:
    """A string in quotes, as both of protobuf's parsers read it: with octal escapes, where JSON has \\u."""
    characters, escaped = (value, _ESCAPED) if isinstance(value, str) else (value.decode("latin-1"), _ESCAPED_BYTES)
    text = escaped.sub(lambda match: _ESCAPES.get(match[0]) or f"\\{ord(match[0]):03o}", characters)
    return f'"{text}"'


def _is_short(value: Any, notes: Mapping[str, str], pad: str = "") -> bool:
    """Whether a value goes on one line: it fits, and none of its fields has a note."""
    return len(pad) + len(_inline(value)) <= _LINE_CHARS and not _is_noted(value, notes)


def _is_noted(value: Any, notes: Mapping[str, str]) -> bool:
    if isinstance(value, list):
        return any(_is_noted(item, notes) for item in value)
    if not isinstance(value, dict):
        return False
    named = False if isinstance(value, _Map) else bool(value.keys() & notes.keys())
    return named or any(_is_noted(item, notes) for item in value.values())


def _rest(config: Any, name: str) -> str:
    """One field of the message, as protobuf prints it."""
    part = type(config)()
    part.CopyFrom(config)
    for field, _ in config.ListFields():
        if field.name != name:
            part.ClearField(field.name)
    return plain_text(part)
