"""A real tritonserver on this machine, running for the length of a `with` block.

    with running(environment, repository, log=state / "server.log", mode="explicit", models=["digits"]) as server:
        with connect(server.http) as client: ...

It listens on 127.0.0.1 only. When this process ends, even by a kill, `supervisor.py` ends the server, its model
processes and their shared memory.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from modelwright.errors import ServerError
from modelwright.fsops import log_file
from modelwright.server.native import NativeServer
from modelwright.server.patience import RAISE_IT, patience_s
from modelwright.triton.access import address_of
from modelwright.triton.http import AnswerTooLargeError, BoundedConnection, MalformedAnswerError
from modelwright.triton.reasons import plain_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from modelwright.server.environment import Environment

Mode = Literal["explicit", "poll", "none"]

_ATTEMPTS = 5  # another program can take a port after it was chosen and before the server binds it
_POLL_S = 0.02
_LOG_LINE = re.compile(r'^([IWE])\d{4} [\d:.]+ \d+ \S+\] *(?:"(.*)"|(.*))$')
_POLL_FAILED = re.compile(r"Poll failed for model directory '([^']+)': (.*)\"$", re.MULTILINE)
_LOADING = re.compile(r'"(?:loading: ([^"]+):\d+|successfully loaded \'([^"]+)\'|failed to load \'([^"\']+)\')')
_TELL_S = 30  # how often is told what the server still loads
_MOST_SHOWN = 5
_MOST_BYTES = 1 << 28  # of an index of models
# Every start on a machine without a GPU logs these as errors.
_NOISE = ("CudaDriverHelper", "NVML", "DCGM", "pinned_memory_manager")


@dataclass(frozen=True)
class Ports:
    http: int
    grpc: int
    metrics: int


@dataclass
class RunningServer:
    """A started tritonserver. `http`, `grpc` and `metrics` are `host:port`."""

    pid: int  # of tritonserver itself
    http: str
    grpc: str
    metrics: str
    log: Path
    _supervisor: subprocess.Popen[bytes] = field(repr=False)

    @property
    def alive(self) -> bool:
        return self._supervisor.poll() is None

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until the server ends; its exit code, or 128 + N for signal N. Raises ServerError after `timeout_s`."""
        try:
            return self._supervisor.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerError(f"tritonserver at {self.http} is still running after {timeout_s:g} s") from None

    def loading(self) -> list[str]:
        """The models that the server began to load, by its log, and has not ended with."""
        found: dict[str, None] = {}
        for began, loaded, failed in _LOADING.findall(self.log.read_text(errors="replace")):
            if began:
                found[began] = None
            found.pop(loaded or failed, None)
        return list(found)

    def failures(self) -> dict[str, str]:
        """{model: why it is not served} of every model that should be loaded and is not ready.

        A model with a faulty config.pbtxt is not in the index: its reason comes from the log.
        """
        reasons: dict[str, list[str]] = {}
        for name, reason in _POLL_FAILED.findall(self.log.read_text(errors="replace")):
            reasons.setdefault(name, []).append(reason)
        for entry in _post(self.http, "/v2/repository/index"):
            reason = entry.get("reason", "")
            if entry.get("state") != "READY" and reason and reason != "unloaded":
                reasons.setdefault(entry["name"], []).append(plain_reason(reason))
        return {name: "; ".join(dict.fromkeys(found)) for name, found in reasons.items()}


@contextmanager
def running(
    environment: Environment,
    repository: Path,
    *,
    log: Path,
    mode: Mode = "explicit",
    models: Sequence[str] = (),
    host: str = "127.0.0.1",
    ports: Ports | None = None,
    startup_timeout_s: float | None = None,
    stop_grace_s: float = 5,
    auto_complete: bool = False,
    extra_arguments: Sequence[str] = (),
    say: Callable[[str], object] | None = None,
) -> Iterator[RunningServer]:
    """Serve a model repository. The block starts when the server answers and has tried to load its models.

    `models` are loaded at start (mode "explicit" only; `["*"]` for all). A model that fails to load does not stop the
    server: see `RunningServer.failures`. Free ports are chosen unless given. The server gets `startup_timeout_s`, or by
    default as long as the number and size of its models suggest; `say` is told now and then what it still loads. At
    the end of the block requests in flight and models get `stop_grace_s` to finish; 0 kills at once. `auto_complete`
    lets the server complete configs, as the stock container does: it costs a second per model, for a process of the
    Python backend, and the configs that Modelwright writes do not need it. Raises ServerError when the server does not
    start.
    """
    if models and mode != "explicit":
        raise ValueError(f"models are named in mode 'explicit' only, not in '{mode}'")
    if not repository.is_dir():
        raise ServerError(f"{repository}: the model repository does not exist", "build it: modelwright build")
    if ports is not None:
        _check_free(host, ports)
    log = log_file(log)
    if startup_timeout_s is None:
        startup_timeout_s = patience_s(repository, models if mode == "explicit" else ["*"])
    with ExitStack() as stack:
        environment, repository = _plain_paths(stack, environment, repository.absolute())
        for attempt in range(1, _ATTEMPTS + 1):
            chosen = ports or _free_ports(host)
            arguments = _arguments(environment, repository, mode, models, host, chosen)
            arguments += [] if auto_complete else ["--disable-auto-complete-config"]
            arguments += extra_arguments
            try:
                server = stack.enter_context(
                    _started(environment, arguments, chosen, host, log, startup_timeout_s, stop_grace_s, say)
                )
                break
            except _PortTakenError:
                if ports is not None or attempt == _ATTEMPTS:
                    raise
        yield server


def _plain_paths(stack: ExitStack, environment: Environment, repository: Path) -> tuple[Environment, Path]:
    """Both under paths that need no quotes: Triton's Python backend puts them into a shell command without any."""
    if all(shlex.quote(str(path)) == str(path) for path in (environment.root, repository)):
        return environment, repository
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="modelwright-")))
    if isinstance(environment, NativeServer):  # it lies where it lies
        (folder / "models").symlink_to(repository)
        return environment, folder / "models"
    (folder / "server").symlink_to(environment.root)
    (folder / "models").symlink_to(repository)
    backends = folder / "server" / environment.backends.relative_to(environment.root)
    return replace(environment, root=folder / "server", backends=backends), folder / "models"


class _PortTakenError(ServerError):
    pass


def _free_ports(host: str) -> Ports:
    """Three ports that are free now, all held open until all are chosen, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for free in sockets:
            free.bind((host, 0))
        return Ports(*(int(free.getsockname()[1]) for free in sockets))


def _check_free(host: str, ports: Ports) -> None:
    """Raise if a port is taken. tritonserver itself notices that only after it has loaded every model."""
    for port in (ports.http, ports.grpc, ports.metrics):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise _port_error(f"{host}:{port}: {error.strerror}") from None


def _port_error(detail: str) -> _PortTakenError:
    return _PortTakenError(
        f"tritonserver cannot listen on {detail}", "stop the program that uses the port, or choose other ports"
    )


def _arguments(
    environment: Environment,
    repository: Path,
    mode: Mode,
    models: Sequence[str],
    host: str,
    ports: Ports,
) -> list[str]:
    return [
        f"--model-repository={repository}",
        f"--backend-directory={environment.backends}",
        *([f"--cache-directory={environment.caches}"] if environment.caches.is_dir() else []),
        f"--model-control-mode={mode}",
        *(["--repository-poll-secs=1"] if mode == "poll" else []),
        *(f"--load-model={name}" for name in models),
        "--exit-on-error=false",  # one bad model must not stop the others
        f"--http-address={host}",
        f"--grpc-address={host}",
        f"--metrics-address={host}",
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        # The downloaded server runs models on the CPU.
        *([] if isinstance(environment, NativeServer) else ["--allow-gpu-metrics=false"]),
    ]


def _environment_command(environment: Environment) -> list[str]:
    """The `env` command with the variables that differ for the server: its libpython is not the supervisor's."""
    wanted = environment.variables()
    removed = (f"--unset={name}" for name in os.environ if name not in wanted)
    changed = (f"{name}={value}" for name, value in wanted.items() if os.environ.get(name) != value)
    return ["env", *removed, *changed]


@contextmanager
def _started(
    environment: Environment,
    arguments: list[str],
    ports: Ports,
    host: str,
    log: Path,
    startup_timeout_s: float,
    stop_grace_s: float,
    say: Callable[[str], object] | None,
) -> Iterator[RunningServer]:
    """Start a server under its supervisor, wait until it answers, and stop it at the end."""
    identity = f"modelwright-{os.getpid()}-{secrets.token_hex(4)}"
    command = [
        *(sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py"))),
        *(str(os.getpid()), str(stop_grace_s), identity),
        *_environment_command(environment),
        str(environment.server),
        # The id shows that this server answers on the port, and not another one. The prefix separates the shared memory
        # of two servers, and the supervisor removes it by the prefix.
        f"--id={identity}",
        f"--backend-config=python,shm-region-prefix-name={identity}",
        *arguments,
    ]
    with log.open("wb") as output:
        supervisor = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=environment.root,  # Python models can import from it; here it holds nothing that shadows a package
            start_new_session=True,  # Ctrl-C in a terminal reaches only this process, which stops the server
        )
    try:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline() or 0)
        server = RunningServer(
            pid, f"{host}:{ports.http}", f"{host}:{ports.grpc}", f"{host}:{ports.metrics}", log, supervisor
        )
        with_metrics = not any(argument.startswith("--allow-metrics") for argument in arguments)
        _await_answer(server, identity, with_metrics, startup_timeout_s, say or (lambda _: None))
        yield server
    finally:
        _stop(supervisor, stop_grace_s)


def _await_answer(
    server: RunningServer, identity: str, with_metrics: bool, timeout_s: float, say: Callable[[str], object]
) -> None:
    """Wait for the server to answer. tritonserver opens its ports after it has loaded its models, metrics last."""
    started = told = time.monotonic()
    while True:
        if not server.alive:
            raise _start_error(server)
        if _server_id(server.http) == identity and (not with_metrics or _accepts(server.metrics)):
            return
        now = time.monotonic()
        if now > started + timeout_s:
            loading = server.loading()
            what = f"was still loading {_listed(loading)} after" if loading else "did not answer within"
            raise ServerError(
                f"tritonserver {what} {timeout_s:g} s; its log: {server.log}{_excerpt(server.log)}", RAISE_IT
            )
        if now > told + _TELL_S:
            told = now
            what = f"loading {_listed(server.loading())}" if server.loading() else "starting"
            say(f"tritonserver is still {what}: {now - started:.0f} s of at most {timeout_s:g} s")
        time.sleep(_POLL_S)


def _listed(models: Sequence[str]) -> str:
    shown = list(models[:_MOST_SHOWN])
    return ", ".join(shown) + (f" and {len(models) - len(shown)} more" if len(models) > len(shown) else "")


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _server_id(address: str) -> str:
    """The --id of the server that answers at an address; empty if nothing does."""
    try:
        return str(_asked(address, "GET", "/v2", timeout_s=1).get("name", ""))
    except (OSError, ValueError, AttributeError, MalformedAnswerError, AnswerTooLargeError):
        return ""  # another program may hold the port


def _post(address: str, path: str) -> list[dict[str, str]]:
    try:
        answer = _asked(address, "POST", path, timeout_s=30)
    except (OSError, ValueError, MalformedAnswerError) as error:
        raise ServerError(f"tritonserver at {address}: {path}: {error}") from None
    if not isinstance(answer, list):
        raise ServerError(f"tritonserver at {address}: {path}: {answer.get('error', answer)}")
    return answer


def _asked(address: str, method: str, path: str, timeout_s: float) -> Any:
    connection = BoundedConnection(address_of(address))
    try:
        answer = connection.ask(method, path, timeout_s=timeout_s, max_bytes=_MOST_BYTES)
        return json.loads(answer.body)
    finally:
        connection.close()


def _stop(supervisor: subprocess.Popen[bytes], grace_s: float) -> None:
    """Tell the supervisor to stop the server. If it does not, kill it, and the kernel kills the server with it."""
    for pipe in (supervisor.stdin, supervisor.stdout):
        assert pipe is not None
        pipe.close()
    try:
        supervisor.wait(grace_s + 10)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()


def _start_error(server: RunningServer) -> ServerError:
    text = server.log.read_text(errors="replace")
    taken = re.search(r"Socket '([^']+)' already in use", text)
    if taken:
        return _port_error(f"{taken[1]}: Address already in use")
    return ServerError(
        f"tritonserver ended while it was starting, exit code {server.wait()}; its log: {server.log}"
        f"{_excerpt(server.log)}"
    )


def _excerpt(log: Path, limit: int = 12) -> str:
    """The end of a server's log: errors, and lines without the logger's prefix, such as a traceback."""
    found: list[str] = []
    text, _, _ = log.read_text(errors="replace").partition("\nUsage: ")  # 400 lines of help follow a wrong argument
    for line in text.splitlines():
        match = _LOG_LINE.match(line)
        if any(noise in line for noise in _NOISE) or not line.strip() or line[0] in "+|":
            continue
        if match is None:
            found.append(line)
        elif match[1] == "E":
            message = (match[2] or match[3] or "").replace("\\n", "\n").replace('\\"', '"')
            found.append(plain_reason(message))
    return "".join(f"\n    {line}" for line in dict.fromkeys(found[-limit:]))
