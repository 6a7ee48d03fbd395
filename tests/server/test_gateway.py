"""Servers behind TLS that want a certificate and a header: the real server, with its own TLS over gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import ServerError
from modelwright.fleet.member import reach
from modelwright.loadtest.generator.context import UserContext
from modelwright.loadtest.payloads.workload import Workload
from modelwright.server.local import running
from modelwright.triton.access import Access
from modelwright.triton.client import connect
from tests.conftest import Sandbox, new_sandbox
from tests.server.gateway import Certificates, certificates, gateway
from tests.server.models import shared_environment

pytestmark = pytest.mark.server

SECRET = "sesame-4711"
LOCUSTFILE = Path(__file__).parents[2] / "loadtest/locustfile.py"
PROTOCOLS = ("https", "grpcs")
_APIS = "inference,model-config,model-repository,statistics"


@dataclass(frozen=True)
class Guarded:
    sandbox: Sandbox
    certificates: Certificates
    https: str
    grpcs: str

    @property
    def access(self) -> Access:
        made = self.certificates
        # Triton's gRPC endpoint wants the name of the header with a prefix.
        headers = (("X-Api-Key", SECRET), ("triton-grpc-protocol-x-api-key", SECRET))
        return Access(headers, str(made.authority), str(made.client), str(made.client_key))

    def options(self) -> list[str]:
        access = self.access
        headers = [f"--header={name}={value}" for name, value in access.headers]
        files = {"ca-cert": access.ca_cert, "client-cert": access.client_cert, "client-key": access.client_key}
        return headers + [f"--{name}={file}" for name, file in files.items()]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    made = certificates(folder)
    sandbox = new_sandbox(folder / "project")
    sandbox.onnx_builder()
    sandbox.build()
    arguments = [
        f"--http-restricted-api={_APIS}:x-api-key={SECRET}",
        f"--grpc-restricted-protocol={_APIS}:x-api-key={SECRET}",
        *("--grpc-use-ssl=1", "--grpc-use-ssl-mutual=1", f"--grpc-root-cert={made.authority}"),
        *(f"--grpc-server-cert={made.server}", f"--grpc-server-key={made.server_key}"),
    ]
    log, repository = folder / "server.log", sandbox.project.repository
    with running(
        shared_environment(), repository, log=log, models=["*"], extra_arguments=arguments, stop_grace_s=0
    ) as server:
        host, _, port = server.http.rpartition(":")
        with gateway(made, (host, int(port))) as address:
            yield Guarded(sandbox, made, f"https://{address}", f"grpcs://{server.grpc}")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_client_is_let_through(guarded: Guarded, protocol: str) -> None:
    with connect(getattr(guarded, protocol), 30, guarded.access) as client:
        answer = client.infer("doubled", {"x": np.ones((1, 2), np.float32)})
        assert answer["y"].tolist() == [[2.0, 2.0]]
        assert client.config("doubled")["name"] == "doubled"
    with reach(getattr(guarded, protocol), 30, guarded.access) as member:
        assert member.control == "explicit"


@pytest.mark.parametrize(
    ("protocol", "without", "message"),
    [
        pytest.param("https", "headers", "This API is restricted, expecting header 'x-api-key'", id="https, no header"),
        pytest.param("grpcs", "headers", "This protocol is restricted", id="grpcs, no header"),
        pytest.param("https", "ca_cert", "certificate is not trusted: .*\n  hint: --ca-cert FILE", id="https, no CA"),
        pytest.param("grpcs", "ca_cert", "cannot be reached", id="grpcs, no CA"),
        pytest.param(
            "https", "client_cert", "cannot be reached.*\n  hint: .*--client-cert", id="https, no certificate"
        ),
        pytest.param("grpcs", "client_cert", "cannot be reached", id="grpcs, no certificate"),
    ],
)
def test_without_one_of_them_it_is_not(guarded: Guarded, protocol: str, without: str, message: str) -> None:
    left_out: dict[str, Any] = {"headers": ()} if without == "headers" else {without: ""}
    if without == "client_cert":
        left_out["client_key"] = ""
    with (
        connect(getattr(guarded, protocol), 5, replace(guarded.access, **left_out)) as client,
        pytest.raises(ServerError, match=message) as caught,
    ):
        client.config("doubled")
    assert SECRET not in str(caught.value)


def test_verify_and_infer(guarded: Guarded) -> None:
    options = guarded.options()
    verified = guarded.sandbox.cli("verify", "--url", guarded.https, "--url", guarded.grpcs, "--exact", *options)
    assert verified.exit_code == 0, verified.output
    assert verified.output.count(" ok ") == 2
    asked = guarded.sandbox.cli("infer", "doubled", "--url", guarded.https, *options)
    assert asked.exit_code == 0, asked.output
    assert SECRET not in verified.output + asked.output


def test_options_for_servers_without_a_server_are_an_error(guarded: Guarded) -> None:
    message = guarded.sandbox.error("verify", *guarded.options())
    assert "--header, --ca-cert, --client-cert: are for servers at --url" in message


@pytest.mark.parametrize("api", ["raw", "tritonclient"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_load_generator_is_let_through(guarded: Guarded, protocol: str, api: Any) -> None:
    url = getattr(guarded, protocol)
    context = UserContext(Workload(url, "doubled", api=api, payload="random", access=guarded.access, timeout_s=20))
    try:
        context.first_answer()  # raises where no request succeeds
    finally:
        context.close()


def test_a_load_test_records_no_secret(guarded: Guarded) -> None:
    short = ("--duration", "0.2", "--warmup", "0.1", "--concurrency", "2", "--output", "out")
    done = guarded.sandbox.cli("load", "run", "doubled", *short, "--url", guarded.https, *guarded.options())
    assert done.exit_code == 0, done.output
    written = {path.name: path.read_text(errors="replace") for path in _files(guarded.sandbox.root)}
    assert {"report.html", "result.json"} <= set(written)
    assert [name for name, text in written.items() if SECRET in text] == []


def _files(folder: Path) -> list[Path]:
    return [path for path in (folder / "out").rglob("*") if path.is_file()]


def test_stock_locust_is_let_through_and_records_no_secret(guarded: Guarded) -> None:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--model", "doubled", "--host", guarded.https, "--users", "2", "--spawn-rate", "100"]
    command += ["--run-time", "1", "--warmup", "0.1", "--output", "from_locust", *guarded.options()]
    root = guarded.sandbox.root
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    written = (root / "from_locust/result.json").read_text()
    assert json.loads(written)["measurements"][0]["requests"]["succeeded"] > 0
    assert SECRET not in written + done.stdout + done.stderr
