"""A router in the real server: what its requests get while weights change, arms fail, and copies take long.

The arms add 1, 2 or 3 to x. One server that polls is shared; each test has a router of its own.
"""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelwright.server.local import Mode, RunningServer, running
from modelwright.triton.client import connect
from tests.conftest import ROOT
from tests.server.models import shared_environment
from tests.waiting import wait_until

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("router")]

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 4
input [ {{ name: "x", data_type: TYPE_FP32, dims: [ 1 ] }} ]
output [ {{ name: "y", data_type: TYPE_FP32, dims: [ 1 ] }} ]
instance_group [ {{ count: {count}, kind: KIND_CPU }} ]
"""
ARM_PY = """
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.add = {{"one": 1, "two": 2, "three": 3}}[args["model_name"]]
        self.gate = Path({gate!r})

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            while x[0, 0] == {held} and self.add == 3 and not self.gate.exists():
                time.sleep(0.01)
            if x[0, 0] == {wrong}:
                error = pb_utils.TritonError("it cannot be", pb_utils.TritonError.INVALID_ARG)
                answers.append(pb_utils.InferenceResponse(error=error))
            else:
                answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x + self.add)]))
        return answers
"""
HELD, WRONG = 66, 13  # an arm answers HELD once the gate is open, and WRONG with an error
CALLS, COPIES = 28, 4 + 16  # what one instance of a router has on its way


@dataclass
class Place:
    """A repository in a server, with the arms one, two and three."""

    root: Path
    _server: RunningServer | None = None

    @property
    def server(self) -> RunningServer:
        assert self._server is not None
        return self._server

    @property
    def gate(self) -> Path:
        return self.root / "gate"

    def write(self, name: str, parameters: Mapping[str, str], count: int = 1) -> None:
        """A router's folder, before the server starts."""
        folder = self.root / "repository" / name / "1"
        folder.mkdir(parents=True)
        shutil.copyfile(ROOT / "modelwright/steps/router_model.py", folder / "model.py")
        self.edit(name, parameters, count)

    def edit(self, name: str, parameters: Mapping[str, str], count: int = 1) -> None:
        """Replace a router's config."""
        text = CONFIG.format(name=name, count=count)
        for key, value in parameters.items():
            text += f'parameters {{ key: "{key}", value: {{ string_value: "{value}" }} }}\n'
        (self.root / "new").write_text(text)
        (self.root / "new").replace(self.root / "repository" / name / "config.pbtxt")

    def ask(self, model: str, x: float, **parameters: object) -> float | str:
        """The answer less x, or the text of an error."""
        connection = http.client.HTTPConnection(self.server.http, timeout=60)
        tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [x]}
        try:
            body = json.dumps({"inputs": [tensor], "parameters": parameters})
            connection.request("POST", f"/v2/models/{model}/infer", body)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer["error"] if "error" in answer else float(answer["outputs"][0]["data"][0]) - x

    def metrics(self, router: str, family: str) -> dict[str, float]:
        """{arm: value}."""
        connection = http.client.HTTPConnection(self.server.metrics, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        found = {}
        for line in lines:
            if line.startswith(f"modelwright_router_{family}{{") and f'router="{router}"' in line:
                found[line.partition('arm="')[2].partition('"')[0]] = float(line.rpartition(" ")[2])
        return found

    def log(self) -> str:
        return self.server.log.read_text(errors="replace")


ROUTERS = {
    "live": {"arm.one": "1", "arm.two": "0"},
    "mixed": {"arm.one": "1", "arm.two": "1", "arm.missing": "1", "arm.nowhere": "0", "sticky": "user"},
    "copied": {"arm.one": "1", "shadow.three": "1"},
    "full": {"arm.three": "1"},
}


@contextmanager
def serving(root: Path, mode: Mode, routers: Iterable[str]) -> Iterator[Place]:
    place = Place(root)
    for name in ("one", "two", "three"):
        folder = root / "repository" / name / "1"
        folder.mkdir(parents=True)
        (folder.parent / "config.pbtxt").write_text(CONFIG.format(name=name, count=1))
        (folder / "model.py").write_text(ARM_PY.format(gate=str(place.gate), held=HELD, wrong=WRONG))
    for name in routers:
        place.write(name, ROUTERS[name], count=2 if name == "live" else 1)
    models = ["*"] if mode == "explicit" else ()
    log = root / "server.log"
    with running(
        shared_environment(), root / "repository", log=log, mode=mode, models=models, stop_grace_s=0
    ) as server:
        place._server = server
        yield place


@pytest.fixture(scope="module")
def polling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp("polling"), "poll", ROUTERS) as place:
        yield place


@dataclass
class Load:
    """Requests that are sent without a pause, and what they got."""

    answers: list[float | str] = field(default_factory=list)
    count: int = 0

    def recent(self, most: int = 20) -> Counter[float | str]:
        return Counter(self.answers[-most:])


@contextmanager
def load(place: Place, router: str, **parameters: Callable[[int], object]) -> Iterator[Load]:
    """Four clients ask a router until the block ends."""
    found, ended = Load(), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            found.count += 1
            values = {name: value(found.count) for name, value in parameters.items()}
            try:
                found.answers.append(place.ask(router, float(found.count % 10), **values))
            except OSError as error:
                found.answers.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_weights_change_under_load_and_every_request_is_answered_and_counted(polling: Place) -> None:
    with load(polling, "live") as found:
        wait_until(lambda: len(found.answers) > 20)
        polling.edit("live", {"arm.one": "0", "arm.two": "1"}, count=2)
        wait_until(lambda: found.recent() == {2.0: 20}, "all requests go to the other arm")
        # An invalid edit is refused, and what was loaded goes on.
        polling.edit("live", {"arm.one": "-5", "arm.two": "1"}, count=2)
        wait_until(lambda: "router live: parameter arm.one: '-5' is not a number from 0" in polling.log())
        seen = len(found.answers)
        wait_until(lambda: len(found.answers) > seen + 40)
        assert found.recent() == {2.0: 20}
        polling.edit("live", {"arm.one": "1", "arm.two": "1"}, count=2)
        wait_until(lambda: found.recent()[1.0] and found.recent()[2.0], "both arms answer")
    assert set(found.answers) == {1.0, 2.0}
    sent = Counter({"one": found.answers.count(1.0), "two": found.answers.count(2.0)})
    wait_until(lambda: polling.metrics("live", "requests_total") == sent, "all answers are counted, over all instances")
    assert polling.metrics("live", "errors_total") == {"one": 0, "two": 0}
    assert min(polling.metrics("live", "duration_us").values()) > 0


def test_a_value_keeps_its_arm_whatever_its_type(polling: Place) -> None:
    for values in (
        range(8),
        map(str, range(8)),
        (True, False),
        (2**40,),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}",),
        (1.5,),
    ):
        for value in values:
            assert len({polling.ask("mixed", 0, user=value, other="x") for _ in range(4)}) == 1, value
    for number in range(8):
        assert polling.ask("mixed", 0, user=number) == polling.ask("mixed", 0, user=str(number))
    assert {polling.ask("mixed", 0) for _ in range(40)} == {1.0, 2.0}  # without the parameter: at random


def test_an_arm_that_is_not_loaded_yet_gets_no_requests(polling: Place) -> None:
    """As when an arm and the router that names it are published together."""
    assert {polling.ask("mixed", 0, user=user) for user in range(30)} == {1.0, 2.0}
    assert polling.metrics("mixed", "requests_total")["missing"] == 0


def test_an_arms_error_is_the_requests_and_names_the_arm(polling: Place) -> None:
    assert {polling.ask("mixed", WRONG) for _ in range(30)} == {"arm one: it cannot be", "arm two: it cannot be"}
    assert polling.ask("mixed", 5) in (1.0, 2.0)
    wait_until(lambda: sum(polling.metrics("mixed", "errors_total").values()) == 30)
    assert min(polling.metrics("mixed", "errors_total").items(), key=lambda item: item[1]) == ("missing", 0)


def test_copies_delay_no_answer_and_do_not_pile_up(polling: Place) -> None:
    polling.gate.unlink(missing_ok=True)
    assert Counter(polling.ask("copied", HELD) for _ in range(60)) == {1.0: 60}  # while the shadow answers none
    wait_until(lambda: polling.metrics("copied", "requests_total") == {"one": 60})
    assert polling.metrics("copied", "shadow_requests_total") == {"three": 0}
    polling.gate.touch()
    both = ("shadow_requests_total", "shadow_dropped_total")
    wait_until(lambda: sum(polling.metrics("copied", family)["three"] for family in both) == 60, "copies are counted")
    assert polling.metrics("copied", "shadow_dropped_total")["three"] >= 60 - COPIES
    assert polling.ask("copied", WRONG) == "arm one: it cannot be"
    wait_until(lambda: polling.metrics("copied", "shadow_errors_total") == {"three": 1})


def test_a_request_that_is_cancelled_while_it_waits_is_not_sent(polling: Place) -> None:
    import numpy as np
    from tritonclient import grpc

    polling.gate.unlink(missing_ok=True)
    tensor = grpc.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.array([[HELD]], dtype=np.float32))
    done: list[str] = []
    client = grpc.InferenceServerClient(polling.server.grpc)

    def send() -> Any:
        return client.async_infer("full", [tensor], callback=lambda result, error: done.append(str(error)))

    try:
        for _ in range(CALLS):
            send()
        # All threads of the router wait for the arm, which runs one request at a time.
        wait_until(lambda: pending(polling, "three") == CALLS - 1)
        waiting = [send() for _ in range(6)]
        wait_until(lambda: pending(polling, "full") == 5, "the instance holds one request more")
        for call in waiting:
            call.cancel()
        wait_until(lambda: len(done) == 6, "the calls are cancelled")
        polling.gate.touch()
        wait_until(lambda: done.count("None") == CALLS, "the others are answered")
    finally:
        polling.gate.touch()
        client.close()
    wait_until(lambda: polling.metrics("full", "requests_total") == {"three": CALLS})


def pending(place: Place, model: str) -> float:
    connection = http.client.HTTPConnection(place.server.metrics, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    name = "nv_inference_pending_request_count{"
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and f'"{model}"' in line)


def test_explicit_mode_loads_new_weights_under_load(tmp_path: Path) -> None:
    with serving(tmp_path, "explicit", ["live"]) as place, connect(f"http://{place.server.http}") as client:
        with load(place, "live") as found:
            wait_until(lambda: len(found.answers) > 20)
            for weights in ({"arm.one": "0", "arm.two": "1"}, {"arm.one": "1", "arm.two": "1"}):
                place.edit("live", weights, count=2)
                client.load("live")
            wait_until(lambda: found.recent()[1.0] and found.recent()[2.0])
        assert set(found.answers) == {1.0, 2.0}
