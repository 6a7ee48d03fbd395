"""Protobuf messages, walked by their descriptors; nothing here is about ModelConfig.

`check` compares plain data with a message type, and raises where it does not fit; `compared` and `differences` compare
two messages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from modelwright.errors import ConfigError
from modelwright.suggest import did_you_mean


def is_repeated(field: Any) -> bool:
    # protobuf 6.31 deprecates `label`; older ones have nothing else.
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def is_map_entry(message: Any) -> bool:
    """Whether a message type is that of a map's entries: one with options and these two fields.

    Reading the options would import the messages that describe messages, which takes longer than to lint a model.
    """
    return bool(message.has_options) and [field.name for field in message.fields] == ["key", "value"]


def is_map(field: Any) -> bool:
    return field.message_type is not None and is_map_entry(field.message_type)


def map_value(field: Any) -> Any:
    """The field that describes a map's values."""
    return field.message_type.fields_by_name["value"]


# --- plain data against a message type --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FieldType:
    """What `check` needs to know about a field. Looked up once: descriptors are slow, and every build checks."""

    kind: str  # "message", "enum", "string", "bool", "number" or "whole"
    message: Any  # the descriptor, of a message
    enum: Any  # the descriptor, of an enum
    key: _FieldType | None  # of a map; the rest is about its values
    repeated: bool
    low: int
    high: int


@cache
def _message(descriptor: Any) -> tuple[dict[str, _FieldType], list[list[str]]]:
    """The fields of a message by name, and the names of each oneof."""
    known = {field.name: _field(field) for field in descriptor.fields}
    return known, [[field.name for field in oneof.fields] for oneof in descriptor.oneofs]


def _field(field: Any) -> _FieldType:
    if is_map(field):
        key = _field(field.message_type.fields_by_name["key"])
        return replace(_field(map_value(field)), key=key)
    kinds = {field.CPPTYPE_STRING: "string", field.CPPTYPE_BOOL: "bool"}
    kinds |= dict.fromkeys((field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE), "number")
    kinds |= {field.CPPTYPE_MESSAGE: "message", field.CPPTYPE_ENUM: "enum"}
    bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = kinds.get(field.cpp_type, "whole")
    return _FieldType(kind, field.message_type, field.enum_type, None, is_repeated(field), low, high)


def check(value: Any, descriptor: Any, where: str) -> None:
    """Check data in protobuf's JSON form, with the fields' own names, against a message type.

    Raises ConfigError that names the field by its path. A null means that the field is left out.
    """
    if not isinstance(value, Mapping):
        raise _expected(where, "fields", value)
    known, oneofs = _message(descriptor)
    for name, item in value.items():
        if name not in known:
            raise ConfigError(f"{where}.{name}: unknown field", did_you_mean(str(name), known))
        if item is not None:
            _check_field(item, known[name], f"{where}.{name}")
    for names in oneofs:
        given = [name for name in names if value.get(name) is not None]
        if len(given) > 1:
            hint = "keep one; in an environment, null removes the other"
            raise ConfigError(f"{where}: {' and '.join(given)} exclude each other", hint)


def _check_field(value: Any, field: _FieldType, where: str) -> None:
    if field.key is not None:
        if not isinstance(value, Mapping):
            raise _expected(where, "a mapping", value)
        for key, item in value.items():
            _check_one(key, field.key, f"{where}.{key}")
            _check_one(item, field, f"{where}.{key}")
    elif field.repeated:
        if not isinstance(value, list):
            raise _expected(where, "a list", value)
        for index, item in enumerate(value):
            _check_one(item, field, f"{where}[{index}]")
    else:
        _check_one(value, field, where)


def _check_one(value: Any, field: _FieldType, where: str) -> None:
    if field.kind == "message":
        check(value, field.message, where)
    elif field.kind == "enum":
        _check_enum(value, field.enum, where)
    elif field.kind == "string":
        if not isinstance(value, str):
            raise _expected(where, "a string", value, f'quote it: "{value}"' if isinstance(value, int | float) else "")
    elif field.kind == "bool":
        if not isinstance(value, bool):
            raise _expected(where, "true or false", value)
    elif field.kind == "number":
        if _number(value) is None:
            raise _expected(where, "a number", value)
    else:
        _check_whole(value, field, where)


def _check_enum(value: Any, enum: Any, where: str) -> None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    known = enum.values_by_number if is_number else enum.values_by_name
    if not isinstance(value, int | str) or value not in known:
        names = list(enum.values_by_name)
        hint = f"known: {', '.join(names)}" if is_number else did_you_mean(str(value), names)
        raise ConfigError(f"{where}: {value!r} is not a value of {enum.name}", hint)


def _check_whole(value: Any, field: _FieldType, where: str) -> None:
    number = _number(value)
    if number is None or not math.isfinite(number) or number != int(number):
        raise _expected(where, "a whole number", value)
    whole = int(number)
    if not field.low <= whole <= field.high:
        raise ConfigError(f"{where}: {whole} is out of range: {field.low} to {field.high}")


def _number(value: Any) -> float | int | None:
    """A number, also one written as a string: protobuf's JSON form has both. None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return None


def _expected(where: str, wanted: str, value: Any, hint: str = "") -> ConfigError:
    shown = {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value)) or repr(value)
    return ConfigError(f"{where}: expected {wanted}, got {shown}", hint)


# --- two messages -----------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """One field that differs between two messages: its path, and its value in each; None where it is not set."""

    path: str
    expected: str | None
    actual: str | None


def differences(expected: Any, actual: Any) -> Iterator[str]:
    """How two messages of one type differ: `dynamic_batching.priority_levels: expected 2, got 1`, in order of fields.

    NaN equals NaN here, unlike in Python's comparison of messages.
    """
    for path, wanted, found in compared(expected, actual):
        if wanted is None:
            yield f"{path}: added, got {found}"
        else:
            yield f"{path}: missing, expected {wanted}" if found is None else f"{path}: expected {wanted}, got {found}"


def compared(expected: Any, actual: Any, path: str = "") -> Iterator[Difference]:
    """The fields in which two messages of one type differ, in order of fields."""
    for field in expected.DESCRIPTOR.fields:
        where = f"{path}.{field.name}" if path else field.name
        wanted, found = getattr(expected, field.name), getattr(actual, field.name)
        if is_map(field):
            yield from _map_differences(field, wanted, found, where)
        elif is_repeated(field):
            yield from _list_differences(field, wanted, found, where)
        elif field.has_presence:
            there = expected.HasField(field.name), actual.HasField(field.name)
            if there != (False, False):
                yield from _pair(field, wanted if there[0] else None, found if there[1] else None, where)
        else:
            yield from _pair(field, wanted, found, where)


def _map_differences(field: Any, expected: Any, actual: Any, where: str) -> Iterator[Difference]:
    for key in sorted({*expected, *actual}):
        yield from _pair(map_value(field), expected.get(key), actual.get(key), f"{where}[{key!r}]")


def _list_differences(field: Any, expected: Any, actual: Any, where: str) -> Iterator[Difference]:
    if field.message_type is None:
        if list(map(repr, expected)) != list(map(repr, actual)):
            yield Difference(where, _shown_list(field, expected), _shown_list(field, actual))
        return
    for index in range(max(len(expected), len(actual))):
        wanted = expected[index] if index < len(expected) else None
        yield from _pair(field, wanted, actual[index] if index < len(actual) else None, f"{where}[{index}]")


def _pair(field: Any, expected: Any, actual: Any, where: str) -> Iterator[Difference]:
    """Compare two values; None is a value that is not set."""
    if expected is not None and actual is not None and field.message_type is not None:
        yield from compared(expected, actual, where)
    elif expected is None or actual is None or repr(expected) != repr(actual):
        wanted, found = (None if value is None else _shown(field, value) for value in (expected, actual))
        yield Difference(where, wanted, found)


def _shown_list(field: Any, values: Any) -> str:
    return f"[{', '.join(_shown(field, value) for value in values)}]"


def _shown(field: Any, value: Any, limit: int = 80) -> str:
    if field.message_type is not None:
        from google.protobuf import text_format

        text = "{ " + text_format.MessageToString(value, as_one_line=True) + " }" if value.ByteSize() else "{}"
    elif field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        text = known.name if known else str(value)
    else:
        text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
