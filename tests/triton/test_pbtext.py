from __future__ import annotations

import random
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.triton.messages import is_map_entry
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.pbtext import (
    MAX_DEPTH,
    Field,
    PbtxtError,
    Unknown,
    invalid_strings,
    message_of,
    parse_message,
    parse_tree,
    unknown_enum_values,
    unknown_fields,
)
from tests.triton import pbtext_cases as cases

CONFIG = """# a comment
name: "digits"
max_batch_size: 8
input [
  {
    name: "x"
    data_type: TYPE_FP32
    dims: [
      3,
      -1
    ]
  },
  { name: "mask", data_type: TYPE_BOOL, optional: true }
]
input { name: "late" }
output [
]
dynamic_batching {
  preferred_batch_size: 2
  preferred_batch_size: [ 4, 8 ]
  priority_queue_policy { key: 7 value { max_queue_size: 3 } }
}
parameters { key: "mode" value: { string_value: "0" } }
parameters {
  key: "threads"
  value: { string_value: "4" }
}
version_policy: < latest < num_versions: 2 > >
"""


def descriptor() -> Any:
    return schema().ModelConfig.DESCRIPTOR


class TestMessage:
    def test_a_usual_config(self) -> None:
        assert parse_message(CONFIG) == text_format.Parse(CONFIG, schema().ModelConfig())

    @pytest.mark.parametrize("text", cases.TAKEN, ids=ascii)
    def test_what_the_server_takes_means_what_it_means_to_protobuf(self, text: bytes) -> None:
        expected = by_protobuf(text)
        assert expected is not None
        assert same(parse_message(text), expected)

    @pytest.mark.parametrize("text", cases.PYTHON_REFUSES, ids=ascii)
    def test_what_the_server_takes_and_protobuf_for_python_does_not(self, text: bytes) -> None:
        assert parse_message(text).ListFields()

    @pytest.mark.parametrize("text", cases.REFUSED + cases.PYTHON_TAKES, ids=ascii)
    def test_what_the_server_refuses(self, text: bytes) -> None:
        with pytest.raises(PbtxtError, match=r"^[0-9]+:[0-9]+: "):
            parse_message(text)

    @pytest.mark.parametrize(("literal", "value"), cases.STRINGS.items(), ids=ascii)
    def test_strings(self, literal: bytes, value: str) -> None:
        tree = parse_tree(b"name: " + literal)
        assert message_of(tree).name == value
        assert invalid_strings(tree) == []

    @pytest.mark.parametrize("literal", cases.NOT_UTF8, ids=ascii)
    def test_a_string_that_is_not_utf8_is_found(self, literal: bytes) -> None:
        tree = parse_tree(b"backend: 'x'\nname: " + literal)
        assert "\ufffd" in message_of(tree).name
        assert [field.line for field in invalid_strings(tree)] == [2]

    def test_the_last_entry_of_a_key_counts(self) -> None:
        entries = "parameters { key: 'a' value { string_value: '1' } } parameters { key: 'a' }"
        assert {key: value.string_value for key, value in parse_message(entries).parameters.items()} == {"a": ""}

    def test_an_empty_message_is_there(self) -> None:
        assert parse_message("dynamic_batching {}").HasField("dynamic_batching")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name: 'x'\n  bogus: 1", r"2:3: unknown field 'bogus'"),
            ("name: [\n 'x' ]", r"2:2: 'name' .*list"),
            ("input { dims: 1.5 }", r"1:9: 'dims' .*integer.* '1\.5'"),
            ("max_batch_size: '8'", r"1:1: 'max_batch_size' .*integer.* string '8'"),
            ("max_batch_size: 1e99", r"1:1: 'max_batch_size' .*integer.* '1e99'"),
            ("max_batch_size: 4294967296", r"1:1: 'max_batch_size' .*from -2147483648 to 2147483647.* '4294967296'"),
            ("input: 5", r"1:1: 'input' .*\{ fields \}.* '5'"),
            ("name: 'x' name: 'y'", r"1:11: 'name' .*twice"),
            ("version_policy { all {} latest {} }", r"1:25: 'latest' and 'all' exclude"),
            ("input {\n", r"2:1: .*field.* '\}'.* end of the file"),
            ("name 'x'", r"1:6: .*':' or '\{' after 'name'.* 'x'"),
            ("max_batch_size: 8name: 'x'", r"1:17: '8name' .*number"),
            ("name: 'C:\\q'", r"1:7: 'C:\\q' .*escape.* \\\\ for a backslash"),
            ("name: 'x\ny'", r"1:7: 'x is not closed"),
            ("\ufeffname: 'x'", r"1:1: .*byte order mark.* UTF-8"),
            ("name: \x00", r"1:7: unexpected character '\\x00'"),
            ("a" * 99 + " = 1", r"1:101: unexpected character '='"),
            ("a" * 99 + ": 1", r"1:1: unknown field 'a{39}…'$"),
        ],
        ids=lambda value: ascii(value)[:30],
    )
    def test_the_message_says_where_and_what(self, text: str, message: str) -> None:
        with pytest.raises(PbtxtError, match=f"^{message}"):
            parse_message(text)


class TestLine:
    @pytest.mark.parametrize(
        ("path", "line"),
        [
            ((), 1),
            (("name",), 2),
            (("input",), 4),
            (("input", 0), 5),
            (("input", 0, "data_type"), 7),
            (("input", 0, "dims"), 8),
            (("input", 0, "dims", 1), 10),
            (("input", 1, "optional"), 13),
            (("input", 2), 15),
            (("output",), 16),
            (("dynamic_batching", "preferred_batch_size"), 19),
            (("dynamic_batching", "preferred_batch_size", 2), 20),
            (("dynamic_batching", "priority_queue_policy", 7, "max_queue_size"), 21),
            (("parameters", "mode"), 23),
            (("parameters", "threads"), 24),
            (("parameters", "threads", "value"), 26),
            (("parameters", "threads", "string_value"), 26),
            (("parameters", "threads", "key"), 25),
            (("version_policy", "latest", "num_versions"), 28),
        ],
    )
    def test_of_what_is_written(self, path: tuple[str | int, ...], line: int) -> None:
        assert parse_tree(CONFIG).line(*path) == line

    @pytest.mark.parametrize(
        ("path", "line"),
        [
            (("backend",), 1),
            (("input", 7, "dims"), 4),
            (("input", 1, "dims", 0), 13),
            (("output", 0), 16),
            (("parameters", "nothing"), 23),
            (("dynamic_batching", "max_queue_delay_microseconds"), 18),
        ],
    )
    def test_of_what_is_not_is_its_ancestors(self, path: tuple[str | int, ...], line: int) -> None:
        assert parse_tree(CONFIG).line(*path) == line

    def test_of_a_key_written_twice_is_the_last(self) -> None:
        tree = parse_tree("parameters { key: 'a' }\nparameters { key: 'a' }\nparameters { key: 'b' }")
        assert tree.line("parameters", "a") == 2


class TestUnknown:
    def test_fields(self) -> None:
        text = """
            max_batchsize: 1
            input { name: "a" } input [ { dim: 1 }, { shape { bogus: 1 } } ]
            parameters { key: "k" value { strin_value: "x" bogus [ {}, {} ] } }
        """
        found = unknown_fields(parse_tree(text), descriptor())
        assert [(entry.name, entry.line, entry.path) for entry in found] == [
            ("max_batchsize", 2, "max_batchsize"),
            ("dim", 3, "input[1].dim"),
            ("shape", 3, "input[2].shape"),
            ("strin_value", 4, 'parameters["k"].value.strin_value'),
            ("bogus", 4, 'parameters["k"].value.bogus'),
        ]
        assert found[0].known[:3] == ("name", "platform", "backend")
        assert found[3].known == ("string_value",)

    def test_an_empty_list_has_a_name_too(self) -> None:
        assert [
            entry.name for entry in unknown_fields(parse_tree("bogus: [] input { dims: [] x [] }"), descriptor())
        ] == [
            "bogus",
            "x",
        ]

    def test_enum_values(self) -> None:
        text = "input { data_type: TYPE_FP23 }\ninput { data_type: 99 format: 'x' }\ninstance_group [ { kind: CPU } ]"
        found = unknown_enum_values(parse_tree(text), descriptor())
        assert [(entry.name, entry.line, entry.path) for entry in found] == [
            ("TYPE_FP23", 1, "input[0].data_type"),
            ("CPU", 3, "instance_group[0].kind"),
        ]
        assert "KIND_CPU" in found[1].known

    def test_a_good_config_has_none(self) -> None:
        tree = parse_tree(CONFIG)
        assert unknown_fields(tree, descriptor()) == list[Unknown]()
        assert unknown_enum_values(tree, descriptor()) == list[Unknown]()


class TestHostile:
    def test_nesting_is_limited(self) -> None:
        parse_tree("a {" * MAX_DEPTH + "}" * MAX_DEPTH)
        with pytest.raises(PbtxtError, match="messages nest more than 64 deep"):
            parse_tree("a {" * 1_000_000)

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "#\n" * 50_000,
                "\n" * 100_000 + "{",
                "a:1 " * 25_000,
                "input{}" * 15_000,
                "input{dims:[" + "1," * 50_000,
            ),
            *(
                "name:'" + "\\x41" * 25_000,
                "name:'" + "\\" * 100_001,
                "name:" + "''" * 50_000,
                "max_batch_size:" + "9" * 100_000,
            ),
            *("max_batch_size:0" + "7" * 100_000 + "9", "max_batch_size:0." + "1" * 100_000 + "x", "-" * 100_000),
        ],
        ids=lambda text: ascii(text[:20]),
    )
    def test_a_large_text_takes_no_time(self, text: str) -> None:
        began = time.process_time()
        try:
            tree = parse_tree(text)
            unknown_fields(tree, descriptor())
            message_of(tree)
        except PbtxtError:
            pass
        assert time.process_time() - began < 2  # 0.1 MB; it takes 0.3 s at most

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200) | st.text(max_size=100))
    def test_anything_is_read_or_refused(self, text: bytes | str) -> None:
        readable(text)

    @settings(max_examples=300, deadline=None)
    @given(st.randoms(use_true_random=False))
    def test_a_damaged_config_is_read_or_refused(self, chance: random.Random) -> None:
        readable(mutated(chance, CONFIG.encode()))

    @settings(max_examples=300, deadline=None)
    @given(st.randoms(use_true_random=False))
    def test_what_both_parsers_take_means_the_same(self, chance: random.Random) -> None:
        text = mutated(chance, CONFIG.encode())
        expected = by_protobuf(text)
        try:
            found = parse_message(text)
        except PbtxtError:
            return
        assert expected is None or same(found, expected)


def by_protobuf(text: bytes) -> Any:
    """What protobuf's Python parser makes of a text; None where it refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python, about the escapes
        try:
            return text_format.Parse(text, schema().ModelConfig())
        except (text_format.ParseError, ValueError):
            return None


def same(one: Any, other: Any) -> bool:
    """Equal, and NaN equals NaN."""
    first, second = (message.SerializeToString(deterministic=True) for message in (one, other))
    return bool(first == second)


def readable(text: bytes | str) -> None:
    """Each function returns or raises PbtxtError, for a place within the text."""
    try:
        tree = parse_tree(text)
        unknown_fields(tree, descriptor())
        unknown_enum_values(tree, descriptor())
        invalid_strings(tree)
        assert tree.line("input", 0, "dims", 1) >= 1
        message_of(tree)
    except PbtxtError as caught:
        error = caught
    else:
        return
    lines = text.count(b"\n") if isinstance(text, bytes) else text.count("\n")
    assert 1 <= error.line <= lines + 1
    assert 1 <= error.column <= len(text) + 1


_PIECES = [
    piece.encode() for piece in ("{", "}", "[", "]", "<", ">", ":", ",", ";", "-", "'", '"', "#", "\n", " ", "\\", "0")
]
_PIECES += [
    piece.encode() for piece in ("0x", "1", "8", "e", "f", ".", "_", "input", "dims", "name", "\0", "\x01", "é", "inf")
]


def mutated(chance: random.Random, text: bytes) -> bytes:
    """The text with a few bytes replaced, added, taken out or copied elsewhere."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, other = chance.randint(0, len(text)), chance.randint(0, len(text))
        length, piece = (
            chance.choice((0, 1, 1, 3)),
            chance.choice((*_PIECES, text[other : other + chance.randint(1, 20)])),
        )
        text = text[:at] + chance.choice((piece, b"")) + text[at + length :]
    return text


def test_it_imports_no_framework() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "numpy", "grpc")
    code = f"import sys; from modelwright.triton.pbtext import parse_message; parse_message('name: \"x\"'); print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"


def test_the_entries_of_maps_are_known_without_reading_options() -> None:
    waiting = list(schema().DESCRIPTOR.message_types_by_name.values())
    for message in waiting:
        waiting += message.nested_types
        assert is_map_entry(message) == message.GetOptions().map_entry, message.full_name
    assert any(map(is_map_entry, waiting))


@pytest.mark.parametrize(
    "text",
    [
        "dims: [ 1, -2 , 0x10, 010, 1.5, inf ]",
        "dims: [ " + "1, " * 100 + "1 ]",
        "name: 'a' # not \"b\"\n 'c'",
        'name: "a"\n"b"; x { y: 1, }',
        "a { b: - 1 c: -1 }",
    ],
)
def test_a_usual_field_and_the_same_one_with_comments_are_read_alike(text: str) -> None:
    """Comments between tokens keep the parser from reading a field in one match."""
    spaced = re.sub(r"""("[^"]*"|'[^']*'|#.*\n)|([][{}:,;])""", r"\1\2 #\n", text)
    assert [(field.name, field.value) for field in _flat(parse_tree(text).roots)] == [
        (field.name, field.value) for field in _flat(parse_tree(spaced).roots)
    ]


def _flat(fields: Sequence[Field]) -> Iterator[Field]:
    for field in fields:
        yield field
        yield from _flat(field.children)
