"""Any ModelConfig: a hypothesis strategy made of the message's own descriptor, and realistic ones by hand."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from modelwright.triton.messages import is_map, is_repeated, map_value
from modelwright.triton.model_config_pb2 import schema

_MOST_FIELDS = 6  # of one message, so that a config stays readable
_DEPTH = 5

# What YAML, Jinja, protobuf's text format or a person takes for something else.
TRICKY = (
    "", " ", "~", "null", "Null", "yes", "no", "on", "off", "y", "n", "true", "False", "1", "01", "0x1f", "0o17", "0b11",
    "1e3", "1.0", ".5", "5.", "-.inf", ".nan", "1_000", "1:30", "2024-01-01", "=", "<<", "-", "- a", "?", "? a", ":", "a: b",
    ": #", "# a", "a #b", "!tag", "&anchor", "*alias", "|", ">", "@", "`", "%", "{", "}", "[a]", "a,b", '"', "'", "''", "\\",
    "\\n", "a\nb", "\n", "\n\n a\n", "a\n", " a\nb ", "a\r\nb", "\t", "\ta", "a\tb\n", "---", "...", "\x00", "\x07", "\x1b", "\x7f",
    "\x85", "\xa0", "\u2028", "\ufeff", "\ufffe", "é", "模型", "😀", "\U0010ffff", "{{ x }}", "{% raw %}", "{#", "$name", "x" * 300,
)  # fmt: skip

_text = st.one_of(st.sampled_from(TRICKY), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
_whole = {
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT32": st.integers(0, 2**32 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
}
_small = st.integers(0, 8)


def _scalar(field: Any) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.cpp_type == field.CPPTYPE_STRING:
        return _text
    if field.cpp_type == field.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == field.CPPTYPE_FLOAT:
        return st.floats(width=32) | st.sampled_from(
            [0.1, -0.0, struct.unpack("f", b"\x01\0\0\0")[0], 3.4028234663852886e38]
        )
    if field.cpp_type == field.CPPTYPE_DOUBLE:
        return st.floats()
    kind = next(name for name in _whole if field.cpp_type == getattr(field, f"CPPTYPE_{name}"))
    return _small | _whole[kind]


def _one(draw: st.DrawFn, field: Any, depth: int) -> Any:
    if field.message_type is not None:
        return _message(draw, field.message_type, depth)
    return draw(_scalar(field))


def _message(draw: st.DrawFn, descriptor: Any, depth: int) -> dict[str, Any]:
    """{field: value} of some of a message's fields, one of each oneof at most; values may be the defaults."""
    names = [field.name for field in descriptor.fields if depth or field.message_type is None]
    chosen = draw(st.lists(st.sampled_from(names), max_size=_MOST_FIELDS, unique=True)) if names else []
    found: dict[str, Any] = {}
    taken: set[str] = set()
    for name in chosen:
        field = descriptor.fields_by_name[name]
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in taken:
            continue
        taken |= {oneof.name} if oneof is not None else set()
        if is_map(field):
            keys = draw(st.lists(_scalar(field.message_type.fields_by_name["key"]), max_size=3, unique=True))
            found[name] = {key: _one(draw, map_value(field), depth - 1) for key in keys}
        elif is_repeated(field):
            found[name] = [_one(draw, field, depth - 1) for _ in range(draw(st.integers(0, 3)))]
        else:
            found[name] = _one(draw, field, depth - 1)
    return found


def _fill(message: Any, data: dict[str, Any]) -> Any:
    for name, value in data.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        target = getattr(message, name)
        if is_map(field):
            for key, item in value.items():
                if map_value(field).message_type is not None:
                    _fill(target[key], item)
                else:
                    target[key] = item
        elif is_repeated(field):
            for item in value:
                _fill(target.add(), item) if field.message_type is not None else target.append(item)
        elif field.message_type is not None:
            target.SetInParent()
            _fill(target, value)
        else:
            setattr(message, name, value)
    return message


@st.composite
def model_configs(draw: st.DrawFn) -> Any:
    """A ModelConfig with any of its fields: nothing that a server would load, everything that protobuf holds."""
    return _fill(schema().ModelConfig(), _message(draw, schema().ModelConfig.DESCRIPTOR, _DEPTH))
