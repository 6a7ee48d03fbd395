"""The operators of torchvision where torch is a CPU build, and torchvision is the one that PyPI has: built for CUDA.

Its library does not load then, and `import torchvision` fails. Import this first.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def nms(dets, scores, iou_threshold):
    """The boxes that overlap no better one by more than the threshold, best first."""
    order = scores.argsort(descending=True, stable=True)
    boxes, kept = dets[order], []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    free = torch.ones(len(boxes), dtype=torch.bool)
    for index in range(len(boxes)):
        if free[index]:
            kept.append(index)
            low = torch.maximum(boxes[:, :2], boxes[index, :2])
            high = torch.minimum(boxes[:, 2:], boxes[index, 2:])
            shared = (high - low).clamp(min=0).prod(1)
            free &= shared / (area + area[index] - shared) <= iou_threshold
    return order[torch.tensor(kept, dtype=torch.int64)]


def no_assertion() -> None:  # TorchScript compiles it
    pass


def library_loads():
    try:
        torch.ops.load_library(Path(importlib.util.find_spec("torchvision").origin).with_name("_C.so"))
    except OSError:
        return False
    return True


if not library_loads():
    for name in ("nms", "qnms"):  # torchvision adds to these when it is imported
        torch.library.define(f"torchvision::{name}", _SCHEMA)
    torch.library.impl("torchvision::nms", "CPU", nms)

    import torchvision.ops.boxes

    torchvision.ops.boxes._assert_has_ops = no_assertion
