"""The JSON schema of model.yaml, by which editors complete fields and underline mistakes.

It is made from the models of `spec` and of every kind of source, and from ModelConfig's own descriptors for `serving`,
so that it knows every field that a build takes. It says less than a build does: what depends on several fields at once
is left to that.

A model.yaml names it in its first line, by a path relative to itself. So the schema has to be in the project: `new`
and `adopt` write it to `schemas/model.schema.json`, which is to be committed. Not to `.modelwright/`, which no clone
has and `make clean` removes; nor to a path in the installed package, which is another one on every machine; nor to a
URL, which needs a network, and another address for each version.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache, reduce
from importlib.resources import files
from operator import or_
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model

from modelwright.config.model_config import ENVIRONMENTS
from modelwright.fsops import disk_errors, read_text
from modelwright.kinds.kind import Kind
from modelwright.kinds.registry import registered
from modelwright.project.project import ProjectConfig
from modelwright.project.spec import EXPORT, ModelSpec
from modelwright.triton.messages import is_map, is_repeated, map_value
from modelwright.triton.model_config_pb2 import schema
from modelwright.variants.registry import find
from modelwright.variants.registry import names as technique_names

PLACE = "schemas/model.schema.json"
_MARK = "Made by `modelwright export-schema` from the code."
_DERIVED = (
    "name",
    "platform",
    "backend",
)  # of ModelConfig; they follow from the builder, unless its kind takes the whole config
_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["Infinity", "-Infinity", "NaN"]}]}
_BITS = {"INT32": (True, 32), "INT64": (True, 64), "UINT32": (False, 32), "UINT64": (False, 64)}
_DIMENSION = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": -1}, {"type": "string", "minLength": 1}]}


def model_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    notes = json.loads((files("modelwright.triton") / "data/field_notes.json").read_text(encoding="utf-8"))
    kinds = list(registered().kinds.values())
    made: dict[str, Any] = _without_titles(_with_sources(kinds).model_json_schema())
    definitions: dict[str, Any] = made.pop("$defs") | _config_definitions()
    definitions["Serving"] = _serving(definitions["ModelConfig"], leave=_DERIVED)
    definitions["WholeServing"] = _serving(definitions["ModelConfig"], leave=())
    made["properties"]["serving"] = {"type": "object"}
    definitions |= _techniques()
    definitions["VariantSpec"]["properties"]["steps"]["items"] = _chain_step()
    definitions["VariantSpec"]["properties"]["serving"] = {"$ref": "#/$defs/Serving"}
    made["required"].remove("name")  # the folder's name stands in
    del made["properties"]["source"]["discriminator"]  # OpenAPI's, not JSON schema's
    for tensor in ("TensorSpec", "OutputSpec"):
        definitions[tensor]["properties"]["shape"]["items"] = _DIMENSION
    _describe({"ModelSpec": made, **definitions}, notes)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": _MARK,
        "title": "model.yaml",
        "description": "One model of a Triton repository, as Modelwright builds it.",
        **made,
        "allOf": _needed_by_kind(kinds),
        "$defs": dict(sorted(definitions.items())),
    }


@cache
def schema_text() -> str:
    return json.dumps(model_schema(), indent=1, ensure_ascii=False) + "\n"


def put_into(project: ProjectConfig) -> bool:
    """Write the project's schema where it is missing or an older one of ours; a file of anyone else stays."""
    path, text = project.root / PLACE, schema_text()
    with disk_errors(path):
        before = read_text(path, errors="replace") if path.is_file() else None
        if before == text or (before is not None and _MARK not in before):
            return False
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return True


def editor_line(project: ProjectConfig, folder: Path) -> str:
    """The first line of a model.yaml in `folder`: where language servers find the schema."""
    relative = Path(os.path.relpath(project.root / PLACE, folder)).as_posix()
    return f"# yaml-language-server: $schema={relative}\n"


# --- what pydantic knows ----------------------------------------------------------------------------------------------


def _without_titles(value: Any, *, names_fields: bool = False) -> Any:
    """pydantic gives everything a title made of its name, which says nothing more."""
    if isinstance(value, list):
        return [_without_titles(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = value.items() if names_fields else ((key, item) for key, item in value.items() if key != "title")
    return {key: _without_titles(item, names_fields=key in ("properties", "$defs")) for key, item in kept}


def _with_sources(kinds: Sequence[Kind[Any]]) -> type[ModelSpec]:
    """ModelSpec with the model of every kind at `source`."""
    union: Any = reduce(or_, (kind.source for kind in kinds))
    source: Any = Annotated[union, Field(discriminator="kind")]
    return create_model("ModelSpec", __base__=ModelSpec, source=(source, ...))


def _techniques() -> dict[str, Any]:
    """The options of every technique, and what they are made of."""
    found: dict[str, Any] = {}
    for name in technique_names():
        options = _without_titles(find(name).options.model_json_schema())
        found |= options.pop("$defs", {})
        found[_options(name)] = options
    return found


def _options(technique: str) -> str:
    return f"{technique.title().replace('_', '')}Options"


def _chain_step() -> dict[str, Any]:
    """One entry of a variant's `steps`: a technique, or a technique with options."""
    names = technique_names()
    properties = {name: {"anyOf": [{"$ref": f"#/$defs/{_options(name)}"}, {"type": "null"}]} for name in names}
    options = {"type": "object", "additionalProperties": False, "properties": properties}
    return {"anyOf": [{"enum": [*names, EXPORT]}, {**options, "minProperties": 1, "maxProperties": 1}]}


def _needed_by_kind(kinds: Sequence[Kind[Any]]) -> list[dict[str, Any]]:
    def when(names: list[str], then: dict[str, Any], otherwise: dict[str, Any] | None = None) -> dict[str, Any]:
        named = {
            "properties": {"source": {"properties": {"kind": {"enum": names}}, "required": ["kind"]}},
            "required": ["source"],
        }
        return {"if": named, "then": then, **({"else": otherwise} if otherwise else {})}

    def serving(definition: str) -> dict[str, Any]:
        return {"properties": {"serving": {"$ref": f"#/$defs/{definition}"}}}

    return [
        when([kind.name for kind in kinds if kind.whole_config], serving("WholeServing"), serving("Serving")),
        when([kind.name for kind in kinds if kind.source.needs_samples], {"required": ["samples"]}),
        when([kind.name for kind in kinds if kind.source.needs_tensors], {"required": ["inputs", "outputs"]}),
    ]


def _describe(definitions: dict[str, Any], notes: dict[str, str]) -> None:
    """Put what is known of a field, `Definition.field`, where editors show it."""
    for name, definition in definitions.items():
        base = "ModelConfig" if name in ("Serving", "WholeServing") else name
        for field, described in definition.get("properties", {}).items():
            note = notes.get(f"{name}.{field}") or notes.get(
                f"Serving.{field}" if field == ENVIRONMENTS else f"{base}.{field}"
            )
            if note:
                described["description"] = note


# --- what ModelConfig's descriptors know ------------------------------------------------------------------------------


def _serving(config: dict[str, Any], leave: tuple[str, ...]) -> dict[str, Any]:
    """`serving`: a ModelConfig, and `environments`, each of them the same again."""
    kept = {name: dict(field) for name, field in config["properties"].items() if name not in leave}
    patch = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {n: dict(f) for n, f in kept.items()},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**kept, ENVIRONMENTS: {"type": ["object", "null"], "additionalProperties": patch}},
    }


def _config_definitions() -> dict[str, Any]:
    """{name: schema} of ModelConfig and of every message in it."""
    found: dict[str, Any] = {}
    waiting = [schema().ModelConfig.DESCRIPTOR]
    while waiting:
        descriptor = waiting.pop()
        if _name(descriptor) in found:
            continue
        properties = {field.name: _field(field, waiting) for field in descriptor.fields}
        found[_name(descriptor)] = {"type": "object", "additionalProperties": False, "properties": properties}
    return found


def _field(field: Any, waiting: list[Any]) -> dict[str, Any]:
    """A field in protobuf's JSON form. A null is a field left out; in an environment, one that is removed."""
    if is_map(field):
        key = field.message_type.fields_by_name["key"]
        names = {} if key.cpp_type == key.CPPTYPE_STRING else {"propertyNames": {"pattern": "^-?[0-9]+$"}}
        return {"type": ["object", "null"], "additionalProperties": _value(map_value(field), waiting), **names}
    if is_repeated(field):
        return {"type": ["array", "null"], "items": _value(field, waiting)}
    return {"anyOf": [_value(field, waiting), {"type": "null"}]}


def _value(field: Any, waiting: list[Any]) -> dict[str, Any]:
    if field.message_type is not None:
        waiting.append(field.message_type)
        return {"$ref": f"#/$defs/{_name(field.message_type)}"}
    if field.enum_type is not None:
        return {"enum": [value.name for value in field.enum_type.values]}
    if field.cpp_type == field.CPPTYPE_STRING:
        return {"type": "string"}
    if field.cpp_type == field.CPPTYPE_BOOL:
        return {"type": "boolean"}
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return dict(_NUMBER)
    return _whole(field)


def _whole(field: Any) -> dict[str, Any]:
    signed, bits = next(_BITS[name] for name in _BITS if field.cpp_type == getattr(field, f"CPPTYPE_{name}"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return {"type": "integer", "minimum": low, "maximum": high}


def _name(descriptor: Any) -> str:
    """`ModelSequenceBatching.Control`: the message's name without its package."""
    return str(descriptor.full_name).removeprefix(f"{descriptor.file.package}.")
