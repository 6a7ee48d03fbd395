"""What a real tritonserver makes of small repositories: many of them, fast, each by itself.

    with Servers(environment, folder, auto_complete=False, count=4) as servers:
        for case, verdicts in servers.run(cases): ...

A server is started in explicit mode over an empty repository, and for each case gets the case's tree, the order to load
every model of it, and the order to unload. Refusing takes a millisecond; loading a Python model takes a process, so
several servers work side by side, each with a repository of its own: a case keeps its names, and one that kills its
server disturbs no other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from modelwright.server.environment import Environment
from modelwright.server.local import RunningServer, running
from modelwright.triton.reasons import plain_reason
from tests.lint.trees import Tree, clear, models, write

Kind = Literal["loads", "refused", "aborts", "hangs"]

LOAD_TIMEOUT_S = 120
_UNLOAD_TIMEOUT_S = 60
_POLL_S = 0.005
_WATCH_S = 0.5
_GRACE_S = 5
_DEATH_S = 60
_NOT_POLLED = "failed to poll from model repository"
_STUB_DIED = re.compile(r"(?:Failed to preinitialize Python stub: |terminate called after )(.*)")
# The local onnxruntime backend says so after all checks of the stock one: the verdict is the stock backend's.
_NATIVE = "supported by the stock container's onnxruntime backend, but not by the local server"
_OWN_SIGNAL = "Signal ("  # the server's own end, with a stack trace that takes it seconds
_POLL_FAILED = re.compile(r"Poll failed for model directory '(.*?)': (.*?)\"?$", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What the server did with one model, and why it refused it."""

    kind: Kind
    reason: str = ""

    @property
    def is_fault(self) -> bool:
        return self.kind != "loads"


Verdicts = Mapping[str, Verdict]  # by model


class HasTree(Protocol):
    @property
    def tree(self) -> Tree: ...


AnyCase = TypeVar("AnyCase", bound=HasTree)


class Slot:
    """One server and its repository, restarted when a case ends it."""

    def __init__(self, environment: Environment, folder: Path, auto_complete: bool) -> None:
        self._environment = environment
        self._root = folder / "repository"
        self._root.mkdir(parents=True)
        self._auto_complete = auto_complete
        self._stack = ExitStack()
        self._caller = ThreadPoolExecutor(1)
        self._running: tuple[RunningServer, InferenceServerClient] | None = None

    def close(self) -> None:
        self._running = None
        self._stack.close()

    def judge(self, tree: Tree) -> dict[str, Verdict]:
        """Load each model of a tree, in the tree's order; a server that ends or hangs is replaced for the next one.

        A server that ends is asked again from its start: it may have died of the case before, since some refusals leave
        memory behind that a thread still uses.
        """
        verdicts = self._judge(tree)
        if any(verdict.kind == "aborts" for verdict in verdicts.values()):
            self.close()
            verdicts = self._judge(tree)
        return verdicts

    def _judge(self, tree: Tree) -> dict[str, Verdict]:
        write(tree, self._root)
        names = models(tree)
        try:
            verdicts = {name: self._load(name) for name in names}
            with self._surviving():
                self._unload(names)
        finally:
            clear(self._root)
        with self._surviving():
            self._await_unloaded()
        return verdicts

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """A server that has spoken its verdicts may go; the next case gets another one."""
        try:
            yield
        except InferenceServerException:
            self.close()

    def _started(self) -> tuple[RunningServer, InferenceServerClient]:
        if self._running is None:
            self._stack.close()
            server = self._stack.enter_context(
                running(
                    self._environment,
                    self._root,
                    log=self._root.parent / "server.log",
                    auto_complete=self._auto_complete,
                    stop_grace_s=0,
                )
            )
            # Not HTTP: there a model's name is part of a path that the server does not decode.
            self._running = server, self._stack.enter_context(InferenceServerClient(server.grpc))
        return self._running

    def _load(self, name: str) -> Verdict:
        server, client = self._started()
        start = server.log.stat().st_size
        call = self._caller.submit(client.load_model, name)
        hanging = _hanging(call, server, start)
        if hanging:
            self.close()
            return Verdict("hangs", self._plain(hanging))
        error = call.exception()
        if error is None:
            return self._ready(client, name)
        if not isinstance(error, InferenceServerException):
            raise error
        if str(error.status()).endswith("UNAVAILABLE") and _ends(server):
            reason = _last_words(server, start)
            self.close()
            return Verdict("aborts", reason)
        reason = self._reason(server, name, error.message(), start)
        return Verdict("loads") if _NATIVE in reason else Verdict("refused", reason)

    def _ready(self, client: InferenceServerClient, name: str) -> Verdict:
        """The load API speaks for all versions; whether one can be called is asked too."""
        try:
            if client.is_model_ready(name, client_timeout=LOAD_TIMEOUT_S):
                return Verdict("loads")
        except InferenceServerException as error:
            self.close()
            return Verdict("aborts", f"after it had loaded the model: {error.message()}")
        return Verdict("refused", "the load API reports success, but the model is not ready")

    def _reason(self, server: RunningServer, name: str, error: str, start: int) -> str:
        if _NOT_POLLED in error:
            found = [reason for model, reason in _POLL_FAILED.findall(_log(server, start)) if model == name]
            error = found[-1] if found else error
        return self._plain(error)

    def _plain(self, reason: str) -> str:
        """A reason without the paths of this machine."""
        plain = plain_reason(reason).replace(str(self._root), "<root>")
        return plain.replace(str(self._environment.backends), "<backends>")

    def _unload(self, names: Iterable[str]) -> None:
        """Unload in reverse: ensembles come after their composing models."""
        if self._running is not None:
            for name in reversed(list(names)):
                self._running[1].unload_model(name, client_timeout=_UNLOAD_TIMEOUT_S)

    def _await_unloaded(self) -> None:
        """Wait, since the next case has the same names. The tree must be gone: some make the index an error."""
        deadline = time.monotonic() + _UNLOAD_TIMEOUT_S
        while self._running is not None and any(
            state not in ("", "UNAVAILABLE") for state in _states(self._running[1])
        ):
            if time.monotonic() > deadline:
                self.close()
            time.sleep(_POLL_S)


class Servers:
    """Several slots that share the cases among them."""

    def __init__(self, environment: Environment, folder: Path, *, auto_complete: bool, count: int) -> None:
        self._slots = [Slot(environment, folder / str(index), auto_complete) for index in range(count)]

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for slot in self._slots:
            slot.close()

    def run(self, cases: Iterable[AnyCase]) -> Iterator[tuple[AnyCase, dict[str, Verdict]]]:
        """Every case with its verdicts, in order."""
        free: SimpleQueue[Slot] = SimpleQueue()
        for slot in self._slots:
            free.put(slot)

        def judge(case: AnyCase) -> tuple[AnyCase, dict[str, Verdict]]:
            slot = free.get()
            try:
                return case, slot.judge(case.tree)
            finally:
                free.put(slot)

        with ThreadPoolExecutor(len(self._slots)) as executor:
            yield from executor.map(judge, cases)


def _states(client: InferenceServerClient) -> list[str]:
    """The state of every version that the server knows."""
    index = client.get_model_repository_index(client_timeout=LOAD_TIMEOUT_S)
    return [entry.state for entry in index.models]


def _hanging(call: Future[Any], server: RunningServer, start: int) -> str:
    """Why a load will never end; empty once it has ended.

    The Python backend waits for a model process that died before it could say so. It tells by the log alone, and its own
    time limit does not apply: seen to wait for minutes.
    """
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    while not wait([call], _WATCH_S).done:
        log = _log(server, start)
        died = _STUB_DIED.search(log)
        if died and _OWN_SIGNAL not in log and not wait([call], _GRACE_S).done:
            return died[1].strip()
        if time.monotonic() > deadline:
            return f"no answer within {LOAD_TIMEOUT_S} s"
    return ""


def _ends(server: RunningServer) -> bool:
    """Whether the server is gone, or is going: its supervisor sees the end a moment after its clients do."""
    deadline = time.monotonic() + _DEATH_S
    while server.alive and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return not server.alive


def _last_words(server: RunningServer, start: int) -> str:
    """What a dying server wrote, less its stack trace."""
    lines = [line.strip() for line in _log(server, start).splitlines()]
    return "; ".join(line for line in lines if "what():" in line or line.startswith("Signal"))


def _log(server: RunningServer, start: int) -> str:
    with server.log.open("rb") as log:
        log.seek(start)
        return log.read().decode(errors="replace")
