"""Whether a server serves this repository, or something else under the same names."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from modelwright.errors import ServerError, VerifyError
from modelwright.fleet.expected import served
from modelwright.fleet.golden import replay_served
from modelwright.fleet.member import Member
from modelwright.repository.repository import Repository

_HINT = "give the URL of a server of this repository, or of a copy of it (modelwright push)"
_MOST_SHOWN = 5


def check_same(
    member: Member, repository: Repository, models: Iterable[str], gone: Collection[tuple[str, int]]
) -> None:
    """Look before anything changes. `gone` are versions that left the repository: a server may still serve them.

    Raises ServerError where the server does not know one of these models, serves a version that the repository does not
    have, or gives other answers than the golden ones.
    """
    shown = member.shown()
    names = [model for model in models if repository.versions(model)]
    for model in names:
        if model not in shown:
            listed = ", ".join(sorted(shown)[:_MOST_SHOWN]) or "no model"
            raise ServerError(f"{member.url}: has no {model} in its repository, but {listed}", _HINT)
        there = repository.versions(model)
        for version, entry in sorted(shown[model].items()):
            if served(entry) and version not in there and (model, version) not in gone:
                has = ", ".join(map(str, there))
                raise ServerError(
                    f"{member.url}: serves {model} version {version}, and {repository.root.name} has {has}", _HINT
                )
    try:
        replay_served(member, repository, names)
    except VerifyError as error:
        raise ServerError(f"{error.message}: what it serves is not what this repository has", _HINT) from None
