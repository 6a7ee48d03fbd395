"""`rollout`: a version goes live on one server, is held there under load, and goes to the others if its figures hold.

Until the verdict nothing of what is served changes in the repository: the canary is told to load the version with a
config of its own, which the load API takes. So a server that restarts meanwhile starts with what was served before, and
putting back is one more load. Where one config can serve both versions, the canary serves both while it is judged, and
they are compared on the same machine at the same time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from modelwright.config.edit import with_field, with_versions
from modelwright.config.render import as_json, parse
from modelwright.errors import FleetError, ModelwrightError, RepositoryError, ServerError
from modelwright.fleet.bake import BakeLoad, SideName, baking, check_long_enough, counts, traffic
from modelwright.fleet.expected import expected, expected_by, published_as_json, served
from modelwright.fleet.follow import Fleet, Follower, Servers, Terms, fleet
from modelwright.fleet.golden import replay_served
from modelwright.fleet.member import Member
from modelwright.fleet.verdict import Judged, Limits, Recorded, judge
from modelwright.fleet.waiting import await_state
from modelwright.fleet.watcher import Watcher
from modelwright.fsops import read_text
from modelwright.project.project import ProjectConfig
from modelwright.repository import moves
from modelwright.repository.move import Move, carry_out, inverse
from modelwright.repository.repository import Change, Repository
from modelwright.text import seconds
from modelwright.triton.layout import CONFIG

Baseline = Literal["beside it", "on another server", "before it"]
_POLICY = "version_policy"


@dataclass(frozen=True)
class Canary:
    """What a rollout is asked for. `urls` are the other servers, in order."""

    model: str
    version: int
    url: str
    urls: tuple[str, ...] = ()
    load: BakeLoad = field(default_factory=BakeLoad)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class RolledOut:
    """`servers` is empty where the verdict was against the version: then the canary was put back in `put_back_s`."""

    model: str
    version: int
    served: int  # the version that was served, and is compared with
    canary: str
    baseline: Baseline
    judged: Judged
    servers: tuple[Follower, ...] = ()
    put_back_s: float | None = None
    unrecorded: str = ""  # why MLflow does not know of it


@dataclass(frozen=True)
class RolloutPlan:
    """What a rollout will do, a line each."""

    says: tuple[str, ...]


def plan_rollout(project: ProjectConfig, repository: Repository, asked: Canary, terms: Terms) -> RolloutPlan:
    """Look at the servers and at the repository; change nothing. Raises what `rollout` raises before it changes
    anything."""
    with _prepared(project, repository, asked, terms, Watcher()) as ready:
        return RolloutPlan(tuple(ready.says()))


def rollout(
    project: ProjectConfig,
    repository: Repository,
    asked: Canary,
    *,
    terms: Terms | None = None,
    watcher: Watcher | None = None,
    why: str = "",
) -> RolledOut:
    """Only for the holder of the build lock.

    Raises ServerError or RepositoryError before anything has changed, FleetError where a server did not follow; a
    verdict against the version is in the result.
    """
    with _prepared(project, repository, asked, terms or Terms(), watcher or Watcher()) as ready:
        return ready.run(why)


@contextlib.contextmanager
def _prepared(
    project: ProjectConfig, repository: Repository, asked: Canary, terms: Terms, watcher: Watcher
) -> Iterator[_Rollout]:
    move = _move(repository, asked)
    with fleet(project, repository, Servers((asked.url, *asked.urls), terms, watcher)) as servers:
        ready = _Rollout(repository, asked, move, servers)
        ready.check()
        yield ready


def _move(repository: Repository, asked: Canary) -> Move:
    """The move with which the version goes live. Raises RepositoryError for a version that cannot be tried."""
    move = moves.promote(repository, asked.model, asked.version)
    if asked.version in expected(repository, asked.model).versions:
        hint = f"modelwright versions {asked.model} lists those that are published and not served"
        raise RepositoryError(f"{asked.model}: version {asked.version} is served already", hint)
    for change in move.changes:
        if change.restore and change.model != asked.model:
            back = " and ".join(f"modelwright restore {change.model} {number}" for number in change.restore)
            raise RepositoryError(
                f"{change.model}: version {change.restore[0]}, which {asked.model} version {asked.version} runs, is "
                "retired, and a canary loads from the repository",
                f"bring it back first: {back}",
            )
    return move


@dataclass
class _Rollout:
    repository: Repository
    asked: Canary
    move: Move
    servers: Fleet
    brought_back: list[Move] = field(default_factory=list)  # what had to change before the canary could load

    @property
    def canary(self) -> Member:
        return self.servers.members[0]

    @property
    def served_now(self) -> int:
        """The version of the model that requests without a version get."""
        shown = self.canary.shown().get(self.asked.model, {})
        return max((version for version, entry in shown.items() if served(entry)), default=0)

    def check(self) -> None:
        if self.canary.control != "explicit":
            raise ServerError(
                f"{self.canary.url}: looks at its repository by itself, and so every server that looks at the same one "
                "would try the version",
                "run the canary with --model-control-mode=explicit; or give each server a copy of its own (modelwright "
                "push), and promote the version in one copy after the other",
            )
        check_long_enough(self.asked.load)
        self.servers.check(self.move)

    @property
    def baseline(self) -> Baseline:
        if self._side_by_side():
            return "beside it"
        return "on another server" if len(self.servers.members) > 1 else "before it"

    def says(self) -> list[str]:
        asked, load = self.asked, self.asked.load
        where = {
            "beside it": f"version {self.served_now}, which it serves beside it",
            "on another server": f"version {self.served_now} on {self.servers.members[-1].url}",
            "before it": f"version {self.served_now} there, measured before",
        }[self.baseline]
        lines = [
            f"{self.canary.url} loads {asked.model} version {asked.version}, and keeps it under load for "
            f"{seconds(load.bake_s)}",
            f"it is compared with {where}: errors at most {asked.limits.max_error_rate:g}, p99 at most "
            f"{asked.limits.max_p99_ratio:g} times",
            *(f"if it holds: {line}" for line in self.move.says),
        ]
        return [*lines, *(f"then {member.url}" for member in self.servers.members)]

    def run(self, why: str) -> RolledOut:
        asked, served_version, baseline = self.asked, self.served_now, self.baseline
        told = asked.model, asked.version, served_version, self.canary.url, baseline
        try:
            self._bring_back(why)
            judged = self._judged(served_version, baseline)
        except BaseException as error:
            _, lines = self._put_back()
            if isinstance(error, ModelwrightError):
                raise FleetError("\n  ".join([error.message, *lines]), error.hint) from None
            raise
        if not judged.passed:
            taken_s, lines = self._put_back()
            for line in lines:
                self.servers.watcher.say(line)
            return RolledOut(*told, judged, put_back_s=taken_s)
        return RolledOut(*told, judged, tuple(self.servers.carry_out(self.move, why)))

    def _bring_back(self, why: str) -> None:
        """A retired version comes back into the repository, where no server serves it before it is told to."""
        asked, repository = self.asked, self.repository
        if asked.version not in repository.retired(asked.model):
            return
        hold = moves.promote(repository, asked.model, max(expected(repository, asked.model).versions))
        carry_out(repository, hold, why=why)
        self.brought_back.append(hold)
        back = moves.restore(repository, asked.model, asked.version)
        carry_out(repository, back, why=why)
        self.brought_back.append(back)
        self.move = _move(repository, asked)

    # The canary

    def _judged(self, served_version: int, baseline: Baseline) -> Judged:
        asked, watcher, url = self.asked, self.servers.watcher, self.canary.url
        access = self.servers.terms.access
        versions = served_version, asked.version
        urls: dict[SideName, str] = {"served": url, "new": url}
        if baseline == "on another server":
            urls["served"] = self.servers.members[-1].url
        sides: dict[SideName, Recorded] | None = None
        rate = None
        which: tuple[SideName, ...] = ("served", "new")
        if baseline == "before it":
            only: dict[SideName, str] = {"served": url}
            with baking(self.repository, asked.model, versions, only, asked.load, url, watcher, access) as first:
                first.run(asked.limits, ("served",))
                sides, rate = first.sides, first.rate
            urls.pop("served")
            which = ("new",)
        self._load_canary()
        with baking(
            self.repository, asked.model, versions, urls, asked.load, url, watcher, access, sides, rate
        ) as bake:
            before = counts(self.canary, asked.model, asked.version)
            bake.run(asked.limits, which)
            after = counts(self.canary, asked.model, asked.version)
        new = bake.sides["new"]
        return judge(bake.sides["served"], new, traffic(before, after, new), asked.limits, self._notes(baseline))

    def _notes(self, baseline: Baseline) -> list[str]:
        if baseline == "beside it" and self.asked.version < self.served_now:
            return [f"requests without a version got version {self.served_now}, the higher number, meanwhile"]
        if baseline == "on another server":
            return [f"{self.servers.members[-1].url} may be another machine than {self.canary.url}"]
        return ["the served version was measured before the new one, not in turn"] if baseline == "before it" else []

    def _load_canary(self) -> None:
        """Have the canary load what the move would have every server load, with configs of its own."""
        wanted = []
        before = self.canary.shown()
        for model, text in self._configs().items():
            config = parse(text, f"{model}/{CONFIG}")
            self.servers.watcher.server(self.canary.url, "loading", model)
            self.canary.client.load(model, as_json(config))
            wanted.append(expected_by(config, model, self.repository.versions(model)))
        self.servers.watcher.server(self.canary.url, "waiting", ", ".join(item.model for item in wanted))
        await_state(self.canary, wanted, self.servers.terms.timeout_s, before)
        self.servers.watcher.server(self.canary.url, "replaying")
        replay_served(self.canary, self.repository, [self.asked.model])

    def _configs(self) -> dict[str, str]:
        """Of each model that the canary loads, in order."""
        found = {change.model: _config_of(change) for change in self.move.changes if CONFIG in change.top_files}
        if self._side_by_side():
            model = self.asked.model
            versions = {*expected(self.repository, model).versions, self.asked.version}
            found[model] = with_versions(found[model], sorted(versions))
        return found

    def _side_by_side(self) -> bool:
        """Whether one config serves both versions: it changes in nothing but the versions."""
        change = next((item for item in self.move.changes if item.model == self.asked.model), None)
        if change is None or CONFIG not in change.top_files:
            return False
        published = read_text(self.repository.root / self.asked.model / CONFIG)
        return with_field(published, _POLICY, None) == with_field(_config_of(change), _POLICY, None)

    def _put_back(self) -> tuple[float, list[str]]:
        """Have the canary serve what it served before: how long that took, and what came of it, a line each."""
        started = time.monotonic()
        url = self.canary.url
        self.servers.watcher.server(url, "putting back")
        problem = _problem(self._put_canary_back)
        taken_s = time.monotonic() - started
        if problem:
            self.servers.watcher.server(url, "not put back", problem)
            lines = [f"not put back: {url}: {problem}; when it starts again, it serves what was served before"]
        else:
            self.servers.watcher.server(url, "put back", seconds(taken_s))
            lines = [f"put back in {seconds(taken_s)}: {url}"]
        problem = _problem(self._put_repository_back)
        return taken_s, [*lines, *([f"not put back: the repository: {problem}"] if problem else [])]

    def _put_canary_back(self) -> None:
        before = self.canary.shown()
        wanted = [expected(self.repository, model) for model in reversed(self._configs())]
        for item in wanted:
            # A config from the load API stays until another one comes, or the file changes.
            self.canary.client.load(item.model, published_as_json(self.repository, item.model))
        await_state(self.canary, wanted, self.servers.terms.timeout_s, before)

    def _put_repository_back(self) -> None:
        for move in reversed(self.brought_back):
            carry_out(self.repository, inverse(move), why="its rollout ended")


def _problem(action: Callable[[], None]) -> str:
    """Why an action failed; '' where it did not."""
    try:
        action()
    except ModelwrightError as error:
        return error.message
    except OSError as error:
        return str(error)
    return ""


def _config_of(change: Change) -> str:
    data = change.top_files[CONFIG]
    assert data is not None
    return data.decode()
