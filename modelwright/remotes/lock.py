"""One push at a time: an object at the remote's root that only one push can create.

    {"id": "…", "who": "ops@host", "host": "host", "process": 4711, "renewed": "2026-11-26T07:00:00+00:00"}

Stores refuse to create an object that is there (S3, Google Cloud Storage, Azure, folders). Where one does not, the last
writer wins, and the other push sees that before it writes the next config: each checks that the lock is its own. A push
renews it every minute. One that was killed leaves it behind: the next push from the same machine sees that the process
has ended, and any other one that it was not renewed for `LEASE_S`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from modelwright.digest import parse_json
from modelwright.errors import LockedError, ModelwrightError, RemoteError
from modelwright.remotes.store import RemoteStore
from modelwright.repository.journal import who

LOCK = "modelwright-remote.lock"
LEASE_S = 600
_RENEW_S = 60
_LOOK_S = 2


@dataclass(frozen=True)
class PushLock:
    id: str
    who: str
    host: str
    process: int
    started: int  # of the process, in the kernel's ticks: its number may be another's by now
    renewed: datetime

    def text(self) -> bytes:
        return json.dumps({**vars(self), "renewed": self.renewed.isoformat()}).encode()


@contextlib.contextmanager
def push_lock(store: RemoteStore, *, wait: bool, say: Callable[[str], object]) -> Iterator[Callable[[], None]]:
    """Hold the lock of a remote. What is yielded raises RemoteError when another push has it meanwhile.

    Raises LockedError while another push holds it; with `wait` it is waited for.
    """
    own = PushLock(uuid.uuid4().hex, who(), _host(), os.getpid(), _started(os.getpid()), _now())
    told = False
    while not store.create(LOCK, own.text()):
        holder = _holder(store)
        if holder is not None and holder.id == own.id:
            break  # it was made, and the answer was lost
        if holder is None or _is_left(holder):
            store.delete(LOCK)
            continue
        if not wait:
            until = (holder.renewed + timedelta(seconds=LEASE_S)).strftime("%H:%M:%S UTC")
            hint = f"wait for it to end, or run with --wait; if it was killed, its lock ends at {until}"
            raise LockedError(f"{store.place.url}: {holder.who} pushes there (process {holder.process})", hint)
        if not told:
            say(f"waiting for {holder.who}, who pushes to {store.place.url}")
        told = True
        time.sleep(_LOOK_S)

    def check() -> None:
        held = _holder(store)
        if held is None or held.id != own.id:
            whose = f"{held.who} pushes there, too" if held else "the lock was removed"
            hint = "run the same command again once nobody else pushes: it goes on where it was"
            raise RemoteError(f"{store.place.url}: {whose}", hint)

    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, own, ended, check), daemon=True)
    renewing.start()
    try:
        check()
        yield check
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(ModelwrightError):  # it ends by itself; what went wrong before is what counts
            check()
            store.delete(LOCK)


def _renew(store: RemoteStore, own: PushLock, ended: threading.Event, check: Callable[[], None]) -> None:
    while not ended.wait(_RENEW_S):
        with contextlib.suppress(ModelwrightError):  # the next check tells
            check()
            store.put(LOCK, PushLock(**{**vars(own), "renewed": _now()}).text())


def _holder(store: RemoteStore) -> PushLock | None:
    """None where there is no lock, or none that can be read."""
    data = store.read(LOCK)
    try:
        values = parse_json(data or b"")
        return PushLock(**{**values, "renewed": datetime.fromisoformat(values["renewed"])})
    except (ValueError, TypeError, KeyError):
        return None


def _is_left(holder: PushLock) -> bool:
    if holder.host == _host():
        return _started(holder.process) != holder.started
    return _now() - holder.renewed > timedelta(seconds=LEASE_S)


def _host() -> str:
    """The machine, and the processes of it that this one sees: containers do not see each other's."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def _started(process: int) -> int:
    """When a process began; 0 for one that has ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if status[0] == "Z" else int(status[19])


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)
