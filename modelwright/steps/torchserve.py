"""source.kind torchserve: the model of an archive → ONNX. What TorchServe did around it becomes notes."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.archives import unpack
from modelwright.errors import StepError, located, one_line
from modelwright.facts.made import Made
from modelwright.facts.verified import Verified
from modelwright.kinds.mar import HANDLERS, Mar, own_handler, read_mar
from modelwright.kinds.torchserve import TorchServeSource
from modelwright.kinds.trust import check_trusted
from modelwright.steps import verify as onnxruntime
from modelwright.steps.context import StepContext
from modelwright.steps.files import source_path
from modelwright.steps.onnx import export_module
from modelwright.steps.torch_files import load_torchscript, load_weights, put_weights
from modelwright.triton.file_types import TORCHSCRIPT, file_type

_NOTES = "notes.json"
_MODULE = "modelwright_archived_model"


def to_onnx(context: StepContext, out: Path) -> Made:
    """Export the archive's model; keep what is not carried as `out`/notes.json."""
    import torch

    source = context.source(TorchServeSource)
    torch.set_num_threads(source.threads)
    where = f"{context.builder.file}: source.path"
    with _unpacked(context, source, out.parent) as mar:
        _check_handler(mar, source, where)
        notes = list(mar.not_carried())
        if mar.labels and not any(output.labels for output in context.builder.spec.outputs):
            notes.append(
                f"index_to_name.json names {len(mar.labels)} classes, and no output has labels: `modelwright new NAME "
                "--from` of the archive writes them as labels.txt"
            )
        module = _module(mar, source, where)
        exporter = "torchscript" if isinstance(module, torch.jit.ScriptModule) else source.exporter
        made = export_module(context, module, out, exporter)
    (out / _NOTES).write_text(json.dumps(notes))
    details = {"archive": mar.model.model_dump(mode="json"), "not_carried": notes}
    return made.model_copy(update={"details": details})


def verify(context: StepContext, out: Path) -> Verified:
    """Verify the graph in onnxruntime, and note what is not carried."""
    verified = onnxruntime.run(context, out)
    notes = json.loads((context.inputs["model"] / _NOTES).read_text())
    return verified.model_copy(update={"notes": (*verified.notes, *notes)})


@contextlib.contextmanager
def _unpacked(context: StepContext, source: TorchServeSource, scratch: Path) -> Iterator[Mar]:
    where = f"{context.builder.file}: source.path"
    packed = not context.config["folder"]
    path = source_path(context, "source.path", source.path, folder=not packed)
    folder = Path(tempfile.mkdtemp(prefix="archive-", dir=scratch))
    try:
        with located(where):
            if packed:
                unpack(path, folder)
            yield read_mar(folder if packed else path, path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_handler(mar: Mar, source: TorchServeSource, where: str) -> None:
    """Raise StepError for a handler of the archive's own that the builder does not do without."""
    if mar.has_own_handler and source.handler != "ignore":
        known = ", ".join(HANDLERS)
        raise StepError(
            f"{where}: the archive has a handler of its own, which is not carried: {own_handler(mar)}",
            "source.handler: ignore, if clients do what it did: tensors in, tensors out; or put its code into a model "
            f"of kind python. Known handlers are {known}",
        )


def _module(mar: Mar, source: TorchServeSource, where: str) -> Any:
    file, place = mar.serialized, f"{where}: {mar.model.serialized}"
    if mar.code is None or file_type(file) is TORCHSCRIPT:
        return load_torchscript(file, place)
    instead = "archive it as TorchScript: torch.jit.script(module)"
    check_trusted(source.trusted, f"{where}: {mar.model.code}", "Python code of the archive", instead)
    module = _made_by(mar.code, f"{where}: {mar.model.code}")
    put_weights(module, load_weights(file, place, trusted=source.trusted), place)
    return module.eval()


def _made_by(file: Path, where: str) -> Any:
    """The one class that a model file defines, called without arguments, as TorchServe does it."""
    from torch import nn

    spec = importlib.util.spec_from_file_location(_MODULE, file)
    if spec is None or spec.loader is None:
        raise StepError(f"{where}: is no Python file", "archive the model again: torch-model-archiver")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
        classes = [item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == _MODULE]
        if len(classes) != 1 or not issubclass(classes[0], nn.Module):
            names = ", ".join(item.__name__ for item in classes) or "none"
            hint = "TorchServe wants one class there, an nn.Module: put others into another file"
            raise StepError(f"{where}: expected one class, an nn.Module; it defines {names}", hint)
        return classes[0]()
    except StepError:
        raise
    except ModuleNotFoundError as error:
        raise StepError(f"{where}: {one_line(error)}", f"pip install {error.name}") from error
    except Exception as error:  # it is code of another
        raise StepError(f"{where}: raised {type(error).__name__}: {one_line(error)}", "look at its code") from error
    finally:
        sys.path.remove(str(file.parent))
