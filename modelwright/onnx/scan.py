"""Reads what an ONNX file declares, without its weights, and without the libraries onnx and numpy.

    scan(path).inputs  # (Value("x", "tensor", 1, ("batch", 4)),)

protobuf's wire format is read field by field from a memory map of the file. Fields that are not needed are skipped by
their length, so the time depends on the graph and not on the weights. Messages without needed fields are not parsed, so
errors inside them are not found. A damaged or hostile file raises OnnxScanError: time and memory are linear in the
number of fields, which is limited, and so is nesting.

Field numbers are those of onnx-ml.proto.
"""

from __future__ import annotations

import mmap
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import cast

from modelwright.fsops import open_file, read_file
from modelwright.onnx.signature import ExternalTensor, Signature, Value, ValueKind

MAX_DEPTH = 100  # protobuf's own
MAX_BYTES = 2**31 - 1  # protobuf's own: nothing loads a larger file
MAX_FIELDS = 10_000_000  # about five seconds; the graph of a language model has a tenth of that
MAX_NAMES = 500_000  # of inputs, outputs, dimensions, initializers, external tensors
MAX_NAME_BYTES = 2**16
MAX_PIECES = 1000  # of one message


class OnnxScanError(ValueError):
    """The file is not ONNX, is damaged, or exceeds a limit. The message does not name the file."""


def scan(path: Path) -> Signature:
    """Read what a file declares. Raises OnnxScanError and OSError."""
    with _opened(path) as data:
        return _Scanner(data).model()


_READ_UP_TO_BYTES = 2**18


@contextmanager
def _opened(path: Path) -> Iterator[bytes | mmap.mmap]:
    """The file's bytes: a memory map, or for a small file its content, which is faster."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OnnxScanError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise OnnxScanError(f"{status.st_size} bytes; protobuf reads less than 2 GiB, larger weights must be external")
    if status.st_size <= _READ_UP_TO_BYTES:
        yield read_file(path, MAX_BYTES)
        return
    with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        yield mapping


# ---- protobuf's wire format

_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)

_Span = tuple[int, int]  # the bytes of a message: the first one, and the one after the last


class _Pieces(list[_Span]):
    """The spans of one message. A message of a field that is not repeated may be written in several pieces."""

    def append(self, span: _Span) -> None:
        if len(self) == MAX_PIECES:
            raise OnnxScanError(f"byte {span[0]}: one message in more than {MAX_PIECES} pieces")
        super().append(span)


class _Reader:
    """Reads fields of messages. Lengths, counts and nesting are checked against the file and the limits."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._fields_left = MAX_FIELDS

    def fields(self, pieces: Sequence[_Span], wanted: Mapping[int, str]) -> Iterator[tuple[str, int, int]]:
        """(name, start, end) of each field with a wanted tag, in the file's order; other fields are skipped."""
        data, allowed, count = self._data, self._fields_left, 0
        for at, end in pieces:
            while at < end:
                count += 1
                if count > allowed:
                    raise OnnxScanError(f"more than {MAX_FIELDS} fields")
                tag, after = data[at], at + 2
                if tag in _USUAL and after <= end and data[at + 1] < 0x80:  # the common case, inlined for speed
                    start, at = after, self._within(after + data[at + 1], end)
                else:
                    tag, start, at = self._field(at, end)
                name = wanted.get(tag)
                if name is not None:
                    yield name, start, at
                elif at < end and data[at] == tag < 0x80:
                    at = self._past_run(tag, at, end)
        self._fields_left -= count

    def number(self, start: int, end: int, bits: int = 64) -> int:
        """A varint as a signed integer. Of a larger number only the lower bits count."""
        value = self._varint(start, end, 10)[0] & (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value

    def text(self, start: int, end: int) -> str:
        if end - start > MAX_NAME_BYTES:
            raise OnnxScanError(f"byte {start}: a name has {end - start} bytes, too many")
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError:
            raise OnnxScanError(f"byte {start}: a name is not UTF-8") from None

    def _field(self, at: int, end: int) -> tuple[int, int, int]:
        """(tag, start and end of the payload) of the field that starts here."""
        tag, start = self._varint(at, end, 5)
        if tag < 8 or tag >> 32:
            raise OnnxScanError(f"byte {at}: invalid field number {tag >> 3}")
        wire = tag & 7
        if wire == _BYTES:
            length, start = self._varint(start, end, 5)
            return tag, start, self._within(start + length, end)
        if wire == _VARINT:
            return tag, start, self._varint(start, end, 10)[1]
        if wire == _GROUP:
            return tag, start, self._past_group(tag, start, end)
        if wire in _FIXED_BYTES:
            return tag, start, self._within(start + _FIXED_BYTES[wire], end)
        raise OnnxScanError(f"byte {at}: invalid wire type {wire}")

    def _varint(self, at: int, end: int, limit: int) -> tuple[int, int]:
        value = shift = 0
        last = min(at + limit, end)
        while at < last:
            byte = self._data[at]
            at += 1
            if byte < 0x80:
                return value | byte << shift, at
            value |= (byte & 0x7F) << shift
            shift += 7
        raise OnnxScanError(
            f"byte {at}: " + ("cut short in the middle of a number" if at == end else "a number is too long")
        )

    def _within(self, at: int, end: int) -> int:
        if at > end:
            raise OnnxScanError(f"byte {end}: cut short, {at - end} bytes are missing")
        return at

    def _past_group(self, tag: int, at: int, end: int) -> int:
        """The end of a group, an old kind of message that ONNX does not use."""
        open_groups = [tag >> 3]
        while open_groups:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise OnnxScanError(f"more than {MAX_FIELDS} fields")
            tag, start = self._varint(at, end, 5)
            if tag & 7 == _GROUP_END:
                if tag >> 3 != open_groups.pop():
                    raise OnnxScanError(f"byte {at}: end of a group that was not opened")
                at = start
            elif tag & 7 == _GROUP:
                open_groups.append(tag >> 3)
                if len(open_groups) > MAX_DEPTH:
                    raise OnnxScanError(f"groups nest more than {MAX_DEPTH} deep")
                at = start
            else:
                at = self._field(at, end)[2]
        return at

    def _past_run(self, tag: int, at: int, end: int) -> int:
        """The end of a run of numbers with one tag: a tree ensemble has millions in one attribute."""
        pattern = _run(tag)
        while pattern and (match := pattern.match(self._data, at, end)):
            at = match.end()
        return at


# Tags of one byte for strings and messages: those of nearly every field.
_USUAL = frozenset(number << 3 | _BYTES for number in range(1, 16))
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


@cache
def _run(tag: int) -> re.Pattern[bytes] | None:
    """Matches fields with a tag of one byte that are numbers. Limited in count: the matcher needs memory for each."""
    number = {_VARINT: rb"[\x80-\xff]{0,9}[\x00-\x7f]", _FIXED64: b".{8}", _FIXED32: b".{4}"}.get(tag & 7)
    return re.compile(b"(?s:%s%s){1,4096}" % (re.escape(bytes([tag])), number)) if number else None


# ---- ONNX


def _message(numbers: Mapping[str, int], bytes_: Mapping[str, int]) -> dict[int, str]:
    """{tag: name} of the wanted fields of a message: varints, and strings or messages."""
    tags = {number << 3 | _VARINT: name for name, number in numbers.items()}
    return tags | {number << 3 | _BYTES: name for name, number in bytes_.items()}


_MODEL = _message(
    {"ir_version": 1}, {"producer_name": 2, "producer_version": 3, "graph": 7, "opset_import": 8, "functions": 25}
)
_OPSET = _message({"version": 2}, {"domain": 1})
_INNER_GRAPH = _message({}, {"node": 1, "initializer": 5, "sparse_initializer": 15})
_GRAPH = _INNER_GRAPH | _message({}, {"input": 11, "output": 12})
_FUNCTION = _message({}, {"node": 7, "attribute": 11})
_NODE = _message({}, {"attribute": 5})
_ATTRIBUTE = _message({}, {"t": 5, "g": 6, "tensors": 10, "graphs": 11, "sparse_tensor": 22, "sparse_tensors": 23})
# The first byte of each of these tags, also if the tag is written in more bytes than needed. Most attributes hold only
# numbers, and none of these bytes.
_ATTRIBUTE_TAGS = re.compile(
    b"[%s]" % re.escape(bytes({tag & 0x7F for tag in _ATTRIBUTE} | {tag & 0x7F | 0x80 for tag in _ATTRIBUTE}))
)
_SMALL_BYTES = 256
_SPARSE = _message({}, {"values": 1, "indices": 2})
_TENSOR = _message({"data_location": 14}, {"name": 8, "external_data": 13})
_ENTRY = _message({}, {"key": 1, "value": 2})
_VALUE = _message({}, {"name": 1, "type": 2})
_TYPE = _message(
    {}, {"tensor": 1, "sequence": 4, "map": 5, "opaque": 7, "sparse_tensor": 8, "optional": 9}
)  # fields of a oneof: the last one counts
_TENSOR_TYPE = _message({"elem_type": 1}, {"shape": 2})
_SHAPE = _message({}, {"dim": 1})
_DIM = _message({"dim_value": 1}, {"dim_param": 2})  # a oneof

_DEFAULT, _EXTERNAL = 0, 1  # TensorProto.DataLocation
_OFFSET = re.compile("[0-9]{1,18}")


class _Scanner(_Reader):
    """Reads the messages of one file. `depth` is the number of messages around the current one."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        super().__init__(data)
        self._externals: list[ExternalTensor] = []
        self._names_left = MAX_NAMES

    def model(self) -> Signature:
        ir_version: int | None = None
        producer, opsets = {"name": "", "version": ""}, dict[str, int]()
        graph = _Pieces()
        for name, start, end in self.fields([(0, len(self._data))], _MODEL):
            if name == "ir_version":
                ir_version = self.number(start, end)
            elif name == "opset_import":
                domain, version = self._opset((start, end))
                opsets[domain] = max(version, opsets.get(domain, version))
                self._count()
            elif name == "graph":
                graph.append((start, end))
            elif name == "functions":
                self._function((start, end))
            else:
                producer[name.removeprefix("producer_")] = self.text(start, end)
        if not graph:
            raise OnnxScanError("it has no ONNX graph")
        inputs, outputs, initializers = self._graph(graph)
        return Signature(
            ir_version=ir_version,
            opsets=opsets,
            inputs=tuple(value for value in inputs if value.name not in initializers),
            overridable=tuple(value for value in inputs if value.name in initializers and (ir_version or 0) >= 4),
            outputs=outputs,
            external_tensors=tuple(self._externals),
            producer=" ".join(filter(None, producer.values())),
        )

    def _opset(self, span: _Span) -> tuple[str, int]:
        domain, version = "", 0
        for name, start, end in self.fields([span], _OPSET):
            if name == "domain":
                domain = self.text(start, end)
            else:
                version = self.number(start, end)
        return "" if domain == "ai.onnx" else domain, version

    # -- inputs and outputs

    def _graph(self, pieces: _Pieces) -> tuple[tuple[Value, ...], tuple[Value, ...], set[str]]:
        """(inputs, outputs, names of initializers) of the model's graph."""
        inputs, outputs, initializers = list[Value](), list[Value](), set[str]()
        for name, start, end in self.fields(pieces, _GRAPH):
            if name == "node":
                self._node((start, end), 2)
                continue
            self._count()
            if name == "initializer":
                initializers.add(self._tensor(_Pieces([(start, end)])))
            elif name == "sparse_initializer":
                initializers.add(self._sparse(_Pieces([(start, end)])))
            else:
                (inputs if name == "input" else outputs).append(self._value((start, end)))
        return tuple(inputs), tuple(outputs), initializers

    def _value(self, span: _Span) -> Value:
        name, type_ = "", _Pieces()
        for field, start, end in self.fields([span], _VALUE):
            if field == "name":
                name = self.text(start, end)
            else:
                type_.append((start, end))
        kind, pieces = self._kind(type_)
        elem_type, dims = self._tensor_type(pieces) if kind in ("tensor", "sparse_tensor") else (0, None)
        return Value(name, cast("ValueKind", kind), elem_type, dims)

    def _kind(self, pieces: _Pieces) -> tuple[str, _Pieces]:
        """The kind of a type, and the pieces of its message."""
        kind, inside = "", _Pieces()
        for name, start, end in self.fields(pieces, _TYPE):
            if name != kind:
                kind, inside = name, _Pieces()
            inside.append((start, end))
        return kind, inside

    def _tensor_type(self, pieces: _Pieces) -> tuple[int, tuple[int | str, ...] | None]:
        elem_type, shape = 0, _Pieces()
        for name, start, end in self.fields(pieces, _TENSOR_TYPE):
            if name == "elem_type":
                elem_type = self.number(start, end, bits=32)
            else:
                shape.append((start, end))
        if not shape:
            return elem_type, None
        return elem_type, tuple(self._dim((start, end)) for _, start, end in self.fields(shape, _SHAPE))

    def _dim(self, span: _Span) -> int | str:
        self._count()
        dim: int | str = -1
        for name, start, end in self.fields([span], _DIM):
            dim = self.number(start, end) if name == "dim_value" else self.text(start, end) or -1
        return dim

    # -- external data

    def _function(self, span: _Span) -> None:
        for name, start, end in self.fields([span], _FUNCTION):
            if name == "node":
                self._node((start, end), 2)
            else:
                self._attribute((start, end), 2)

    def _inner_graph(self, pieces: _Pieces, depth: int) -> None:
        for name, start, end in self.fields(pieces, _INNER_GRAPH):
            if name == "node":
                self._node((start, end), depth + 1)
            elif name == "initializer":
                self._tensor(_Pieces([(start, end)]))
            else:
                self._sparse(_Pieces([(start, end)]))

    def _node(self, span: _Span, depth: int) -> None:
        for _, start, end in self.fields([span], _NODE):
            self._attribute((start, end), depth + 1)

    def _attribute(self, span: _Span, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise OnnxScanError(f"messages nest more than {MAX_DEPTH} deep")
        if span[1] - span[0] <= _SMALL_BYTES and not _ATTRIBUTE_TAGS.search(self._data, *span):
            return
        single: dict[str, _Pieces] = {"t": _Pieces(), "g": _Pieces(), "sparse_tensor": _Pieces()}
        for name, start, end in self.fields([span], _ATTRIBUTE):
            if name in single:
                single[name].append((start, end))
            elif name == "tensors":
                self._tensor(_Pieces([(start, end)]))
            elif name == "graphs":
                self._inner_graph(_Pieces([(start, end)]), depth + 1)
            else:
                self._sparse(_Pieces([(start, end)]))
        self._tensor(single["t"])
        self._inner_graph(single["g"], depth + 1)
        self._sparse(single["sparse_tensor"])

    def _sparse(self, pieces: _Pieces) -> str:
        """A sparse tensor's name, which is that of its values."""
        parts: dict[str, _Pieces] = {"values": _Pieces(), "indices": _Pieces()}
        for name, start, end in self.fields(pieces, _SPARSE):
            parts[name].append((start, end))
        self._tensor(parts["indices"])
        return self._tensor(parts["values"])

    def _tensor(self, pieces: _Pieces) -> str:
        """A tensor's name. External data is recorded."""
        tensor, external, entries = "", False, _Pieces()
        for name, start, end in self.fields(pieces, _TENSOR):
            if name == "name":
                tensor = self.text(start, end)
            elif name == "external_data":
                entries.append((start, end))
            else:
                location = self.number(start, end, bits=32)
                external = location == _EXTERNAL if location in (_DEFAULT, _EXTERNAL) else external
        if external:
            self._count()
            self._externals.append(self._external(tensor, entries))
        return tensor

    def _external(self, tensor: str, entries: _Pieces) -> ExternalTensor:
        values: dict[str, str] = {}
        for span in entries:
            entry = {name: self.text(start, end) for name, start, end in self.fields([span], _ENTRY)}
            values[entry.get("key", "")] = entry.get("value", "")
        for key in ("offset", "length"):
            if key in values and not _OFFSET.fullmatch(values[key]):
                raise OnnxScanError(f"the external data of '{tensor}' has the {key} '{values[key]}'")
        length = int(values["length"]) if "length" in values else None
        return ExternalTensor(tensor, values.get("location", ""), int(values.get("offset", 0)), length)

    def _count(self) -> None:
        self._names_left -= 1
        if self._names_left < 0:
            raise OnnxScanError(f"more than {MAX_NAMES} inputs, outputs, dimensions and weights")
