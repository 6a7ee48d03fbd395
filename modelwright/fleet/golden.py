"""Golden replay on one server of a fleet, of what it serves by now."""

from __future__ import annotations

from collections.abc import Iterable

from modelwright.errors import ServerError, VerifyError
from modelwright.fleet.expected import READY
from modelwright.fleet.member import Member
from modelwright.repository.repository import Repository
from modelwright.repository.versions import readable, superseded
from modelwright.verification.golden_replay import ask_golden


def replay_served(member: Member, repository: Repository, models: Iterable[str]) -> int:
    """Ask for the golden samples of every version of these models that the server serves; how many versions there were.

    Left out are versions without golden samples, versions whose composing models have changed since, and those that the
    repository does not have. Raises VerifyError for an answer that differs by more than is allowed.
    """
    shown = member.shown()
    known = set(repository.models())
    versions, _ = readable(repository, [model for model in dict.fromkeys(models) if model in known])
    asked = 0
    for item in versions:
        entry = shown.get(item.model, {}).get(item.version)
        comparison = item.manifest.verification.golden
        is_served = entry is not None and entry.state == READY
        if not is_served or comparison is None or not item.golden.is_file():
            continue
        if superseded(repository, item.model, item.version):
            continue
        where = f"{member.url}: {item.model} version {item.version}"
        try:
            answer = ask_golden(member.client, item.model, item.version, item.golden, comparison, item.max_batch_size)
        except ServerError as error:
            raise VerifyError(f"{where}: does not answer its golden samples: {error.message}", error.hint) from None
        if answer.worst is not None:
            raise VerifyError(f"{where}: golden samples: {answer.difference}")
        asked += 1
    return asked
