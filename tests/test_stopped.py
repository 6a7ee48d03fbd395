"""How a command ends that is stopped from outside, or whose disk takes nothing: a line and an exit code."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.cli.command import errors_shown, stopped_code
from tests.conftest import Sandbox


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_command_and_is_its_exit_code(
    sent: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        try:
            os.kill(os.getpid(), sent)
            signal.pause()
        finally:
            cleaned.append(sent)

    with pytest.raises(SystemExit, match=str(128 + sent)), errors_shown():
        run()
    assert cleaned == [sent]
    assert capsys.readouterr().err == "interrupted; nothing half done was published\n"
    assert signal.getsignal(signal.SIGTERM) == before
    assert stopped_code() == 128 + sent


def test_a_command_in_a_thread_leaves_signals_alone() -> None:
    ran = []

    def run() -> None:
        with errors_shown():
            ran.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ran == [True]


def test_a_disk_that_takes_nothing_is_an_error_wherever_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """/dev/full answers each write as a full disk does; what the error cannot say, the disks are asked for."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(SystemExit, match="1"), errors_shown():
        Path("/dev/full").write_text("x")
    assert capsys.readouterr().err.endswith(
        ": No space left on device\n  hint: free some space and run the same command again; nothing is lost\n"
    )


def test_other_errors_of_the_system_keep_their_traceback() -> None:
    with pytest.raises(FileNotFoundError), errors_shown():
        Path("/nowhere").read_text()


@pytest.fixture
def full(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A project with a model, and a disk of its own for `.modelwright`, which is full."""
    sandbox.onnx_builder("m")
    assert sandbox.build()["m"].error is None
    state = sandbox.root / ".modelwright"
    shutil.rmtree(state)
    state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", state], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount")
    try:
        with pytest.raises(OSError, match="No space"):
            (state / "ballast").write_bytes(bytes(1 << 20))
        yield sandbox
    finally:
        subprocess.run(["umount", state], check=True)


def test_with_a_full_disk_nothing_but_what_must_be_kept_fails(full: Sandbox) -> None:
    for command in ("status", "plan", "lint", "versions m", "history", "fsck"):
        result = full.cli(*command.split())
        assert result.exit_code == 0, (command, result.output)
    result = full.cli("build")
    assert result.exit_code == 1
    assert f"Error: {full.root}/.modelwright/" in result.output
    assert ": No space left on device\n  hint: free some space and run the same command again" in result.output


NESTED = "[" * 100_000
DAMAGED = {
    "modelwright.toml": [f"a = {NESTED}", f"triton = {'9' * 5000}", 'triton = "26.07"\n[paths]\nbuilders = "\\u0000"'],
    "model_repository/modelwright.json": [NESTED],
    "model_history/journal.jsonl": [f"{NESTED}\n"],
    "model_history/remotes.json": [NESTED],
    "model_repository/m/1/manifest.json": [NESTED],
}


@pytest.mark.parametrize("file", DAMAGED)
def test_files_that_are_nested_without_end_are_named(file: str, sandbox: Sandbox) -> None:
    for content in DAMAGED[file]:
        sandbox.write("m", model_yaml="source: {kind: onnx, path: model.onnx}\n")
        (sandbox.root / file).parent.mkdir(parents=True, exist_ok=True)
        (sandbox.root / file).write_text(content)
        (sandbox.root / "model_repository/m/1").mkdir(parents=True, exist_ok=True)
        results = [sandbox.cli(*command.split()) for command in ("status", "history", "fsck", "gc --keep 1")]
        assert [result.exception for result in results if not isinstance(result.exception, SystemExit | None)] == []
        assert any(Path(file).name in result.output for result in results)


@pytest.mark.parametrize("command", ["lint", "status", "lint --format json"])
def test_output_that_nothing_takes_is_an_error(command: str, sandbox: Sandbox) -> None:
    (sandbox.root / "model_repository").mkdir(exist_ok=True)
    started = [sys.executable, "-m", "modelwright.cli.main", "--project", str(sandbox.root), *command.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(started, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr.startswith("Error: standard output: No space left on device\n")
    closed = subprocess.run(shlex.join(started) + " >&-", shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in closed.stderr
