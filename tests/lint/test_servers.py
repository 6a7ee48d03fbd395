"""Rules about servers that run otherwise than the differential ones: with a rate limiter, or polling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelwright.errors import ServerError
from modelwright.lint.examples import files_of, write
from modelwright.lint.registry import all_rules
from modelwright.server.environment import Environment
from modelwright.server.local import Mode, RunningServer, running
from modelwright.triton.client import connect
from tests.server.models import shared_environment
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def environment() -> Environment:
    return shared_environment()


@contextmanager
def serving(environment: Environment, root: Path, mode: Mode, *arguments: str) -> Iterator[RunningServer]:
    log = root.parent / "server.log"
    with running(environment, root, log=log, mode=mode, stop_grace_s=0, extra_arguments=arguments) as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize("fault", [True, False], ids=["fault", "fixed"])
def test_mw403_a_resource_is_global_or_of_a_device(fault: bool, environment: Environment, root: Path) -> None:
    write(files_of(all_rules()["MW403"].example, fault=fault), root)
    with (
        serving(environment, root, "explicit", "--rate-limit=execution_count") as server,
        connect(server.http) as client,
    ):
        if fault:
            with pytest.raises(ServerError, match="both global and device-specific"):
                client.load("m")
        else:
            client.load("m")
            assert client.model_ready("m")


def test_mw507_a_dangling_link_at_the_root_takes_every_model_out(environment: Environment, root: Path) -> None:
    write(files_of(all_rules()["MW507"].example, fault=False), root)
    with serving(environment, root, "poll") as server, connect(server.http) as client:
        assert client.model_ready("m")
        write({"gone": all_rules()["MW507"].example.fault_files["/gone"]}, root)
        wait_until(lambda: not client.model_ready("m"), "the model's end")
        (root / "gone").unlink()
        wait_until(lambda: client.model_ready("m"), "the model's return")


def test_mw509_a_hidden_folder_is_a_model_that_fails(environment: Environment, root: Path) -> None:
    write(files_of(all_rules()["MW509"].example, fault=True), root)
    with serving(environment, root, "poll") as server:
        assert ".git" in server.failures()
        assert "m" not in server.failures()
