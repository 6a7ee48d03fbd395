"""Canaries and fleets on real servers: one in explicit mode and one that polls, on one repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from modelwright.errors import LoadError, RepositoryError, ServerError
from modelwright.fleet.bake import BakeLoad
from modelwright.fleet.follow import Servers, follow
from modelwright.fleet.rollout import Canary, rollout
from modelwright.repository import moves
from modelwright.repository.move import carry_out
from modelwright.repository.repository import Repository
from modelwright.server.environment import ensure
from modelwright.server.local import RunningServer, running
from modelwright.triton.client import connect
from tests.conftest import Sandbox, doubling_onnx
from tests.fleet.fake import FakeTriton, serving
from tests.waiting import wait_until

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def built(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    """doubled 1, 2 and 3, of which 1 is promoted."""
    sandbox = sandbox_factory()
    folder = sandbox.onnx_builder()
    for factor in (2.0, 2.001, 2.002):
        doubling_onnx(folder / "model.onnx", factor)
        sandbox.build()
    repository = sandbox.repository
    carry_out(repository, moves.promote(repository, "doubled", 1))
    return sandbox


@pytest.fixture(scope="module")
def servers(built: Sandbox) -> Iterator[list[RunningServer]]:
    environment = ensure(built.project.server, built.project.target, lambda text: None)
    repository, logs = built.project.repository, built.project.logs
    with (
        running(environment, repository, log=logs / "first.log", models=["doubled"], stop_grace_s=0) as first,
        running(environment, repository, log=logs / "second.log", mode="poll", stop_grace_s=0) as second,
    ):
        yield [first, second]


def served(server: RunningServer) -> list[int]:
    with connect(server.http) as client:
        return [int(entry.version) for entry in client.index() if entry.state == "READY"]


def canary(server: RunningServer, version: int, load: BakeLoad | None = None) -> Canary:
    return Canary("doubled", version, f"http://{server.http}", load=load or BakeLoad())


def command(servers: list[RunningServer], version: int, *options: str) -> list[str]:
    first, second = servers
    where = ["--canary", f"http://{first.http}", "--url", f"grpc://{second.grpc}"]
    return ["rollout", "doubled", str(version), *where, "--bake", "3s", "--rate", "600", *options]


def test_a_version_that_does_not_keep_its_figures_is_put_back(built: Sandbox, servers: list[RunningServer]) -> None:
    """A retired one: it comes back into the repository for the time of its rollout."""
    repository = Repository.of(built.project)
    carry_out(repository, moves.retire(repository, "doubled", 3))
    before = built.published()
    result = built.cli(*command(servers, 3, "--max-p99-ratio", "0.000001", "--json"))
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert not found["passed"]
    assert [reason.partition(":")[0] for reason in found["judged"]["against"]] == ["p99"]
    assert (found["served"], found["baseline"], found["servers"]) == (1, "beside it", [])
    assert found["put_back_s"] > 0
    assert found["judged"]["failed"] == 0
    assert found["judged"]["requests"] > 662
    assert (built.published(), repository.retired("doubled")) == (before, [3])
    assert [served(server) for server in servers] == [[1], [1]]
    carry_out(repository, moves.restore(repository, "doubled", 3))


def test_a_version_that_keeps_them_goes_to_every_server(built: Sandbox, servers: list[RunningServer]) -> None:
    urls = [f"http://{servers[0].http}", f"grpc://{servers[1].grpc}"]
    result = built.cli(*command(servers, 2, "--max-p99-ratio", "1000000", "--watch"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"doubled version 2 on {urls[0]}: 0 of ")
    assert lines[1] == "  compared with version 1, beside it"
    assert [line.partition(",")[0] for line in lines[2:]] == [f"{url} serves version 2" for url in urls]
    for url, stages in (
        (urls[0], ["reached", "loading", "waiting", "replaying", "under load", "loading", "waiting", "replaying"]),
        (urls[1], ["reached", "waiting", "replaying"]),
    ):
        told = [line.split("  ")[-1].partition(":")[0] for line in result.stderr.splitlines() if f"  {url}  " in line]
        assert list(dict.fromkeys(told)) == [*dict.fromkeys(stages), "serves it"]
    wait_until(lambda: [served(server) for server in servers] == [[2], [2]], "both serve version 2")

    # And back, on both.
    repository = Repository.of(built.project)
    move = moves.promote(repository, "doubled", 1)
    both = [f"http://{server.http}" for server in servers]
    assert [item.replayed for item in follow(built.project, repository, move, Servers(tuple(both)))] == [1, 1]
    assert [served(server) for server in servers] == [[1], [1]]


def test_a_plan_changes_nothing(built: Sandbox, servers: list[RunningServer]) -> None:
    before = built.published()
    result = built.cli("rollout", "doubled", "3", "--canary", f"http://{servers[0].http}", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == [
        f"http://{servers[0].http} loads doubled version 3, and keeps it under load for 60.0 s",
        "it is compared with version 1, which it serves beside it: errors at most 0, p99 at most 1.2 times",
    ]
    assert (built.published(), served(servers[0])) == (before, [1])


def test_a_load_that_is_too_short_is_refused(built: Sandbox, servers: list[RunningServer]) -> None:
    with pytest.raises(LoadError, match=r"a bake of 2.00 s at 10.0 req/s is too short for a p99") as error:
        rollout(built.project, Repository.of(built.project), canary(servers[0], 3, BakeLoad(2.0, 10.0)))
    assert error.value.hint == "bake longer (--bake 159s), or send more (--rate)"
    assert served(servers[0]) == [1]


def test_a_version_that_is_served_already(built: Sandbox, servers: list[RunningServer]) -> None:
    with pytest.raises(RepositoryError, match="doubled: version 1 is served already"):
        rollout(built.project, Repository.of(built.project), canary(servers[0], 1))


def test_a_server_that_polls_cannot_be_the_canary(built: Sandbox) -> None:
    with (
        serving(FakeTriton(built.project.repository, polls=True)) as server,
        pytest.raises(ServerError, match="looks at its repository by itself") as error,
    ):
        rollout(built.project, Repository.of(built.project), Canary("doubled", 2, server.url))
    assert "--model-control-mode=explicit" in error.value.hint


def test_the_options_of_a_rollout_are_checked(built: Sandbox) -> None:
    for option, value in (("--bake", "fast"), ("--bake", "0.5"), ("--max-error-rate", "2"), ("--rate", "0")):
        result = built.cli("rollout", "doubled", "2", "--canary", "http://127.0.0.1:1", option, value)
        assert result.exit_code == 2, result.output
        assert option in result.output
