"""ModelConfig → `serving`, and a prebuilt model's model.yaml as text: what people read and `specfile` reads back.

`serving` is protobuf's JSON form with the fields' own names. YAML has more ways to misread a word than protobuf has to
write one, so what looks like something else is quoted, by YAML 1.1 (what reads it here) and 1.2 (what editors do).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from modelwright.triton.messages import is_map, is_repeated, map_value

_LINE_CHARS = 100  # a mapping or list that fits is written on one line
_NO_FOLDING = 2**31
_LARGEST_FLOAT = (2 - 2**-23) * 2.0**127  # of 32 bits
# YAML 1.2's core schema takes these for numbers or null; PyYAML, which follows 1.1, knows of some of them only.
_OTHERS_MISREAD = re.compile(
    r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0o?[0-7]+|0x[0-9a-fA-F]+|[-+]?\.inf|\.nan|[yYnN]", re.I
)


class _Block(dict[str, Any]):
    """A mapping with a line for each of its keys, however short."""


def as_yaml(text: str) -> str:
    """A text as YAML reads it back, in a list as well: quoted where it would be a number, or a word of YAML's own."""
    try:
        plain = text.isprintable() and yaml.safe_load(f"[{text}]") == [text] and yaml.safe_load(text) == text
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def serving_of(config: Any) -> dict[str, Any]:
    """A ModelConfig in protobuf's JSON form: fields that are set, by their own names; 64-bit numbers are numbers,
    32-bit floats the shortest decimal that is them, maps in order of their keys."""
    from google.protobuf import json_format

    fields = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return _with_numbers(fields, config.DESCRIPTOR)


def model_yaml(name: str, source: Mapping[str, Any], serving: Mapping[str, Any], head: str) -> str:
    """The text of a prebuilt model's model.yaml; `head` are the comments at its top."""
    laid_out = _Block(source)
    for field in ("versions", "golden"):
        if field in source:
            laid_out[field] = _Block(source[field])
    document = _Block(name=name, source=laid_out, serving=_Block(serving) if serving else {})
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_NO_FOLDING)
    return f"{head.rstrip()}\n{text}"


def _with_numbers(data: Mapping[str, Any], descriptor: Any) -> dict[str, Any]:
    fields = {name: descriptor.fields_by_name[name] for name in data}
    return {name: _plain(value, fields[name]) for name, value in data.items()}


def _plain(value: Any, field: Any) -> Any:
    if is_map(field):
        return {key: _one(value[key], map_value(field)) for key in sorted(value)}
    return [_one(item, field) for item in value] if is_repeated(field) else _one(value, field)


def _one(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return _with_numbers(value, field.message_type)
    if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
        return int(value)  # protobuf's JSON writes them as strings, since JavaScript has none
    if field.cpp_type == field.CPPTYPE_FLOAT and isinstance(value, float):
        return max(-_LARGEST_FLOAT, min(value, _LARGEST_FLOAT))  # rounded up to 8 digits, protobuf refuses it
    return value


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # specfile takes none

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # lists stand further right than their key


def _mapping(dumper: yaml.SafeDumper, data: dict[Any, Any]) -> yaml.Node:
    flow = not data or (not isinstance(data, _Block) and _is_short(data))
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=flow)


def _list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=not data or _is_short(data))


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    style = "'" if _OTHERS_MISREAD.fullmatch(data) else None
    if not data.isprintable():
        style = "|" if _is_prose(data) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


def _is_prose(data: str) -> bool:
    """Lines that stand in a block as they are: nothing at their ends, or at the beginning, that only quotes keep."""
    lines = data.split("\n")
    return not data[0].isspace() and all(line.isprintable() and line == line.rstrip() for line in lines)


def _is_short(data: Any) -> bool:
    text = json.dumps(data, ensure_ascii=False)
    return len(text) <= _LINE_CHARS and "\\n" not in text


_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(_Block, _mapping)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(str, _text)
