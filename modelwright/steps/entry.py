"""Calling a builder's own functions: from its folder, repeatable, and with errors cut down to its code."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from typing import Any

from modelwright.errors import ModelwrightError, StepError
from modelwright.project.spec import Builder
from modelwright.steps.context import StepContext

_SEED = 0


class _Watch:
    """The files of one folder that were read while it was on, but for those that were written before.

    An audit hook cannot be taken away again, so there is one a process, and it looks at `folder`.
    """

    def __init__(self) -> None:
        self.folder: str | None = None
        self.opened: set[str] = set()
        self._written: set[str] = set()
        self._installed = False

    def start(self, folder: Path) -> None:
        self.folder, self.opened, self._written = os.path.realpath(folder) + os.sep, set(), set()
        if not self._installed:
            sys.addaudithook(self._hook)
            self._installed = True

    def stop(self) -> set[str]:
        self.folder = None
        return self.opened

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in ("open", "os.rename"):
            return
        target = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(target, str | bytes | os.PathLike):
            return
        path = os.path.realpath(os.fsdecode(target))
        if not path.startswith(self.folder):
            return
        if event == "open" and arguments[1] is None and not os.path.lexists(path):
            return  # os.open, maybe with a dir_fd, which the event does not tell: rmtree in another folder does that
        name = path[len(self.folder) :].replace(os.sep, "/")
        writes = event == "os.rename" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_CREAT))
        if writes:
            self._written.add(name)
        elif name not in self._written:
            self.opened.add(name)


_watch = _Watch()


def call(context: StepContext, field: str, entry: str, *arguments: Any, **params: Any) -> Any:
    """Call `module:function` of the builder's folder.

    Random generators are seeded before, so that code which forgot to gives the same result every time. Whatever it
    raises becomes a StepError with the traceback of the builder's own code. Reading a file of the folder that the
    step's key does not cover is an error: the build would not notice when that file changes.
    """
    builder = context.builder
    with _at_home(builder.folder):
        _seed_everything()
        _watch.start(builder.folder)
        try:
            function = _load(entry)
            result = function(*arguments, **params)
        except ModelwrightError:
            raise
        except BaseException as error:  # also SystemExit, and what test frameworks and async libraries raise
            if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                raise  # Ctrl-C, which workers ignore: there only the code itself raises it
            raise user_error(builder, field, entry, error) from None
        finally:
            opened = _watch.stop()
    _check_declared(context, field, opened)
    return result


def function_of(context: StepContext, field: str, entry: str) -> Callable[..., Any]:
    """The function itself, to look at. Raises StepError where its module cannot be imported."""
    with _at_home(context.builder.folder):
        try:
            return _load(entry)
        except Exception as error:
            raise user_error(context.builder, field, entry, error) from None


class _Uncached(SourceFileLoader):
    """Compiles a module anew each time, leaving no __pycache__: a cached one is told stale by size and second only."""

    def path_stats(self, path: Any) -> Any:
        raise OSError  # the documented way to say: no bytecode, neither read nor written


def make_importable(folder: Path) -> None:
    """Let the builder's modules be imported by their own names, in this process from now on."""
    if sys.path[0] == str(folder):
        return

    def hook(path: str) -> FileFinder:
        if not Path(path).is_relative_to(folder):
            raise ImportError
        return FileFinder(path, (_Uncached, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, hook)
    sys.path.insert(0, str(folder))


def user_error(builder: Builder, field: str, entry: str, error: BaseException) -> StepError:
    """`builders/x/model.yaml: source.entry train:train raised ValueError: …` and where in the builder's code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(str(builder.folder) + os.sep)]
    reason = "".join(traceback.format_exception_only(type(error), error)).strip()
    lines = "".join(traceback.format_list(own)).rstrip().replace(str(builder.folder) + os.sep, "")
    where = f"{builder.file}: {field} {entry} raised {reason}"
    if isinstance(error, TypeError) and not own:
        owner = field.rpartition(": ")[2].rpartition(".")[0] or "source"
        return StepError(where, f"its parameters and {owner}.params must agree")
    if isinstance(error, ModuleNotFoundError):
        return StepError(f"{where}\n{lines}", f"install it, or name it in pyproject.toml: {error.name}")
    return StepError(f"{where}\n{lines}" if lines else where)


def _load(entry: str) -> Callable[..., Any]:
    module, _, function = entry.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return loaded


@contextlib.contextmanager
def _at_home(folder: Path) -> Iterator[None]:
    make_importable(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _seed_everything() -> None:
    import numpy as np

    random.seed(_SEED)
    np.random.seed(_SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(_SEED)


def _check_declared(context: StepContext, field: str, opened: set[str]) -> None:
    undeclared = sorted(
        name for name in opened - context.declared if "__pycache__" not in name and not _is_folder(context, name)
    )
    if undeclared:
        name = undeclared[0]
        raise StepError(
            f"{context.builder.file}: {field}: its code reads '{name}', which the build does not know of",
            f"add it, so that a change of it is noticed: files: [{name}]",
        )


def _is_folder(context: StepContext, name: str) -> bool:
    return (context.builder.folder / name).is_dir()
