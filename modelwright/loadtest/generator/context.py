"""What the users of one process share: prepared requests, the record, and measures of the process itself.

Closed loop: a user sends its next request when the last one was answered. Open loop: requests start by a schedule, each
in a greenlet of its own, and are timed from their scheduled start, so a server that slows down does not slow down its
clients (coordinated omission).
"""

from __future__ import annotations

import importlib
import itertools
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import gevent
import numpy as np
from gevent.lock import Semaphore
from gevent.pool import Group

from modelwright.errors import LoadError
from modelwright.loadtest.generator.recording import NOT_SENT, WRONG, Recorder
from modelwright.loadtest.payloads.arrivals import Timer, schedule
from modelwright.loadtest.payloads.interface import ModelInterface, read_interface
from modelwright.loadtest.payloads.payloads import Payloads, check, prepare
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.loadtest.wire.callers import Caller, DecoupledGrpc, RawGrpc, RawHttp, SequenceGrpc, TritonClient
from modelwright.loadtest.wire.calls import CallError
from modelwright.loadtest.wire.connections import GrpcConnections
from modelwright.loadtest.wire.encoding import grpc_request, http_request
from modelwright.loadtest.wire.frames import message_bytes
from modelwright.triton.access import Address, address_of
from modelwright.triton.client import connect

if TYPE_CHECKING:
    from modelwright.loadtest.wire.shm import SharedMemory

MAX_CONNECTIONS = 1000  # of an open loop; further arrivals wait, which shows as lag
FOREVER = 2**63 - 1
_AFTER_FAILED_CONNECT_S = 0.1  # else a server that is down gets ten thousand attempts a second
_FIRST = 5  # requests; one of them must succeed before a load test begins
_LAG_EVERY_NS = 10_000_000


@dataclass(frozen=True)
class Pace:
    """A load shape with its times of the monotonic clock; this process, or user, is one of `parts`."""

    shape: LoadShape
    start_ns: int
    until_ns: int = FOREVER
    part: int = 0
    parts: int = 1
    seed: int = 7


class UserContext:
    """One for each workload of a process. Raises LoadError or ServerError if server, model or payloads do not fit."""

    max_connections = MAX_CONNECTIONS

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.address = address_of(workload.url, workload.access)
        self.recorder = Recorder()
        self.in_flight = self.max_in_flight = 0
        self.is_over = False  # when set, no request is begun
        if self.address.protocol == "grpc":
            _patch_grpc()
        with connect(workload.url, workload.timeout_s, workload.access) as client:
            self.interface = read_interface(client, workload.model, workload.version)
        _check_protocol(self.interface, self.address)
        self.payloads = _payloads(workload, self.interface)
        self._aimed = ""
        self.request_bytes, self._make_caller = _callers(workload, self.address, self.interface, self.payloads)
        self._shared: SharedMemory | None = None
        if workload.shared_memory:
            self._shared = _shared_memory(workload, self.address, self.interface, self.payloads)
            self._make_caller = self._shared.caller
        self._usual_caller = self._make_caller
        self._callers = 0
        self._arrivals = Group()
        self._rotation = _rotation(len(self.payloads.items), workload.seed)
        self._until_check = workload.check_every

    def caller(self) -> Caller:
        """A caller for one greenlet. It connects with its first request."""
        self._callers += 1
        if self.workload.api == "tritonclient" and self.address.protocol == "grpc":
            # Each blocking call of grpcio waits in a thread of this pool. It has ten threads by default: the eleventh
            # user would wait for one of them, and that would look like the server's latency.
            gevent.get_hub().threadpool.maxsize = self._callers + 10
        return self._make_caller()

    def send(self, caller: Caller, intended_ns: int = 0) -> None:
        """One request, recorded. `intended_ns`: when it should have started; 0 for now."""
        payload = next(self._rotation)
        self.in_flight += 1
        if self.in_flight > self.max_in_flight:
            self.max_in_flight = self.in_flight
        code = 0
        start_ns = time.monotonic_ns()
        try:
            answer = caller.call(payload)
            end_ns = time.monotonic_ns()
        except CallError as error:
            end_ns = time.monotonic_ns()
            code = self.recorder.code(error.kind, error.message)
            if error.kind == "connect":
                gevent.sleep(_AFTER_FAILED_CONNECT_S)
        finally:
            self.in_flight -= 1
        if code == 0 and self.workload.check_every and not self._aimed:
            self._until_check -= 1
            if self._until_check <= 0:
                self._until_check = self.workload.check_every
                code = self.check_answer(caller, payload, answer)
        self.recorder.add(intended_ns or start_ns, start_ns, end_ns, code, payload)

    def check_answer(self, caller: Caller, payload: int, answer: Any) -> int:
        """Compare it with the golden one: 0, or the number of a failure kind. A subclass may do something else."""
        expected = self.payloads.items[payload].expected
        if expected is None:
            return 0
        self.recorder.checked += 1
        try:
            difference = check(expected, caller.parse(answer), self.payloads.tolerance)
        except Exception as error:  # a parser may raise anything on a malformed answer
            difference = f"cannot be read: {type(error).__name__}: {error}"
        return self.recorder.code(WRONG, f"payload {payload}: {difference}") if difference else 0

    def closed_loop(self, caller: Caller, until_ns: int) -> None:
        while time.monotonic_ns() < until_ns and not self.is_over:
            self.send(caller)

    def open_loop(self, pace: Pace) -> None:
        """Start requests by the schedule until `pace.until_ns`. Requests in flight then are still answered."""
        assert pace.shape.rate is not None
        timer = Timer()
        callers = _Callers(self.caller)
        free = Semaphore(self.max_connections)
        try:
            for offset_ns in schedule(pace.shape.rate, pace.shape.arrivals, pace.seed, pace.part, pace.parts):
                intended_ns = pace.start_ns + offset_ns
                if intended_ns >= pace.until_ns:
                    return
                if not timer.wait_until(intended_ns):
                    gevent.sleep(0)  # behind schedule: let started requests run
                if self.is_over:
                    return
                self._arrivals.spawn(self._arrival, callers, free, intended_ns, pace.until_ns)
        finally:
            timer.close()
            callers.close()

    def _arrival(self, callers: _Callers, free: Semaphore, intended_ns: int, until_ns: int) -> None:
        must_wait = free.locked()
        with free:
            if must_wait and time.monotonic_ns() > until_ns:
                self._not_sent(intended_ns)
                return
            caller = callers.take()
            try:
                self.send(caller, intended_ns)
            finally:
                callers.give_back(caller)

    def _not_sent(self, intended_ns: int) -> None:
        """A failure: without it, an overloaded server would look better the longer its queue is."""
        code = self.recorder.code(NOT_SENT, f"all {self.max_connections} connections were busy until the end")
        now_ns = time.monotonic_ns()
        self.recorder.add(intended_ns, now_ns, now_ns, code, 0)

    @property
    def is_busy(self) -> bool:
        """Whether requests are in flight, or requests of an open loop are due and not sent yet."""
        return bool(self.in_flight or self._arrivals)

    def drain(self) -> None:
        """Wait until every request in flight is answered or times out."""
        deadline = time.monotonic() + self.workload.timeout_s + 1
        while self.is_busy and time.monotonic() < deadline:
            gevent.sleep(0.002)
        self._arrivals.kill()

    def aim(self, url: str) -> None:
        """Send the same requests to another server, whose answers are not checked; "" for the usual one."""
        if url != self._aimed and not self._shared:
            self._aimed = url
            self._make_caller = self._usual_caller
            if url:
                _, self._make_caller = _callers(self.workload, address_of(url), self.interface, self.payloads)

    def first_answer(self) -> str | None:
        """An answer's bytes in hexadecimal digits; None if a request does not have exactly one answer of its own.

        Raises LoadError if none of the first requests succeeds.
        """
        caller = self.caller()
        try:
            answer = self._one_of_the_first(caller)
        finally:
            caller.close()
        if isinstance(caller, RawHttp):
            return str(answer[1].hex())
        return answer.hex() if isinstance(caller, RawGrpc) else None

    def _one_of_the_first(self, caller: Caller) -> Any:
        for attempt in range(_FIRST):
            try:
                return caller.call(attempt % len(self.payloads.items))
            except CallError as error:
                failed = error
        name = f"{self.workload.model} version {self.interface.version}"
        hint = self.payloads.hint or "send one by hand (modelwright infer), check the payload, or read the server's log"
        raise LoadError(f"{self.workload.url}: {name}: the first {_FIRST} requests failed: {failed}", hint)

    def close(self) -> None:
        if self._shared:
            self._shared.close()

    def rewind(self, seed: int) -> None:
        """Restart the rotation of payloads: two measurements with one seed send the same ones in the same order."""
        self._rotation = _rotation(len(self.payloads.items), seed)
        self.max_in_flight = self.in_flight


class _Callers:
    """The callers of an open loop: as many as requests were in flight at once."""

    def __init__(self, make: Callable[[], Caller]) -> None:
        self._make = make
        self._idle: list[Caller] = []
        self._is_over = False

    def take(self) -> Caller:
        return self._idle.pop() if self._idle else self._make()

    def give_back(self, caller: Caller) -> None:
        if self._is_over:
            caller.close()
        else:
            self._idle.append(caller)

    def close(self) -> None:
        """Idle callers are closed now, the others when they are given back."""
        self._is_over = True
        while self._idle:
            self._idle.pop().close()


class LoopLag:
    """How late a timer of this process fires, which the event loop adds to every latency that it measures."""

    def __init__(self) -> None:
        self.lags_ns: list[int] = []
        self._greenlet = gevent.spawn(self._watch)

    def _watch(self) -> None:
        timer = Timer()
        while True:
            wanted_ns = time.monotonic_ns() + _LAG_EVERY_NS
            timer.wait_until(wanted_ns)
            self.lags_ns.append(time.monotonic_ns() - wanted_ns)

    def p99_ms(self) -> float | None:
        return float(np.percentile(self.lags_ns, 99)) / 1e6 if self.lags_ns else None

    def stop(self) -> None:
        self._greenlet.kill()


def allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _patch_grpc() -> None:
    """Let grpcio wait without stopping other greenlets. Call it before the first channel is made."""
    import grpc.experimental.gevent

    grpc.experimental.gevent.init_gevent()


def _payloads(workload: Workload, interface: ModelInterface) -> Payloads:
    return prepare(
        interface,
        source=workload.payload,
        repository=Path(workload.repository) if workload.repository else None,
        batch=workload.batch,
        distinct=workload.distinct,
        seed=workload.seed,
        dims=workload.shapes,
        ranges=workload.ranges,
        ranges_of=Path(workload.ranges_of) if workload.ranges_of else None,
    )


def _check_protocol(interface: ModelInterface, address: Address) -> None:
    what = "a decoupled model" if interface.decoupled else "a sequence model" if interface.sequence else ""
    if what and address.protocol == "http":
        raise LoadError(f"{interface.model}: {what} is asked over gRPC", "--protocol grpc, or a grpc:// URL")


def _callers(
    workload: Workload, address: Address, interface: ModelInterface, payloads: Payloads
) -> tuple[int, Callable[[], Caller]]:
    """The mean size of a request, and a function that makes callers. Requests are prepared once, here."""
    model, version, timeout_s = workload.model, workload.version, workload.timeout_s
    inputs = [payload.inputs for payload in payloads.items]
    if workload.api == "tritonclient":
        if interface.decoupled or interface.sequence:
            raise LoadError(f"{model}: tritonclient's infer() is for models that answer each request once")
        size = sum(array.nbytes for tensors in inputs for array in tensors.values()) // len(inputs)
        return size, lambda: TritonClient(address, model, version, inputs, timeout_s)
    if address.protocol == "http":
        requests = [http_request(address, model, version, tensors) for tensors in inputs]
        return _mean_size(requests), lambda: RawHttp(address, requests, timeout_s)
    messages = [grpc_request(model, version, tensors) for tensors in inputs]
    connections = GrpcConnections(address, timeout_s)
    if interface.decoupled:
        return _mean_size(messages), lambda: DecoupledGrpc(connections, messages)
    if interface.sequence:
        as_text = interface.sequence.string_id
        length = workload.sequence_length
        return _mean_size(messages), lambda: SequenceGrpc(connections, messages, length, as_text)
    ready = [message_bytes(message) for message in messages]
    return _mean_size(messages), lambda: RawGrpc(connections, ready)


def _shared_memory(workload: Workload, address: Address, interface: ModelInterface, payloads: Payloads) -> SharedMemory:
    from modelwright.loadtest.wire.shm import SharedMemory

    if interface.decoupled or interface.sequence or workload.api != "raw":
        raise LoadError("--shared-memory: for models that answer each request once, and --api raw")
    model, version, timeout_s = workload.model, workload.version, workload.timeout_s
    connections = GrpcConnections(address, timeout_s)

    def make(requests: Sequence[Any]) -> Caller:
        if address.protocol == "http":
            made = [http_request(address, model, version, tensors, regions) for tensors, regions in requests]
            return RawHttp(address, made, timeout_s)
        messages = [grpc_request(model, version, tensors, regions) for tensors, regions in requests]
        return RawGrpc(connections, [message_bytes(message) for message in messages])

    module = importlib.import_module(f"tritonclient.{address.protocol}")
    client = module.InferenceServerClient(address.authority, ssl=address.is_tls)
    inputs = [payload.inputs for payload in payloads.items]
    return SharedMemory(client, interface, inputs, workload.batch, make)


def _mean_size(requests: Sequence[bytes]) -> int:
    return sum(map(len, requests)) // len(requests)


def _rotation(count: int, seed: int) -> Iterator[int]:
    """Every payload in turn, in an order of its own for each seed."""
    order = list(range(count))
    Random(seed).shuffle(order)  # noqa: S311 (an order to send in, no secret)
    return itertools.cycle(order)
