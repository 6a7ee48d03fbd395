"""Generators as the command line has them, against servers that count what they see."""

from __future__ import annotations

import math
import os
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gevent
import numpy as np
import psutil
import pytest

from modelwright.errors import LoadError, ModelwrightError
from modelwright.loadtest.generator.context import Pace, UserContext
from modelwright.loadtest.generator.processes import GeneratorProcesses, Phase, Watch
from modelwright.loadtest.generator.recording import RECORD
from modelwright.loadtest.measure.latency import latency
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.loadtest.wire.null_protocols import Grpc, Http
from modelwright.loadtest.wire.null_server import null_server
from modelwright.project.spec import Tolerance
from modelwright.server.local import RunningServer
from modelwright.triton.client import connect
from modelwright.verification.golden import save_golden
from modelwright.verification.samples import unstacked
from tests.loadtest.wire import free_port
from tests.repository.manifests import a_manifest, compared_with_golden

Protocol = Literal["http", "grpc"]
QUICK = LoadShape(concurrency=4, warmup_s=0.1, duration_s=0.3)


def url(server: RunningServer, protocol: str) -> str:
    return f"{protocol}://{getattr(server, protocol)}"


def workloads(server: RunningServer, folder: Path | None = None) -> dict[str, Workload]:
    """What the processes can be told to send; with golden samples in `folder`, also `right` and `wrong`."""
    both: tuple[Protocol, ...] = ("http", "grpc")
    sizes: dict[str, Any] = {"shapes": {"NUMBERS": 4, "TEXTS": 2}, "timeout_s": 5}
    raw = {str(protocol): Workload(url(server, protocol), "identity", **sizes) for protocol in both}
    client = Workload(url(server, "grpc"), "identity", api="tritonclient", **sizes)
    flaky = Workload(url(server, "http"), "flaky", shapes={"IN": 3}, timeout_s=5)
    found = {**raw, "tritonclient": client, "flaky": flaky}
    if folder:
        for name, protocol, offset in (("right", "http", 0.25), ("wrong", "grpc", 1)):
            publish_golden(folder / name, offset)
            checked: dict[str, Any] = {"repository": str(folder / name), "check_every": 1, "timeout_s": 5}
            found[name] = Workload(url(server, protocol), "optional", **checked)
    return found


@pytest.fixture(scope="module")
def generators(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratorProcesses]:
    """One process."""
    folder = tmp_path_factory.mktemp("fleet")
    with GeneratorProcesses(workloads(server, folder), 1, folder) as generators:
        yield generators


def kinds(phase: Phase) -> dict[str, int]:
    """How often each kind of failure is in a phase's record."""
    codes = phase.record.rows()["code"]
    found = {failure.kind: int((codes == number).sum()) for number, failure in enumerate(phase.record.failures, 1)}
    return {kind: count for kind, count in found.items() if count}


# --- what the server sees ---------------------------------------------------------------------------------------------


_PATIENCE_S = 20  # with a client that does not send what a test waits for


@dataclass
class Counting:
    """Answers each request when it comes, and counts those that wait for an answer. One thread.

    After `free` answers it holds all further ones back once, until `hold` requests wait at the same time.
    """

    protocol: Protocol
    hold: int = 0
    free: int = 0
    most: int = 0
    answered: int = 0
    held_ns: tuple[int, int] = (0, 0)  # when the first request was held back, and when all were answered
    port: int = 0
    connections: int = 0  # that are open
    max_connections: int = 0
    _waiting: deque[tuple[Http | Grpc, int]] = field(default_factory=deque)

    def requested(self, connection: Http | Grpc, stream: int = 0) -> None:
        self._waiting.append((connection, stream))
        self.most = max(self.most, len(self._waiting))

    def wait_writable(self, connection: socket.socket, wanted: bool) -> None:
        raise AssertionError("answers are small: a socket has room for one")

    def serve(self, listener: socket.socket, stopped: threading.Event) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while not stopped.is_set():
                for key, _ in selector.select(0.002):
                    self._read(selector, listener, key)
                while self._waiting and not self._holds():
                    connection, stream = self._waiting.popleft()
                    connection.answer(stream)
                    self.answered += 1
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]

    def _read(self, selector: selectors.BaseSelector, listener: socket.socket, key: selectors.SelectorKey) -> None:
        if key.data is None:
            made, _ = listener.accept()
            handler = (Grpc if self.protocol == "grpc" else Http)(self, made, b"")
            selector.register(made, selectors.EVENT_READ, handler)
            self.connections += 1
            self.max_connections = max(self.max_connections, self.connections)
            return
        assert isinstance(key.fileobj, socket.socket)
        try:
            data = key.fileobj.recv(65536)
        except ConnectionError:
            data = b""
        if data:
            key.data.received(data)
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
            self.connections -= 1

    def _holds(self) -> bool:
        """Whether requests that wait are to wait on."""
        if not self.hold or self.answered < self.free:
            return False
        now_ns = time.monotonic_ns()
        begin_ns, _ = self.held_ns = (self.held_ns[0] or now_ns, now_ns)
        if len(self._waiting) < self.hold and now_ns < begin_ns + _PATIENCE_S * 1e9:
            return True
        self.hold = 0
        return False


@contextmanager
def counting(protocol: Protocol, **options: Any) -> Iterator[Counting]:
    server = Counting(protocol, **options)
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=server.serve, args=(listener, stopped))
        thread.start()
        try:
            yield server
        finally:
            stopped.set()
            thread.join()


@pytest.mark.parametrize("target", ["http", "grpc"])
@pytest.mark.parametrize("users", [1, 8, 64])
def test_as_many_requests_are_in_flight_as_there_are_users(
    generators: GeneratorProcesses, target: Protocol, users: int
) -> None:
    with counting(target, hold=users) as server:
        shape = LoadShape(concurrency=users, warmup_s=0.1, duration_s=0.2)
        phase = generators.run(target, shape, Watch(), url=f"{target}://127.0.0.1:{server.port}")
    assert server.most == users
    assert phase.clients[0]["max_in_flight"] == users
    assert len(phase.record.rows()) == server.answered
    assert (phase.complete, kinds(phase)) == (True, {})


@pytest.mark.parametrize(("target", "callers"), [("http", 1), ("grpc", 6)])
@pytest.mark.parametrize("how", [{"concurrency": 32}, {"rate": 320, "arrivals": "constant"}], ids=["closed", "open"])
def test_connections_are_few_and_closed_after_each_phase(
    generators: GeneratorProcesses, target: Protocol, callers: int, how: dict[str, Any]
) -> None:
    """As many as are needed for what is in flight at once, `callers` to a connection."""
    for _ in range(2):
        with counting(target, hold=32) as server:
            shape = LoadShape(**how, warmup_s=0, duration_s=0.2)
            phase = generators.run(target, shape, Watch(), url=f"{target}://127.0.0.1:{server.port}")
            deadline = time.monotonic() + 60
            while server.connections and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.connections == 0
        in_flight = phase.clients[0]["max_in_flight"]
        assert in_flight >= 32
        if "concurrency" in how:
            assert server.max_connections == math.ceil(in_flight / callers)
        else:  # on a busy machine arrivals are late, and up to all of them are due at once
            least, most = math.ceil(server.most / callers), math.ceil(server.answered / callers)
            assert least <= server.max_connections <= most


def test_users_of_tritonclient_over_grpc_do_not_wait_for_each_other(generators: GeneratorProcesses) -> None:
    """Each blocking call of grpcio waits in a thread of gevent's pool, which has ten unless one asks for more."""
    with counting("grpc", hold=32) as server:
        shape = LoadShape(concurrency=32, warmup_s=0.1, duration_s=0.2)
        phase = generators.run("tritonclient", shape, Watch(), url=f"grpc://127.0.0.1:{server.port}")
    assert server.most == 32
    assert len(phase.record.rows()) == server.answered
    assert kinds(phase) == {}


def test_three_processes_have_the_concurrency_that_is_asked_for_and_their_records_are_one(
    server: RunningServer, tmp_path: Path
) -> None:
    with GeneratorProcesses(workloads(server), 3, tmp_path) as generators:
        with counting("grpc", hold=8) as counter:
            shape = LoadShape(concurrency=8, warmup_s=0.1, duration_s=0.2)
            phase = generators.run("grpc", shape, Watch(), url=f"grpc://127.0.0.1:{counter.port}")
        rows = phase.record.rows()
        assert (counter.most, len(rows), len(phase.clients)) == (8, counter.answered, 3)
        assert sorted(client["max_in_flight"] for client in phase.clients) == [2, 3, 3]

        with connect(url(server, "http"), 5) as client:
            before = successes(client, "identity")
            phase = generators.run("http", QUICK, Watch())
            rows = phase.record.rows()
            assert successes(client, "identity") - before == len(rows) > 0
        parts = [np.fromfile(tmp_path / f"rows-{number}.bin", RECORD) for number in range(3)]
        assert all(len(part) for part in parts)
        every = np.concatenate(parts)
        assert latency(rows["end_ns"] - rows["start_ns"]) == latency(every["end_ns"] - every["start_ns"])

        open_loop = LoadShape(rate=600, warmup_s=0, duration_s=0.5)
        with counting("http") as counter:
            phase = generators.run("http", open_loop, Watch(), url=f"http://127.0.0.1:{counter.port}")
        assert len(phase.record.rows()) == counter.answered == pytest.approx(300, abs=5 * 300**0.5)


def successes(client: Any, model: str) -> int:
    return int(client.statistics(model, "1")["model_stats"][0]["inference_stats"]["success"]["count"])


# --- the open loop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["http", "grpc"])
def test_a_stall_shows_in_every_request_that_was_to_be_sent_meanwhile(
    generators: GeneratorProcesses, target: Protocol
) -> None:
    """A client that waits for the server would have sent one request during the stall, and reported one bad latency.

    The server answers 40 requests, then none until 60 wait: 0.3 s at this rate, longer on a busy machine.
    """
    with counting(target, free=40, hold=60) as server:
        shape = LoadShape(rate=200, arrivals="constant", warmup_s=0, duration_s=0.8)
        phase = generators.run(target, shape, Watch(), url=f"{target}://127.0.0.1:{server.port}")
    rows = phase.measured()
    assert len(rows) == 160
    assert server.most >= 60  # they were sent in time, not after the stall
    begin_ns, end_ns = server.held_ns
    during = rows[(rows["intended_ns"] > begin_ns) & (rows["intended_ns"] < end_ns)]
    assert len(during) > 30
    assert (during["end_ns"] >= end_ns).all()
    before = rows[rows["end_ns"] < begin_ns]
    assert np.median(before["end_ns"] - before["intended_ns"]) < np.median(during["end_ns"] - during["intended_ns"])


def test_a_session_is_busy_with_requests_that_are_due_and_not_yet_sent(server: RunningServer) -> None:
    """To wait for `in_flight` alone would take the record before they are in it."""
    context = UserContext(Workload(url(server, "http"), "identity", shapes={"NUMBERS": 4, "TEXTS": 2}))
    before = successes_of(server)
    sending = gevent.spawn(context.open_loop, Pace(LoadShape(rate=1e5), time.monotonic_ns()))
    while not context.is_busy:
        gevent.sleep(0)
    context.is_over = True
    assert context.in_flight == 0
    while context.is_busy:
        gevent.sleep(0.001)
    sending.join(5)
    assert len(np.frombuffer(context.recorder.take(), RECORD)) == successes_of(server) - before > 0


def successes_of(server: RunningServer) -> int:
    with connect(url(server, "http"), 5) as client:
        return successes(client, "identity")


def test_all_processes_of_a_constant_rate_tick_as_one(generators: GeneratorProcesses) -> None:
    with counting("http") as server:
        shape = LoadShape(rate=100, arrivals="constant", warmup_s=0.1, duration_s=0.4)
        phase = generators.run("http", shape, Watch(), url=f"http://127.0.0.1:{server.port}")
    intended = np.sort(phase.record.rows()["intended_ns"])
    assert np.diff(intended).tolist() == [10_000_000] * 49
    assert len(phase.measured()) == 40


def test_the_same_seed_gives_the_same_arrivals_and_payloads(generators: GeneratorProcesses) -> None:
    shape = LoadShape(rate=200, warmup_s=0, duration_s=0.3)
    sent = []
    for seed in (1, 1, 2):
        with counting("http") as server:
            phase = generators.run("http", shape, Watch(), seed, url=f"http://127.0.0.1:{server.port}")
        rows = np.sort(phase.record.rows(), order="intended_ns")
        sent.append(list(zip((rows["intended_ns"] - phase.start_ns).tolist(), rows["payload"].tolist(), strict=True)))
    count = min(map(len, sent))  # a machine that stalls at the end has no time left to send the last ones
    assert count > 5
    assert sent[0][:count] == sent[1][:count] != sent[2][:count]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failures_are_counted_by_kind_with_the_servers_message(generators: GeneratorProcesses) -> None:
    phase = generators.run("flaky", LoadShape(concurrency=4, warmup_s=0.1, duration_s=0.5), Watch())
    count = len(phase.record.rows())
    assert list(kinds(phase)) == ["HTTP 500"]
    assert kinds(phase)["HTTP 500"] == pytest.approx(count / 10, abs=2)
    assert "every tenth request fails" in phase.record.failures[0].message
    assert phase.complete


@pytest.mark.parametrize("target", ["http", "grpc"])
def test_a_server_that_goes_away_leaves_the_rows_so_far_and_failures(
    generators: GeneratorProcesses, target: Protocol
) -> None:
    with null_server(target) as server:
        watch = OnRows(server.process.kill)
        shape = LoadShape(concurrency=4, warmup_s=0, duration_s=1.5)
        phase = generators.run(target, shape, watch, url=f"{target}://127.0.0.1:{server.port}")
    rows = phase.record.rows()
    assert (rows["code"] == 0).sum() > 10
    assert {"connect"} <= kinds(phase).keys() <= {"closed", "connect"}
    # Each user once, and once more where its new connection was not yet refused; none that had no request in flight.
    assert kinds(phase).get("closed", 0) <= 8
    assert kinds(phase)["connect"] < 100  # each user tries again every 0.1 s, not as fast as it is refused
    assert phase.complete
    assert (rows[rows["code"] == 0]["end_ns"] < rows["end_ns"].max()).all()


@dataclass
class OnRows(Watch):
    """Does something once, when the first rows have come."""

    act: Callable[[], object]
    done: bool = False

    def tick(self, rows: Any, left_s: float) -> None:
        if not self.done:
            self.done = True
            self.act()


def running_generators() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "modelwright.loadtest.generator.process" in " ".join(child.cmdline())]


@dataclass
class OnBothRows(Watch):
    """Does something once, when both processes have written rows. Their files are in `folder`."""

    folder: Path
    act: Callable[[], object]
    done: bool = False

    def over(self) -> str:
        if not self.done and all(path.stat().st_size for path in self.folder.glob("rows-*.bin")):
            self.done = True
            self.act()
        return ""


def test_a_process_that_is_killed_leaves_its_rows_and_the_others_go_on_without_waiting(
    server: RunningServer, tmp_path: Path
) -> None:
    known = {process.pid for process in running_generators()}
    with GeneratorProcesses(workloads(server), 2, tmp_path) as generators:
        victim = next(process for process in running_generators() if process.pid not in known)
        shape = LoadShape(concurrency=4, warmup_s=0, duration_s=2)
        phase = generators.run("flaky", shape, OnBothRows(tmp_path, lambda: os.kill(victim.pid, signal.SIGKILL)))
        assert not phase.complete
        assert len(phase.notes) == len(phase.clients) == 1
        assert "was lost" in phase.notes[0]
        assert list(kinds(phase)) == ["HTTP 500"]
        for number in range(2):
            assert (tmp_path / f"rows-{number}.bin").stat().st_size > 0
        written = sum((tmp_path / f"rows-{number}.bin").stat().st_size for number in range(2))
        assert len(phase.record.rows()) == written // RECORD.itemsize

        begin = time.monotonic()
        phase = generators.run("http", QUICK, Watch())
        assert time.monotonic() - begin < 8  # a process that is silent is given up after 10 s
        assert (phase.complete, len(phase.clients)) == (False, 1)
        assert len(phase.record.rows()) > 0


@dataclass
class Ending(Watch):
    reason: str = ""

    def tick(self, rows: Any, left_s: float) -> None:
        self.reason = "enough is enough"

    def over(self) -> str:
        return self.reason


def test_a_watch_can_end_a_phase(server: RunningServer, tmp_path: Path) -> None:
    with GeneratorProcesses({"http": workloads(server)["http"]}, 1, tmp_path) as generators:
        begin = time.monotonic()
        phase = generators.run("http", LoadShape(concurrency=2, warmup_s=0.1, duration_s=30), Ending())
        assert time.monotonic() - begin < 20
    assert (phase.complete, phase.notes) == (False, ["enough is enough"])
    assert len(phase.record.rows()) > 0
    assert phase.until_ns <= time.monotonic_ns()


def test_a_workload_that_does_not_fit_the_server_is_refused(server: RunningServer, tmp_path: Path) -> None:
    """What else does not fit is in test_faults.py and test_interface.py."""
    message = r"identiti: the server has no such model\n  hint: did you mean 'identity'"
    with (
        pytest.raises(LoadError, match=message),
        GeneratorProcesses({"A": Workload(url(server, "http"), "identiti")}, 1, tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        pytest.param({"version": "4"}, r"version 4 is not served.*\n  hint: served: version 1", id="version"),
        pytest.param({"model": "decoupled_repeat"}, r"a decoupled model is asked over gRPC\n  hint: --protocol grpc", id="protocol"),
    ],
)  # fmt: skip
def test_a_session_is_made_for_what_the_server_serves(
    server: RunningServer, workload: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelwrightError, match=message):
        UserContext(Workload(**{"url": url(server, "http"), "model": "identity"} | workload))


def test_a_server_that_is_not_there_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ModelwrightError, match=address):
        UserContext(Workload(f"http://{address}", "m"))


def test_a_model_that_fails_every_request_is_refused(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "long.json").write_text('{"DELAY_MS": [1000]}')
    wanted = r"slow version 1: the first 5 requests failed: timeout: no answer within 0.1 s\n  hint: send one by hand"
    workload = Workload(url(server, "http"), "slow", payload=str(tmp_path / "long.json"), timeout_s=0.1)
    with pytest.raises(LoadError, match=wanted), GeneratorProcesses({"A": workload}, 1, tmp_path):
        pass


# --- answers ----------------------------------------------------------------------------------------------------------


def publish_golden(repository: Path, offset: float) -> None:
    """Golden samples of `optional`, OUT = IN + BIAS, to which `offset` is added for every second sample."""
    folder = repository / "optional" / "1"
    folder.mkdir(parents=True)
    array = np.arange(40, dtype=np.float32).reshape(40, 1)
    wrong = (np.arange(40).reshape(40, 1) % 2 * offset).astype(np.float32)
    save_golden(
        folder / "golden.npz", unstacked({"IN": array, "BIAS": array}), unstacked({"OUT": 2 * array + wrong}), 1
    )
    manifest = a_manifest(model="optional", verification=compared_with_golden(1, {"OUT": Tolerance(atol=0.5)}))
    (folder / "manifest.json").write_text(manifest.text())


def test_wrong_answers_are_failures(generators: GeneratorProcesses) -> None:
    phases = {name: generators.run(name, QUICK, Watch()) for name in ("right", "wrong")}
    for phase in phases.values():
        assert phase.record.checked == len(phase.record.rows()) > 10
    assert kinds(phases["right"]) == {}
    rows = phases["wrong"].record.rows()
    assert kinds(phases["wrong"]) == {"wrong answer": int((rows["payload"] % 2).sum())}
    assert (rows["code"] == rows["payload"] % 2).all()
    assert "OUT" in phases["wrong"].record.failures[0].message
