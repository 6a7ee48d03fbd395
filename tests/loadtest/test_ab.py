"""ab.py: which versions are compared, and which measurements a gate makes. What they mean is test_gate.py's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from modelwright.errors import LoadError
from modelwright.loadtest.document import Measurement
from modelwright.loadtest.gate import ab
from modelwright.loadtest.gate.ab import Pairing, Plan
from modelwright.loadtest.gate.rounds import METRICS, P50, THROUGHPUT, Metric, Side
from modelwright.loadtest.measure.lab import Setting
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

    def measure(
        self, name: str, shape: LoadShape, label: str = "", seed: int | None = None, max_lag: float = 0
    ) -> Measurement:
        self.asked.append((name, shape, seed))
        return measurement(self.facts, "open" if shape.is_open else "closed", label)


def pairing(slo: Slo | None = None) -> Pairing:
    return Pairing("m", 1, 2, Path("r"), Path("r"), slo or Slo())


def findings() -> Findings:
    return Findings(lambda _: None)


def loads(bench: Bench, plan: Plan, slo: Slo | None = None) -> dict[str, LoadShape]:
    return ab._shapes(cast(Any, bench), pairing(slo), plan, findings())


# --- the loads --------------------------------------------------------------------------------------------------------


def test_the_fixed_load_is_a_share_of_what_the_baseline_can_serve() -> None:
    bench = Bench(Facts(throughput=1000))
    shapes = loads(bench, Plan(seconds=2))
    assert [(name, shape.duration_s) for name, shape, _ in bench.asked] == [("A", 2)]
    assert shapes["saturation"] == LoadShape(32, warmup_s=0.2, duration_s=2)
    assert shapes["fixed load"] == LoadShape(rate=700, warmup_s=0.2, duration_s=2)


@pytest.mark.parametrize(("metrics", "seconds"), [(METRICS, 1.2 * 662 / 100), ([P50], 0.5)], ids=["a p99", "a p50"])
def test_a_measurement_is_as_long_as_its_percentile_needs(metrics: list[Metric], seconds: float) -> None:
    shapes = loads(Bench(), Plan(seconds=0.5, metrics=metrics), Slo(rate=100))
    assert shapes["fixed load"].duration_s == pytest.approx(seconds)


def test_a_regime_that_no_metric_needs_is_not_measured() -> None:
    assert loads(Bench(), Plan(metrics=[THROUGHPUT])).keys() == {"saturation"}
    assert loads(Bench(), Plan(metrics=[P50])).keys() == {"fixed load"}
    assert loads(Bench(), Plan(metrics=[P50]), Slo(throughput_min=1)).keys() == {"fixed load", "saturation"}


def test_a_baseline_that_answers_nothing_under_load_is_an_error() -> None:
    with pytest.raises(LoadError, match=r"m: version 1 answers no request under load\n  hint: timeout: no"):
        loads(Bench(Facts(throughput=0, failures={"timeout": 3})), Plan())


# --- rounds -----------------------------------------------------------------------------------------------------------


def rounds(bench: Bench, plan: Plan, made: Findings, count: int) -> list[Side]:
    shapes = {"fixed load": LoadShape(rate=700), "saturation": LoadShape(32)}
    benches: Any = {"A": bench, "A2": bench, "B": bench}
    sides: list[Side] = []
    for number in range(1, count + 1):
        ab._Round(benches, shapes, plan, number, "m", made).measure(sides)
    return sides


def test_a_round_measures_three_sides_in_both_regimes_with_one_seed() -> None:
    bench, made = Bench(), findings()
    sides = rounds(bench, Plan(seed=7), made, 2)
    assert sorted(name for name, *_ in bench.asked) == ["A"] * 8 + ["B"] * 4  # A2 is the baseline once more
    assert [shape.is_open for _, shape, _ in bench.asked] == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3
    assert [seed for *_, seed in bench.asked] == [8] * 6 + [9] * 6
    assert sorted((side.round, side.side) for side in sides) == [(n, s) for n in (1, 2) for s in ("A", "A2", "B")]
    assert all(side.fixed and side.saturation for side in sides)
    assert len({item.label for item in made.measurements}) == 12


def test_the_order_of_the_sides_is_random_and_follows_from_the_seed() -> None:
    def orders(seed: int) -> list[tuple[str, ...]]:
        sides = rounds(Bench(), Plan(seed=seed), findings(), 8)
        return [tuple(side.side for side in sides if side.round == number) for number in range(1, 9)]

    assert orders(1) == orders(1) != orders(2)
    assert len(set(orders(1))) > 2


def test_nothing_more_is_measured_after_a_measurement_that_was_cut_short() -> None:
    bench = Bench(replace(Facts(), complete=False))
    sides = rounds(bench, Plan(), findings(), 1)
    assert len(bench.asked) == 1
    assert sum(side.fixed is None and side.saturation is None for side in sides) == 2


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
    pairs, left_out = ab.pairings(setting, names, versions, None, lambda _: Slo())
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
