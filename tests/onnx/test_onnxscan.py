from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelwright.onnx.scan import OnnxScanError, scan
from modelwright.onnx.signature import ExternalTensor, Signature, Value
from tests.conftest import doubling_onnx

FLOAT = TensorProto.FLOAT
X = Value("x", "tensor", FLOAT, ("batch", 2))
Y = replace(X, name="y")


def tensor_info(name: str, shape: Any = ("batch", 2)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, shape)


def model_of(
    nodes: Sequence[onnx.NodeProto] = (), weights: Sequence[onnx.TensorProto] = (), ir_version: int = 9, **more: Any
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", [tensor_info("x")], [tensor_info("y")], list(weights))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, **more)


def external_tensor(name: str, **entries: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def sparse(values: onnx.TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(values, helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3]), [8])


def saved(content: onnx.ModelProto | bytes, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def field(number: int, payload: bytes) -> bytes:
    """A string or message on the wire."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


class TestDeclarations:
    def test_of_a_usual_file(self, tmp_path: Path) -> None:
        doubling_onnx(tmp_path / "model.onnx", opset=20, ir=9)
        assert scan(tmp_path / "model.onnx") == Signature((X,), (Y,), opsets={"": 20}, ir_version=9)

    def test_opsets_and_producer(self, tmp_path: Path) -> None:
        model = model_of(producer_name="pytorch", producer_version="2.9")
        model.opset_import[0].domain = "ai.onnx"
        found = scan(saved(model, tmp_path))
        assert found.opsets == {"": 17, "ai.onnx.ml": 3}
        assert found.producer == "pytorch 2.9"

    @pytest.mark.parametrize(
        ("shape", "dims"),
        [((), ()), (None, None), ((None, 2), (-1, 2)), ((-1, 0), (-1, 0)), (("n", "é"), ("n", "é"))],
        ids=["scalar", "none", "unnamed", "negative-and-zero", "named"],
    )
    def test_dims(self, tmp_path: Path, shape: Any, dims: Any) -> None:
        model = model_of()
        model.graph.input[0].CopyFrom(tensor_info("x", shape))
        assert scan(saved(model, tmp_path)).inputs == (Value("x", "tensor", FLOAT, dims),)

    @pytest.mark.parametrize(
        ("type_", "kind", "elem_type", "dims"),
        [
            (helper.make_sparse_tensor_type_proto(FLOAT, [3]), "sparse_tensor", FLOAT, (3,)),
            (helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [3])), "sequence", 0, None),
            (helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [3])), "optional", 0, None),
            (helper.make_map_type_proto(7, helper.make_tensor_type_proto(FLOAT, [3])), "map", 0, None),
            (onnx.TypeProto(opaque_type=onnx.TypeProto.Opaque(name="o")), "opaque", 0, None),
            (onnx.TypeProto(), "", 0, None),
        ],
        ids=["sparse", "sequence", "optional", "map", "opaque", "untyped"],
    )
    def test_kinds(self, tmp_path: Path, type_: Any, kind: Any, elem_type: int, dims: Any) -> None:
        model = model_of()
        model.graph.input[0].CopyFrom(helper.make_value_info("x", type_))
        assert scan(saved(model, tmp_path)).inputs == (Value("x", kind, elem_type, dims),)

    @pytest.mark.parametrize(("ir_version", "overridable"), [(3, []), (4, ["w", "s"])])
    def test_inputs_with_initializers(self, tmp_path: Path, ir_version: int, overridable: list[str]) -> None:
        model = model_of(weights=[numpy_helper.from_array(np.ones(2, np.float32), "w")], ir_version=ir_version)
        model.graph.sparse_initializer.append(sparse(numpy_helper.from_array(np.ones(4, np.float32), "s")))
        model.graph.input.extend([tensor_info("w"), tensor_info("s")])
        found = scan(saved(model, tmp_path))
        assert [value.name for value in found.inputs] == ["x"]
        assert [value.name for value in found.overridable] == overridable

    def test_a_graph_in_two_pieces_is_one(self, tmp_path: Path) -> None:
        head, graph = model_of(), model_of().graph
        head.ClearField("graph")
        pieces = [
            graph.SerializeToString()
            for graph in (onnx.GraphProto(input=graph.input), onnx.GraphProto(output=graph.output))
        ]
        found = scan(saved(head.SerializeToString() + b"".join(field(7, piece) for piece in pieces), tmp_path))
        assert (found.inputs, found.outputs) == ((X,), (Y,))

    def test_of_a_type_written_twice_the_last_kind_counts(self, tmp_path: Path) -> None:
        sequence, tensor, elem = field(4, b""), field(1, b"\x08\x01"), field(1, b"\x08\x07")
        content = field(7, field(11, field(1, b"x") + field(2, tensor + sequence + elem)))
        assert scan(saved(content, tmp_path)).inputs == (Value("x", "tensor", 7, None),)


class TestExternals:
    def test_location_offset_and_length(self, tmp_path: Path) -> None:
        weights = [
            external_tensor("a", location="w/data", offset="4096", length="16", checksum="x"),
            external_tensor("b", location="data"),
            external_tensor("c"),
        ]
        assert scan(saved(model_of(weights=weights), tmp_path)).external_tensors == (
            ExternalTensor("a", "w/data", 4096, 16),
            ExternalTensor("b", "data", 0, None),
            ExternalTensor("c", "", 0, None),
        )

    def test_entries_of_a_tensor_that_is_not_external_are_nothing(self, tmp_path: Path) -> None:
        weight = external_tensor("a", location="data")
        weight.data_location = TensorProto.DEFAULT
        assert scan(saved(model_of(weights=[weight]), tmp_path)).external_tensors == ()

    def test_wherever_a_tensor_can_be(self, tmp_path: Path) -> None:
        def named(name: str) -> onnx.TensorProto:
            return external_tensor(name, location="data")

        def using(name: str) -> onnx.NodeProto:
            return helper.make_node("Constant", [], ["c"], value=named(name))

        inner = helper.make_graph([using("in a subgraph's node")], "inner", [], [], [named("in a subgraph")])
        nodes = [
            using("in a node"),
            helper.make_node("Many", [], ["m"], values=[named("in a list"), named("in a list, too")]),
            helper.make_node("Sparse", [], ["s"], sparse_value=sparse(named("sparse, in a node"))),
            helper.make_node("If", ["c"], ["y"], then_branch=inner),
            helper.make_node("Graphs", ["c"], ["y"], branches=[inner]),
        ]
        function = helper.make_function("d", "f", [], ["c"], [using("in a function")], [])
        function.attribute_proto.append(helper.make_attribute("a", named("a function's default")))
        model = model_of(nodes, [named("in the graph")], functions=[function])
        model.graph.sparse_initializer.append(sparse(named("sparse")))
        assert Counter(external.name for external in scan(saved(model, tmp_path)).external_tensors) == {
            **dict.fromkeys(
                ("in a node", "in a list", "in a list, too", "sparse, in a node", "in the graph", "sparse"), 1
            ),
            **dict.fromkeys(("in a function", "a function's default"), 1),
            **dict.fromkeys(("in a subgraph", "in a subgraph's node"), 2),
        }

    @pytest.mark.parametrize("entry", [{"offset": "-1"}, {"length": "1e3"}, {"length": "9" * 5000}], ids=str)
    def test_what_is_no_size(self, tmp_path: Path, entry: dict[str, str]) -> None:
        weight = external_tensor("w", location="data", **entry)
        with pytest.raises(OnnxScanError, match=r"external data of .w. has the (offset|length) '(-1|1e3|999)"):
            scan(saved(model_of(weights=[weight]), tmp_path))


def nested(levels: int) -> bytes:
    """A graph in a node's attribute in a graph …: each level is three messages deep."""
    inner = onnx.GraphProto(name="leaf").SerializeToString()
    for _ in range(levels):
        inner = field(1, field(5, field(6, inner)))
    return field(7, inner)


class TestFaults:
    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "no ONNX graph"),
            (b"not a model at all", "byte [0-9]+: "),
            (model_of().SerializeToString()[:-3], r"byte [0-9]+: cut short, 3 bytes are missing"),
            (model_of().SerializeToString()[:2], "no ONNX graph"),
            (b"\x08", "byte 1: cut short"),
            (b"\x08" + b"\x80" * 11, "byte 11: a number is too long"),
            (b"\x80\x80\x80\x80\x80\x01", "byte 5: a number is too long"),
            (b"\x02\x00", "byte 0: invalid field number 0"),
            (b"\x3f", "byte 0: invalid wire type 7"),
            (b"\x0c", "byte 0: invalid wire type 4"),
            (b"\x3a\xff\xff\xff\xff\x0f", "byte 6: cut short, 4294967295 bytes are missing"),
            (b"\x0b\x14", "byte 1: end of a group"),
            (b"\x0b" * 1000, "groups nest more than 100 deep"),
            (field(7, field(11, field(1, b"\xff"))), "not UTF-8"),
            (field(7, field(11, field(1, b"x" * 70_000))), "a name has 70000 bytes"),
            (field(7, b"") * 1001, "one message in more than 1000 pieces"),
            (
                field(7, field(11, field(2, field(1, field(2, field(1, b"") * 500_000))))),
                "more than 500000 inputs, outputs",
            ),
            (nested(34), "messages nest more than 100 deep"),
        ],
        ids=lambda value: ascii(value)[:25],
    )
    def test_are_refused(self, tmp_path: Path, content: bytes, match: str) -> None:
        with pytest.raises(OnnxScanError, match=match):
            scan(saved(content, tmp_path))

    @pytest.mark.parametrize("levels", [33, 34])
    def test_nesting_is_limited_as_protobuf_limits_it(self, tmp_path: Path, levels: int) -> None:
        content = nested(levels)
        assert refused_by_scan(saved(content, tmp_path)) is refused_by_protobuf(content) is (levels == 34)

    def test_groups_are_stepped_over(self, tmp_path: Path) -> None:
        group = b"\x1b\x08\x01\x23\x24\x1c"  # group 3 { 1: 1, group 4 {} }
        assert scan(saved(group + model_of().SerializeToString() + group, tmp_path)).inputs == (X,)

    @pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["fifo", "folder"])
    def test_what_is_no_file(self, tmp_path: Path, make: Any) -> None:
        make(tmp_path / "model.onnx")
        with pytest.raises(OnnxScanError, match="not a regular file"):
            scan(tmp_path / "model.onnx")

    def test_an_os_error_passes(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"model\.onnx"):
            scan(tmp_path / "model.onnx")

    def test_more_than_protobuf_can_read(self, tmp_path: Path) -> None:
        with (tmp_path / "model.onnx").open("wb") as file:
            file.truncate(2**31)
        with pytest.raises(OnnxScanError, match=r"2147483648 bytes.* 2 GiB"):
            scan(tmp_path / "model.onnx")


class TestSize:
    def test_weights_are_not_read(self, tmp_path: Path) -> None:
        """A file of 2 GB, most of which the disk does not hold."""
        size, model = 2**31 - 2**20, model_of()
        tensor, graph = TensorProto(name="w", data_type=FLOAT).SerializeToString() + b"\x4a" + varint(size), model.graph
        weight = b"\x2a" + varint(len(tensor) + size) + tensor
        rest = graph.SerializeToString()
        model.ClearField("graph")
        with (tmp_path / "model.onnx").open("wb") as file:
            file.write(model.SerializeToString() + b"\x3a" + varint(len(weight) + size + len(rest)) + weight)
            file.seek(size, os.SEEK_CUR)
            file.write(rest)
        began = time.process_time()
        assert scan(tmp_path / "model.onnx").inputs == (X,)
        assert time.process_time() - began < 0.2

    def test_a_tree_ensemble_of_millions_of_numbers(self, tmp_path: Path) -> None:
        node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml")
        node.attribute.add(name="ids", type=7).ints.extend([300] * 1_000_000)
        node.attribute.add(name="values", type=6).floats.extend([1.5] * 1_000_000)
        path = saved(model_of([node]), tmp_path)
        began = time.process_time()
        assert scan(path).inputs == (X,)
        assert time.process_time() - began < 1


# ---- against onnx itself


def declared(model: onnx.ModelProto) -> Signature:
    """What `scan` should find, of onnx's own reading. Raises UnicodeDecodeError for names that are none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    opsets: dict[str, int] = {}
    for opset in model.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        opsets[domain] = max(opset.version, opsets.get(domain, opset.version))
    inputs = tuple(map(value_of, model.graph.input))
    return Signature(
        ir_version=model.ir_version if model.HasField("ir_version") else None,
        opsets=opsets,
        inputs=tuple(value for value in inputs if value.name not in weights),
        overridable=tuple(value for value in inputs if value.name in weights and model.ir_version >= 4),
        outputs=tuple(map(value_of, model.graph.output)),
        external_tensors=tuple(
            external_of(tensor) for tensor in tensors_of(model) if tensor.data_location == tensor.EXTERNAL
        ),
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
    )


def value_of(value: onnx.ValueInfoProto) -> Value:
    which = value.type.WhichOneof("value")
    if which not in ("tensor_type", "sparse_tensor_type"):
        return Value(value.name, (which or "").removesuffix("_type"), 0, None)  # type: ignore[arg-type]
    tensor = getattr(value.type, which)
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or -1 for dim in tensor.shape.dim)
    return Value(value.name, which.removesuffix("_type"), tensor.elem_type, dims if tensor.HasField("shape") else None)


def external_of(tensor: onnx.TensorProto) -> ExternalTensor:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    length = int(entries["length"]) if "length" in entries else None
    return ExternalTensor(tensor.name, entries.get("location", ""), int(entries.get("offset", "0")), length)


def tensors_of(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor of the graph and the functions, wherever it is."""
    if isinstance(message, TensorProto):
        yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type and descriptor.name not in ("training_info", "type_protos", "tp"):
            for inner in value if descriptor.is_repeated else [value]:
                yield from tensors_of(inner)


def refused_by_protobuf(content: bytes) -> bool:
    try:
        onnx.ModelProto.FromString(content)
    except DecodeError:
        return True
    return False


def refused_by_scan(path: Path) -> bool:
    try:
        scan(path)
    except OnnxScanError:
        return True
    return False


def agrees(path: Path) -> None:
    """What onnx can read and `scan` takes, they read alike."""
    began = time.process_time()
    try:
        found = scan(path)
    except OnnxScanError:
        return
    finally:
        assert time.process_time() - began < 2
    try:
        expected = declared(onnx.ModelProto.FromString(path.read_bytes()))
    except (DecodeError, UnicodeDecodeError):
        return  # a fault within what is stepped over
    assert replace(found, external_tensors=()) == replace(expected, external_tensors=())
    assert Counter(found.external_tensors) == Counter(expected.external_tensors)


@cache
def corpus() -> tuple[bytes, ...]:
    """Small files with everything in them that `scan` reads."""
    external = external_tensor("w", location="weights.bin", offset="16", length="64")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=external)], "inner", [], [tensor_info("y")]
    )
    function = helper.make_function("d", "f", ["x"], ["y"], list(inner.node), [helper.make_opsetid("", 17)])
    branching = model_of([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], [external])
    called = model_of([helper.make_node("f", ["x"], ["y"], domain="d")], functions=[function])
    overridden = model_of(
        [helper.make_node("Mul", ["x", "w"], ["y"], axis=1)], [numpy_helper.from_array(np.ones(2), "w")]
    )
    overridden.graph.input.append(tensor_info("w", (2, None)))
    overridden.graph.sparse_initializer.append(sparse(external))
    typed = model_of()
    of_tensors = helper.make_tensor_type_proto(FLOAT, ["n", 3])
    for name, type_ in (
        ("sequence", helper.make_sequence_type_proto(of_tensors)),
        ("optional", helper.make_optional_type_proto(of_tensors)),
        ("sparse", helper.make_sparse_tensor_type_proto(FLOAT, [3])),
    ):
        typed.graph.input.append(helper.make_value_info(name, type_))
    return tuple(model.SerializeToString() for model in (model_of(), branching, called, overridden, typed))


def damaged(chance: random.Random, content: bytes) -> bytes:
    """The content with bits turned, bytes replaced, cut, doubled, or pieces of another file in it."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(content) + 1)
        kind = chance.randrange(6)
        if kind == 0 and at < len(content):
            content = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + bytes([chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF))]) + content[at + 1 :]
        elif kind == 2:
            content = content[:at]
        elif kind == 3:
            content = content[:at] + chance.randbytes(chance.randrange(1, 9)) + content[at:]
        else:
            other = content if kind == 4 else chance.choice(corpus())
            start = chance.randrange(len(other) + 1)
            content = content[:at] + other[start : start + chance.randrange(1, 200)] + content[at:]
    return content


class TestAgainstOnnx:
    @pytest.mark.parametrize("number", range(5))
    def test_whole_files_read_alike(self, tmp_path: Path, number: int) -> None:
        path = saved(corpus()[number], tmp_path)
        assert scan(path).outputs  # it is not refused
        agrees(path)

    def test_the_files_that_onnx_brings_read_alike(self) -> None:
        paths = sorted(Path(onnx.__file__).parent.glob("backend/test/data/**/*.onnx"))
        assert len(paths) > 100
        for path in paths[::10]:
            assert not refused_by_scan(path), path
            agrees(path)

    @settings(
        max_examples=300,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(st.randoms(use_true_random=False), st.integers(0, 4))
    def test_damaged_files_read_alike_or_are_refused(self, tmp_path: Path, chance: random.Random, number: int) -> None:
        agrees(saved(damaged(chance, corpus()[number]), tmp_path))

    @settings(
        max_examples=200,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(st.binary(max_size=300))
    def test_random_bytes_read_alike_or_are_refused(self, tmp_path: Path, content: bytes) -> None:
        agrees(saved(content, tmp_path))
        agrees(saved(field(7, content), tmp_path))


def test_it_imports_no_framework() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "numpy", "google.protobuf")
    code = f"import sys, modelwright.onnx.scan; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"
