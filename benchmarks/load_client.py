"""Load whose every answer is compared with the golden one of the version that it names.

with LoadClient(workload, folder) as client:
    client.begin("swap", LoadShape(rate=500))
    …
    load = client.end()
    load.wrong(golden)  # [] when all is well
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.projects import ROOT
from modelwright.errors import VerifyError
from modelwright.loadtest.generator.recording import RECORD
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.loadtest.wire.encoding import grpc_answer, http_answer
from modelwright.project.spec import Tolerance
from modelwright.triton.tensors import Tensors
from modelwright.verification.comparison import compare_outputs

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Golden:
    """What a version answers to each payload."""

    answers: Sequence[Tensors]
    tolerance: Mapping[str, Tolerance]


@dataclass(frozen=True)
class Load:
    """What one load sent and got. `rows` are of the recorder, in the order of their ends."""

    start_ns: int
    rows: Rows
    numbers: Rows  # the answer of each row without a failure, in the same order
    answers: Sequence[tuple[int, Any]]  # payload and answer, each distinct pair once
    failures: Sequence[str]

    @property
    def succeeded(self) -> Rows:
        chosen: Rows = self.rows[self.rows["code"] == 0]
        return chosen

    @property
    def failed(self) -> int:
        return int(np.count_nonzero(self.rows["code"]))

    def versions(self) -> list[int]:
        """The version that each distinct answer names."""
        return [_parsed(answer)[0] for _, answer in self.answers]

    def wrong(self, golden: Callable[[int], Golden | None]) -> list[str]:
        """Each distinct answer that is not the golden one of the version that it names, with how often it came.

        `golden` gives None for a version that was not published.
        """
        found = []
        counts = np.bincount(self.numbers, minlength=len(self.answers))
        for (payload, answer), count in zip(self.answers, counts, strict=True):
            version, tensors = _parsed(answer)
            expected = golden(version)
            reason = "was not published" if expected is None else difference(expected, payload, tensors)
            if reason:
                found.append(f"{count} answers to payload {payload} name version {version}: {reason}")
        return found


def _parsed(answer: Any) -> tuple[int, Tensors]:
    """Version and outputs, as the generator's callers return an answer: (head, body) over HTTP, a message over gRPC."""
    if isinstance(answer, tuple):
        body = answer[1]
        text, _ = json.JSONDecoder().raw_decode(body.decode("latin-1"))
        return int(text["model_version"]), http_answer(answer)
    from tritonclient.grpc import service_pb2

    return int(service_pb2.ModelInferResponse.FromString(answer).model_version), grpc_answer(answer)


def difference(golden: Golden, payload: int, tensors: Tensors) -> str:
    """How an answer differs from the golden one; "" where it does not."""
    try:
        compare_outputs([golden.answers[payload]], [tensors], golden.tolerance)
    except VerifyError as error:
        return error.message
    return ""


class LoadClient:
    """A process that sends; one load at a time. Raises RuntimeError when it does not do what it is told."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._folder = folder
        self._name, self._start_ns = "", 0
        self._log = (folder / "client.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.keeping_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
        )
        self._tell({"workload": asdict(workload), "folder": str(folder)})

    def __enter__(self) -> LoadClient:
        self._hear("ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            assert pipe is not None
            pipe.close()

    def load(self, name: str, shape: LoadShape, seed: int = 7) -> Load:
        """A load of `shape.duration_s`."""
        self.begin(name, shape, seed)
        self._hear("done")
        return self._read()

    def begin(self, name: str, shape: LoadShape, seed: int = 7) -> None:
        """A load that lasts until `end`, where `shape.duration_s` is 0."""
        self._name = name
        self._tell({"name": name, "shape": asdict(shape), "seed": seed})
        self._start_ns = int(self._hear("started")["start_ns"])

    def end(self) -> Load:
        self._tell({})
        self._hear("done")
        return self._read()

    def _tell(self, data: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(data).encode() + b"\n")
        self._process.stdin.flush()

    def _hear(self, event: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or b"{}")
        if answer.get("event") != event:
            log = Path(self._log.name).read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the load client: {answer.get('message') or log or 'ended'}")
        return answer

    def _read(self) -> Load:
        rows = np.frombuffer(self._folder.joinpath(f"{self._name}.rows").read_bytes(), RECORD)
        numbers = np.frombuffer(self._folder.joinpath(f"{self._name}.numbers").read_bytes(), "<i8")
        failures, answers = pickle.loads(self._folder.joinpath(f"{self._name}.answers").read_bytes())
        return Load(self._start_ns, rows, numbers, answers, failures)
