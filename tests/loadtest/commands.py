"""`modelwright load …` and `locust …` as a person runs them: in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from modelwright.loadtest.document import Result
from tests.conftest import ROOT, default_sigint

SHORT = ("--duration", "0.5", "--warmup", "0.2", "--concurrency", "4")
_PATIENCE_S = 60


@dataclass
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> Result:
        """What `--json` printed."""
        return Result.model_validate_json(self.stdout)


@dataclass
class Folder:
    """A project's folder to run commands in."""

    root: Path

    def load(self, *arguments: str) -> Done:
        with self.started(*arguments) as process:
            return ended(process)

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with self._started("modelwright.cli.main", "load", *arguments) as process:
            yield process

    @contextmanager
    def locust(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with self._started("locust", *arguments) as process:
            yield process

    @contextmanager
    def _started(self, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        scratch = self.root / "scratch"
        scratch.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=default_sigint,
        )
        try:
            yield process
        finally:
            for each in (*family(process), psutil.Process(process.pid) if process.poll() is None else None):
                if each is not None:
                    with _gone_is_fine():
                        each.kill()
            process.communicate()

    def await_rows(self) -> None:
        """Until generators have written rows, and a second more: SHORT's warm-up is over then."""
        wait_until(self._has_rows)
        time.sleep(1)

    def _has_rows(self) -> bool:
        return any(path.stat().st_size for path in (self.root / "scratch").glob("modelwright-load-*/rows-*.bin"))

    def written(self, output: str | Path) -> Result:
        """The result in a folder, beside which the other two files are."""
        folder = self.root / output
        assert sorted(path.name for path in folder.iterdir()) == ["measurements.csv", "report.html", "result.json"]
        return Result.model_validate_json((folder / "result.json").read_text())


def project_folder(root: Path) -> Folder:
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "modelwright.toml", root)
    (root / ".modelwright").mkdir(exist_ok=True)
    (root / ".modelwright" / "server").symlink_to(ROOT / ".modelwright" / "server")
    return Folder(root)


def ended(process: subprocess.Popen[str]) -> Done:
    stdout, stderr = process.communicate(timeout=_PATIENCE_S)
    return Done(process.returncode, stdout, stderr)


def wait_until(what: Callable[[], object], patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes below it."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def named(processes: list[psutil.Process], part: str) -> list[psutil.Process]:
    """Those whose command line has this in it, or whose program is called so."""
    found = []
    for each in processes:
        with _gone_is_fine():
            if part in " ".join(each.cmdline()) or part == each.name():
                found.append(each)
    return found


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C for it alone: what it started is not in its terminal's group, or is to be ended by it."""
    os.kill(process.pid, signal.SIGINT)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    with suppress(psutil.NoSuchProcess):
        yield
