"""`modelwright load …` and `locust …` as a person runs them.

Most tests run a command in this process (`load`): it starts the processes that any load test has. Those that send a
signal, or look for what is left behind, run it in a process of its own (`started`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from modelwright.cli.main import main
from modelwright.loadtest.document import Result
from tests.conftest import ROOT, default_sigint

SHORT = ("--duration", "0.3", "--warmup", "0.1", "--concurrency", "4")
PATIENCE_S = 120  # for what a free machine does in a few seconds


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
class Running:
    """A command in a process of its own. What it prints goes to files in `logs`."""

    process: subprocess.Popen[bytes]
    logs: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def stderr(self) -> str:
        """What it has printed so far."""
        return (self.logs / "stderr").read_text()

    def family(self) -> list[psutil.Process]:
        """The processes below it."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def interrupt(self) -> None:
        """Ctrl-C for it alone: what it started is not in its terminal's group, or is to be ended by it."""
        self.process.send_signal(signal.SIGINT)

    def ended(self) -> Done:
        """What it has printed when it has ended."""
        self.process.wait(PATIENCE_S)
        return Done(self.process.returncode, (self.logs / "stdout").read_text(), self.stderr())


@dataclass
class Folder:
    """A project's folder to run commands in."""

    root: Path

    def load(self, *arguments: str) -> Done:
        """`modelwright load …` in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            result = CliRunner(env={"COLUMNS": "200"}).invoke(main, ["load", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    def started(self, *arguments: str) -> AbstractContextManager[Running]:
        """`modelwright load …` in a process of its own."""
        return self._started("modelwright.cli.main", "load", *arguments)

    def locust(self, *arguments: str) -> AbstractContextManager[Running]:
        return self._started("locust", *arguments)

    @contextmanager
    def _started(self, module: str, *arguments: str) -> Iterator[Running]:
        scratch = self.root / "scratch"
        scratch.mkdir(exist_ok=True)
        logs = Path(tempfile.mkdtemp(dir=self.root, prefix="log-"))
        with (logs / "stdout").open("w") as stdout, (logs / "stderr").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.root,
                env={**os.environ, "TMPDIR": str(scratch), "COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=default_sigint,
            )
        running = Running(process, logs)
        try:
            yield running
        finally:
            for each in running.family():
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.kill()
            process.wait()

    def await_rows(self) -> None:
        """Until generators have written rows twice: they write four times a second, and SHORT's warm-up is over then."""
        wait_until(self._row_bytes)
        first = self._row_bytes()
        wait_until(lambda: self._row_bytes() > first)

    def _row_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.root / "scratch").glob("modelwright-load-*/rows-*.bin"))

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


def wait_until(what: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, f"not within {patience_s:g} s"
        time.sleep(0.02)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def named(processes: list[psutil.Process], part: str) -> list[psutil.Process]:
    """Those whose command line has this in it, or whose program is called so."""
    found = []
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            if part in " ".join(each.cmdline()) or part == each.name():
                found.append(each)
    return found
