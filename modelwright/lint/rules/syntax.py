"""MW0xx: is the file a ModelConfig, and one that the target release understands?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwright.lint.rule import Absent, Example, Folder, Found, Severity, rule
from modelwright.lint.view import ConfigView
from modelwright.suggest import did_you_mean
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.pbtext import Unknown, invalid_strings, unknown_enum_values
from modelwright.triton.releases import fields_since, older_than

_SELECTED_SINCE = "24.06"


@rule(
    "MW001",
    "config.pbtxt is no ModelConfig",
    Severity.ERROR,
    why="The server parses the file as protobuf text; where that fails the model does not load. It does not appear "
    "in the repository index either: the reason stands only in the server's log.",
    fix="Mend the syntax at the line and column that is named.",
    example=Example("max_batch_size 8", "max_batch_size: 8"),
    on_text=True,
)
def not_a_config(view: ConfigView) -> Iterator[Found]:
    problem = view.problem
    if problem is not None and not _unknown_values(view):
        yield Found(f"column {problem.column}: {problem.message}", view.file, line=problem.line)


@rule(
    "MW002",
    "unknown field",
    Severity.ERROR,
    why="A field that ModelConfig does not have is fatal: the server refuses the whole file.",
    fix="Use the field's real name. The message names the nearest one.",
    example=Example("max_batchsize: 8", "max_batch_size: 8"),
    on_text=True,
)
def unknown_field(view: ConfigView) -> Iterator[Found]:
    for unknown in view.unknown_fields:
        hint = did_you_mean(unknown.name, unknown.known)
        yield Found(f"{unknown.path}: there is no such field", view.file, line=unknown.line, fix=hint)


@rule(
    "MW003",
    "field newer than the target release",
    Severity.ERROR,
    why="Each release knows the fields of its own time. An older server refuses the file for one that came later.",
    fix="Leave the field out, or choose a later release.",
    example=Example(
        "model_metrics { metric_control [ { metric_identifier { family: 'nv_inference_first_response_histogram_ms' } "
        "histogram_options { buckets: [ 1, 10 ] } } ] }",
        "metric_tags { key: 'team', value: 'search' }",
        target="24.10",
    ),
)
def field_too_new(view: ConfigView) -> Iterator[Found]:
    target = view.options.target.name
    newer = {name: since for name, since in fields_since().items() if older_than(target, since)}
    if newer:
        for path, name in _set_fields(view.written, newer):
            message = f"{_dotted(path)}: only from Triton {newer[name]} on; the target is {target}"
            yield view.found(message, *path)


def _set_fields(message: Any, wanted: dict[str, str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path, 'Message.field') of every field in `wanted` that is set; not inside one that was yielded itself."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), message)]
    while waiting:
        path, current = waiting.pop()
        prefix = current.DESCRIPTOR.full_name.removeprefix("inference.")
        for field, value in current.ListFields():
            name = f"{prefix}.{field.name}"
            if name in wanted:
                yield (*path, field.name), name
            elif field.message_type is not None:
                waiting += [((*path, *step), inner) for step, inner in _inner(field, value)]


def _inner(field: Any, value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            yield from (((field.name, key), value[key]) for key in value)
    elif hasattr(value, "DESCRIPTOR"):
        yield (field.name,), value
    else:
        yield from (((field.name, index), item) for index, item in enumerate(value))


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@rule(
    "MW004",
    "config.pbtxt cannot be read",
    Severity.ERROR,
    why="A folder, a device, a file without permission cannot be read as a config, by the server either. Nor is it "
    "likely that one of megabytes is a config: this linter reads the first one and says so.",
    fix="Put the config back.",
    example=Example("", "", fault_files={"config.pbtxt": Folder()}),
    on_text=True,
)
def unreadable(view: ConfigView) -> Iterator[Found]:
    if view.source.error:
        yield Found(view.source.error, view.file)


@rule(
    "MW005",
    "no config.pbtxt",
    Severity.ERROR,
    why="Without auto-completion a model needs its config. With it (a server's default) the onnxruntime and "
    "tensorrt backends can do without, and others fail later, each in its own words.",
    fix="Write one, or let the server complete it: leave out --disable-auto-complete-config.",
    example=Example("", "", fault_files={"config.pbtxt": Absent()}, auto_complete=False),
    on_text=True,
)
def no_config(view: ConfigView) -> Iterator[Found]:
    if not view.exists and not view.options.auto_complete:
        yield view.at("", "it has no config.pbtxt, and the server completes none (--disable-auto-complete-config)")


@rule(
    "MW006",
    "flavours of a config that the release does not select",
    Severity.WARNING,
    why="configs/<name>.pbtxt is read by servers that run with --model-config-name=<name>, which came with 24.06. "
    "An older one reads config.pbtxt, whatever lies in configs/.",
    fix="Choose a release from 24.06 on, or keep one config.",
    example=Example("", "", target="24.05", fault_files={"configs/cpu.pbtxt": 'backend: "python"\n'}),
    unexercised="the local server is 24.10, which has the option",
)
def flavours_not_selected(view: ConfigView) -> Iterator[Found]:
    target = view.options.target.name
    if view.environment in view.model.config_files and view.environment and older_than(target, _SELECTED_SINCE):
        yield Found(f"Triton {target} has no --model-config-name: it never reads this file", view.file)


@rule(
    "MW007",
    "unknown value of an enum",
    Severity.ERROR,
    why="A word that is none of an enum's names is fatal: the server refuses the whole file.",
    fix="Use one of the enum's names. The message names the nearest one.",
    example=Example("instance_group [ { kind: CPU } ]", "instance_group [ { kind: KIND_CPU } ]"),
    on_text=True,
)
def unknown_value(view: ConfigView) -> Iterator[Found]:
    for unknown in _unknown_values(view):
        hint = did_you_mean(unknown.name, unknown.known)
        yield Found(f"{unknown.path}: there is no value '{unknown.name}'", view.file, line=unknown.line, fix=hint)


def _unknown_values(view: ConfigView) -> list[Unknown]:
    if view.problem is None or view.tree is None:
        return []
    return unknown_enum_values(view.tree, schema().ModelConfig.DESCRIPTOR)


@rule(
    "MW008",
    "string that is not UTF-8",
    Severity.WARNING,
    why="protobuf's strings are UTF-8. The server takes another one, and hands an empty string on to the backend.",
    fix="Save the file as UTF-8.",
    example=Example(
        'parameters { key: "note" value { string_value: "caf\\351" } }',
        'parameters { key: "note" value { string_value: "café" } }',
    ),
)
def not_utf8(view: ConfigView) -> Iterator[Found]:
    for field in invalid_strings(view.tree) if view.tree else ():
        yield Found(f"{field.name} is not UTF-8", view.file, line=field.line)
