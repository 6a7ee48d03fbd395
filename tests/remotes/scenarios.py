"""What can happen to a repository between two pushes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from modelwright.config.edit import with_own_policy
from modelwright.remotes.push import carry_out, take
from modelwright.remotes.store import RemoteStore
from modelwright.repository.move import carry_out as move
from modelwright.repository.moves import rollback
from tests.remotes.repositories import MadeRepository

Act = Callable[[MadeRepository], object]


def first(made: MadeRepository) -> None:
    """Two versions of a model, and a pipeline that runs the newer one."""
    made.version("digits", 1, tops={"labels.txt": b"0\n"})
    made.version("digits", 2)
    made.version("gone", 1, environments=["cpu"])
    made.pipeline("both", 1, {"digits": 2})


def new_version(made: MadeRepository) -> None:
    made.version("digits", 3, versions=[2, 3])


def moved_pipeline(made: MadeRepository) -> None:
    """The pipeline runs the third version, and the second one is not served any more."""
    made.version("digits", 3, versions=[2, 3])
    made.pipeline("both", 2, {"digits": 3})
    made.edit("digits", with_own_policy)


def both(made: MadeRepository) -> None:
    first(made)
    moved_pipeline(made)


def roll_back(made: MadeRepository) -> None:
    move(made.repository, rollback(made.repository, "both"))


def rolled_back(made: MadeRepository) -> None:
    moved_pipeline(made)
    roll_back(made)


def without_a_model(made: MadeRepository) -> None:
    shutil.rmtree(made.repository.root / "gone")


def with_environments(made: MadeRepository) -> None:
    first(made)
    made.version("many", 1, environments=["cpu", "gpu"])


def other_top_files(made: MadeRepository) -> None:
    """Also a new version of a model with configs of environments, one of which goes."""
    made.version("digits", 3, versions=[2, 3], tops={"labels.txt": b"zero\n", "warmup/x": b"x"})
    made.version("many", 2, environments=["cpu"], tops={"configs/gpu.pbtxt": None})


@dataclass(frozen=True)
class Scenario:
    act: Act
    after: Act | None = None  # pushed before `act`, beside the first push
    delete: bool = False


SCENARIOS = {
    "a first push": Scenario(first),
    "a new version": Scenario(new_version, first),
    "a pipeline moves": Scenario(moved_pipeline, first),
    "other top files": Scenario(other_top_files, with_environments, delete=True),
    "a model leaves": Scenario(without_a_model, first, delete=True),
    "a version leaves": Scenario(rolled_back, first, delete=True),
    "a version is rolled back": Scenario(roll_back, both, delete=True),
    "a version is rolled back and stays there": Scenario(roll_back, both),
}


def prepare(scenario: Scenario, made: MadeRepository, store: RemoteStore) -> None:
    """Up to the push that the scenario is about."""
    if scenario.after is not None:
        scenario.after(made)
        push(store, made)
    scenario.act(made)


def push(store: RemoteStore, made: MadeRepository, *, delete: bool = False) -> list[str]:
    """The stages of the push."""
    plan = carry_out(store, take(made.repository), delete=delete, settle_s=0)
    return [stage.title for stage in plan.stages]
