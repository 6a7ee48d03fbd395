"""Addresses, headers and certificates, as the command line gives them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from modelwright.errors import ServerError
from modelwright.loadtest.payloads.workload import Workload
from modelwright.triton.access import Access, address_of, headers_of, without_secrets

SECRET = "Bearer c2VjcmV0"


def test_headers_have_a_name_and_a_value() -> None:
    assert headers_of([f"Authorization={SECRET}", "X-Key=a=b", "X-Key="]) == (
        ("Authorization", SECRET),
        ("X-Key", "a=b"),
        ("X-Key", ""),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(f"Authorization: {SECRET}", "--header: must be NAME=VALUE", id="as curl has it"),
        pytest.param(f"a b={SECRET}", "--header: must be NAME=VALUE", id="no name"),
        pytest.param(f"X={SECRET}\r\nY: 1", "--header X: its value has characters", id="a line break"),
        pytest.param(f"X={SECRET}ü", "--header X: its value has characters", id="not ASCII"),
        pytest.param(f"Content-Length={SECRET}", "--header Content-Length: is set by the client itself", id="reserved"),
    ],
)
def test_what_is_no_header_is_refused_without_its_value(given: str, message: str) -> None:
    with pytest.raises(ServerError, match=message) as caught:
        headers_of([given])
    assert SECRET not in str(caught.value)


def test_secrets_are_in_no_text_and_reach_other_processes() -> None:
    access = Access(headers=(("X", SECRET),))
    workload = Workload("https://h:1", "m", access=access)
    assert SECRET not in f"{access} {workload} {address_of('http://h:1', access)}"
    assert Workload.from_json(workload.as_json()) == Workload.of(asdict(workload)) == workload


def test_a_command_line_is_recorded_without_the_values_of_headers() -> None:
    given = ["load", "run", "--header", f"X={SECRET}", f"--header=Y={SECRET}", "--header", SECRET, "m"]
    assert without_secrets(given) == ["load", "run", "--header", "X=…", "--header=Y=…", "--header", "…=…", "m"]
    shortened = ["--heade", f"X={SECRET}", f"--heade=Y={SECRET}"]  # Locust's parser takes it
    assert without_secrets(shortened) == ["--heade", "X=…", "--heade=Y=…"]


@pytest.mark.parametrize(
    ("url", "access", "message"),
    [
        pytest.param("http://u:p@h:1", Access(), r"http://…@h: a login in the URL\n  hint: .*--header", id="a login"),
        pytest.param("http://h:1/x", Access(), "is not the URL of a server", id="a path"),
        pytest.param("http://h:99999", Access(), "is not the URL of a server", id="a port"),
        pytest.param("http://h:1", Access(ca_cert="f"), "encrypted connections\n  hint: .*https://h:1", id="no TLS"),
        pytest.param("https://h", Access(client_key="f"), "--client-key: needs --client-cert", id="a key alone"),
        pytest.param("https://h", Access(ca_cert="{file}"), r"--ca-cert .*\n.*PEM format", id="no certificate"),
        pytest.param("grpcs://h", Access(client_cert="{file}"), r"--client-cert .*\n.*PEM format", id="no client cert"),
        pytest.param("grpcs://h", Access(ca_cert="/nope"), "--ca-cert /nope: No such file", id="no file"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_sent(
    url: str, access: Access, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.pem"
    file.write_text("nothing")
    placed = {
        key: value.format(file=file) if isinstance(value, str) else value for key, value in asdict(access).items()
    }
    with pytest.raises(ServerError, match=message):
        address_of(url, Access.of(placed))
