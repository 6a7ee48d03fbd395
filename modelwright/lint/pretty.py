"""Configs and JSON laid out over lines, as a person writes them: what is short stays on one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from modelwright.triton.pbtext import Field, PbtxtError, parse_tree

_WIDTH = 60
_MOST_VALUES = 2  # on one line
_STEP = "  "


def config_lines(text: str) -> list[str]:
    """A config, or lines of one, laid out; as it is, if it does not parse. Comments are lost."""
    try:
        return _fields(parse_tree(text).roots)
    except PbtxtError:
        return text.splitlines()


def _fields(fields: Sequence[Field]) -> list[str]:
    return [line for group in _written(fields) for line in _field(group)]


def _written(fields: Sequence[Field]) -> Iterator[list[Field]]:
    """Fields by where their name is written: the elements of a list share one."""
    for _, group in groupby(fields, key=lambda field: (field.name_line, field.name_column)):
        yield list(group)


def _field(group: Sequence[Field]) -> list[str]:
    inline = _inline(group)
    if all(field.value is not None for field in group) or (len(inline) <= _WIDTH and _values(group) <= _MOST_VALUES):
        return [inline]
    name, in_list = group[0].name, group[0].form == "list"
    messages = [["{", *_indented(_fields(field.children)), "}"] for field in group]
    if not in_list:
        return [f"{name} {{", *messages[0][1:]]
    for message in messages[:-1]:
        message[-1] += ","
    return [f"{name} [", *_indented([line for message in messages for line in message]), "]"]


def _inline(group: Sequence[Field]) -> str:
    first, elements = group[0], [_value(field) for field in group]
    if first.form in ("empty", "bare"):
        return f"{first.name}: [ ]" if first.form == "empty" else f"{first.name} [ ]"
    value = f"[ {', '.join(elements)} ]" if first.form == "list" else elements[0]
    return f"{first.name} {value}" if first.value is None else f"{first.name}: {value}"


def _value(field: Field) -> str:
    if field.value is not None:
        return field.value
    between = " " if field.key is not None else ", "
    return f"{{ {between.join(map(_inline, _written(field.children)))} }}" if field.children else "{ }"


def _values(group: Sequence[Field]) -> int:
    """How many values are written, a list of numbers as one."""
    if all(field.value is not None for field in group):
        return 1
    return sum(_values(inner) for field in group for inner in _written(field.children))


def json_lines(value: Any) -> list[str]:
    """JSON laid out."""
    text = json.dumps(value)
    if len(text) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return [text]
    if isinstance(value, list):
        parts = [json_lines(item) for item in value]
    else:
        parts = [_with_key(key, json_lines(item)) for key, item in value.items()]
    for part in parts[:-1]:
        part[-1] += ","
    opening, closing = ("[", "]") if isinstance(value, list) else ("{", "}")
    return [opening, *_indented([line for part in parts for line in part]), closing]


def _with_key(key: str, lines: list[str]) -> list[str]:
    return [f"{json.dumps(key)}: {lines[0]}", *lines[1:]]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"{_STEP}{line}" for line in lines]
