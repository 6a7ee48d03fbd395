"""ab.py: which versions are compared, and which measurements a gate makes. What they mean is test_gate.py's."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelwright.errors import LoadError
from modelwright.loadtest.document import Measurement
from modelwright.loadtest.gate import ab
from modelwright.loadtest.gate.ab import Plan
from modelwright.loadtest.gate.pairings import Pairing, pairings
from modelwright.loadtest.gate.rounds import CPU, P50, THROUGHPUT
from modelwright.loadtest.measure.lab import Setting
from modelwright.loadtest.measure.progress import Progress
from modelwright.loadtest.measure.run import Findings
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.project.spec import Slo
from tests.conftest import Sandbox
from tests.loadtest.synthetic import Facts, measurement


@dataclass
class Bench:
    """A lab that measures nothing and keeps what it was asked for: target, shape and seed."""

    facts: Facts = field(default_factory=Facts)
    asked: list[tuple[str, LoadShape, int | None]] = field(default_factory=list)
    interrupted: bool = False
    workloads: dict[str, Any] = field(default_factory=lambda: {"A": None, "B": None})
    next_facts: dict[int, Facts] = field(default_factory=dict)  # of the n-th measurement

    def measure(
        self, name: str, shape: LoadShape, label: str = "", seed: int | None = None, max_lag: float = 0
    ) -> Measurement:
        self.asked.append((name, shape, seed))
        facts = self.next_facts.get(len(self.asked), self.facts)
        return measurement(facts, "open" if shape.is_open else "closed", label)


def model(slo: Slo | None = None, plan: Plan | None = None) -> ab._Progress:
    pairing = Pairing("m", 1, 2, Path("r"), Path("r"), slo or Slo())
    return ab._Progress(pairing, ab.metrics_for(pairing, plan or Plan()))


def findings() -> Findings:
    return Findings(lambda _: None)


def loads(bench: Bench, plan: Plan, slo: Slo | None = None) -> dict[str, LoadShape]:
    return ab.shapes_of(cast(Any, bench), model(slo, plan), plan, findings())


# --- the loads --------------------------------------------------------------------------------------------------------


def test_by_default_a_side_is_measured_at_saturation_and_with_one_request_in_flight() -> None:
    shapes = loads(Bench(), Plan())
    assert shapes == {
        "saturation": LoadShape(32, warmup_s=0.05, duration_s=0.25),
        "one in flight": LoadShape(1, warmup_s=0.05, duration_s=0.25),
    }


@pytest.mark.parametrize(
    ("plan", "slo"),
    [
        (Plan(fixed_load=True), Slo()),
        (Plan(), Slo(rate=700)),
        (Plan(), Slo(p50_ms=5)),
        (Plan(), Slo(p99_ms=5)),
    ],
    ids=["a p99", "a rate", "a bound of p50", "a bound of p99"],
)
def test_a_fixed_load_is_measured_if_something_asks_for_it(plan: Plan, slo: Slo) -> None:
    shapes = loads(Bench(Facts(throughput=1000)), plan, slo)
    assert list(shapes) == ["saturation", "one in flight", "fixed load"]
    assert shapes["fixed load"].rate == 700  # a share of what the baseline can serve, or as given


def test_a_measurement_is_as_long_as_its_percentile_needs() -> None:
    assert loads(Bench(), Plan(), Slo(rate=100))["fixed load"].duration_s == pytest.approx(1.2 * 662 / 100)
    slow = Bench(Facts(queue=0, compute=90, outside=10))
    assert loads(slow, Plan())["one in flight"].duration_s == pytest.approx(1.2 * 11 * 0.1)
    slower = Bench(Facts(compute=9000))
    assert loads(slower, Plan())["one in flight"].duration_s == 1.8  # else too few rounds would fit


def test_a_regime_that_no_metric_needs_is_not_measured() -> None:
    assert loads(Bench(), Plan(metrics=[THROUGHPUT])).keys() == {"saturation"}
    assert loads(Bench(), Plan(metrics=[P50])).keys() == {"one in flight"}
    assert loads(Bench(), Plan(metrics=[P50]), Slo(throughput_min=1)).keys() == {"saturation", "one in flight"}


def test_a_baseline_that_answers_nothing_under_load_is_an_error() -> None:
    with pytest.raises(LoadError, match=r"m: version 1 answers no request under load\n  hint: timeout: no"):
        loads(Bench(Facts(throughput=0, failures={"timeout": 3})), Plan())


# --- rounds -----------------------------------------------------------------------------------------------------------


def rounds(bench: Bench, plan: Plan, made: Findings, spent_s: float = 0.0, slo: Slo | None = None) -> ab._Rounds:
    progress = model(slo, plan)
    progress.shapes = {"saturation": LoadShape(32), "one in flight": LoadShape(1)}
    if slo:
        progress.shapes["fixed load"] = LoadShape(rate=700)
    setting: Any = SimpleNamespace(progress=Progress())
    benches: Any = {"A": bench, "A2": bench, "B": bench}
    return ab._Rounds(setting, progress, plan, made, benches, time.monotonic() - spent_s)


def compare(of: ab._Rounds, count: int) -> None:
    of.model.looks = (count, 2 * count)
    of.compare()


def test_a_round_measures_two_sides_in_every_regime_with_one_seed() -> None:
    bench, made = Bench(), findings()
    of = rounds(bench, Plan(seed=7), made)
    compare(of, 2)
    assert sorted(name for name, *_ in bench.asked) == ["A"] * 4 + ["B"] * 4
    assert [shape.concurrency for _, shape, _ in bench.asked] == [32, 32, 1, 1] * 2
    assert [seed for *_, seed in bench.asked] == [8] * 4 + [9] * 4
    assert sorted((side.round, side.side) for side in of.model.sides) == [(1, "A"), (1, "B"), (2, "A"), (2, "B")]
    assert all(set(side.measurements) == {"saturation", "one in flight"} for side in of.model.sides)
    assert len({item.label for item in made.measurements}) == 8


def test_the_calibration_measures_the_baseline_alone_and_plans_the_comparison() -> None:
    bench = Bench()
    of = rounds(bench, Plan(), findings())
    of.calibrate()
    assert {name for name, *_ in bench.asked} == {"A"}
    assert {side.side for side in of.model.sides} == {"A", "A2"}
    assert (len(of.model.sides), of.model.looks) == (16, (10, 20))
    given = rounds(bench, Plan(rounds=30), findings())
    given.calibrate()
    assert given.model.looks == (30, 60)


def test_the_order_of_the_sides_is_random_and_follows_from_the_seed() -> None:
    def orders(seed: int) -> list[str]:
        of = rounds(Bench(), Plan(seed=seed), findings())
        compare(of, 16)
        return [side.side for side in of.model.sides if side.order == 1]

    assert orders(1) == orders(1) != orders(2)
    assert set(orders(1)) == {"A", "B"}


def test_a_round_of_which_the_client_did_not_send_a_part_is_measured_again() -> None:
    unsent = replace(Facts(), failures={"not sent": 814})
    of = rounds(Bench(next_facts={6: unsent}), Plan(), findings(), slo=Slo(rate=700))
    compare(of, 2)
    assert [side.round for side in of.model.sides] == [2, 2, 3, 3]
    assert of.model.notes == ["round 1 was measured again: the client did not send 814 requests"]


def test_a_round_counts_in_which_a_version_failed_requests() -> None:
    failed = replace(Facts(), failures={"not sent": 814, "HTTP 500": 1})
    of = rounds(Bench(next_facts={6: failed}), Plan(), findings(), slo=Slo(rate=700))
    compare(of, 2)
    assert [side.round for side in of.model.sides] == [1, 1, 2, 2]


def test_a_client_that_never_sends_in_time_does_not_measure_forever() -> None:
    of = rounds(Bench(replace(Facts(), failures={"not sent": 814})), Plan(), findings(), slo=Slo(rate=700))
    compare(of, 4)
    assert len(of.model.sides) == 8


def test_rounds_end_after_two_and_a_half_minutes_unless_their_number_is_given() -> None:
    late = rounds(Bench(), Plan(), findings(), spent_s=ab.LIMIT_S)
    compare(late, 3)
    assert late.model.sides == []
    assert late.model.notes == ["stopped measuring after 150 s; --rounds N measures N rounds, however long they take"]
    given = rounds(Bench(), Plan(rounds=3), findings(), spent_s=ab.LIMIT_S)
    compare(given, 3)
    assert len(given.model.sides) == 6


def test_nothing_more_is_measured_after_a_measurement_that_was_cut_short() -> None:
    bench = Bench(replace(Facts(), complete=False))
    of = rounds(bench, Plan(), findings())
    compare(of, 3)
    assert len(bench.asked) == 1
    assert [len(side.measurements) for side in of.model.sides] == [1, 0]


@pytest.mark.parametrize(("pid", "measured"), [(17, True), (None, False)])
def test_cpu_time_is_measured_where_the_servers_process_is_known(pid: int | None, measured: bool) -> None:
    bench: Any = Bench()
    bench.server = SimpleNamespace(pid=pid, why_no_pid="" if pid else "the server at gpu:8000 is on another machine")
    of = rounds(bench, Plan(), findings())
    of.prepare()
    assert (CPU in of.model.metrics) == measured
    reason = "cpu was not measured: the server at gpu:8000 is on another machine"
    assert of.model.notes == ([] if measured else [reason])


# --- which versions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def setting(sandbox: Sandbox) -> Setting:
    for model, versions in (("two", (3, 4)), ("one", (1,))):
        for version in versions:
            folder = sandbox.root / "model_repository" / model / str(version)
            folder.mkdir(parents=True)
            (folder / "model.onnx").touch()
        (folder.parent / "config.pbtxt").write_text("")
    project = sandbox.project
    return Setting(project, project.repository, Workload("", ""))


def found(setting: Setting, names: list[str], *versions: int) -> tuple[list[tuple[str, int, int]], list[str]]:
    pairs, left_out = pairings(setting, names, versions, None, lambda _: Slo())
    return [(each.model, each.baseline, each.candidate) for each in pairs], left_out


def test_the_newest_two_versions_of_every_model_that_has_two(setting: Setting) -> None:
    assert found(setting, []) == ([("two", 3, 4)], ["one: has only one version"])
    assert found(setting, ["two"], 4, 3) == ([("two", 4, 3)], [])


@pytest.mark.parametrize(
    ("names", "versions", "message"),
    [
        (["one"], (), "one: has only one version\n  hint: modelwright status"),
        (["two"], (3, 9), "two: no version 9"),
        (["two"], (3,), "--versions 3: give baseline and candidate"),
        ([], (3, 4), "--versions"),
    ],
    ids=["one version", "no such version", "one number", "no model"],
)
def test_what_cannot_be_compared_is_named(
    setting: Setting, names: list[str], versions: tuple[int, ...], message: str
) -> None:
    with pytest.raises(LoadError, match=message):
        found(setting, names, *versions)
