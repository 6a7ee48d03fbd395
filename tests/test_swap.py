"""The benchmark of swaps: a short run of it, and that it would notice a wrong answer."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from benchmarks import swap, swap_models
from benchmarks.load_client import Golden, Load
from benchmarks.server_log import load_times
from modelwright.loadtest.generator.recording import RECORD
from modelwright.project.spec import Tolerance

GOLDEN = {
    number: Golden([{"y": np.full((1, 2), number, np.float32)}], {"y": Tolerance(atol=0.1, rtol=0)})
    for number in (1, 2)
}


def a_load(*answers: tuple[int, float]) -> Load:
    """Answers over gRPC to payload 0: the version that each names, and its value."""
    from tritonclient.grpc import service_pb2

    messages = []
    for version, value in answers:
        message = service_pb2.ModelInferResponse(model_name="m", model_version=str(version))
        message.outputs.add(name="y", datatype="FP32", shape=[1, 2])
        message.raw_output_contents.append(np.full(2, value, np.float32).tobytes())
        messages.append((0, message.SerializeToString()))
    count = len(messages)
    return Load(0, np.zeros(count, RECORD), np.arange(count), messages, [])


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ([(1, 1.0), (2, 2.0)], []),
        ([(1, 1.0), (1, 2.0)], [r"1 answers to payload 0 name version 1: .*'y'"]),
        ([(2, 2.0), (3, 3.0)], [r"1 answers to payload 0 name version 3: was not published"]),
    ],
    ids=["each its own", "the answer of another version", "a version that was not published"],
)
def test_an_answer_must_be_that_of_the_version_that_it_names(
    answers: list[tuple[int, float]], wrong: list[str]
) -> None:
    found = a_load(*answers).wrong(GOLDEN.get)
    assert len(found) == len(wrong)
    for text, pattern in zip(found, wrong, strict=True):
        assert re.match(pattern, text)


def test_load_times_come_from_the_log(tmp_path: Path) -> None:
    def line(ago_s: float, text: str) -> str:
        when = datetime.fromtimestamp(time.time() - ago_s, timezone.utc)
        return f'I{when:%m%d %H:%M:%S.%f} 17 model_lifecycle.cc:472] "{text}"\n'

    log = tmp_path / "server.log"
    log.write_text(
        line(90, "loading: m:1")
        + line(89, "successfully loaded 'm'")
        + line(9, "loading: m:2")
        + line(8.5, "loading: other:2")
        + line(8, "successfully loaded 'other'")
        + line(7, "successfully loaded 'm'")
        + line(6, "successfully unloaded 'm' version 1")
    )
    now_ns = time.monotonic_ns()
    ((began, ended),) = load_times(log, "m", since_ns=now_ns - 60 * 10**9)
    assert (ended - began) / 1e9 == pytest.approx(2, abs=0.01)
    assert (now_ns - began) / 1e9 == pytest.approx(9, abs=1)


@pytest.mark.server
def test_versions_are_swapped_under_load(tmp_path: Path) -> None:
    project = swap_models.project(tmp_path / "project", ["product"])
    wanted = [swap.Case("product", "poll", "http", 0.3, 1), swap.Case("product", "explicit", "grpc", 0.3, 1)]
    found, servers = swap.run(project, wanted, swap.Pauses(0.2, 0.2, 0.3))
    for item in found:
        assert len(item.load.rows) > 10
        assert (item.load.failed, item.wrong) == (0, [])
        assert set(item.load.versions()) >= {1}
        assert len(item.loading) == 2
    assert [(item.mode, item.swaps) for item in servers] == [("poll", 2), ("explicit", 2)]
    assert "0 of" in swap.sections(found, servers)[0].markdown()
