"""config.pbtxt, protobuf's text format, read as tritonserver's own parser reads it, with line numbers.

    tree = parse_tree(path.read_bytes())  # fields and where they are: the grammar only, any field names
    config = message_of(tree)             # the ModelConfig that the server would have

protobuf's Python parser is not used: it differs from the server's C++ one in many places, which
`tests/triton/pbtext_cases.py` lists with the server's verdicts, and keeps no line numbers. These are the rules of
protobuf's C++ tokenizer and text_format, each tried on a real tritonserver.

Hostile input raises PbtxtError: reading is linear in the text, and messages nest at most MAX_DEPTH deep.
"""

from __future__ import annotations

import math
import re
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple, NoReturn

from modelwright.triton.messages import is_map_entry, is_repeated
from modelwright.triton.model_config_pb2 import schema

MAX_DEPTH = 64  # ModelConfig's own messages nest six deep


class PbtxtError(ValueError):
    """The server refuses this text. `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"{line}:{column}: {message}")
        self.line = line
        self.column = column
        self.message = message


class Field(NamedTuple):
    """One occurrence of a field. Each element of `name: [a, b]` is one, at the element's place.

    `value` is a scalar as written, its tokens joined (`- 1` is "-1"); None for a message. An empty list is a Field of
    form "empty", or "bare" without a colon, and has no element.
    """

    name: str
    line: int
    column: int
    value: str | None
    children: tuple[Field, ...]
    form: Literal["plain", "list", "empty", "bare"]
    name_line: int  # of the name, which an element of a list is not next to
    name_column: int

    @property
    def key(self) -> str | None:
        """The key of this entry of a map; None for an entry without a key, or another message."""
        values = [child.value for child in self.children if child.name == "key" and child.value is not None]
        if not values:
            return None
        return _text(values[-1])[0] if values[-1][0] in _QUOTES else values[-1]


class FieldPlace(NamedTuple):
    """Where one occurrence of a top-level field stands in a text: text[start:end], with its separator if it has one.

    `field` is what it holds; of a list it is the first element.
    """

    start: int
    end: int
    field: Field


class Tree:
    """The fields of a text, with their places. Empty lists are among them: see Field."""

    def __init__(self, roots: tuple[Field, ...]) -> None:
        self.roots = roots

    def line(self, *path: str | int) -> int:
        """The line of a field. The path holds names, an index after a repeated field, a key after a map.

            tree.line("input", 1, "dims", 0)
            tree.line("parameters", "execution_mode", "string_value")

        Without an index: the line of the first occurrence. For a field that is not written: the line of its nearest
        ancestor, or 1.
        """
        line, scope, group = 1, self.roots, list[Field]()
        for step in path:
            chosen = _element(group, step)
            if chosen:
                line, scope, group = chosen.line, chosen.children, []
                continue
            group = [field for field in _through_value(scope, step) if field.name == step]
            if not group:
                break
            line, scope = group[0].name_line, group[0].children
        return line


def _element(group: Sequence[Field], step: str | int) -> Field | None:
    """An entry of a map by its key, which may be a number, or an element by its index."""
    elements = [field for field in group if field.form in _ELEMENT]
    keyed = [field for field in elements if field.key == str(step)]
    if keyed:
        return keyed[-1]  # the last one counts
    return elements[step] if isinstance(step, int) and step < len(elements) else None


def _through_value(scope: tuple[Field, ...], step: str | int) -> tuple[Field, ...]:
    """The fields to search for a name. In an entry of a map, those of its value, unless the name is `value`."""
    names = {field.name: field for field in scope}
    return names["value"].children if step not in names and "key" in names and "value" in names else scope


# ---- text -> tree

_STRING_BODY = r"""(?:\\(?:[abfnrtv\\?'"0-7]|x[0-9a-fA-F]|u[0-9a-fA-F]{4}|U00[01][0-9a-fA-F]{5})[^%s\\\n\0]*)*"""
_SPACE = r"[ \t\r\n\v\f]*"
_NAME_PATTERN = "[A-Za-z_][A-Za-z0-9_]*"
_NUMBER_PATTERN = r"""(?: 0[xX][0-9a-fA-F]+ | 0[0-7]+
    | (?: (?:0|[1-9][0-9]*) (?:\.[0-9]*)? | \.[0-9]+ ) (?:[eE][+-]?[0-9]+)? [fF]? ) (?![A-Za-z0-9_.])"""
_STRING_PATTERN = rf""" "[^"\\\n\0]*{_STRING_BODY % '"'}" | '[^'\\\n\0]*{_STRING_BODY % "'"}' """
# Space and a token. After space some alternative always matches, so this never goes back.
_TOKEN = re.compile(
    rf"""
    {_SPACE}
    (?: ( {_NAME_PATTERN} ) | ( {_NUMBER_PATTERN} ) | ( {_STRING_PATTERN} ) | ( [][{{}}<>:,;-] )
      | ( \Z ) | ( \#[^\n\0]* ) | ( . ) )
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME, _NUMBER, _STRING, _SYMBOL, _END, _COMMENT, _FAULT = range(1, 8)
# What most of a config consists of, each in one match: `name: value`, `name: [ 1, 2 ]` and `name {`, without comments
# inside. Values are words, whole numbers, and strings without escapes where no other can follow: adjacent ones are one.
_WORD = rf"-? (?: {_NAME_PATTERN} | (?:0|[1-9][0-9]*) (?![A-Za-z0-9_.]) )"
_FIELD = re.compile(
    rf"""
    ( {_NAME_PATTERN} ) {_SPACE} (?: : {_SPACE}
    (?: ( {_WORD} | (?: "[^"\\\n\0]*" | '[^'\\\n\0]*' ) (?= {_SPACE} [^\s"'\#] ) )
      | ( \[ {_SPACE} {_WORD} (?: {_SPACE} , {_SPACE} {_WORD} ){{0,63}} {_SPACE} \] ) )
      | :? {_SPACE} ( \{{ ) )
    """,
    re.VERBOSE,
)
_ITEM = re.compile(r"[^][\s,]+")
_NEWLINE = re.compile("\n")
_QUOTES = ('"', "'")
_DIGITS = tuple(".0123456789")
_ELEMENT = ("plain", "list")
_CLOSING = {"{": "}", "<": ">"}


def parse_tree(text: str | bytes) -> Tree:
    """Read a config.pbtxt; bytes that are not UTF-8 are kept, as by the server. Raises PbtxtError."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return Tree(_Parser(text).message("", 0))


def places(text: str) -> list[FieldPlace]:
    """The places of the top-level fields of a config.pbtxt, in order. Raises PbtxtError."""
    return _Parser(text).places()


class _Parser:
    """A parser with one token of look-ahead, like the C++ one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [0, *(match.end() for match in _NEWLINE.finditer(text))]  # where each starts
        self._kind, self._word, self._at = _END, "", 0  # the next token
        self._ended = 0  # where the last token ended that was taken
        self._advance(0)

    def _next(self) -> None:
        self._advance(self._at + len(self._word))

    def _advance(self, ended: int) -> None:
        """Go to the token after this place."""
        self._ended = ended
        match = _TOKEN.match(self._text, ended)
        while match and match.lastindex == _COMMENT:
            match = _TOKEN.match(self._text, match.end())
        assert match
        kind = match.lastindex
        assert kind
        self._kind, self._word, self._at = kind, match[kind], match.start(kind)
        if kind == _FAULT:
            self._fail(_lexical_error(self._text, self._at))

    def _place(self, at: int) -> tuple[int, int]:
        """Line and column, from 1."""
        line = bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1

    def _fail(self, message: str) -> NoReturn:
        raise PbtxtError(*self._place(self._at), message)

    def _expected(self, what: str) -> NoReturn:
        self._fail(f"expected {what}, got {_quoted(self._word) if self._word else 'the end of the file'}")

    def message(self, closing: str, depth: int) -> tuple[Field, ...]:
        """The fields up to and including the closing bracket; up to the end of the text if `closing` is empty."""
        fields: list[Field] = []
        while self._word != closing:
            if self._kind != _NAME:
                self._expected(f"a field's name or '{closing}'" if closing else "a field's name")
            self._field(fields, depth)
            if self._word in (",", ";"):
                self._next()
        if closing:
            self._next()
        return tuple(fields)

    def places(self) -> list[FieldPlace]:
        found: list[FieldPlace] = []
        while self._word:
            if self._kind != _NAME:
                self._expected("a field's name")
            start, fields = self._at, list[Field]()
            self._field(fields, 0)
            if self._word in (",", ";"):
                self._next()
            found.append(FieldPlace(start, self._ended, fields[0]))
        return found

    def _field(self, fields: list[Field], depth: int) -> None:
        usual = _FIELD.match(self._text, self._at)
        if usual and (usual[2] or usual[3] or depth < MAX_DEPTH):
            self._usual_field(fields, usual, depth)
            return
        name, (line, column) = self._word, self._place(self._at)
        self._next()
        colon = self._word == ":"
        if colon:
            self._next()
        if self._word == "[":
            self._list(fields, name, line, column, colon, depth)
            return
        value, children = self._value(name, colon, depth)
        fields.append(Field(name, line, column, value, children, "plain", line, column))

    def _usual_field(self, fields: list[Field], match: re.Match[str], depth: int) -> None:
        """A field as _FIELD matches it."""
        name, (line, column) = match[1], self._place(self._at)
        self._advance(match.end())
        if match[2]:
            fields.append(Field(name, line, column, match[2], (), "plain", line, column))
        elif match[3]:
            for item in _ITEM.finditer(self._text, *match.span(3)):
                fields.append(Field(name, *self._place(item.start()), item[0], (), "list", line, column))
        else:
            fields.append(Field(name, line, column, None, self.message("}", depth + 1), "plain", line, column))

    def _list(self, fields: list[Field], name: str, line: int, column: int, colon: bool, depth: int) -> None:
        self._next()
        if self._word == "]":
            fields.append(Field(name, line, column, None, (), "empty" if colon else "bare", line, column))
            self._next()
            return
        while True:
            at_line, at_column = self._place(self._at)
            value, children = self._value(name, colon, depth)
            fields.append(Field(name, at_line, at_column, value, children, "list", line, column))
            if self._word == "]":
                break
            if self._word != ",":
                self._expected("',' or ']'")
            self._next()
        self._next()

    def _value(self, name: str, colon: bool, depth: int) -> tuple[str | None, tuple[Field, ...]]:
        closing = _CLOSING.get(self._word)
        if closing:
            if depth == MAX_DEPTH:
                self._fail(f"messages nest more than {MAX_DEPTH} deep")
            self._next()
            return None, self.message(closing, depth + 1)
        if not colon:
            self._expected(f"':' or '{{' after '{_shown(name)}'")
        return self._scalar(name), ()

    def _scalar(self, name: str) -> str:
        value = self._word
        if self._kind == _STRING:
            return self._strings()
        if value == "-":
            self._next()
            value += self._word
        if self._kind not in (_NUMBER, _NAME):
            self._expected(f"a value of '{_shown(name)}'")
        self._next()
        return value

    def _strings(self) -> str:
        """Adjacent literals, which are one string."""
        literals = []
        while self._kind == _STRING:
            literals.append(self._word)
            self._next()
        return " ".join(literals)


_NUMBER_LIKE = re.compile(r"[0-9.][0-9A-Za-z_.]*")
_LITERAL_LIKE = re.compile(r"""(?s)"[^"\\\n\0]*(?:\\[^\n\0][^"\\\n\0]*)*|'[^'\\\n\0]*(?:\\[^\n\0][^'\\\n\0]*)*""")


def _lexical_error(text: str, at: int) -> str:
    """Why no token can start at this character."""
    number = _NUMBER_LIKE.match(text, at)
    if number and len(number[0]) > 1:
        return f"{_quoted(number[0])} is not a number; a space must follow a number"
    literal = _LITERAL_LIKE.match(text, at)
    if literal:
        if text[literal.end() : literal.end() + 1] == text[at]:
            return f"{_quoted(literal[0] + text[at])} has an unknown escape: write \\\\ for a backslash"
        return f"{_quoted(literal[0])} is not closed on its line"
    if at == 0 and text[at] == "\ufeff":
        return "the file starts with a byte order mark: save it as UTF-8 without one"
    return f"unexpected character {_quoted(text[at])}"


def _shown(text: str, limit: int = 40) -> str:
    """Text of the file in a message: short and printable."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _quoted(text: str) -> str:
    return _shown(text) if text[:1] in _QUOTES else f"'{_shown(text)}'"


# ---- tree -> message


def parse_message(text: str | bytes, kind: Any = None) -> Any:
    """The ModelConfig (or the message of `kind`) in a text. Raises PbtxtError where the server refuses it."""
    return message_of(parse_tree(text), kind)


def message_of(tree: Tree, kind: Any = None) -> Any:
    """The ModelConfig (or the message of `kind`) in a tree. Raises PbtxtError for what the server refuses.

    A string that is not UTF-8 is accepted, with U+FFFD for its invalid bytes: `invalid_strings` finds those.
    """
    message = (kind or schema().ModelConfig)()
    _fill(message, tree.roots, _slots(message.DESCRIPTOR))
    return message


class _Slot(NamedTuple):
    """What `_fill` needs to know about a field, looked up once."""

    repeated: bool
    presence: bool  # protobuf records that it was written, also with its default value
    oneof: str | None
    convert: Callable[[Field], Any] | None  # of a scalar
    message: Any  # the descriptor of a message; None for a scalar
    entry: Any  # of a map: the class of its entries


@cache
def _slots(descriptor: Any) -> dict[str, _Slot]:
    return {field.name: _slot(field) for field in descriptor.fields}


def _slot(field: Any) -> _Slot:
    message = field.message_type
    return _Slot(
        repeated=is_repeated(field),
        # Key and value of a map's entry count as written even if they are empty.
        presence=field.has_presence or is_map_entry(field.containing_type),
        oneof=field.containing_oneof.name if field.containing_oneof else None,
        convert=None if message else _converter(field),
        message=message,
        entry=_class_of(message) if message and is_map_entry(message) else None,
    )


def _class_of(descriptor: Any) -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(descriptor)


def _fill(message: Any, fields: Sequence[Field], slots: dict[str, _Slot]) -> None:
    written: set[str] = set()
    for field in fields:
        slot = slots.get(field.name)
        if slot is None:
            _refuse(field, f"unknown field '{_shown(field.name)}'")
        if slot.repeated:
            _add(getattr(message, field.name), field, slot)
            continue
        _check_single(message, field, slot, written)
        if slot.convert:
            setattr(message, field.name, slot.convert(field))
        else:
            part = getattr(message, field.name)
            part.SetInParent()
            _fill(part, _inside(field), _slots(slot.message))


def _add(elements: Any, field: Field, slot: _Slot) -> None:
    """One more element of a repeated field, or entry of a map."""
    if field.form not in _ELEMENT:
        if field.form == "bare" and slot.convert:
            _refuse(field, f"expected ':' after '{field.name}'")
    elif slot.convert:
        elements.append(slot.convert(field))
    elif slot.entry:
        _put(elements, field, slot)
    else:
        _fill(elements.add(), _inside(field), _slots(slot.message))


def _put(entries: Any, field: Field, slot: _Slot) -> None:
    """Add an entry to a map. The last entry of a key wins; a missing key or value is empty."""
    slots = _slots(slot.message)
    entry = slot.entry()
    _fill(entry, _inside(field), slots)
    if slots["value"].convert:
        entries[entry.key] = entry.value
    else:
        entries[entry.key].CopyFrom(entry.value)


def _check_single(message: Any, field: Field, slot: _Slot, written: set[str]) -> None:
    """Refuse a field that is a list, is written twice, or excludes another of its oneof.

    Where protobuf records no presence, a default value does not count as written.
    """
    if field.form != "plain":
        _refuse(field, f"'{field.name}' needs one value, got a list")
    if field.name in written and (slot.presence or _holds(getattr(message, field.name))):
        _refuse(field, f"'{field.name}' is written twice")
    if slot.oneof:
        other = message.WhichOneof(slot.oneof)
        if other not in (None, field.name):
            _refuse(field, f"'{field.name}' and '{other}' exclude each other: keep one")
    written.add(field.name)


def _holds(value: Any) -> bool:
    return bool(value) or (isinstance(value, float) and math.copysign(1, value) < 0)


def _inside(field: Field) -> tuple[Field, ...]:
    if field.value is not None:
        _refuse(field, f"'{field.name}' needs {{ fields }}, got {_quoted(field.value)}")
    return field.children


def _refuse(field: Field, message: str) -> NoReturn:
    raise PbtxtError(field.line, field.column, message)


# ---- scalars

_INTEGER = re.compile(r"(-?)(0[xX][0-9a-fA-F]+|[0-9]+)")
_LONGEST_INTEGER = 20  # decimal digits of 2**64
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_BIT = re.compile("0[xX]0*[01]|0*[01]")
_NOT_DECIMAL = re.compile("0[xX0-7]")


def _converter(field: Any) -> Callable[[Field], Any]:
    kinds: dict[int, Callable[[Field], Any]] = {
        field.CPPTYPE_INT32: partial(_integer, low=-(2**31), high=2**31 - 1),
        field.CPPTYPE_INT64: partial(_integer, low=-(2**63), high=2**63 - 1),
        field.CPPTYPE_UINT32: partial(_integer, low=0, high=2**32 - 1),
        field.CPPTYPE_UINT64: partial(_integer, low=0, high=2**64 - 1),
        field.CPPTYPE_FLOAT: _float,
        field.CPPTYPE_DOUBLE: _float,
        field.CPPTYPE_BOOL: _bool,
        field.CPPTYPE_STRING: _string,
    }
    if field.cpp_type == field.CPPTYPE_ENUM:
        return partial(_enum, numbers={value.name: value.number for value in field.enum_type.values})
    return _bytes if field.type == field.TYPE_BYTES else kinds[field.cpp_type]


def _integer(field: Field, *, low: int, high: int) -> int:
    match = _INTEGER.fullmatch(field.value or "")
    if not match or (match[1] and not low):  # -0 is not an unsigned integer either
        _wrong(field, "an integer" if low else "an integer without a sign")
    digits = match[2]
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    # Python refuses to convert thousands of decimal digits.
    number = high + 2 if base == 10 and len(digits) > _LONGEST_INTEGER else int(digits, base)
    number = -number if match[1] else number
    if not low <= number <= high:
        _wrong(field, f"an integer from {low} to {high}")
    return number


def _float(field: Field) -> float:
    text = field.value or ""
    digits = text.removeprefix("-")
    if digits[:1] in _QUOTES or _NOT_DECIMAL.match(digits):
        _wrong(field, "a decimal number")
    if digits[:1] not in _DIGITS:
        if digits.lower() not in ("inf", "infinity", "nan"):
            _wrong(field, "a number")
        return float(text)
    return float(text.rstrip("fF"))


def _bool(field: Field) -> bool:
    value = field.value or ""
    if value in _BOOLS:
        return _BOOLS[value]
    if not _BIT.fullmatch(value):
        _wrong(field, "true or false")
    return value[-1] == "1"


def _enum(field: Field, *, numbers: dict[str, int]) -> int:
    value = field.value or ""
    if value[:1] in ("-", *_DIGITS):
        return _integer(field, low=-(2**31), high=2**31 - 1)  # any number: proto3's enums are open
    if value not in numbers:
        _wrong(field, "one of its enum's names")
    return numbers[value]


def _string(field: Field) -> str:
    return _text(_literals(field))[0]


def _bytes(field: Field) -> bytes:
    return _raw(_literals(field))


def _literals(field: Field) -> str:
    if not field.value or field.value[0] not in _QUOTES:
        _wrong(field, "a string in quotes")
    return field.value


def _wrong(field: Field, what: str) -> NoReturn:
    value = field.value
    got = "{" if value is None else f"the string {_shown(value)}" if value[0] in _QUOTES else _quoted(value)
    _refuse(field, f"'{field.name}' needs {what}, got {got}")


_LITERAL = re.compile(r"""(?s)"([^"\\]*(?:\\.[^"\\]*)*)"|'([^'\\]*(?:\\.[^'\\]*)*)'""")
_ESCAPE = re.compile(
    rb"""(?sx) \\(?: (?:u|U0000)(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})
    | [uU](?P<point>(?<=u)[0-9a-fA-F]{4}|(?<=U)[0-9a-fA-F]{8})
    | (?P<octal>[0-7]{1,3}) | x(?P<hex>[0-9a-fA-F]{1,2}) | (?P<letter>.) )"""
)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def _text(literals: str) -> tuple[str, bool]:
    """The text of adjacent literals, and whether it is UTF-8."""
    raw = _raw(literals)
    try:
        return raw.decode(), True
    except UnicodeDecodeError:
        return raw.decode(errors="replace"), False


def _raw(literals: str) -> bytes:
    return b"".join(
        _ESCAPE.sub(_unescaped, (match[1] or match[2] or "").encode("utf-8", "surrogateescape"))
        for match in _LITERAL.finditer(literals)
    )


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match["high"]:
        point = 0x10000 + ((int(match["high"], 16) - 0xD800) << 10) + int(match["low"], 16) - 0xDC00
        return chr(point).encode()
    if match["point"]:
        point = int(match["point"], 16)
        # C++ keeps an escape beyond Unicode as it is written, and encodes half a surrogate pair like a letter.
        return chr(point).encode("utf-8", "surrogatepass") if point <= sys.maxunicode else b"\\U%08x" % point
    if match["octal"]:
        return bytes([int(match["octal"], 8) & 0xFF])
    if match["hex"]:
        return bytes([int(match["hex"], 16)])
    return _LETTERS.get(match["letter"], match["letter"])


# ---- tree against a descriptor


class Unknown(NamedTuple):
    """The name of a field or of an enum's value that does not exist."""

    name: str
    line: int
    column: int
    path: str  # of the field: input[0].data_type, parameters["mode"].value.strin_value
    known: tuple[str, ...]  # the names that exist


def unknown_fields(tree: Tree, descriptor: Any) -> list[Unknown]:
    """The fields that a message does not have, in the text's order; a list counts once. Fields inside are skipped."""
    return list(
        dict.fromkeys(
            Unknown(field.name, field.name_line, field.name_column, path, _field_names(owner))
            for field, found, owner, path in _walk(tree.roots, descriptor, "")
            if found is None
        )
    )


def unknown_enum_values(tree: Tree, descriptor: Any) -> list[Unknown]:
    """The enum values whose names do not exist. Numbers pass: the server accepts any number."""
    return [
        Unknown(field.value, field.line, field.column, path, _value_names(found.enum_type))
        for field, found, _, path in _walk(tree.roots, descriptor, "")
        if found is not None and found.enum_type and field.value and _is_unknown_value(field.value, found.enum_type)
    ]


def without_unknown(tree: Tree, descriptor: Any) -> Tree:
    """The tree without the fields that a message does not have, so that other mistakes can be found."""
    return Tree(_known_only(tree.roots, descriptor))


def _known_only(fields: Sequence[Field], owner: Any) -> tuple[Field, ...]:
    kept = []
    for field in fields:
        found = owner.fields_by_name.get(field.name)
        if found is not None and found.message_type and field.children:
            field = field._replace(children=_known_only(field.children, found.message_type))
        if found is not None:
            kept.append(field)
    return tuple(kept)


def invalid_strings(tree: Tree) -> list[Field]:
    """The strings that are not UTF-8: the server loads them, and passes empty strings on."""
    return [
        field for field in _all(tree.roots) if field.value and field.value[0] in _QUOTES and not _text(field.value)[1]
    ]


def _all(fields: Sequence[Field]) -> Iterator[Field]:
    for field in fields:
        yield field
        yield from _all(field.children)


def _walk(fields: Sequence[Field], owner: Any, path: str) -> Iterator[tuple[Field, Any, Any, str]]:
    """(field, its descriptor or None, the message's descriptor, path) of every field in known messages."""
    count: Counter[str] = Counter()
    for field in fields:
        found = owner.fields_by_name.get(field.name)
        inside = f"{path}{field.name}" + (_index(field, found, count[field.name]) if found else "")
        count[field.name] += field.form in _ELEMENT
        yield field, found, owner, inside
        if found is not None and found.message_type:
            yield from _walk(field.children, found.message_type, inside + ".")


def _index(field: Field, found: Any, count: int) -> str:
    if not is_repeated(found) or field.form not in _ELEMENT:
        return ""
    if found.message_type and is_map_entry(found.message_type):
        return f'["{field.key or ""}"]'
    return f"[{count}]"


@cache
def _field_names(descriptor: Any) -> tuple[str, ...]:
    return tuple(field.name for field in descriptor.fields)


@cache
def _value_names(enum: Any) -> tuple[str, ...]:
    return tuple(value.name for value in enum.values)


def _is_unknown_value(value: str, enum: Any) -> bool:
    return value[0] not in ("-", *_DIGITS, *_QUOTES) and value not in enum.values_by_name
