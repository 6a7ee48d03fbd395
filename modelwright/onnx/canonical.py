"""The canonical form of ONNX files: equal graphs and weights give equal bytes.

So a file's digest is the same in another process, checkout and day. Dropped: doc strings and every metadata_props
(stack traces, paths, module names), producer, model version and domain, training information, and initializers among
the inputs. The manifest records tool versions: a torch release that exports the same graph gives the same digest. Kept:
tensor names, and node names where they are unique, since a quantiser's `nodes_to_exclude` refers to them.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError, one_line
from modelwright.fsops import read_file
from modelwright.onnx.check import check_external
from modelwright.onnx.scan import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

# protobuf cannot read or write a message of 2 GiB; the rest is room for the graph around the weights.
EXTERNAL_ABOVE_BYTES = 2**31 - 2**26
_EXTERNAL_FROM_BYTES = 1024  # smaller tensors stay in the file: shape inference needs them
_PAGE_BYTES = 4096  # ONNX's ExternalData.md: page-aligned offsets can be mapped


def load(path: Path) -> ModelProto:
    """The whole model, external weights included. Raises StepError."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.checker import ValidationError
    from onnx.external_data_helper import load_external_data_for_model

    external = check_external(path).external
    try:
        model = onnx.ModelProto.FromString(read_file(path, MAX_BYTES))
    except DecodeError as error:
        raise StepError(f"{path.name}: not an ONNX file, or damaged: {one_line(error)}") from error
    if external:
        try:
            load_external_data_for_model(model, str(path.parent))
        except (OSError, ValueError, ValidationError) as error:
            raise StepError(f"{path.name}: its external weights cannot be read: {one_line(error)}") from error
    return model


def canonicalise(model: ModelProto) -> ModelProto:
    """Bring a model into the canonical form, in place. Raises StepError for a tensor that does not fit its shape."""
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        model.ClearField(field)
    del model.metadata_props[:]
    del model.training_info[:]
    model.opset_import.sort(key=lambda opset: opset.domain)
    model.graph.name = "main"
    _name_nodes(model.graph.node, "")
    for graph in graphs_of(model):
        _clean_graph(graph)
    for function in model.functions:
        _strip(function)
        for value in function.value_info:
            _strip(value)
        _name_nodes(function.node, f"{function.name}/")
    for node in all_nodes(model):
        _clean_node(node)
    for tensor in _tensors(model):
        _pack(tensor)
    return model


def save_canonical(model: ModelProto, out: Path, external_above_bytes: int = EXTERNAL_ABOVE_BYTES) -> None:
    """Canonicalise `model` and write it; the caller must not use `model` afterwards.

    If the weights have more than `external_above_bytes` in total, they go to `<out>.data` beside it, ordered by name.
    """
    canonicalise(model)
    size_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size_bytes > external_above_bytes:
        _move_weights(model.graph, out.with_name(f"{out.name}.data"))
    out.write_bytes(model.SerializeToString(deterministic=True))


def rename_values(model: ModelProto, names: Mapping[str, str]) -> None:
    """Rename tensors of the main graph, in place. A tensor that already has a wanted name gets another one."""
    used = {name for graph in graphs_of(model) for name in _value_names(graph)}
    renames = dict(names)
    for wanted in names.values():
        if wanted in used and wanted not in names:
            renames[wanted] = next(name for n in itertools.count(1) if (name := f"{wanted}.{n}") not in used)
            used.add(renames[wanted])
    for graph in graphs_of(model):
        _rename_graph(graph, renames)


def _clean_graph(graph: GraphProto) -> None:
    _strip(graph)
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != len(graph.input):
        # Since IR 4 such an input means "may be overridden": Triton never does that, and it prevents constant folding.
        kept = [type(value).FromString(value.SerializeToString()) for value in inputs]
        del graph.input[:]
        graph.input.extend(kept)
    for value in itertools.chain(graph.input, graph.output, graph.value_info):
        _strip(value)
    graph.initializer.sort(key=lambda tensor: tensor.name)
    graph.value_info.sort(key=lambda value: value.name)


def _clean_node(node: NodeProto) -> None:
    _strip(node)
    node.attribute.sort(key=lambda attribute: attribute.name)
    for attribute in node.attribute:
        _strip(attribute)
        for number, graph in enumerate(_attribute_graphs(attribute)):
            graph.name = f"{node.name}/{attribute.name}/{number}"
            _name_nodes(graph.node, f"{graph.name}/")


def _name_nodes(nodes: Any, prefix: str) -> None:
    """Name every node without a unique name: `Conv_3` is the fourth Conv that needed a name."""
    used = {node.name for node in nodes}
    seen: set[str] = set()
    counters: dict[str, Iterator[int]] = {}
    for node in nodes:
        if not node.name or node.name in seen:
            counter = counters.setdefault(node.op_type, itertools.count())
            node.name = next(name for n in counter if (name := f"{prefix}{node.op_type}_{n}") not in used)
            used.add(node.name)
        seen.add(node.name)


def _strip(message: Any) -> None:
    message.ClearField("doc_string")
    if "metadata_props" in message.DESCRIPTOR.fields_by_name:
        message.ClearField("metadata_props")


def _pack(tensor: TensorProto) -> None:
    """Store a tensor as raw little-endian bytes, unless it holds strings."""
    from onnx import numpy_helper

    _strip(tensor)
    external = tensor.data_location == tensor.EXTERNAL
    if external or tensor.data_type == tensor.STRING or tensor.HasField("raw_data"):
        return
    try:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    except (ValueError, TypeError) as error:
        raise StepError(f"tensor '{tensor.name}' does not fit its declared shape: {one_line(error)}") from error


def _move_weights(graph: GraphProto, out: Path) -> None:
    with out.open("wb") as file:
        for tensor in graph.initializer:
            data = tensor.raw_data
            if len(data) < _EXTERNAL_FROM_BYTES:
                continue
            file.write(b"\0" * (-file.tell() % _PAGE_BYTES))
            place = {"location": out.name, "offset": str(file.tell()), "length": str(len(data))}
            file.write(data)
            tensor.ClearField("raw_data")
            tensor.data_location = tensor.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)


def graphs_of(model: ModelProto) -> Iterator[GraphProto]:
    """The main graph and every graph inside a node, outer ones first."""
    yield model.graph
    for node in all_nodes(model):
        for attribute in node.attribute:
            yield from _attribute_graphs(attribute)


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the main graph, the functions, and the graphs inside nodes, outer ones first."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        yield from waiting
        inner = (graph for node in waiting for attribute in node.attribute for graph in _attribute_graphs(attribute))
        waiting = [node for graph in inner for node in graph.node]


def _attribute_graphs(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs_of(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _value_names(graph: GraphProto) -> Iterator[str]:
    for item in itertools.chain(graph.input, graph.output, graph.initializer):
        yield item.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield from node.output


def _rename_graph(graph: GraphProto, names: Mapping[str, str]) -> None:
    sparse = (tensor.values for tensor in graph.sparse_initializer)
    for item in itertools.chain(graph.input, graph.output, graph.value_info, graph.initializer, sparse):
        item.name = names.get(item.name, item.name)
    for note in graph.quantization_annotation:
        note.tensor_name = names.get(note.tensor_name, note.tensor_name)
        for entry in note.quant_parameter_tensor_names:
            entry.value = names.get(entry.value, entry.value)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
