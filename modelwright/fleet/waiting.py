"""Wait until a server serves what the repository says, and explain when it does not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from modelwright.errors import ServerError, ServerTimeoutError
from modelwright.fleet.expected import Expected, failure, other_config, unlike
from modelwright.fleet.member import Member, Shown, ShownVersion

_FIRST_LOOK_S, _LAST_LOOK_S = 0.02, 0.5
_SLOWER = 1.5


def await_state(member: Member, wanted: Sequence[Expected], timeout_s: float, before: Shown) -> None:
    """Return when the server serves these models so, and says of each version that it is ready.

    `before` is what it showed before the change: a reason that it gave then is not about this change. Raises
    ServerError with the server's reason where a version fails to load, ServerTimeoutError after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    look_s = _FIRST_LOOK_S
    seen_loading: set[tuple[str, int]] = set()
    while True:
        shown = member.shown()
        difference = _difference(member, wanted, shown)
        if not difference:
            return
        _check_no_failure(member, wanted, shown, before, seen_loading)
        if time.monotonic() >= deadline:
            raise _timeout(member, difference, timeout_s, unchanged=shown == before)
        time.sleep(min(look_s, max(deadline - time.monotonic(), 0)))
        look_s = min(look_s * _SLOWER, _LAST_LOOK_S)


def _difference(member: Member, wanted: Sequence[Expected], shown: Shown) -> str:
    for item in wanted:
        difference = unlike(item, shown.get(item.model, {})) or other_config(item, member) or _not_ready(member, item)
        if difference:
            return f"{item.model}: {difference}"
    return ""


def _not_ready(member: Member, item: Expected) -> str:
    """By /v2/models/NAME/versions/N/ready: the index says READY a moment before requests are taken."""
    waiting = [version for version in item.versions if not member.client.model_ready(item.model, str(version))]
    return f"version {waiting[0]} is not ready" if waiting else ""


def _check_no_failure(
    member: Member, wanted: Sequence[Expected], shown: Shown, before: Shown, seen_loading: set[tuple[str, int]]
) -> None:
    for item in wanted:
        entries = shown.get(item.model, {})
        for version in item.versions:
            entry = entries.get(version)
            if entry and entry.state == "LOADING":
                seen_loading.add((item.model, version))
            reason = failure(entry) if entry else ""
            known = _reason_of(before, item.model, version)
            if reason and (reason != known or (item.model, version) in seen_loading):
                raise ServerError(f"{member.url}: {item.model} version {version} does not load: {reason}")


def _reason_of(shown: Shown, model: str, version: int) -> str:
    nothing: Mapping[int, ShownVersion] = {}
    entry = shown.get(model, nothing).get(version)
    return entry.reason if entry else ""


def _timeout(member: Member, difference: str, timeout_s: float, *, unchanged: bool) -> ServerTimeoutError:
    text = f"{member.url}: after {timeout_s:g} s {difference}"
    if member.control == "explicit":
        return ServerTimeoutError(text, "give it longer (--timeout SECONDS), or read the server's log")
    if not unchanged:
        hint = "it has begun to follow: give it longer (--timeout SECONDS), or read the server's log"
        return ServerTimeoutError(text, hint)
    return ServerTimeoutError(
        f"{text}, and it shows what it showed before",
        "it looks every 15 s unless --repository-poll-secs says otherwise: give it longer (--timeout SECONDS); it may "
        "read another copy of the repository (modelwright push); with --model-control-mode=none it must be restarted; "
        "a config that it cannot read stands in its log alone",
    )
