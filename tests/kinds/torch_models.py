"""Small real models in PyTorch's file formats, and archives as torch-model-archiver 0.12 writes them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A class of the archive's, as a file; the tests make their modules by it, too.
MODEL_PY = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.fc = torch.nn.Linear(4 * 36, 10)

    def forward(self, image):
        return self.fc(torch.relu(self.conv(image)).flatten(1))
"""
HANDLER_PY = """
from ts.torch_handler.base_handler import BaseHandler


class DigitsHandler(BaseHandler):
    def preprocess(self, data):
        return data

    def postprocess(self, data):
        return data
"""
DATA_PY = """
import numpy as np


def samples():
    return {"image": np.random.default_rng(0).standard_normal((6, 1, 8, 8)).astype(np.float32)}
"""
MODEL_YAML = """
source: {source}
inputs: [{{name: image, dtype: FP32, shape: [1, 8, 8]}}]
outputs: [{{name: logits, dtype: FP32, shape: [10]{labels}}}]
samples: data:samples
serving: {{max_batch_size: 8, dynamic_batching: {{}}}}
"""


def net(seed: int = 0) -> Any:
    import torch

    names: dict[str, Any] = {"__name__": "net"}
    exec(MODEL_PY, names)
    torch.manual_seed(seed)
    return names["Net"]().eval()


def save_scripted(path: Path, module: Any) -> Path:
    import torch

    torch.jit.save(torch.jit.trace(module, torch.zeros(2, 1, 8, 8)), path)
    return path


def save_program(path: Path, module: Any, dynamic: Any) -> Path:
    """`dynamic` is the size of the batch dimension: a Dim, or None for the fixed 4."""
    import torch

    shapes = None if dynamic is None else ({0: dynamic},)
    torch.export.save(torch.export.export(module, (torch.zeros(4, 1, 8, 8),), dynamic_shapes=shapes), path)
    return path


def write_mar(path: Path, files: Mapping[str, bytes | str], **model: str) -> Path:
    """An archive with the manifest of torch-model-archiver; `model` are fields of it."""
    document = {
        "createdOn": "26/11/2026 10:03:40",
        "runtime": "python",
        "model": {"modelName": path.stem, "modelVersion": "1.0", **model},
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(document, indent=2))
    return path


def edited(source: Path, target: Path, edit: Mapping[str, bytes]) -> Path:
    """A copy of an archive; `edit` replaces the entries whose names end so, and adds others in its folder."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        left = dict(edit)
        for entry in before.infolist():
            end = next((end for end in left if entry.filename.endswith(end)), None)
            after.writestr(entry.filename, left.pop(end) if end else before.read(entry))
        for name, content in left.items():
            after.writestr(before.namelist()[0].partition("/")[0] + "/" + name, content)
    return target
