"""How much the client itself can send: measured against a null server, with the same requests and answers.

It shows whether a throughput is the limit of the server or of the client. Where the null server is slower than the
client, the client's CPU time says how much more it could have sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from modelwright.loadtest.generator.processes import GeneratorProcesses, Phase, Watch
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.loadtest.wire.null_server import null_server
from modelwright.triton.access import address_of

_SHAPE = LoadShape(concurrency=32, warmup_s=0.2, duration_s=0.8)
_FULL = 0.9  # of a core: a process that uses more is as fast as it can be


@dataclass
class Ceilings:
    """Measured once for each target, when it is first needed."""

    _known: dict[str, float | None] = field(default_factory=dict)

    def of(self, generators: GeneratorProcesses, name: str, workload: Workload) -> float | None:
        """Requests a second; None if a null server cannot replace the model."""
        if name not in self._known:
            answer = generators.targets[name].get("answer")
            self._known[name] = None if answer is None else _measured(generators, name, workload, answer)
        return self._known[name]


def _measured(generators: GeneratorProcesses, name: str, workload: Workload, answer: str) -> float | None:
    protocol = address_of(workload.url).protocol
    with null_server(protocol, answer=bytes.fromhex(answer)) as server:
        phase = generators.run(name, _SHAPE, Watch(), url=f"{protocol}://127.0.0.1:{server.port}")
    return _ceiling(phase)


def _ceiling(phase: Phase) -> float | None:
    rows = phase.measured()
    good = int(np.count_nonzero(rows["code"] == 0))
    busiest = max((client["cpu_s"] / client["wall_s"] for client in phase.clients), default=0.0)
    if not good or not busiest or not phase.complete:
        return None
    reached = good / ((phase.until_ns - phase.start_ns) * 1e-9)
    return reached if busiest >= _FULL else reached / busiest
