"""A picture of what a builder's augmentation does to its samples: a row a sample, the original in the first column."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.facts.part import Facts, Integer
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.samples import as_samples
from modelwright.verification.samples import columns

PICTURE = "preview.png"
_ROWS, _COLUMNS = 6, 8
_SMALLEST, _GAP = 64, 2  # pixels: what is smaller is shown larger


class Previewed(Facts):
    samples: Integer


def run(context: StepContext, out: Path) -> Previewed:
    """Draw `out`/preview.png: the first golden samples, and what the builder's function makes of them."""
    import numpy as np
    import torch

    images = _images(context)[:_ROWS]
    entry = context.config["augment"]
    copies = np.repeat(images, _COLUMNS - 1, axis=0)  # one call: random numbers start anew with each
    changed = call(context, "augment", entry, torch.from_numpy(copies))
    where = f"{context.builder.file}: augment {entry}"
    if not isinstance(changed, torch.Tensor) or changed.ndim != 4 or changed.shape[:2] != copies.shape[:2]:
        got = tuple(changed.shape) if isinstance(changed, torch.Tensor) else type(changed).__name__
        raise StepError(f"{where}: expected {len(copies)} images of {copies.shape[1]} channels, got {got}")
    augmented = changed.detach().float().numpy().reshape(len(images), _COLUMNS - 1, *changed.shape[1:])
    (out / PICTURE).write_bytes(png(grid(images, augmented)))
    return Previewed(samples=len(images))


def _images(context: StepContext) -> Any:
    """The golden samples of the first input that is an image: (N, channels, height, width)."""
    import numpy as np

    entry = context.config["samples"]
    where = f"{context.builder.file}: samples {entry}"
    given: dict[str, Any] = dict(columns(as_samples(call(context, "samples", entry), where)))
    for array in given.values():
        if array.ndim == 4 and array.shape[1] in (1, 3):
            return np.ascontiguousarray(array, dtype=np.float32)
    shapes = ", ".join(f"{name} {list(array.shape[1:])}" for name, array in given.items())
    raise StepError(f"{where}: no input is an image: {shapes}", "preview draws inputs of shape [1 or 3, height, width]")


def grid(images: Any, augmented: Any) -> Any:
    """(rows, 1 + columns) cells as one picture (height, width, channels) of bytes; the originals say what is white."""
    import numpy as np

    low, high = float(images.min()), float(images.max())
    cells = []
    for original, others in zip(images, augmented, strict=True):
        cells.append([_cell(image, low, high, images.shape[2:]) for image in (original, *others)])
    height, width, channels = cells[0][0].shape
    shape = (len(cells) * (height + _GAP) - _GAP, len(cells[0]) * (width + _GAP) - _GAP, channels)
    picture = np.full(shape, 255, np.uint8)
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            top, left = row * (height + _GAP), column * (width + _GAP)
            picture[top : top + height, left : left + width] = cell
    return picture


def _cell(image: Any, low: float, high: float, size: tuple[int, int]) -> Any:
    """An image as bytes, in whole multiples of its pixels; cut or filled up to the originals' size."""
    import numpy as np

    bytes_ = np.clip((image - low) / ((high - low) or 1.0) * 255, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    height, width = size
    framed = np.zeros((height, width, bytes_.shape[2]), np.uint8)
    part = bytes_[:height, :width]
    framed[: part.shape[0], : part.shape[1]] = part
    scale = max(1, -(-_SMALLEST // max(height, width)))
    return framed.repeat(scale, axis=0).repeat(scale, axis=1)


def png(picture: Any) -> bytes:
    """(height, width, 1 or 3) bytes as a PNG file (ISO/IEC 15948: signature, IHDR, IDAT, IEND)."""
    height, width, channels = picture.shape
    colour = 0 if channels == 1 else 2
    lines = b"".join(b"\0" + line.tobytes() for line in picture)  # filter type 0 before each line
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
