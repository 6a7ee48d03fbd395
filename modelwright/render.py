"""ModelConfig → config.pbtxt through Jinja, parsed back: the text must be the same message, or it is an error.

`templates/config.pbtxt.j2` is the project's; a builder's folder may hold one of its own. Templates run sandboxed, and a
name they use that is not there is an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from modelwright.errors import ConfigError
from modelwright.modelconfig import schema

TEMPLATE = "config.pbtxt.j2"


def shipped_templates() -> Path:
    """The templates of this package: inside it once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


def template_files(folders: Sequence[Path]) -> list[Path]:
    """Every template that a rendering may read, for its key."""
    return sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*.j2"))


def render(config: Any, source: str, folders: Sequence[Path]) -> str:
    """The text of config.pbtxt. `folders` are searched for templates in order; `source` names the file to edit.

    Raises ConfigError for a template that fails, or whose text says something else than `config`.
    """
    from google.protobuf import json_format
    from jinja2 import TemplateError

    # Most builders have no template of their own: they share an environment, which compiles each template once.
    environment = _environment(tuple(folder for folder in folders if template_files([folder])))
    fields = json_format.MessageToDict(config, preserving_proto_field_name=True)
    try:
        template = environment.get_template(TEMPLATE)
        text = str(
            template.render(config=_numbers(fields, config), source=source, rest=lambda name: _rest(config, name))
        )
    except TemplateError as error:
        number = getattr(error, "lineno", None)
        line = f":{number}" if number else ""
        name = getattr(error, "name", None) or TEMPLATE
        raise ConfigError(f"{source}: template {name}{line}: {error.message}") from None
    text = text.strip() + "\n"
    _check(text, config, source)
    return text


@cache
def _environment(folders: tuple[Path, ...]) -> Any:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        loader=FileSystemLoader([str(folder) for folder in folders]),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["pbtxt"] = _value
    return environment


def parse(text: str, source: str) -> Any:
    """config.pbtxt → ModelConfig. Raises ConfigError with protobuf's line and column."""
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, schema().ModelConfig())
    except text_format.ParseError as error:
        raise ConfigError(f"{source}: not a ModelConfig: {error}") from None


def _check(text: str, config: Any, source: str) -> None:
    rendered = parse(text, f"{source}: rendered {TEMPLATE}")
    if rendered == config:
        return
    names = [
        field.name for field in config.DESCRIPTOR.fields if getattr(rendered, field.name) != getattr(config, field.name)
    ]
    raise ConfigError(
        f"{source}: the template's text does not say what the builder does: {', '.join(names)} differ",
        f"compare templates/{TEMPLATE} with the one that ships",
    )


def _value(value: Any) -> str:
    """A scalar in protobuf's text format."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _numbers(fields: dict[str, Any], config: Any) -> dict[str, Any]:
    """protobuf's JSON writes 64-bit numbers as strings; dims and versions are numbers again here."""
    for field in ("input", "output"):
        for entry in fields.get(field, []):
            if "dims" in entry:
                entry["dims"] = [int(dim) for dim in entry["dims"]]
    for step, message in zip(
        fields.get("ensemble_scheduling", {}).get("step", []), config.ensemble_scheduling.step, strict=True
    ):
        step["model_version"] = message.model_version
        step.setdefault("input_map", {})
        step.setdefault("output_map", {})
    return fields


def _rest(config: Any, name: str) -> str:
    """One field of the message, printed by protobuf itself."""
    from google.protobuf import text_format

    part = type(config)()
    field = config.DESCRIPTOR.fields_by_name[name]
    value = getattr(config, name)
    if _is_map(field):
        for key in sorted(value):
            _copy_map_entry(getattr(part, name), key, value[key])
    elif _is_repeated(field):
        getattr(part, name).extend(value)
    elif field.message_type is not None:
        getattr(part, name).CopyFrom(value)
    else:
        setattr(part, name, value)
    return "\n" + text_format.MessageToString(part).rstrip()


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _copy_map_entry(target: Any, key: Any, value: Any) -> None:
    if hasattr(value, "CopyFrom"):
        target[key].CopyFrom(value)
    else:
        target[key] = value


def plain_text(config: Any) -> str:
    """protobuf's own printing, for configs that no one reads."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))
