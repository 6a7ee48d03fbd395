"""The model.py of a router: sends each request on to one of its arms, and answers what the arm answers.

It runs in Triton's Python backend and calls the arms as BLS does. What it needs to know stands in the `parameters` of
its config.pbtxt; an edit of them loads it again, and the server goes on with the old one until that is done:

    arm.MODEL or arm.MODEL:VERSION          how often this arm is chosen, against the others' numbers
    sticky                                  a request parameter: requests with the same value go to the same arm
    shadow.MODEL or shadow.MODEL:VERSION    the share of requests of which this model gets a copy
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import threading
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import triton_python_backend_utils as pb_utils

# The server runs 32 calls of one instance at a time. Copies have some of their own, so that none delays an answer.
CALLS, COPIES = 28, 4
WAITING_COPIES = 16  # more are dropped, and counted
LOADING_S = 60  # so long after it was loaded, a router thinks that an arm which is not ready is still being loaded
RETRY_S = 0.05
FLUSH_S = 0.2
NEWEST = -1
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
FAMILIES = {  # of metrics, below modelwright_router_
    "requests_total": "Requests that were sent to an arm",
    "errors_total": "Requests that an arm answered with an error",
    "duration_us": "Cumulative time that an arm took to answer, in microseconds",
    "shadow_requests_total": "Copies that were sent to a shadow",
    "shadow_errors_total": "Copies that a shadow answered with an error",
    "shadow_duration_us": "Cumulative time that a shadow took to answer, in microseconds",
    "shadow_dropped_total": "Copies that were not sent, since too many were on their way",
}


@dataclass(frozen=True)
class Arm:
    """A model, or one version of it, and its weight; of a shadow, the share of requests that it gets."""

    model: str
    version: int
    weight: float

    @property
    def name(self) -> str:
        return self.model if self.version == NEWEST else f"{self.model}:{self.version}"

    @property
    def labels(self) -> dict[str, str]:
        return {"arm": self.model, "version": "newest" if self.version == NEWEST else str(self.version)}


@dataclass(frozen=True)
class Split:
    """How requests are split. `seed` makes the splits of two routers independent of each other."""

    seed: str
    arms: tuple[Arm, ...]
    shadows: tuple[Arm, ...] = ()
    sticky: str = ""

    def choose(self, value: object = None, without: Collection[Arm] = ()) -> Arm:
        """An arm for a request; `value` is its sticky parameter's, None where it has none."""
        arms = [arm for arm in self.arms if arm not in without]
        if value is None:
            return random.choices(arms, [arm.weight for arm in arms])[0]  # noqa: S311
        return max(arms, key=lambda arm: self._score(arm, value))

    def _score(self, arm: Arm, value: object) -> float:
        """Weighted rendezvous hashing: the arm with the highest score wins, with the share that its weight gives it.

        Where one arm's weight changes, requests move to this arm or away from it, and between no two others. 5, "5"
        and true, "true" are one value, since clients write the same id in one way or the other.
        """
        text = value if isinstance(value, str) else json.dumps(value)
        digest = hashlib.blake2b(f"{self.seed}\0{arm.name}\0{text}".encode(), digest_size=8).digest()
        return -arm.weight / math.log((int.from_bytes(digest, "big") + 0.5) / 2**64)


def split_of(router: str, parameters: Mapping[str, str]) -> Split:
    """The split that a config's `parameters` ask for. Raises ValueError for what cannot be meant."""
    arms: list[Arm] = []
    shadows: list[Arm] = []
    for key, text in sorted(parameters.items()):
        kind, _, name = key.partition(".")
        if kind == "arm" and name:
            arms.append(_arm(key, name, text))
        elif kind == "shadow" and name:
            shadows.append(_arm(key, name, text))
            if not 0 < shadows[-1].weight <= 1:
                raise ValueError(f"parameter {key}: '{text}' is not a share of the requests, such as 0.1")
        elif key == "sticky":
            if not text:
                raise ValueError("parameter sticky: it is empty; it names a request parameter")
        elif key != "pins" and not key.isupper():  # Triton's own are in capitals
            raise ValueError(f"parameter {key}: unknown; a router has arm.MODEL, shadow.MODEL and sticky")
    chosen = tuple(arm for arm in arms if arm.weight > 0)
    if not chosen:
        raise ValueError("no arm has a weight above 0: set one, as in: key: 'arm.MODEL' value: { string_value: '1' }")
    return Split(router, chosen, tuple(shadows), parameters.get("sticky", ""))


def _arm(key: str, name: str, text: str) -> Arm:
    model, pinned, number = name.partition(":")
    if not model or (pinned and not (number.isascii() and number.isdigit())):
        raise ValueError(f"parameter {key}: after the point stands MODEL, or MODEL:VERSION")
    try:
        weight = float(text)
    except ValueError:
        weight = -1
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"parameter {key}: '{text}' is not a number from 0")
    return Arm(model, int(number) if pinned else NEWEST, weight)


class Counters:
    """Triton's custom metrics of one instance; the server adds up those of all instances.

    The server crashes when two threads of an instance change metrics at the same time. So they are added up here, and
    one thread passes them on.
    """

    def __init__(self, split: Split) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, Arm], float] = {}
        self._ended = threading.Event()
        self._metrics: dict[tuple[str, Arm], Any] = {}
        self._families: list[Any] = []  # a metric whose family is gone takes no values
        for family, description in FAMILIES.items():
            arms = split.shadows if family.startswith("shadow") else split.arms
            if not arms:
                continue
            made = pb_utils.MetricFamily(
                name=f"modelwright_router_{family}", description=description, kind=pb_utils.MetricFamily.COUNTER
            )
            for arm in arms:
                self._metrics[family, arm] = made.Metric(labels={"router": split.seed, **arm.labels})
            self._families.append(made)
        self._thread = threading.Thread(target=self._flush, name="metrics", daemon=True)
        self._thread.start()

    def answered(self, arm: Arm, since: float, *, failed: bool, prefix: str = "") -> None:
        """Count an answer to a request that was sent at `since`, by time.monotonic()."""
        took_us = (time.monotonic() - since) * 1e6
        with self._lock:
            self._add(f"{prefix}requests_total", arm, 1)
            self._add(f"{prefix}duration_us", arm, took_us)
            if failed:
                self._add(f"{prefix}errors_total", arm, 1)

    def dropped(self, arm: Arm) -> None:
        with self._lock:
            self._add("shadow_dropped_total", arm, 1)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _add(self, family: str, arm: Arm, value: float) -> None:
        self._sums[family, arm] = self._sums.get((family, arm), 0) + value

    def _flush(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(FLUSH_S)
            with self._lock:
                sums, self._sums = self._sums, {}
            for key, value in sums.items():
                self._metrics[key].increment(value)


class TritonPythonModel:
    """Answers requests in threads: `execute` returns at once, so one instance has many of them on their way."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        try:
            self._split = split_of(args["model_name"], parameters)
        except ValueError as error:
            raise pb_utils.TritonModelException(f"router {args['model_name']}: {error}") from None
        self._counters = Counters(self._split)
        self._slots = threading.BoundedSemaphore(CALLS)
        self._threads = ThreadPoolExecutor(CALLS, "answer")
        self._copy_slots = threading.BoundedSemaphore(COPIES + WAITING_COPIES)
        self._copy_threads = ThreadPoolExecutor(COPIES, "copy")
        self._were_ready: set[Arm] = set()
        self._loading_until = time.monotonic() + LOADING_S

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests on; each is answered alone. Those that find no free thread wait, and the next in the server's
        queue."""
        for request in requests:
            self._slots.acquire()
            self._threads.submit(self._respond, request, request.get_response_sender())

    def finalize(self) -> None:
        self._threads.shutdown()
        self._copy_threads.shutdown(cancel_futures=True)
        self._counters.close()

    def _respond(self, request: Any, sender: Any) -> None:
        copies: list[tuple[Arm, Any]] = []
        try:
            if request.is_cancelled():
                response = _error("the request was cancelled", pb_utils.TritonError.CANCELLED)
            else:
                parameters = json.loads(request.parameters() or "{}")
                response = self._ask(request, parameters)
                copies = [
                    (shadow, _call_of(request, shadow, parameters))
                    for shadow in self._split.shadows
                    if random.random() < shadow.weight  # noqa: S311
                ]
        except Exception as error:
            traceback.print_exc()
            response = _error(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
        try:
            sender.send(response, FINAL)
        finally:
            self._slots.release()
        for shadow, call in copies:
            self._copy(shadow, call)

    def _ask(self, request: Any, parameters: dict[str, Any]) -> Any:
        """The response of the arm that the split chooses; the others stand in for one that is still being loaded."""
        value = parameters.get(self._split.sticky) if self._split.sticky else None
        loading: list[Arm] = []
        while True:
            arm = self._split.choose(value, loading)
            since = time.monotonic()
            response = _call_of(request, arm, parameters).exec()
            reason = response.error().message() if response.has_error() else ""
            if not self._is_loading(arm, reason):
                break
            loading.append(arm)
            if len(loading) == len(self._split.arms):
                loading.clear()
                time.sleep(RETRY_S)
        self._were_ready.add(arm)
        self._counters.answered(arm, since, failed=bool(reason))
        return _error(f"arm {arm.name}: {reason}", response.error().code()) if reason else response

    def _is_loading(self, arm: Arm, reason: str) -> bool:
        """Whether an arm has never been ready and may become so: servers load it and the router at the same time."""
        return "is not ready" in reason and arm not in self._were_ready and time.monotonic() < self._loading_until

    def _copy(self, shadow: Arm, call: Any) -> None:
        """Send a copy to a shadow after the answer, unless too many are on their way."""
        if not self._copy_slots.acquire(blocking=False):
            self._counters.dropped(shadow)
            return

        def run() -> None:
            since = time.monotonic()
            failed = True
            try:
                failed = call.exec().has_error()
            finally:
                self._copy_slots.release()
                self._counters.answered(shadow, since, failed=failed, prefix="shadow_")

        self._copy_threads.submit(run)


def _call_of(request: Any, arm: Arm, parameters: Mapping[str, Any]) -> Any:
    """The request once more, for an arm. Parameters that are not whole become text: a call takes no others."""
    passed = {key: value if isinstance(value, (str, int)) else json.dumps(value) for key, value in parameters.items()}
    return pb_utils.InferenceRequest(
        model_name=arm.model,
        model_version=arm.version,
        requested_output_names=list(request.requested_output_names()),
        inputs=request.inputs(),
        request_id=request.request_id(),
        timeout=request.timeout(),
        parameters=passed or None,
        trace=request.trace(),
    )


def _error(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))
