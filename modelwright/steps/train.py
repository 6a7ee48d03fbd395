"""source.kind torch: the entry trains or builds a module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.facts.part import Facts, Integer
from modelwright.facts.training import TrainingSummary
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call, make_importable
from modelwright.training import session
from modelwright.triton.file_types import TORCHSCRIPT, file_type

# The last module, by its file's identity, for the step that usually follows in the same process: pickled it would be
# the same, only later. A rename keeps the identity, so it holds when the file has moved into the store.
_FILE = "module.pt"
_recent: dict[tuple[int, int], Any] = {}


class Trained(Facts):
    parameters: Integer  # how many numbers the module has
    training: TrainingSummary | None = None  # of one that used the training kit


def run(context: StepContext, out: Path) -> Trained:
    """Call the source's entry; keep the module it returns, in eval mode, as `module.pt`."""
    import torch

    config = context.config
    torch.set_num_threads(config["threads"])
    torch.use_deterministic_algorithms(True)
    module = call(context, "source.entry", config["entry"], **config["params"])
    where = f"{context.builder.file}: source.entry {config['entry']}"
    if not isinstance(module, torch.nn.Module):
        raise StepError(f"{where}: expected an nn.Module, got {type(module).__name__}", _hint(module))
    save_module(module, out, where)
    return Trained(parameters=parameters_of(module), training=keep_training(out))


def keep_training(out: Path) -> TrainingSummary | None:
    """Keep what the training kit learnt in this step as `out`/training.json; nothing where it was not used."""
    record = session.current().record
    if record is None:
        return None
    record.write(out)
    return TrainingSummary.of(record)


def _hint(returned: Any) -> str:
    import torch

    if isinstance(returned, torch.export.ExportedProgram):
        return "return its module: program.module()"
    if isinstance(returned, Mapping) and any(isinstance(value, torch.Tensor) for value in returned.values()):
        return "these are weights: make the module, and return it after module.load_state_dict(weights)"
    return "return the trained module"


def parameters_of(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def save_module(module: Any, out: Path, where: str) -> None:
    """Keep a module, in eval mode, as `out`/module.pt. Raises StepError; `where` is how messages call its maker."""
    module.eval()
    path = out / _FILE
    try:
        _save(module, path)
    except (AttributeError, TypeError, RuntimeError) as error:
        hint = "classes and functions that a module holds must be defined at the top of a file"
        raise StepError(f"{where}: the module cannot be stored: {error}", hint) from None
    _recent.clear()
    _recent[_identity(path)] = module


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _save(module: Any, path: Path) -> None:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        torch.jit.save(module, path)
    else:
        torch.save(module, path)


def load_module(context: StepContext, folder: Path) -> Any:
    """The nn.Module that `save_module` stored. A pickle, but one of our own store, whose digest was checked.

    The caller owns it: what changes it in place changes nothing for another step.
    """
    import torch

    path = folder / _FILE
    recent = _recent.pop(_identity(path), None)
    if recent is not None:
        return recent
    make_importable(context.builder.folder)
    return torch.jit.load(path) if file_type(path) is TORCHSCRIPT else torch.load(path, weights_only=False)
