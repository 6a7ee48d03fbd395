"""A move, followed on every server of a fleet, one after the other; put back everywhere when one of them fails.

    follow(project, repository, move, Servers(("http://gpu1:8000", "http://gpu2:8000")), why="accuracy fell")

First every server is looked at, and nothing changes where one of them is not fit. Then the repository changes. A server
in explicit mode is told to load what changed, in the move's order: composing models before the pipeline that runs them.
Any server must then show the new state and give the golden answers, before the next one is asked. What is no longer
needed goes once all of them have followed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from modelwright.errors import FleetError, ModelwrightError, ServerError
from modelwright.fleet.expected import Expected, expected, failure, published_as_json, served, unlike
from modelwright.fleet.golden import replay_served
from modelwright.fleet.member import Control, Member, Shown, check_release, reach
from modelwright.fleet.memory import check_memory
from modelwright.fleet.same import check_same
from modelwright.fleet.waiting import await_state
from modelwright.fleet.watcher import Stage, Watcher
from modelwright.project.project import ProjectConfig
from modelwright.project.signing import Signing
from modelwright.repository import signing
from modelwright.repository.move import Move, carry_out, inverse, settle
from modelwright.repository.pins import folder_of
from modelwright.repository.repository import Change, Repository
from modelwright.repository.versions import with_ensembles
from modelwright.text import counted, seconds
from modelwright.triton.access import NO_ACCESS, Access, address_of

TIMEOUT_S = 120.0
_HEALTH = "its /v2/health/ready stays false until it is restarted, since it remembers that a version failed"


@dataclass(frozen=True)
class Terms:
    """`timeout_s`: what a server gets to load, or to notice, what changed."""

    timeout_s: float = TIMEOUT_S
    allow_other_release: bool = False
    ignore_memory: bool = False
    access: Access = NO_ACCESS


@dataclass(frozen=True)
class Servers:
    """Who follows a change, and how. Nobody hears of it by default."""

    urls: tuple[str, ...]
    terms: Terms = field(default_factory=Terms)
    watcher: Watcher = field(default_factory=Watcher)


@dataclass(frozen=True)
class Follower:
    """How one server followed. `replayed`: versions that gave their golden answers."""

    url: str
    control: Control
    seconds: float
    replayed: int


@dataclass
class Fleet:
    """The servers of one command, all of them reached."""

    members: Sequence[Member]
    repository: Repository
    terms: Terms
    watcher: Watcher
    signing: Signing

    def check(self, move: Move) -> None:
        """Whether every server can follow. Nothing changes. Raises ServerError for the first one that cannot."""
        self._check_signed(move)
        models = _models(move)
        now = [self._expected(model) for model in models if self.repository.versions(model)]
        for member in self.members:
            check_same(member, self.repository, models, _coming(move.changes))
            _check_loaded(member, self.repository, move.model)
            if member.control == "poll":  # it follows what changes, if it has followed what changed before
                await_state(member, now, self.terms.timeout_s, member.shown())
            if not self.terms.ignore_memory:
                check_memory(member, self.repository, [Expected(*item) for item in move.serves.items()])

    def _check_signed(self, move: Move) -> None:
        """Raises SigningError for a version that is to be served, and is not signed as the project asks for."""
        for model, versions in move.serves.items():
            before = self._expected(model).versions
            for version in versions:
                if version not in before:
                    signing.check(folder_of(self.repository, model, version), self.signing, f"{model}/{version}")

    def carry_out(self, move: Move, why: str = "") -> list[Follower]:
        """Change the repository, and have every server follow. Raises FleetError, and then all is put back but for what
        the message names; other errors before anything changed."""
        before = {member.url: member.shown() for member in self.members}
        carry_out(self.repository, move, why=why)
        done: list[Follower] = []
        begun: list[Member] = []
        try:
            for member in self.members:
                begun.append(member)
                done.append(self._take_over(member, _models(move), before[member.url]))
        except BaseException as error:
            self._tell(begun[-1], "failed", error.message if isinstance(error, ModelwrightError) else "interrupted")
            left = self._put_back(move, begun, before, f"{begun[-1].url} does not follow")
            if isinstance(error, ModelwrightError):
                raise FleetError("\n  ".join([error.message, *left]), error.hint) from None
            raise
        self._settle(move)
        return done

    def _take_over(self, member: Member, models: Sequence[str], before: Shown, *, replay: bool = True) -> Follower:
        """Have one server serve what the repository says of these models, and give the golden answers."""
        started = time.monotonic()
        wanted = [item for item in map(self._expected, models) if _concerns(member, item, before)]
        if member.control == "explicit":
            for item in wanted:
                self._tell(member, "loading", item.model)
                self._load(member, item)
        self._tell(member, "waiting", ", ".join(item.model for item in wanted))
        await_state(member, wanted, self.terms.timeout_s, before)
        replayed = 0
        if replay:
            self._tell(member, "replaying")
            names = with_ensembles(self.repository, [item.model for item in wanted])
            replayed = replay_served(member, self.repository, names)
        taken_s = time.monotonic() - started
        if replay:
            told = f"{counted(replayed, 'version')} replayed, {seconds(taken_s)}"
            self._tell(member, "serves it", told)
        return Follower(member.url, member.control, taken_s, replayed)

    def _tell(self, member: Member, stage: Stage, text: str = "") -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone stops nothing
            self.watcher.server(member.url, stage, text)

    def _load(self, member: Member, item: Expected) -> None:
        """Have an explicit server load a model as it is published."""
        if not item.versions:
            member.client.unload(item.model)
            return
        member.client.load(item.model)
        if unlike(item, member.shown().get(item.model, {})):
            # It was loaded with a config from the load API, such as a canary's, which it keeps until the file changes.
            member.client.load(item.model, published_as_json(self.repository, item.model))

    def _expected(self, model: str) -> Expected:
        return expected(self.repository, model)

    def _settle(self, move: Move) -> None:
        """Drop what no server needs any more. A server that does not follow this serves a version too many: no harm."""
        if not move.settling:
            return
        before = {member.url: member.shown() for member in self.members}
        settle(self.repository, move)
        for member in self.members:
            try:
                self._take_over(member, _models_of(move.settling), before[member.url], replay=False)
            except ModelwrightError as error:
                self.watcher.say(f"{error.message}: it still serves what no pipeline needs any more")

    def _put_back(self, move: Move, begun: Sequence[Member], before: dict[str, Shown], why: str) -> list[str]:
        """Change the repository back, and have the servers follow that, all at once. What came of it, a line each."""
        started = time.monotonic()
        back = inverse(move)
        try:
            carry_out(self.repository, back, why=why)
        except ModelwrightError as error:
            return [f"not put back: the repository, and with it no server: {error.message}"]
        with ThreadPoolExecutor(max(len(begun), 1)) as pool:
            problems = list(pool.map(lambda member: self._put_back_one(member, _models(back), before), begun))
        good = [member.url for member, problem in zip(begun, problems, strict=True) if not problem]
        lines = [f"put back in {seconds(time.monotonic() - started)}: {', '.join(['the repository', *good])}"]
        return (
            lines
            + [
                f"not put back: {member.url}: {problem}"
                for member, problem in zip(begun, problems, strict=True)
                if problem
            ]
            + [f"{url}: {_HEALTH}" for url in self._not_healthy(begun, good)]
        )

    def _put_back_one(self, member: Member, models: Sequence[str], before: dict[str, Shown]) -> str:
        """Why a server does not serve what it served before; '' when it does."""
        self._tell(member, "putting back")
        try:
            self._take_over(member, models, before[member.url], replay=False)
        except ModelwrightError as error:
            self._tell(member, "not put back", error.message)
            return error.message.removeprefix(f"{member.url}: ")
        self._tell(member, "put back")
        return ""

    @staticmethod
    def _not_healthy(begun: Sequence[Member], urls: Sequence[str]) -> list[str]:
        """The servers that remember a version which failed to load."""
        return [member.url for member in begun if member.url in urls and _remembers_failure(member.shown())]


@contextlib.contextmanager
def fleet(project: ProjectConfig, repository: Repository, servers: Servers) -> Iterator[Fleet]:
    """These servers, reached. Raises ServerError for one that cannot be reached or is of another release."""
    terms = servers.terms
    with contextlib.ExitStack() as stack:
        members = []
        for url in dict.fromkeys(address_of(url).url for url in servers.urls):
            member = stack.enter_context(reach(url, terms.timeout_s, terms.access))
            check_release(member, project.target, allow_other=terms.allow_other_release)
            servers.watcher.server(member.url, "reached", f"Triton {member.release}, {member.control}")
            members.append(member)
        yield Fleet(members, repository, terms, servers.watcher, project.signing)


def check(project: ProjectConfig, repository: Repository, move: Move, servers: Servers) -> None:
    """Whether these servers can follow a move. Nothing changes. Raises ServerError for the first one that cannot."""
    with fleet(project, repository, servers) as members:
        members.check(move)


def follow(
    project: ProjectConfig, repository: Repository, move: Move, servers: Servers, *, why: str = ""
) -> list[Follower]:
    """Carry a move out, and have these servers follow. Only for the holder of the build lock.

    Raises ServerError before anything has changed, FleetError after all was put back but for what it names.
    """
    with fleet(project, repository, servers) as members:
        members.check(move)
        return members.carry_out(move, why)


def _models(move: Move) -> list[str]:
    """What changes, in the move's order; where nothing does, the model that was named: a server may be behind."""
    return _models_of(move.changes) or [move.model]


def _models_of(changes: Sequence[Change]) -> list[str]:
    return list(dict.fromkeys(change.model for change in changes))


def _coming(changes: Sequence[Change]) -> set[tuple[str, int]]:
    return {(change.model, version) for change in changes for version in change.restore}


def _check_loaded(member: Member, repository: Repository, model: str) -> None:
    """An explicit server that was never told to load the model does not follow a change of it."""
    was_served = expected(repository, model).versions if model in repository.models() else ()
    if member.control == "explicit" and was_served and not _is_loaded(member.shown(), model):
        raise ServerError(
            f"{member.url}: does not serve {model}: it has it in its repository, and was not told to load it",
            f"leave this server out, or load it there first: POST /v2/repository/models/{model}/load",
        )


def _concerns(member: Member, item: Expected, before: Shown) -> bool:
    """An explicit server keeps what it serves in line with the repository. What else it serves is not decided here."""
    return member.control == "poll" or _is_loaded(before, item.model) or item.model not in before


def _remembers_failure(shown: Shown) -> bool:
    return any(failure(entry) for versions in shown.values() for entry in versions.values())


def _is_loaded(shown: Shown, model: str) -> bool:
    """Whether a server serves the model, or has tried to."""
    return any(served(entry) or failure(entry) for entry in shown.get(model, {}).values())
