"""How much the client itself can send."""

from __future__ import annotations

from pathlib import Path

from modelwright.loadtest.generator.processes import GeneratorProcesses, Watch
from modelwright.loadtest.measure.ceiling import Ceilings
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.server.local import RunningServer


def test_the_ceiling_of_a_target_is_that_of_its_own_requests_and_answers(server: RunningServer, tmp_path: Path) -> None:
    small = Workload(f"http://{server.http}", "flaky", shapes={"IN": 1})
    large = Workload(f"http://{server.http}", "flaky", shapes={"IN": 500_000}, distinct=2)
    several = Workload(f"grpc://{server.grpc}", "decoupled_repeat", shapes={"IN": 1}, payload="zero")
    targets = {"small": small, "large": large, "several": several}
    ceilings = Ceilings()
    with GeneratorProcesses(targets, 1, tmp_path) as generators:
        found = {name: ceilings.of(generators, name, workload) for name, workload in targets.items()}
        assert found["several"] is None  # a null server cannot answer as that model does
        assert found["small"] is not None
        assert found["large"] is not None
        assert found["small"] > 5 * found["large"] > 0  # 2 MB there and back take their time
        assert found["small"] > 100
        assert ceilings.of(generators, "small", small) == found["small"]  # it is not measured again

        phase = generators.run("small", LoadShape(concurrency=1, warmup_s=0, duration_s=0.3), Watch())
        assert "every tenth request fails" in phase.record.failures[0].message  # it asks the real server again
