"""Trees that tell two classes apart: scores of both in the graph, and the class by the larger one.

skl2onnx writes the scores of the second class alone; the runtime makes the first's of it, and the class. onnxruntime
1.26 and 1.27 give -p in place of 1 - p, and the wrong class. So nothing is left for it to make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_PLAIN = "class_weights"
_WIDE = "class_weights_as_tensor"
_BASES = {"base_values", "base_values_as_tensor"}


def score_both_classes(model: ModelProto) -> None:
    """Change each ensemble of trees that has the scores of the second of two classes alone, in place."""
    nodes = []
    for node in model.graph.node:
        nodes.append(type(node).FromString(node.SerializeToString()))
        if node.op_type == "TreeEnsembleClassifier" and _has_one_of_two(_attributes(node)):
            nodes += _with_both(nodes[-1], model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _with_both(node: NodeProto, model: ModelProto) -> list[NodeProto]:
    """Give the node the scores of both classes; returns the nodes that make its label of them."""
    from onnx import helper

    label, scores = node.output
    _add_first_class(node)
    node.output[0] = f"{label}.of_trees"
    model.graph.initializer.append(_labels(_attributes(node), f"{label}.classes"))
    best = helper.make_node("ArgMax", [scores], [f"{label}.best"], axis=1, keepdims=0)
    return [best, helper.make_node("Gather", [f"{label}.classes", f"{label}.best"], [label])]


def _add_first_class(node: NodeProto) -> None:
    """The first class of a row gets 1 - the second's: of each tree, its share of the 1 without the leaf's score."""
    import numpy as np
    from onnx import helper, numpy_helper

    given = _attributes(node)
    weights, wide = _weights(given), _WIDE in given
    share = 1 / len(set(given["class_treeids"]))
    first = np.maximum(share - weights.astype(np.float64), 0).astype(weights.dtype)  # rounding can make it negative
    both = np.stack([first, weights], axis=1).ravel()
    changed = {
        "class_ids": [0, 1] * len(weights),
        "class_treeids": np.repeat(given["class_treeids"], 2).tolist(),
        "class_nodeids": np.repeat(given["class_nodeids"], 2).tolist(),
        **({_WIDE: numpy_helper.from_array(both, _WIDE)} if wide else {_PLAIN: both.tolist()}),
    }
    kept = [item for item in node.attribute if item.name not in changed]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in changed.items())])


def _has_one_of_two(given: dict[str, Any]) -> bool:
    """Whether scores are probabilities of the second of two classes: as they are, and not negative."""
    labels = given.get("classlabels_int64s") or given.get("classlabels_strings") or ()
    plain = given.get("post_transform", b"NONE") == b"NONE" and not _BASES & set(given)
    return len(labels) == 2 and plain and set(given.get("class_ids", ())) == {0} and bool((_weights(given) >= 0).all())


def _weights(given: dict[str, Any]) -> Any:
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.to_array(given[_WIDE]) if _WIDE in given else np.array(given.get(_PLAIN, ()), np.float32)


def _labels(given: dict[str, Any], name: str) -> Any:
    import numpy as np
    from onnx import numpy_helper

    numbers = given.get("classlabels_int64s")
    labels = np.array(numbers, np.int64) if numbers else np.array(given["classlabels_strings"], object)
    return numpy_helper.from_array(labels, name)


def _attributes(node: NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
