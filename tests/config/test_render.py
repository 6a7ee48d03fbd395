"""Every field of ModelConfig → config.pbtxt → the same message; templates of builders, and what they may not do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.config.model_config import ConfigTensors, config_of
from modelwright.config.render import parse, render
from modelwright.errors import ConfigError
from modelwright.server.environment import ensure
from modelwright.server.local import running
from modelwright.triton.client import connect
from modelwright.triton.messages import differences, is_map, is_repeated, map_value
from modelwright.triton.model_config_pb2 import schema
from tests.config.test_config import TENSORS, builder
from tests.conftest import ONNX_YAML, ROOT, Sandbox

TEMPLATES = [ROOT / "templates"]
ModelConfig = schema().ModelConfig


def text_of(config: Any) -> str:
    return render(config, "builders/m/model.yaml", TEMPLATES)


# --- every field ------------------------------------------------------------------------------------------------------


def paths(descriptor: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field at every depth, each branch of a oneof by itself, a map's value as a field of the map."""
    for field in descriptor.fields:
        path = (*prefix, field)
        yield path
        below = map_value(field) if is_map(field) else field
        if below.message_type is not None:
            yield from paths(below.message_type, path)


PATHS = {".".join(field.name for field in path): path for path in paths(ModelConfig.DESCRIPTOR)}


def scalar(field: Any) -> Any:
    """A value of a field that is not its default."""
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kinds = {field.CPPTYPE_STRING: f"a {field.name}", field.CPPTYPE_BOOL: True}
    floats = (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE)
    return kinds.get(field.cpp_type, 0.1 if field.cpp_type in floats else 7)


def setting(path: tuple[Any, ...]) -> dict[str, Any]:
    """Plain data that sets one field, and on the way to it what must be there."""
    field, rest = path[0], path[1:]
    single = map_value(field) if is_map(field) else field
    value: Any = setting(rest) if rest else {} if single.message_type is not None else scalar(single)
    if is_map(field):
        value = {str(scalar(field.message_type.fields_by_name["key"])): value}
    elif is_repeated(field):
        value = [value]
    return {field.name: value}


@pytest.mark.parametrize("name", PATHS)
def test_every_field_is_rendered(name: str) -> None:
    config = json_format.ParseDict(setting(PATHS[name]), ModelConfig())
    text = text_of(config)
    last = PATHS[name][-1]
    assert last.name in text.partition("\n")[2]
    assert parse(text, "x") == config
    if last.message_type is None:
        shown = last.enum_type.values[-1].name if last.enum_type else str(scalar(last)).replace("True", "true")
        assert shown in text.partition("\n")[2]


DERIVED = ("name", "platform", "backend", "input", "output", "ensemble_scheduling")


@pytest.mark.parametrize("name", [name for name in PATHS if name.partition(".")[0] not in DERIVED])
def test_every_field_can_be_written_in_serving(name: str) -> None:
    serving = setting(PATHS[name])
    config = config_of(builder(serving), TENSORS)
    wanted = json_format.ParseDict(serving, ModelConfig())
    top = PATHS[name][0].name
    assert getattr(config, top) == getattr(wanted, top)
    assert name.rpartition(".")[2] in text_of(config)


@pytest.mark.parametrize(
    "name", [name for name in PATHS if name.startswith(("input.", "output.")) and not name.endswith(".name")]
)
def test_every_field_of_a_tensor_can_be_written_in_serving(name: str) -> None:
    serving = setting(PATHS[name])
    side = PATHS[name][0].name
    serving[side][0]["name"] = "x" if side == "input" else "y"
    for field, value in (("data_type", "TYPE_FP32" if side == "input" else "TYPE_STRING"), ("dims", None)):
        if field in serving[side][0]:  # these follow from the model, and may be written as it has them
            serving[side][0][field] = value or [2 if side == "input" else -1]
    config = config_of(builder(serving), ConfigTensors(TENSORS.inputs, (replace(TENSORS.outputs[0], labels=None),)))
    assert name.split(".")[1] in text_of(config)


def test_a_field_that_a_later_triton_adds_is_rendered_at_any_depth() -> None:
    """ModelConfig with fields that no template has heard of, in itself, a message of it and an entry of a map."""
    file = descriptor_pb2.FileDescriptorProto()
    schema().DESCRIPTOR.CopyToProto(file)
    for path in (("ModelConfig",), ("ModelDynamicBatching",), ("ModelSequenceBatching", "StrategyDirect")):
        message: Any = next(item for item in file.message_type if item.name == path[0])
        for name in path[1:]:
            message = next(item for item in message.nested_type if item.name == name)
        message.field.add(name="new_text", number=901, type=9, label=1)
        message.field.add(name="new_bytes", number=902, type=12, label=3)
        message.field.add(name="new_message", number=903, type=11, label=1, type_name=".inference.ModelQueuePolicy")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    later = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    new = {"new_text": 'é"\n', "new_bytes": ["AP8iXA=="], "new_message": {"max_queue_size": 3}}
    for below in ({"dynamic_batching": new}, {"sequence_batching": {"direct": new}}):
        config = json_format.ParseDict({"name": "m", **new, **below}, later())
        text = text_of(config)
        assert text.count("new_message") == 2
        assert parse(text, "x", later) == config


def any_message(descriptor: Any, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Plain data for a message: any subset of its fields, one branch of each oneof."""
    fields = [
        field for field in descriptor.fields if depth or field.message_type is None or not field.message_type.fields
    ]

    def one_of_each(data: dict[str, Any]) -> dict[str, Any]:
        for oneof in descriptor.oneofs:
            for extra in [field.name for field in oneof.fields if field.name in data][1:]:
                del data[extra]
        return data

    optional = {field.name: any_value(field, depth) for field in fields}
    return st.fixed_dictionaries({}, optional=optional).map(one_of_each)


def any_value(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if is_map(field):
        keys = any_one(field.message_type.fields_by_name["key"], depth).map(str)
        return st.dictionaries(keys, any_one(map_value(field), depth), max_size=2)
    return st.lists(any_one(field, depth), max_size=3) if is_repeated(field) else any_one(field, depth)


def any_one(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return any_message(field.message_type, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.name for value in field.enum_type.values])
    if field.cpp_type == field.CPPTYPE_STRING:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return st.floats(width=32 if field.cpp_type == field.CPPTYPE_FLOAT else 64).map(json_number)
    bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64):
        return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.integers(0, 2**bits - 1)


def json_number(value: float) -> float | str:
    """A number in protobuf's JSON form, which has words for those that JSON has not."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(any_message(ModelConfig.DESCRIPTOR, depth=5))
def test_any_message_is_the_same_after_rendering(data: dict[str, Any]) -> None:
    config = json_format.ParseDict(data, ModelConfig())
    assert list(differences(config, parse(text_of(config), "x"))) == []


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_text_is_written_with_escapes_that_c_plus_plus_reads(value: str) -> None:
    config = ModelConfig(name="m", metric_tags={"a": value})
    line = next(line for line in text_of(config).split("\n") if line.startswith("metric_tags"))
    assert all(ord(character) >= 32 and ord(character) != 127 for character in line)
    escapes = [line[index + 1] for index in backslashes(line)]
    assert set(escapes) <= set('\\"nrt01')
    assert parse(line, "x").metric_tags["a"] == value


def backslashes(line: str) -> Iterator[int]:
    """Where an escape begins."""
    index = 0
    while index < len(line):
        if line[index] == "\\":
            yield index
            index += 1
        index += 1


# --- the layout -------------------------------------------------------------------------------------------------------


def test_short_parts_take_a_line_and_fields_with_a_meaning_are_explained() -> None:
    serving = {
        "max_batch_size": 8,
        "instance_group": [{"count": 2, "kind": "KIND_CPU"}, {"kind": "KIND_GPU", "gpus": [0, 1], "passive": True}],
        "sequence_batching": {
            "max_sequence_idle_microseconds": 5000000,
            "control_input": [{"name": "START", "control": [{"int32_false_true": [0, 1]}]}],
        },
        "parameters": {"a": {"string_value": "1"}},
    }
    text = text_of(config_of(builder(serving), TENSORS))
    assert text.partition("\n\ninstance_group")[2] == (
        " [\n"
        "  { count: 2, kind: KIND_CPU },\n"
        "  {\n"
        "    gpus: [ 0, 1 ]\n"
        "    kind: KIND_GPU\n"
        "    passive: true  # loaded, and given no requests\n"
        "  }\n"
        "]\n"
        "\n"
        "sequence_batching {\n"
        "  max_sequence_idle_microseconds: 5000000  # a sequence without requests for so long has ended\n"
        "  control_input [  # tensors that the server sets, and no client\n"
        '    { name: "START", control: [ { int32_false_true: [ 0, 1 ], kind: CONTROL_SEQUENCE_START } ] }\n'
        "  ]\n"
        "}\n"
        "\n"
        'parameters { key: "a", value: { string_value: "1" } }\n'
    )


def test_there_is_never_more_than_one_empty_line() -> None:
    for name, path in itertools.islice(PATHS.items(), 0, None, 7):
        text = text_of(json_format.ParseDict(setting(path), ModelConfig()))
        assert "\n\n\n" not in text, name
        assert not any(line != line.rstrip() for line in text.split("\n")), name


# --- a builder's own template -----------------------------------------------------------------------------------------


def own(folder: Path, **templates: str) -> Path:
    for name, text in templates.items():
        (folder / (name.replace("_", ".") + ".j2")).write_text(text)
    return folder


BATCHING = {"max_batch_size": 8, "dynamic_batching": {"max_queue_delay_microseconds": 200, "priority_levels": 2}}


def rendered(folder: Path, serving: dict[str, Any] | None = None) -> str:
    config = config_of(builder(BATCHING if serving is None else serving), TENSORS)
    return render(config, "builders/m/model.yaml", TEMPLATES, folder, "gpu")


def test_a_builder_overrides_a_block_of_the_projects_template(tmp_path: Path) -> None:
    text = rendered(
        own(
            tmp_path,
            config_pbtxt='{% extends "project/config.pbtxt.j2" %}\n'
            "{% block dynamic_batching %}# as agreed\n{{ super() }}{% endblock %}\n"
            "{% block head %}# {{ source }}, {{ environment }}{% endblock %}\n",
        )
    )
    assert text.startswith('# builders/m/model.yaml, gpu\nname: "m"\n')
    assert "\n# as agreed\ndynamic_batching {\n" in text


def test_a_builder_uses_the_projects_macros_and_its_own(tmp_path: Path) -> None:
    text = rendered(
        own(
            tmp_path,
            config_pbtxt='{% extends "project/config.pbtxt.j2" %}{% import "mine.j2" as mine %}\n'
            "{% block dynamic_batching %}{{ mine.say() }}\n"
            '{{ m.field("dynamic_batching", config.dynamic_batching) }}{% endblock %}',
            mine="{% macro say() %}# mine{% endmacro %}",
        )
    )
    assert "# mine\ndynamic_batching { max_queue_delay_microseconds: 200, priority_levels: 2 }\n" in text


def test_a_builder_has_a_whole_template(tmp_path: Path) -> None:
    text = rendered(own(tmp_path, config_pbtxt="# mine\n{% for f in config %}{{ rest(f) }}{% endfor %}"))
    assert text.startswith('# mine\nname: "m"\n')


def test_macros_of_a_builder_do_not_replace_the_projects(tmp_path: Path) -> None:
    assert "dynamic_batching {" in rendered(own(tmp_path, macros="{% macro field(name, value) %}{% endmacro %}"))


def test_a_template_that_was_edited_is_read_again(tmp_path: Path) -> None:
    own(tmp_path, config_pbtxt="# one\n{% for f in config %}{{ rest(f) }}{% endfor %}")
    assert rendered(tmp_path).startswith("# one")
    own(tmp_path, config_pbtxt="# two\n{% for f in config %}{{ rest(f) }}{% endfor %}")
    assert rendered(tmp_path).startswith("# two")


EXTENDS = '{% extends "project/config.pbtxt.j2" %}'

DIFFERENT = {
    "a value": (
        EXTENDS + "{% block dynamic_batching %}"
        "dynamic_batching { max_queue_delay_microseconds: 100 priority_levels: 2 }{% endblock %}",
        "    dynamic_batching.max_queue_delay_microseconds: expected 200, got 100\n",
    ),
    "a field that is dropped": (
        EXTENDS + "{% block dynamic_batching %}{% endblock %}",
        "    dynamic_batching: missing, expected { max_queue_delay_microseconds: 200 priority_levels: 2 }\n",
    ),
    "a field that is added": (
        EXTENDS + "{% block others %}response_cache { enable: true }{% endblock %}",
        "    response_cache: added, got { enable: true }\n",
    ),
    "a name": (
        EXTENDS + '{% block model %}name: "n" backend: "python" max_batch_size: 8{% endblock %}',
        "    name: expected 'm', got 'n'\n    backend: expected 'onnxruntime', got 'python'\n",
    ),
    "dims": (
        EXTENDS + '{% block input %}input [ { name: "x" data_type: TYPE_INT8 dims: [ 3 ] } ]{% endblock %}',
        "    input[0].data_type: expected TYPE_FP32, got TYPE_INT8\n    input[0].dims: expected [2], got [3]\n",
    ),
    "a tensor more": (
        EXTENDS + '{% block others %}input [ { name: "z" } ]{% endblock %}',
        '    input[1]: added, got { name: "z" }\n',
    ),
    "an entry of a map": (
        EXTENDS + '{% block others %}metric_tags { key: "a" value: "b" }{% endblock %}',
        "    metric_tags['a']: added, got 'b'\n",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_text_that_says_something_else_is_shown_field_by_field(tmp_path: Path, case: str) -> None:
    template, message = DIFFERENT[case]
    with pytest.raises(ConfigError, match="differs from the builder's config") as caught:
        rendered(own(tmp_path, config_pbtxt=template))
    assert f"config:\n{message}" in f"{caught.value.message}\n"
    assert "change values in model.yaml" in caught.value.hint


def test_a_long_list_of_differences_is_cut(tmp_path: Path) -> None:
    tags = {"metric_tags": {str(number): "x" for number in range(30)}}
    template = EXTENDS + "{% block metric_tags %}{% endblock %}"
    with pytest.raises(ConfigError, match=r"metric_tags\['0'\]: missing, expected 'x'") as caught:
        rendered(own(tmp_path, config_pbtxt=template), tags)
    assert len(caught.value.message.splitlines()) == 12
    assert caught.value.message.endswith("\n    …")


def test_nan_is_the_same_as_nan() -> None:
    serving = {"model_metrics": {"metric_control": [{"histogram_options": {"buckets": ["NaN", "-Infinity"]}}]}}
    assert "buckets: [ nan, -inf ]" in text_of(config_of(builder(serving), TENSORS))


HOSTILE = {
    "an attribute of Python's own": ("\n{{ ''.__class__ }}", r"config\.pbtxt\.j2:2: SecurityError: .*'__class__' .* unsafe"),
    "one by a filter": ("{{ config | attr('__class__') }}", "unsafe"),
    "one by formatting": ("{{ '{0.__class__}'.format(config) }}", "unsafe"),
    "the globals of a function": ("{{ rest.__globals__ }}", "unsafe"),
    "a change of the config": ("{{ config.update({'name': 'n'}) }}", "unsafe"),
    "a change of a list": ("{{ config.input.append(1) }}", "unsafe"),
    "a name that is not there": ("\n\n{{ conifg.name }}", r"j2:3: 'conifg' is undefined"),
    "a field that is not set": ("{{ config.ensemble_scheduling.step }}", r"j2:1: .* has no attribute 'ensemble_scheduling'"),
    "a syntax error": ("a\n{% if %}", r"template config\.pbtxt\.j2:2: Expected an expression"),
    "an unknown filter": ("{{ 1 | pbtext }}", r"j2:1: No filter named 'pbtext'"),
    "a file outside": ("{% include '../secret.j2' %}", r"j2:1: unknown template '\.\./secret\.j2'"),
    "a file outside by way of the project": ("{% include 'project/../secret.j2' %}", "unknown template 'project/"),
    "an absolute path": ("{% include '/etc/passwd' %}", "unknown template '/etc/passwd'"),
    "a file that is no template": ("{% include 'model.yaml' %}", "unknown template 'model.yaml'"),
    "a link that leads out": ("{% include 'link.j2' %}", r"unknown template 'link\.j2'"),
    "itself": ("{% include 'config.pbtxt.j2' %}", "RecursionError"),
    "a division by zero": ("{{ 1 / 0 }}", "j2:1: ZeroDivisionError: division by zero"),
    "a range without end": ("{% for x in range(10 ** 9) %}{% endfor %}", "j2:1: OverflowError"),
    "no text format": ("name: 'm", r"rendered config\.pbtxt\.j2: not a ModelConfig: 1:7"),
    "an unknown field": ("nmae: 'm'", "1:1: unknown field 'nmae'"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_template_may_not_do(tmp_path: Path, case: str) -> None:
    template, message = HOSTILE[case]
    folder = tmp_path / "builder"
    folder.mkdir()
    (tmp_path / "secret.j2").write_text('name: "m"')
    (folder / "model.yaml").write_text("# nothing")
    (folder / "link.j2").symlink_to(tmp_path / "secret.j2")
    with pytest.raises(ConfigError, match=message) as caught:
        rendered(own(folder, config_pbtxt=template))
    assert caught.value.message.startswith("builders/m/model.yaml: ")


# --- on the real server -----------------------------------------------------------------------------------------------

ODD = [
    "quotes \"'`",
    "back\\slash \\n \\101",
    "line\nbreak\r\ttab",
    "é 日本 😀 \u2028",
    "\x01\x1f\x7f1",
    "# no comment",
    "{}[]<>;,:",
    "",
]


@pytest.mark.server
def test_the_servers_own_parser_reads_the_same(sandbox: Sandbox) -> None:
    tags = {f"tag{number}": text for number, text in enumerate(ODD)}  # other names of metrics abort the server
    parameters = {text: {"string_value": text} for text in ODD}
    serving = yaml.safe_dump({"serving": {"max_batch_size": 8, "metric_tags": tags, "parameters": parameters}})
    sandbox.onnx_builder(yaml=ONNX_YAML.replace("serving: {max_batch_size: 8}", serving))
    assert sandbox.build()["doubled"].status == "new"
    environment = ensure(sandbox.project.server, sandbox.project.target, lambda text: None)
    repository, log = sandbox.project.repository, sandbox.root / "log"
    with running(environment, repository, log=log, models=["*"], stop_grace_s=0) as server:
        assert server.failures() == {}
        with connect(f"grpc://{server.grpc}") as client:
            read = client.config("doubled")
    assert read["metric_tags"] == tags
    assert {text: read["parameters"][text].get("string_value", "") for text in ODD} == {text: text for text in ODD}
