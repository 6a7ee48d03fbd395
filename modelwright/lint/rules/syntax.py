"""MW0xx: whether the file is a ModelConfig that the target release understands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from modelwright.lint.completion import completes_nothing
from modelwright.lint.rule import Absent, Example, Folder, Found, Severity, rule
from modelwright.lint.spellings import enum_value
from modelwright.lint.templates import Placeholder, placeholder
from modelwright.lint.view import ConfigView
from modelwright.suggest import did_you_mean
from modelwright.triton.messages import is_map_entry
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.pbtext import Unknown, invalid_strings, unknown_enum_values
from modelwright.triton.releases import fields_since, older_than

_SELECTED_SINCE = "24.06"
_DEEPEST = 2  # messages inside messages that a misplaced field is looked for in


@rule(
    "MW001",
    "syntax error in config.pbtxt",
    Severity.ERROR,
    why="The server parses the file as protobuf text. A model whose config does not parse does not load, and is "
    "missing from the repository index: only the server's log says why.",
    fix="Correct the syntax at the line and column given.",
    example=Example("max_batch_size 8", "max_batch_size: 8"),
    on_text=True,
)
def not_a_config(view: ConfigView) -> Iterator[Found]:
    problem = view.problem
    if problem is not None and not _unknown_values(view) and not _unfilled(view):
        yield Found(f"column {problem.column}: {problem.message}", view.file, line=problem.line)


@rule(
    "MW002",
    "unknown field",
    Severity.ERROR,
    why="The server refuses a file with a field that ModelConfig does not have.",
    fix="Use the field's correct name.",
    example=Example("max_batchsize: 8", "max_batch_size: 8"),
    on_text=True,
)
def unknown_field(view: ConfigView) -> Iterator[Found]:
    for unknown in view.unknown_fields:
        yield Found(f"{unknown.path}: unknown field", view.file, line=unknown.line, fix=_meant(unknown))


def _meant(unknown: Unknown) -> str:
    """What to write: the field where it belongs, if another message has it, else the nearest name."""
    home = _homes().get(unknown.name)
    if home is None:
        return did_you_mean(unknown.name, unknown.known)
    return f"Write it inside {home} {{ … }}." if home else "Write it at the top level, outside other fields."


@cache
def _homes() -> dict[str, str]:
    """{field: the message that has it, '' for ModelConfig} where one alone comes first on the way inwards."""
    homes: dict[str, list[str]] = {}
    waiting = [(schema().ModelConfig.DESCRIPTOR, "")]
    for message, path in waiting:
        for field in message.fields:
            homes.setdefault(field.name, []).append(path)
            inner = field.message_type
            if inner is not None and not is_map_entry(inner) and _depth(path) < _DEEPEST:
                waiting.append((inner, f"{path}.{field.name}".removeprefix(".")))
    return {name: paths[0] for name, paths in homes.items() if len(paths) == 1 or _depth(paths[0]) < _depth(paths[1])}


def _depth(path: str) -> int:
    return path.count(".") + bool(path)


@rule(
    "MW003",
    "field newer than the target release",
    Severity.ERROR,
    why="A server refuses a file with a field that a later release introduced.",
    fix="Remove the field, or choose a later release.",
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
            message = f"{_dotted(path)}: new in Triton {newer[name]}; the target is {target}"
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
    if is_map_entry(field.message_type):
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
    why="config.pbtxt must be a file that the server may read. This linter does not read files of more than 1,000,000 "
    "bytes.",
    fix="Put a readable config.pbtxt there.",
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
    why="A model needs a config unless the server completes one. With auto-completion (the server's default) it does "
    "that for files of onnxruntime, tensorrt and openvino, for SavedModels, and for Python models, by their "
    "auto_complete_config. It cannot for PyTorch's files and GraphDefs, which do not say enough.",
    fix="Write a config.",
    example=Example("", "", fault_files={"config.pbtxt": Absent()}, auto_complete=False),
    on_text=True,
)
def no_config(view: ConfigView) -> Iterator[Found]:
    if view.exists:
        return
    if not view.options.auto_complete:
        yield view.at("", "config.pbtxt is missing, and the server completes nothing (--disable-auto-complete-config)")
    elif completes_nothing(view.filled):
        kind = "PyTorch" if view.filled.backend == "pytorch" else "a GraphDef"
        yield view.at("", f"config.pbtxt is missing, and the server cannot complete one for {kind}")


@rule(
    "MW006",
    "config of an environment that the release cannot select",
    Severity.WARNING,
    why="A server reads configs/<name>.pbtxt if it runs with --model-config-name=<name>, which is new in 24.06. Older "
    "servers read config.pbtxt only.",
    fix="Choose release 24.06 or later, or keep only config.pbtxt.",
    example=Example("", "", target="24.05", fault_files={"configs/cpu.pbtxt": 'backend: "python"\n'}),
    unexercised="it concerns releases before 24.06; the local server is 24.10",
)
def environment_not_selectable(view: ConfigView) -> Iterator[Found]:
    target = view.options.target.name
    if view.environment in view.model.config_files and view.environment and older_than(target, _SELECTED_SINCE):
        yield Found(f"Triton {target} has no --model-config-name and never reads this file", view.file)


@rule(
    "MW007",
    "unknown value of an enum",
    Severity.ERROR,
    why="The server refuses a file with an enum value that does not exist.",
    fix="Use one of the enum's values.",
    example=Example("instance_group [ { kind: CPU } ]", "instance_group [ { kind: KIND_CPU } ]"),
    on_text=True,
)
def unknown_value(view: ConfigView) -> Iterator[Found]:
    for unknown in _unknown_values(view):
        near = enum_value(unknown.name, unknown.known)
        hint = f"did you mean '{near}'?" if near else f"known: {', '.join(unknown.known)}"
        yield Found(f"{unknown.path}: unknown value '{unknown.name}'", view.file, line=unknown.line, fix=hint)


def _unknown_values(view: ConfigView) -> list[Unknown]:
    if view.problem is None or view.tree is None:
        return []
    return unknown_enum_values(view.tree, schema().ModelConfig.DESCRIPTOR)


@rule(
    "MW008",
    "string that is not UTF-8",
    Severity.WARNING,
    why="Strings in protobuf are UTF-8. The server loads a string in another encoding, and passes an empty one to the "
    "backend.",
    fix="Save the file as UTF-8.",
    example=Example(
        'parameters { key: "note" value { string_value: "caf\\351" } }',
        'parameters { key: "note" value { string_value: "café" } }',
    ),
)
def not_utf8(view: ConfigView) -> Iterator[Found]:
    for field in invalid_strings(view.tree) if view.tree and _may_be_invalid(view.source.data) else ():
        yield Found(f"{field.name} is not UTF-8", view.file, line=field.line)


def _may_be_invalid(data: bytes) -> bool:
    """Whether a string can be invalid: most texts are UTF-8 and have no escapes."""
    try:
        return b"\\" in data or not data.decode()
    except UnicodeDecodeError:
        return True


@rule(
    "MW009",
    "template that is not filled in",
    Severity.ERROR,
    why="The file is the template of a config: a placeholder stands where a value belongs, so it does not parse. The "
    "server takes every folder of a repository for a model, and fails to load this one.",
    fix="Fill the template in, and check what comes out; keep the template itself outside the repository.",
    example=Example("max_batch_size: ${max_batch_size}", "max_batch_size: 8"),
    on_text=True,
)
def unfilled_template(view: ConfigView) -> Iterator[Found]:
    found = _unfilled(view)
    if found and view.problem:
        what = f"the placeholder of a template stands here: {found.text}"
        yield Found(what, view.file, line=view.problem.line, fix=found.fix)


def _unfilled(view: ConfigView) -> Placeholder | None:
    """The placeholder at the place where the text does not parse."""
    problem = view.problem
    if problem is None:
        return None
    lines = view.source.data.decode(errors="replace").split("\n")
    return placeholder(lines[problem.line - 1], problem.column) if problem.line <= len(lines) else None
