"""What a TorchScript module answers to tensors of some shapes, for a builder that is written around it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.steps.torch_files import load_torchscript
from modelwright.triton.dtypes import BY_NAME, BY_NUMPY
from modelwright.triton.torch_archives import TorchTensor

_ROWS = 2


def answers_of(file: Path, candidates: Sequence[Sequence[TorchTensor]]) -> tuple[int, tuple[TorchTensor, ...]] | None:
    """The number of the first of `candidates` that the module takes in a batch of two, and its outputs; shapes of both
    leave out the batch. None where it takes none of them, or PyTorch is not installed."""
    try:
        import torch

        module = load_torchscript(file, file.name)
    except (ImportError, ModelwrightError):
        return None
    for number, inputs in enumerate(candidates):
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = module(*(_zeros(tensor) for tensor in inputs))
        except Exception:  # noqa: S112 - a module refuses other shapes in any way
            continue
        if outputs := _outputs(result):
            return number, outputs
    return None


def _zeros(tensor: TorchTensor) -> Any:
    import torch

    return torch.zeros((_ROWS, *tensor.shape), dtype=getattr(torch, BY_NAME[tensor.dtype].numpy))


def _outputs(result: Any) -> tuple[TorchTensor, ...]:
    import torch

    named: dict[Any, Any] = result if isinstance(result, dict) else {}
    values = (result,) if isinstance(result, torch.Tensor) else result
    if isinstance(values, tuple | list):
        named = {f"output_{index}" if len(values) > 1 else "output": value for index, value in enumerate(values)}
    found = []
    for name, value in named.items():
        if not isinstance(value, torch.Tensor) or not value.dim() or value.shape[0] != _ROWS:
            return ()
        dtype = BY_NUMPY.get(str(value.dtype).removeprefix("torch."))
        found.append(TorchTensor(str(name), dtype.name if dtype else "", tuple(value.shape[1:])))
    return tuple(found)
