"""Which process of this machine answers at an address: to know the CPU time of a server that was not started here."""

from __future__ import annotations

from modelwright.project.uris import is_loopback
from modelwright.triton.access import Address

_NAME = "triton"  # in the name of the process: a forwarder (docker-proxy, ssh, kubectl) is not the server


def triton_process(address: Address) -> tuple[int | None, str]:
    """The process id of the Triton server at the address, or None and why it is not known."""
    import psutil

    where = f"{address.host}:{address.port}"
    if not is_loopback(address.url):
        return None, f"the server at {where} is on another machine"
    try:
        listening = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == address.port
        ]
        names = {pid: psutil.Process(pid).name() for pid in listening if pid}
    except psutil.Error:
        listening, names = [], {}
    if len(names) != 1:
        return None, f"the process that listens on {where} cannot be seen: it is another user's, or in a container"
    ((pid, name),) = names.items()
    if _NAME not in name:
        return None, f"the process that listens on {where} is {name}, which passes requests on"
    return pid, ""
