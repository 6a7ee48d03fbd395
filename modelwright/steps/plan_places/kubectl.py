"""kubectl, as far as a plan's Job needs it.

kubectl and not a client library: it is what the users of a cluster have, it knows their context and how they log in,
and its `exec` carries files. Two of its faults are worked around. It drops what it has not delivered yet when a command
ends, with exit code 0 (kubernetes/kubernetes#124571), and it may not notice that standard input or a command has ended
(rancher/rke2#10237). So both sides know beforehand how many bytes come, the command stays a while after the last one,
and it is ended from here.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from modelwright.errors import StepError
from modelwright.steps.plan_places.archive import pack, packed_size
from modelwright.text import size

_REQUEST_S = 30  # for the API server's answer
_STALLED_S = 120.0  # a transfer that moves nothing
_CHUNK = 1 << 20
_STAY_S = 60  # how long a command stays after its last byte
_RECEIVED = b"received\n"
_RIGHTS = (
    "the account needs: create, get, delete of jobs; list of pods and events; create of pods/exec, in that namespace"
)
# What kubectl says → what to do.
_HINTS = {
    "forbidden": _RIGHTS,
    "Unauthorized": "log in to the cluster, and try: kubectl get pods",
    "must be logged in": "log in to the cluster, and try: kubectl get pods",
    "context was not found": "see the contexts: kubectl config get-contexts; set tensorrt.kubernetes.context",
    "does not exist": "see the contexts: kubectl config get-contexts; set tensorrt.kubernetes.context",
    'namespaces "': "set tensorrt.kubernetes.namespace to one that is there: kubectl get namespaces",
    "exceeded quota": "free some of the quota, or choose another tensorrt.kubernetes.namespace",
    "localhost:8080": "kubectl knows no cluster: set KUBECONFIG, or tensorrt.kubernetes.context",
    "onnection refused": "start the cluster, or set tensorrt.kubernetes.context",
    "Unable to connect": "the cluster cannot be reached: try kubectl get pods",
    "no such host": "the cluster cannot be reached: try kubectl get pods",
    "timeout": "the cluster does not answer: try kubectl get pods",
}


_FINAL = ("forbidden", "Unauthorized", "must be logged in", "does not exist", "was not found", 'namespaces "')


class KubectlError(StepError):
    """kubectl failed: with what it said, and what to do. `is_final`: it will say the same again."""

    is_final = False


def _failed(doing: str, said: str) -> KubectlError:
    hint = next((hint for text, hint in _HINTS.items() if text in said), "try the same by hand: kubectl get pods")
    error = KubectlError(f"kubectl {doing}: {' '.join(said.split()) or 'failed without a word'}", hint)
    error.is_final = any(text in said for text in _FINAL)
    return error


@dataclass(frozen=True)
class Kubectl:
    context: str = ""
    namespace: str = ""

    def command(self, *arguments: str) -> list[str]:
        where = [f"--context={self.context}"] if self.context else []
        where += [f"--namespace={self.namespace}"] if self.namespace else []
        return ["kubectl", *where, *arguments]

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Raises KubectlError."""
        self._answer("create", "create", "--filename=-", "--output=name", given=json.dumps(manifest).encode())

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object, or a list of them. Raises KubectlError."""
        data: dict[str, Any] = json.loads(self._answer(f"get {arguments[0]}", "get", *arguments, "--output=json"))
        return data

    def deletion(self, job: str) -> list[str]:
        """The command that removes a Job with its pod; it says nothing of one that is not there."""
        return self.command(
            "delete", "job", job, "--ignore-not-found", "--wait=false", f"--request-timeout={_REQUEST_S}s"
        )

    def send(self, pod: str, container: str, files: Mapping[str, Path], target: str) -> None:
        """Put files into a folder of a container; the folder appears by a rename. Raises KubectlError."""
        length = packed_size(files)
        script = (
            'rm -rf "$1.part" && mkdir "$1.part" && head -c "$2" | tar -xf - -C "$1.part"'
            f' && {{ [ -e "$1" ] || mv "$1.part" "$1"; }} && echo received && sleep {_STAY_S}'
        )
        with self._exec(pod, container, script, target, str(length), takes_input=True) as transfer:
            process = transfer.process
            assert process.stdin is not None
            assert process.stdout is not None
            with _ended_when_stalled(process) as moved:
                with contextlib.suppress(BrokenPipeError):
                    pack(files, cast(IO[bytes], _Moving(process.stdin, moved)))
                    process.stdin.flush()
                answer = process.stdout.readline(32)
            if answer != _RECEIVED:
                raise _failed(f"exec: the request ({size(length)}) was not received", transfer.said)

    def fetch(self, pod: str, container: str, source: str, target: IO[bytes], *, largest: int, start: int = 0) -> int:
        """Write a file of a container to `target`, from byte `start` on. Returns how many bytes came.

        Raises KubectlError, also for a file with more than `largest` bytes.
        """
        script = (
            f'length=$(wc -c <"$1") && echo "$length" && [ "$length" -gt {start} ]'
            f' && tail -c +{start + 1} "$1" && sleep {_STAY_S}'
        )
        with self._exec(pod, container, script, source) as transfer, _ended_when_stalled(transfer.process) as moved:
            process = transfer.process
            assert process.stdout is not None
            told = process.stdout.readline(32).strip()
            if not told.isdigit():
                raise _failed(f"exec: {source} cannot be read", transfer.said)
            left = max(0, int(told) - start)
            if left > largest:
                raise _failed("exec", f"{source} has {size(left)}, expected at most {size(largest)}")
            got = 0
            while got < left and (chunk := process.stdout.read(min(_CHUNK, left - got))):
                target.write(chunk)
                got += len(chunk)
                moved()
            if got < left:
                raise _failed(f"exec: {source} was cut short after {got} of {left} bytes", transfer.said)
        return got

    def run(self, pod: str, container: str, script: str) -> str:
        """What a short command in a container prints. Raises KubectlError."""
        return self._answer("exec", "exec", pod, f"--container={container}", "--", "sh", "-c", script).decode(
            errors="replace"
        )

    def _answer(self, doing: str, *arguments: str, given: bytes | None = None) -> bytes:
        # `create` and `get` take the option before anything else; `exec` must not be cut off by its own `--`.
        verb, *rest = arguments
        try:
            done = subprocess.run(
                self.command(verb, f"--request-timeout={_REQUEST_S}s", *rest),
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                timeout=2 * _REQUEST_S,
                check=False,
            )
        except FileNotFoundError:
            raise StepError("there is no kubectl here", "install kubectl, and put it on PATH") from None
        except subprocess.TimeoutExpired:
            raise _failed(doing, f"no answer within {2 * _REQUEST_S} s: timeout") from None
        if done.returncode != 0:
            raise _failed(doing, done.stderr.decode(errors="replace").strip())
        return done.stdout

    @contextlib.contextmanager
    def _exec(
        self, pod: str, container: str, script: str, *values: str, takes_input: bool = False
    ) -> Iterator[_Transfer]:
        """A command in a container; it is ended when the block is left."""
        options = ["--stdin"] if takes_input else []
        arguments = ["exec", *options, pod, f"--container={container}", "--", "sh", "-c", script, "sh", *values]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                self.command(*arguments),
                stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                yield _Transfer(process, errors)
            finally:
                process.kill()
                for pipe in (process.stdin, process.stdout):
                    with contextlib.suppress(BrokenPipeError):
                        if pipe:
                            pipe.close()
                process.wait()


@dataclass(frozen=True)
class _Transfer:
    """A kubectl that moves bytes, and the file with what it says of errors."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    @property
    def said(self) -> str:
        """What it printed as errors; it has a moment to end by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        return self.errors.read(100_000).decode(errors="replace").strip()


@dataclass(frozen=True)
class _Moving:
    """Passes bytes on, and tells that they moved."""

    target: IO[bytes]
    moved: Callable[[], None]

    def write(self, data: bytes) -> int:
        written = self.target.write(data)
        self.moved()
        return written


@contextlib.contextmanager
def _ended_when_stalled(process: subprocess.Popen[bytes]) -> Iterator[Callable[[], None]]:
    """End a transfer in which nothing moves for two minutes; yields what to call when something moved."""
    last = time.monotonic()
    over = threading.Event()

    def moved() -> None:
        nonlocal last
        last = time.monotonic()

    def watch() -> None:
        while not over.wait(1.0):
            if time.monotonic() - last > _STALLED_S:
                process.kill()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield moved
    finally:
        over.set()
        thread.join()
