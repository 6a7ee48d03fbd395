"""A pipeline is published and rolled back on the real server, while requests come: none fails, and none gets an answer
that no version gives.

Version N of `tok` adds N and version N of `enc` adds 10 N, so an answer tells which of them gave it. `python -m benchmarks
pipelines` does the same at load, with models that are built.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from modelwright.repository import moves
from modelwright.repository.move import carry_out
from modelwright.server.environment import Environment
from modelwright.server.local import Mode, running
from modelwright.triton.client import Client, connect
from tests.repository.operated import Operated
from tests.server.models import graph, node
from tests.waiting import wait_until

pytestmark = pytest.mark.server


class Requests:
    """Requests without a pause, until the block ends: what came back, as (version that it names, its sum)."""

    def __init__(self, address: str) -> None:
        self.answers: set[tuple[int, float]] = set()
        self.failures: list[str] = []
        self.count = 0
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def __enter__(self) -> Requests:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        import tritonclient.grpc as grpc

        x = grpc.InferInput("x", [1, 2], "FP32")
        x.set_data_from_numpy(np.zeros((1, 2), np.float32))
        client = grpc.InferenceServerClient(self._address)
        while not self._over.is_set():
            try:
                answer = client.infer("pipe", [x])
            except grpc.InferenceServerException as error:
                self.failures.append(str(error))
                continue
            self.answers.add((int(answer.get_response().model_version), float(answer.as_numpy("y")[0, 0])))
            self.count += 1
        client.close()


def publish(operated: Operated, version: int) -> None:
    """A version of each model: composing models first, as a build does it."""
    from onnx import numpy_helper

    for model, step in (("tok", 1), ("enc", 10)):
        number = numpy_helper.from_array(np.array([version * step], np.float32), "number")
        tensors = [("x", "TYPE_FP32", ("batch", 2))], [("y", "TYPE_FP32", ("batch", 2))]
        added = graph([node("Add", ["x", "number"], ["y"])], *tensors, [number])
        instances = "instance_group [ { kind: KIND_CPU, count: 1 } ]\n"
        operated.publish(model, version, model=added.SerializeToString(), more=instances)
    operated.pipeline("pipe", version, {"tok": version, "enc": version})


def follow(control: Client, mode: Mode, version: int) -> None:
    """To load a pipeline loads what changed of the models that it runs, before it."""
    if mode == "explicit":
        control.load("pipe")
    wait_until(
        lambda: (
            {item.version for item in control.index() if item.name == "pipe" and item.state == "READY"}
            == {str(version)}
        ),
        f"version {version} of the pipeline",
    )


@pytest.mark.parametrize("mode", ["poll", "explicit"])
def test_a_pipeline_moves_as_one(environment: Environment, tmp_path: Path, mode: Mode) -> None:
    operated = Operated(tmp_path, keeps=True)
    publish(operated, 1)
    models = ["*"] if mode == "explicit" else []
    root, log = operated.repository.root, tmp_path / "server.log"
    with (
        running(environment, root, log=log, mode=mode, models=models, stop_grace_s=0) as server,
        connect(server.http) as control,
        Requests(server.grpc) as requests,
    ):
        for version in (2, 3):
            publish(operated, version)
            follow(control, mode, version)
            carry_out(operated.repository, moves.rollback(operated.repository, "pipe"))
            follow(control, mode, 1)
    assert requests.failures == []
    assert requests.answers == {(1, 11.0), (2, 22.0), (3, 33.0)}
