"""Where a module rounds to INT8 when it is trained on with fake quantisation: the places that onnxruntime then fuses.

torchao's quantizers place it for PyTorch's own kernels. Onnxruntime computes a layer in INT8 only where its output is
quantised, too, an addition where both of its inputs are, and Gemm where the bias is (the node groups of its
qdq_transformer). So: activations are unsigned, of 8 bits, per tensor; weights signed, symmetric, per output channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError
from modelwright.suggest import did_you_mean

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

_ADAPTED = "module."  # the captured module is the one that `export.adapted` wraps
_EPS = 2**-12  # the smallest scale, torch's own for INT8


@dataclass(frozen=True)
class Placed:
    """What the quantizer did."""

    layers: tuple[str, ...]  # in INT8
    kept: tuple[str, ...]  # in float, because model.yaml says so


def quantizer(keep: Sequence[str], *, reduce_range: bool) -> tuple[Any, list[Placed]]:
    """A quantizer for torchao's prepare_qat_pt2e, and a list that gets what it placed."""
    from torchao.quantization.pt2e.quantizer import Quantizer

    placed: list[Placed] = []

    class OnnxRuntimeQuantizer(Quantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            placed.append(_Annotation(model, keep, reduce_range).run())
            return model

        def validate(self, model: GraphModule) -> None:
            pass

    return OnnxRuntimeQuantizer(), placed


def normed_layers(model: GraphModule) -> list[tuple[str, str]]:
    """(layer, batch norm) by their names in the builder's module, where nothing else sees what lies between them."""
    from torch.ops import aten

    found = []
    for node in model.graph.nodes:
        layer = node.args[0] if node.target is aten.batch_norm.default else None
        if layer is None or layer.target not in _operators("layers") or len(layer.users) > 1:
            continue
        if layer.target is aten.linear.default and layer.meta["val"].dim() != 2:
            continue  # a batch norm counts the channels of axis 1, a linear layer those of the last
        weight, mean = layer.args[1], node.args[3]
        if len(weight.users) == len(mean.users) == 1 and weight.op == mean.op == "get_attr":
            found.append((_owner(weight), _owner(mean)))
    return found


class _Annotation:
    """Marks the nodes of one graph."""

    def __init__(self, model: GraphModule, keep: Sequence[str], reduce_range: bool) -> None:
        self._model = model
        self._keep = keep
        self._activation = _activation()
        self._weight = _weight(reduce_range)
        self._quantised: set[Node] = set()  # whose output is

    def run(self) -> Placed:
        layers: list[str] = []
        kept: list[str] = []
        nodes = [node for node in self._model.graph.nodes if node.op == "call_function"]
        names = [_layer(node) for node in nodes if node.target in _operators("layers")]
        for pattern in self._keep:
            if not any(fnmatchcase(name, pattern) for name in names):
                hint = did_you_mean(pattern, names) or f"the layers are {', '.join(names)}"
                raise StepError(f"keep: no layer matches '{pattern}'", hint)
        for node in nodes:
            if node.target in _operators("layers"):
                name = _layer(node)
                if any(fnmatchcase(name, pattern) for pattern in self._keep):
                    kept.append(name)
                else:
                    layers.append(name)
                    self._place_layer(node)
            elif node.target in _operators("sums"):
                self._place_sum(node)
            elif node.target in _operators("moves"):
                self._place_move(node)
        if not layers:
            raise StepError(
                "no convolution and no linear layer can compute in INT8", "leave qat out, or keep fewer layers"
            )
        return Placed(tuple(layers), tuple(kept))

    def _place_layer(self, node: Node) -> None:
        """A convolution or a linear layer, with the batch norm and the ReLU behind it."""
        from torch.ops import aten

        data, weight, *rest = node.args
        inputs = {data: self._activation, weight: self._weight}
        as_product = node.target is aten.linear.default and node.meta["val"].dim() > 2  # MatMul and Add, not Gemm
        if rest and rest[0] is not None and node.target is aten.linear.default and not as_product:
            inputs[rest[0]] = _bias(data, weight, node)
        _mark(node, inputs)
        if not as_product:
            self._place_output(_last_of(node))

    def _place_sum(self, node: Node) -> None:
        """A sum of two tensors that are quantised."""
        terms = [item for item in node.args if not isinstance(item, int | float)]
        if len(terms) == 2 and all(term in self._quantised for term in terms):
            _mark(node, dict.fromkeys(terms, self._activation))
            self._place_output(_last_of(node))

    def _place_move(self, node: Node) -> None:
        """What moves values and changes none: its output has the scale of its input."""
        from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

        data = node.args[0]
        if data in self._quantised:
            _mark(node, {data: self._activation}, SharedQuantizationSpec((data, node)))
            self._quantised.add(node)

    def _place_output(self, node: Node) -> None:
        if any(user.op != "output" for user in node.users):  # answers stay float
            _mark(node, {}, self._activation)
            self._quantised.add(node)


def _operators(group: str) -> frozenset[Any]:
    from torch.ops import aten

    return {
        "layers": frozenset(
            {aten.conv1d.default, aten.conv2d.default, aten.conv1d.padding, aten.conv2d.padding, aten.linear.default}
        ),
        "followers": frozenset({aten.batch_norm.default, aten.relu.default, aten.relu_.default}),
        "sums": frozenset({aten.add.Tensor, aten.add_.Tensor}),
        "moves": frozenset(
            {
                aten.max_pool2d.default,
                aten.flatten.using_ints,
                aten.view.default,
                aten.reshape.default,
                aten.permute.default,
                aten.transpose.int,
                aten.squeeze.dim,
                aten.unsqueeze.default,
                aten.dropout.default,
            }
        ),
    }[group]


def _last_of(node: Node) -> Node:
    """The last of the nodes behind this one that onnxruntime computes with it."""
    while len(node.users) == 1 and next(iter(node.users)).target in _operators("followers"):
        node = next(iter(node.users))
    return node


def _layer(node: Node) -> str:
    """The name in the builder's module of the layer that a node computes."""
    return _owner(node.args[1])


def _owner(weight: Node) -> str:
    """The module that holds a weight."""
    return str(weight.target).rpartition(".")[0].removeprefix(_ADAPTED)


def _mark(node: Node, inputs: dict[Node, Any], output: Any = None) -> None:
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    annotation = node.meta.setdefault("quantization_annotation", QuantizationAnnotation())
    annotation.input_qspec_map.update(inputs)
    annotation.output_qspec = output or annotation.output_qspec
    annotation._annotated = True


def _activation() -> Any:
    import torch
    from torchao.quantization.pt2e import FusedMovingAvgObsFakeQuantize, MovingAverageMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    return QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, eps=_EPS
        ),
    )


def _weight(reduce_range: bool) -> Any:
    import torch
    from torchao.quantization.pt2e import FusedMovingAvgObsFakeQuantize, MovingAveragePerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    largest = 63 if reduce_range else 127
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-largest,
        quant_max=largest,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver, eps=_EPS
        ),
    )


def _bias(data: Node, weight: Node, layer: Node) -> Any:
    """32 bits, in steps of the product of both scales, as the sums are that it is added to."""
    import torch
    from torchao.quantization.pt2e.quantizer import DerivedQuantizationSpec

    def scale(observers: Sequence[Any]) -> tuple[Any, Any]:
        (of_data, _), (of_weight, _) = (observer.calculate_qparams() for observer in observers)
        product = (of_data * of_weight).float()
        return product, torch.zeros_like(product, dtype=torch.int32)

    return DerivedQuantizationSpec(
        derived_from=[(data, layer), (weight, layer)],
        derive_qparams_fn=scale,
        dtype=torch.int32,
        quant_min=-(2**31),
        quant_max=2**31 - 1,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
