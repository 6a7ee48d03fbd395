"""Where a server under test runs."""

from __future__ import annotations

import socket

import pytest

from modelwright.loadtest.measure.servers import is_on_this_machine


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000", "grpc://127.5.6.7:8001", "localhost:8000", "http://0.0.0.0:8000", "grpc://[::1]:8001"],
)
def test_loopback_is_this_machine(url: str) -> None:
    if "::1" in url and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    assert is_on_this_machine(url)


def test_so_is_an_address_of_its_own() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: it chooses the address that would send
        except OSError:
            pytest.skip("no network here")
        assert is_on_this_machine(f"http://{probe.getsockname()[0]}:8000")


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000", "http://no-such-host.invalid:8000"])
def test_others_are_not(url: str) -> None:
    assert not is_on_this_machine(url)
