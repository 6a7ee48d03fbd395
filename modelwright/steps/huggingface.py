"""Hugging Face model directories: of the builder's folder or an installed package, loaded without a network."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError
from modelwright.triton.file_types import TORCHSCRIPT, file_type, pointer, safetensors_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

# The plain form exports to a third fewer nodes than SDPA, whose masks become Where and IsNaN chains, and onnxruntime
# recognises its MatMul-Softmax-MatMul; the numbers agree to rounding.
_ATTENTION = "eager"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def load_model(directory: Path, auto_class: str = "AutoModel") -> nn.Module:
    """The model of a directory in float32 and eval mode, by `transformers.<auto_class>`.

    Reads safetensors only: a pickle can run code. Uses no network and no code from the directory. Raises StepError.
    """
    _check_files(directory)
    with _offline(), _quiet():
        import torch
        import transformers
        from safetensors import SafetensorError

        loader = _auto_class(transformers, auto_class)
        try:
            model, report = loader.from_pretrained(
                str(directory),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation=_ATTENTION,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).replace(str(directory), directory.name).split())
            raise StepError(f"{directory.name}: transformers does not load it: {reason[:500]}") from error
    _check_complete(directory, auto_class, model, report["missing_keys"])
    module: nn.Module = model.eval()
    return module


def _check_files(directory: Path) -> None:
    """Refuse files that are not what their names say, before transformers reads them. Raises StepError.

    Other files of a clone may be pointers: pytorch_model.bin, when only the safetensors were pulled.
    """
    weights = _weights(directory)
    missing = [path.name for path in weights if not path.is_file()]
    if missing:
        hint = "copy them, too: the weights are in several files"
        raise StepError(f"{directory.name}: {_INDEX} lists files that are not there: {', '.join(missing)}", hint)
    files = [directory / "config.json", *weights]
    pointers = {path.name: found for path in files if path.is_file() and (found := pointer(path))}
    for found in pointers.values():  # of one kind, as they come from one clone
        raise StepError(f"{directory.name}: {', '.join(pointers)}: {found.what}", found.fix)
    for path in weights:
        problem = safetensors_problem(path)
        if problem:
            raise StepError(f"{directory.name}: {path.name}: {problem}", "copy or download it again")


def _weights(directory: Path) -> list[Path]:
    """The files that transformers reads weights from: model.safetensors, or all that the index lists."""
    single, index = directory / "model.safetensors", directory / _INDEX
    if single.is_file():
        return [single]
    try:
        listed = {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
    except FileNotFoundError:
        listed = {path.name for path in directory.glob("*.safetensors")}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        found = pointer(index)
        what = found.what if found else f"is no index of weights ({type(error).__name__})"
        raise StepError(f"{directory.name}: {_INDEX}: {what}", found.fix if found else "copy it again") from None
    if not listed:
        raise _no_safetensors(directory)
    return [directory / name for name in sorted(listed)]


def _no_safetensors(directory: Path) -> StepError:
    pickles = sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern))
    if pickles and file_type(directory / pickles[0]) is TORCHSCRIPT:
        return StepError(
            f"{directory.name}: {pickles[0]} is {TORCHSCRIPT.what}, not weights for transformers",
            "use source.kind torch, with an entry that returns torch.jit.load(…), and exporter: torchscript",
        )
    if pickles:
        return StepError(
            f"{directory.name}: has weights only as {pickles[0]}, which can run code when it is read",
            "convert once, where you trust it: AutoModel.from_pretrained(DIR).save_pretrained(DIR) writes safetensors",
        )
    return StepError(f"{directory.name}: no *.safetensors there", "git lfs pull, if it is a clone without its weights")


def _auto_class(transformers: Any, name: str) -> Any:
    loader = getattr(transformers, name, None)
    if not name.startswith("AutoModel") or loader is None:
        raise StepError(f"transformers has no '{name}'", "AutoModel, AutoModelForSequenceClassification, …")
    return loader


def _check_complete(directory: Path, auto_class: str, model: Any, missing_keys: Iterable[str]) -> None:
    """Weights that the file lacks are random, and others in every run: such a model must not be served.

    Many encoders come without the pooler that AutoModel adds; it is taken off, and its output with it.
    """
    missing = sorted(name for name in missing_keys if not name.startswith("pooler."))
    if not missing and missing_keys:
        model.pooler = None
    if missing:
        raise StepError(
            f"{directory.name}: has no weights for {len(missing)} tensors of {auto_class}, the first {missing[0]}",
            "choose the auto_class that config.json names under architectures",
        )


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The libraries read these when they are imported; local_files_only covers the case that they are already."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(_OFFLINE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, no advice: failures arrive as exceptions, missing weights in the loading report."""
    from transformers.utils import logging as hf_logging

    # transformers imports torchao where it is installed, which warns of each kernel that this machine cannot load, and
    # of its own use of torch.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    bars, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
