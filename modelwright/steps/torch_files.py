"""PyTorch's files, loaded onto the CPU: weights, TorchScript, exported programs.

None of these runs code of the file's maker while it is loaded, but for pickles, which need `trusted`. `where` is the
field of model.yaml that names the file, for messages.
"""

from __future__ import annotations

import inspect
import io
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.archives import check_zip, open_zip
from modelwright.errors import StepError, located, one_line
from modelwright.kinds.trust import check_trusted
from modelwright.steps.exporters import quiet_exports
from modelwright.triton.file_types import (
    CHECKPOINT,
    EXPORTED_PROGRAM,
    PICKLE,
    TORCHSCRIPT,
    file_type,
)
from modelwright.triton.torch_archives import checkpoint_header
from modelwright.triton.torch_programs import Program, read_program

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

_SAFE = "save the weights alone: torch.save(module.state_dict(), …)"
_NESTED = ("state_dict", "model_state_dict")  # where checkpoints of trainers keep the weights
_AGAIN = "copy or download it again"
_SHOWN = 3  # names in a message


def load_weights(file: Path, where: str, *, trusted: bool = False) -> dict[str, Tensor]:
    """A file of torch.save as a state dict: {name: tensor}. Also those inside a checkpoint of Lightning or a trainer.

    Raises StepError for another file, and for a pickle of more than tensors that is not `trusted`.
    """
    import torch

    found = file_type(file)
    if found not in (CHECKPOINT, PICKLE):
        raise _another(file, where, "weights of torch.save", found)
    if found is CHECKPOINT:
        with located(where), open_zip(file):
            pass  # its names and sizes are harmless
        if not trusted:
            _check_tensors_only(file, where)
    try:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            check_trusted(trusted, where, "a pickle of more than tensors", _SAFE)
            content = torch.load(file, map_location="cpu", weights_only=False)
    except StepError:
        raise
    except Exception as error:  # damaged files and pickles fail in any way
        raise StepError(f"{where}: cannot be loaded: {type(error).__name__}: {_reason(error)}", _AGAIN) from error
    weights = _tensors_in(content)
    if not weights:
        raise StepError(f"{where}: holds no weights, but a {type(content).__name__}", _SAFE)
    return weights


def put_weights(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict into a module. A prefix that all names share is left out where the module lacks it: Lightning
    and DataParallel write "model." and "module.".

    Raises StepError that names the first weights that are missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    given = _without_prefix(weights, wanted)
    _check_names(given, wanted, where)
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{list(tensor.shape)} in the file, {list(wanted[name].shape)} in the module"
            raise StepError(f"{where}: the weight '{name}' has shape {shapes}", "these are weights of another model")
    module.load_state_dict(dict(given))


def load_torchscript(file: Path, where: str) -> Any:
    """A file of torch.jit.save as a ScriptModule, in eval mode. Raises StepError."""
    import torch

    found = file_type(file)
    if found is not TORCHSCRIPT:
        raise _another(file, where, "TorchScript", found)
    with located(where):
        check_zip(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript as a whole is deprecated
            module = torch.jit.load(file, map_location="cpu")
    except Exception as error:
        raise StepError(f"{where}: torch {torch.__version__} cannot load it: {_reason(error)}", _hint(error)) from error
    if not hasattr(module, "forward"):
        raise StepError(f"{where}: the module has no forward", "save a module whose forward is scripted or traced")
    module.eval()
    return module


def load_exported_program(file: Path, where: str, *, trusted: bool = False) -> tuple[ExportedProgram, Program]:
    """A file of torch.export.save, and what it declares. Raises StepError, also for one that would run code when it is
    loaded and is not `trusted`."""
    import torch

    program = check_program(file, where, trusted=trusted)
    try:
        with quiet_exports():
            loaded = torch.export.load(file)
    except Exception as error:
        version = f"torch {torch.__version__}"
        hint = f"torch's exported programs change between its versions: export it again with {version}"
        raise StepError(f"{where}: {version} cannot load it: {_reason(error)}", hint) from error
    return loaded, program


def check_program(file: Path, where: str, *, trusted: bool = False) -> Program:
    """What a file of torch.export.save declares, once it is whole and harmless or `trusted`. Raises StepError."""
    found = file_type(file)
    if found is not EXPORTED_PROGRAM:
        raise _another(file, where, "a program of torch.export.save", found)
    with located(where):
        check_zip(file)
    try:
        program = read_program(file)
    except (ValueError, OSError) as error:
        raise StepError(f"{where}: cannot be read: {error}", "export it again with the newest torch") from None
    if not trusted:
        risks = [*program.risks, *_pickles_of_more(file, program.pickles)]
        instead = "export it again with torch.export.save, without custom objects"
        if risks:
            check_trusted(trusted, where, f"a program with more in it than operators on tensors ({risks[0]})", instead)
    return program


def module_of_program(loaded: ExportedProgram, program: Program) -> nn.Module:
    """A program as a module in eval mode, whose forward takes the program's tensors by name or in order."""
    import torch
    from torch.utils import _pytree as pytree

    graph = loaded.module()
    # torch forbids both, since a program stays as it was exported. Adapters switch all that they hold to eval mode.
    graph.train = types.MethodType(torch.nn.Module.train, graph)
    graph.eval = types.MethodType(torch.nn.Module.eval, graph)
    names = [tensor.name for tensor in program.inputs]
    leaves, structure = loaded.graph_signature.user_inputs, loaded.call_spec.in_spec

    class Exported(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.program = graph

        def forward(self, *tensors: Tensor, **named: Tensor) -> Any:
            given = dict(zip(names, tensors, strict=False)) | named
            values = [given.get(leaf) for leaf in leaves]
            arguments, keywords = pytree.tree_unflatten(values, structure)
            return self.program(*arguments, **keywords)

    parameter = inspect.Parameter
    own = [
        parameter("self", parameter.POSITIONAL_ONLY),
        *(parameter(n, parameter.POSITIONAL_OR_KEYWORD) for n in names),
    ]
    Exported.forward.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    return Exported().eval()


def _tensors_in(content: Any) -> dict[str, Tensor]:
    import torch

    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        return {}
    held = next((content[key] for key in _NESTED if isinstance(content.get(key), Mapping)), content)
    return {str(name): value for name, value in held.items() if isinstance(value, torch.Tensor)}


# --- what is wrong ----------------------------------------------------------------------------------------------------


def _another(file: Path, where: str, wanted: str, found: Any) -> StepError:
    what, fix = (found.what, found.fix) if found else ("a file of another kind", "look into it; save the model again")
    return StepError(f"{where}: '{file.name}' is {what}, expected {wanted}", fix)


def _check_tensors_only(file: Path, where: str) -> None:
    """Name the classes that a checkpoint would need, where it holds more than tensors."""
    try:
        classes = checkpoint_header(file).classes
    except (ValueError, OSError) as error:
        raise StepError(f"{where}: a damaged file: {error}", _AGAIN) from None
    if own := [name for name in classes if not name.startswith("__builtin__.")]:
        check_trusted(False, where, f"a pickle of more than tensors ({', '.join(own[:_SHOWN])})", _SAFE)


def _pickles_of_more(file: Path, entries: Sequence[str]) -> Iterable[str]:
    """The entries of an archive that are pickles of more than tensors."""
    import torch

    with zipfile.ZipFile(file) as archive:
        for entry in entries:
            content = archive.read(entry)
            try:
                if content:
                    torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            except Exception as error:
                yield f"'{entry}' is a pickle of more than tensors: {one_line(error):.60}"


def _without_prefix(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    prefix = next(iter(weights), "").partition(".")[0] + "."
    if all(name.startswith(prefix) for name in weights) and not any(name.startswith(prefix) for name in wanted):
        return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _check_names(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    parts = []
    for text, names in (("lacks", wanted.keys() - given.keys()), ("has", given.keys() - wanted.keys())):
        if names:
            first = ", ".join(f"'{name}'" for name in sorted(names)[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            parts.append(f"{text} {first}{more}{'' if text == 'lacks' else ', which the module does not'}")
    if parts:
        hint = "these are weights of another model, or of another version of its code"
        raise StepError(f"{where}: {' and '.join(parts)}", hint)


def _reason(error: Exception) -> str:
    """torch's message, without the place in its own code in front of it and the advice behind it."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[enforce fail at [^]]*\] \. ", "", text)
    return re.split(r" This is an internal miniz| The version of your PyTorch| Here are some suggestions", text)[0][
        :300
    ]


def _hint(error: Exception) -> str:
    text = str(error)
    if "maximum supported version" in text:
        return "a newer torch saved it: save it with this one, or update torch"
    if "Unknown builtin op" in text or "Unknown type name" in text:
        return "it needs an operator that this torch does not have: a newer torch saved it, or an extension is missing"
    if "required keyword attribute" in text:
        return "what torch.jit.optimize_for_inference made cannot be loaded again: save the module before it"
    return _AGAIN
