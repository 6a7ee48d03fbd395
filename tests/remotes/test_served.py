"""The local tritonserver reads a repository straight from S3 while it is pushed to, and what was pulled answers its goldens.

Its library has S3 built in: what the stock container does with s3:// is seen here.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from modelwright.operations.remote import pull, push
from modelwright.operations.replay import verify
from modelwright.repository.move import carry_out as move
from modelwright.repository.moves import rollback
from modelwright.server import environment
from modelwright.server.local import running
from modelwright.triton.client import Client, connect
from tests.conftest import Sandbox, new_sandbox
from tests.remotes.buckets import Bucket
from tests.waiting import wait_until

pytestmark = pytest.mark.server
FACTORS = (2.0, 2.001)  # of the two versions
INPUT = np.ones((1, 2), dtype=np.float32)


def quiet(_: str) -> None:
    pass


class _Requests(threading.Thread):
    """Sends requests until it is told to stop, and counts the answers."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.client, self.ended = client, threading.Event()
        self.answers: Counter[str] = Counter()

    def run(self) -> None:
        while not self.ended.wait(0.005):
            try:
                factor = float(self.client.infer("doubled", {"x": INPUT})["y"][0, 0])
                self.answers[f"{factor:.3f}"] += 1
            except Exception as error:  # every kind of failure is one
                self.answers[repr(error)] += 1


def test_a_server_follows_pushes_to_s3_and_what_is_pulled_answers_as_it_should(
    sandbox: Sandbox, bucket: Bucket, tmp_path: Path
) -> None:
    sandbox.onnx_builder(factor=FACTORS[0])
    sandbox.build()
    push(sandbox.project, bucket.url, say=quiet)
    made = environment.ensure(sandbox.project.server, sandbox.project.target, quiet)
    (tmp_path / "empty").mkdir()
    arguments = [f"--model-repository=s3://http://127.0.0.1:{bucket.proxy.server}/bucket/{bucket.prefix}"]
    log = tmp_path / "server.log"
    with (
        running(made, tmp_path / "empty", log=log, mode="poll", extra_arguments=arguments) as server,
        connect(server.http) as client,
    ):
        wait_until(lambda: client.model_ready("doubled", "1"), "version 1")
        requests = _Requests(client)
        requests.start()
        sandbox.onnx_builder(factor=FACTORS[1])
        sandbox.build()
        push(sandbox.project, bucket.url, say=quiet)
        wait_until(lambda: client.model_ready("doubled", "2"), "version 2")
        move(sandbox.repository, rollback(sandbox.repository, "doubled"))
        push(sandbox.project, bucket.url, delete=True, say=quiet)
        wait_until(lambda: client.model_ready("doubled", "1"), "version 1 again")
        wait_until(lambda: not client.model_ready("doubled", "2"), "version 2 to go")
        requests.ended.set()
        requests.join()
    assert set(requests.answers) == {f"{factor:.3f}" for factor in FACTORS}, requests.answers
    assert "failed to load" not in log.read_text()

    other = new_sandbox(tmp_path / "other")
    pull(other.project, bucket.url, say=quiet)
    assert other.published() == sandbox.published()
    assert {result.verdict for result in verify(other.project, [], [], say=quiet)} == {"ok"}
