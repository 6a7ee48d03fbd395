"""A change, followed on servers that have faults: what is refused before it, and what is put back after it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelwright.errors import FleetError, ModelwrightError, ServerError, SigningError
from modelwright.fleet.expected import published_as_json
from modelwright.fleet.follow import Follower, Servers, Terms, follow
from modelwright.fleet.watcher import Stage, Watcher
from modelwright.project.signing import Signing
from modelwright.repository import moves
from modelwright.repository.repository import Repository
from tests.conftest import Sandbox
from tests.fleet.fake import EXTENSIONS, FakeTriton, serving
from tests.ports import free_port

Start = Callable[..., FakeTriton]
QUICK = Terms(timeout_s=0.5)


class Heard(Watcher):
    def __init__(self) -> None:
        self.stages: list[tuple[str, Stage]] = []
        self.said: list[str] = []

    def server(self, url: str, stage: Stage, text: str = "") -> None:
        self.stages.append((url, stage))

    def say(self, text: str) -> None:
        self.said.append(text)


def promote(sandbox: Sandbox, *servers: FakeTriton, version: int = 3, terms: Terms = QUICK) -> list[Follower]:
    repository = Repository.of(sandbox.project)
    move = moves.promote(repository, "doubled", version)
    return follow(sandbox.project, repository, move, Servers(tuple(server.url for server in servers), terms))


def refused(sandbox: Sandbox, *servers: FakeTriton, terms: Terms = QUICK) -> ModelwrightError:
    """The error of a change that must not come about."""
    before = sandbox.published(), [server.index() for server in servers]
    with pytest.raises(ServerError) as error:
        promote(sandbox, *servers, terms=terms)
    assert (sandbox.published(), [server.index() for server in servers]) == before
    return error.value


def served(server: FakeTriton) -> list[int]:
    return [int(row["version"]) for row in server.index() if row.get("state") == "READY"]


# --- it follows -------------------------------------------------------------------------------------------------------


def test_each_server_loads_and_answers_before_the_next_one_is_told(sandbox: Sandbox, start: Start) -> None:
    first, second = start(), start()
    heard = Heard()
    repository = Repository.of(sandbox.project)
    move = moves.promote(repository, "doubled", 3)
    found = follow(sandbox.project, repository, move, Servers((first.url, second.url), QUICK, heard))
    assert [(item.url, item.control, item.replayed) for item in found] == [
        (first.url, "explicit", 1),
        (second.url, "explicit", 1),
    ]
    assert served(first) == served(second) == [3]
    stages: list[Stage] = ["loading", "waiting", "replaying", "serves it"]
    assert heard.stages[2:] == [(url, stage) for url in (first.url, second.url) for stage in stages]


def test_a_server_that_looks_by_itself_is_waited_for(sandbox: Sandbox, start: Start) -> None:
    server = start(polls=True)
    assert [item.control for item in promote(sandbox, server)] == ["poll"]
    assert served(server) == [3]
    assert server.loads == []


def test_a_url_that_is_given_twice_is_one_server(sandbox: Sandbox, start: Start) -> None:
    server = start()
    assert len(promote(sandbox, server, server)) == 1


def test_a_retired_version_goes_from_the_servers(sandbox: Sandbox, start: Start) -> None:
    server = start()
    repository = Repository.of(sandbox.project)
    follow(sandbox.project, repository, moves.rollback(repository, "doubled", 1), Servers((server.url,), QUICK))
    assert served(server) == [1]


def test_a_server_that_is_behind_is_brought_up_though_the_repository_stays(sandbox: Sandbox, start: Start) -> None:
    """Such as a canary whose rollout was killed: it keeps the config from the load API until it gets another one."""
    server = start()
    both = published_as_json(sandbox.repository, "doubled").replace('"2"', '"2", "3"')
    assert server.load("doubled", both) == ""
    assert served(server) == [2, 3]
    promote(sandbox, server, version=2)
    assert served(server) == [2]


def test_commands_have_servers_follow(sandbox: Sandbox, start: Start) -> None:
    server = start()
    result = sandbox.cli("promote", "doubled", "3", "--url", server.url, "--watch")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "doubled serves version 3, before: version 2"
    assert lines[1].startswith(f"{server.url} follows, after ")
    assert f"  {server.url}  serves it: 1 version replayed, " in result.stderr
    assert served(server) == [3]
    assert sandbox.cli("rollback", "doubled", "--url", server.url, "--json").exit_code == 0
    assert served(server) == [2]


def test_a_dry_run_asks_the_servers(sandbox: Sandbox, start: Start) -> None:
    server = start(release="2.59.0")
    output = sandbox.error("promote", "doubled", "3", "--url", server.url, "--dry-run")
    assert "is Triton 25.06 (2.59.0), and the repository is for 26.07 (2.71.0)" in output
    result = sandbox.cli("promote", "doubled", "3", "--url", server.url, "--dry-run", "--allow-other-release")
    assert result.stdout.splitlines()[-1] == "Nothing was changed: this was a dry run."
    assert (result.exit_code, server.loads) == (0, [])


# --- refused before anything changes ----------------------------------------------------------------------------------


def test_a_server_that_cannot_be_reached(sandbox: Sandbox, start: Start) -> None:
    good, nobody = start(), FakeTriton(sandbox.project.repository, port=free_port())
    before = sandbox.published()
    with pytest.raises(ServerError, match=f"{nobody.url}: cannot be reached"):
        promote(sandbox, good, nobody)
    assert (sandbox.published(), good.loads) == (before, [])


def test_a_server_of_another_release(sandbox: Sandbox, start: Start) -> None:
    error = refused(sandbox, start(release="2.59.0"))
    assert error.message.endswith(": is Triton 25.06 (2.59.0), and the repository is for 26.07 (2.71.0)")
    assert "--allow-other-release" in error.hint


def test_another_release_can_be_allowed(sandbox: Sandbox, start: Start) -> None:
    promote(sandbox, start(release="2.59.0"), terms=Terms(timeout_s=0.5, allow_other_release=True))


def test_a_server_that_modelwright_started_stands_for_any_release(sandbox: Sandbox, start: Start) -> None:
    promote(sandbox, start(release="2.51.0", name="modelwright-1-ab"))


def test_a_server_with_other_models(sandbox: Sandbox, tmp_path: Path) -> None:
    shutil.copytree(sandbox.project.repository / "doubled", tmp_path / "other" / "tripled")
    with serving(FakeTriton(tmp_path / "other")) as other:
        error = refused(sandbox, other)
    assert error.message == f"{other.url}: has no doubled in its repository, but tripled"


def test_a_server_with_a_version_that_is_not_here(sandbox: Sandbox, tmp_path: Path) -> None:
    shutil.copytree(sandbox.project.repository, tmp_path / "other")
    (tmp_path / "other/doubled/1").rename(tmp_path / "other/doubled/9")
    config = tmp_path / "other/doubled/config.pbtxt"
    config.write_text(config.read_text().replace("versions: [ 2 ]", "versions: [ 9 ]"))
    with serving(FakeTriton(tmp_path / "other"), "doubled") as other:
        error = refused(sandbox, other)
    assert error.message == f"{other.url}: serves doubled version 9, and model_repository has 1, 2, 3"


def test_a_server_with_another_model_under_the_same_name_and_number(sandbox: Sandbox, start: Start) -> None:
    error = refused(sandbox, start(answers_times=3.0))
    assert "doubled version 2: golden samples: 'y' differs by " in error.message
    assert error.message.endswith("what it serves is not what this repository has")


def test_a_server_that_was_not_told_to_load_the_model(sandbox: Sandbox) -> None:
    with serving(FakeTriton(sandbox.project.repository)) as server:
        error = refused(sandbox, server)
    assert "does not serve doubled" in error.message


def test_a_server_that_keeps_its_repository_api_to_others(sandbox: Sandbox, start: Start) -> None:
    error = refused(sandbox, start(restricted="This API is restricted, expecting header 'key'"))
    assert "does not say whether models can be loaded: This API is restricted" in error.message
    no_api = start(extensions=[name for name in EXTENSIONS if name != "model_repository"])
    assert "has no repository API" in refused(sandbox, no_api).message


def test_a_version_that_is_not_signed_where_the_project_asks_for_it(sandbox: Sandbox, start: Start) -> None:
    project = replace(sandbox.project, signing=Signing(required=True))
    server, repository = start(), Repository.of(project)
    move = moves.promote(repository, "doubled", 3)
    with pytest.raises(SigningError, match="doubled/3: is not signed"):
        follow(project, repository, move, Servers((server.url,), QUICK))
    assert served(server) == [2]


METRICS = """nv_inference_request_success{{model="doubled",version="2"}} 0
nv_cpu_memory_total_bytes {total}
nv_cpu_memory_used_bytes {used}
"""


@pytest.mark.parametrize(
    ("total", "used", "fits"),
    [(1_000_000, 999_900, False), (1_000_000, 0, True), (0, 0, True)],
    ids=["too little", "enough", "not told"],
)
def test_memory_is_looked_at_before(
    sandbox: Sandbox, start: Start, monkeypatch: pytest.MonkeyPatch, total: int, used: int, fits: bool
) -> None:
    server = start(metrics=METRICS.format(total=total, used=used))
    monkeypatch.setattr("modelwright.fleet.memory._METRICS_PORT", server.port)
    if fits:
        promote(sandbox, server)
        return
    error = refused(sandbox, server)
    assert "doubled version 3 takes " in error.message
    assert error.message.endswith(", beside what is served; CPU has 100 B of 1.0 MB left")
    promote(sandbox, server, terms=Terms(timeout_s=0.5, ignore_memory=True))


# --- put back ---------------------------------------------------------------------------------------------------------


def failed(sandbox: Sandbox, *servers: FakeTriton) -> str:
    """What is said of a change that a server did not follow. The repository is as it was."""
    before = sandbox.published()
    with pytest.raises(FleetError) as error:
        promote(sandbox, *servers)
    assert sandbox.published() == before
    return error.value.message


def test_a_server_that_does_not_load_stops_it_and_all_are_put_back(sandbox: Sandbox, start: Start) -> None:
    first, second, third = start(), start(refuses={3: "out of memory"}), start()
    message = failed(sandbox, first, second, third)
    assert message.startswith(f"{second.url}: doubled: load failed for model 'doubled': version 3 is at UNAVAILABLE")
    assert "put back in " in message
    assert f": the repository, {first.url}, {second.url}" in message
    assert f"\n  {second.url}: its /v2/health/ready stays false until it is restarted" in message
    assert f"\n  {first.url}: its" not in message
    assert served(first) == served(second) == served(third) == [2]
    assert third.loads == []


def test_a_server_that_answers_something_else_is_put_back(sandbox: Sandbox, start: Start) -> None:
    first, second = start(), start()
    graph = sandbox.project.repository / "doubled/3/model.onnx"

    class Breaks(Watcher):
        def server(self, url: str, stage: Stage, text: str = "") -> None:
            if (url, stage) == (second.url, "loading"):
                second.answers_times = 1.5

    repository = Repository.of(sandbox.project)
    move = moves.promote(repository, "doubled", 3)
    with pytest.raises(FleetError, match="version 3: golden samples: 'y' differs by") as error:
        follow(sandbox.project, repository, move, Servers((first.url, second.url), QUICK, Breaks()))
    assert served(first) == served(second) == [2]
    assert "not put back" not in error.value.message
    assert graph.is_file()


def test_a_server_that_dies_is_named_as_not_put_back(sandbox: Sandbox, start: Start) -> None:
    first, second = start(), start(dies_at_load=True)
    message = failed(sandbox, first, second)
    assert f"not put back: {second.url}: " in message
    assert "/v2/health/ready" not in message
    assert served(first) == [2]


def test_a_server_that_does_not_notice_is_explained(sandbox: Sandbox, start: Start) -> None:
    first, stuck = start(), start(polls=True, frozen=True)
    before = sandbox.published()
    with pytest.raises(FleetError) as error:
        promote(sandbox, first, stuck)
    assert f"{stuck.url}: after 0.5 s doubled: version 3 is not there, and it shows what it showed" in str(error.value)
    assert "--repository-poll-secs" in error.value.hint
    assert sandbox.published() == before
    assert served(first) == [2]


def test_a_polling_server_with_a_version_that_does_not_load(sandbox: Sandbox, start: Start) -> None:
    message = failed(sandbox, start(polls=True, refuses={3: "CUDA out of memory"}))
    assert "doubled version 3 does not load: CUDA out of memory" in message


def test_the_journal_says_what_was_put_back_and_why(sandbox: Sandbox, start: Start) -> None:
    server = start(refuses={3: "no"})
    failed(sandbox, server)
    lines = (sandbox.root / "model_history/journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines][-2:]
    assert [(event["what"], event.get("why", "")) for event in events] == [
        ("promote", ""),
        ("undo promote", f"{server.url} does not follow"),
    ]
