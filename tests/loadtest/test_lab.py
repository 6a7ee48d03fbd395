"""What the generator processes are told to send; test_processes.py tests that they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from modelwright.errors import LoadError
from modelwright.loadtest.generator.processes import Phase
from modelwright.loadtest.generator.recording import Record
from modelwright.loadtest.measure import lab as lab_module
from modelwright.loadtest.measure.lab import Lab, Setting
from modelwright.loadtest.measure.servers import ServerUnderTest
from modelwright.loadtest.payloads.workload import LoadShape, Workload


class Asked:
    """A fleet that sends nothing and keeps the seeds that it was given."""

    targets: dict[str, Any] = {  # noqa: RUF012 (the same for all)
        "m": {"version": "1", "payload": "", "payload_bytes": 0, "answer": None}
    }

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def run(self, target: str, shape: LoadShape, watch: Any, seed: int) -> Phase:
        self.seeds.append(seed)
        return Phase(0, 1, Record())


@pytest.mark.parametrize(("given", "used"), [(None, 42), (3, 3)], ids=["of the command line", "of a round"])
def test_the_seed_reaches_the_processes_that_send(given: int | None, used: int) -> None:
    generators, workload = Asked(), Workload("http://h:1", "m", seed=42)
    setting = Setting(cast(Any, None), Path(), workload)
    Lab(setting, ServerUnderTest(workload.url, None), cast(Any, None), cast(Any, generators), {"m": workload}).measure(
        "m", LoadShape(concurrency=1), seed=given
    )
    assert generators.seeds == [used]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelwright.extras.find_spec", lambda name: None if name == "hpack" else object())
    with pytest.raises(LoadError, match="a load test needs hpack: not installed") as raised:
        lab_module.check_installed()
    assert raised.value.hint == "pip install 'modelwright[load]'"
