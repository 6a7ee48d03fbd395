"""Ports of this machine that nothing listens on."""

from __future__ import annotations

import random
import socket

# Below the ports that the system gives to connections: one of those could take a port before the test's server does.
_FIRST, _LAST = 12_000, 31_999


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago. They are drawn, so that tests side by side get different ones."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(_FIRST, _LAST), 2_000):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"there are no {count} free ports")


def free_port() -> int:
    return free_ports(1)[0]
