"""`--startup-timeout` and modelwright.toml reach the local server, whatever starts it."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.errors import ServerError
from tests.conftest import PYTHON_YAML, Sandbox


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """What each start of a server was given. None of them starts."""
    found: list[float | None] = []

    def serve(*arguments: Any, startup_timeout_s: float | None = None, **options: Any) -> Any:
        found.append(startup_timeout_s)
        raise ServerError("it does not start here")

    for user in ("operations.replay", "server.session", "steps.trial"):
        monkeypatch.setattr(f"modelwright.{user}.serve", serve)
    return found


@pytest.mark.parametrize(
    "command",
    [["serve"], ["verify"], ["infer", "doubled"], ["build", "--replay"]],
    ids=lambda command: command[0],
)
def test_every_command_that_starts_a_server_takes_it(
    sandbox: Sandbox, asked: list[float | None], command: list[str]
) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    result = sandbox.cli(*command, "--startup-timeout", "77")
    assert result.exit_code == 1
    assert "it does not start here" in result.output
    toml = sandbox.root / "modelwright.toml"
    toml.write_text(f"{toml.read_text()}\n[server]\nstartup_timeout = 88\n")
    sandbox.cli(*command)
    sandbox.cli(*command, "--startup-timeout", "99")
    assert asked == [77, 88, 99]
    assert sandbox.cli(*command, "--startup-timeout", "0").exit_code == 2


def test_a_trial_takes_it(sandbox: Sandbox, asked: list[float | None]) -> None:
    sandbox.python_builder(yaml=PYTHON_YAML)
    assert "it does not start here" in sandbox.error("build", "--startup-timeout", "77")
    assert asked == [77]


def test_a_build_whose_replay_cannot_run_still_says_what_was_built(sandbox: Sandbox, asked: list[float | None]) -> None:
    sandbox.onnx_builder()
    result = sandbox.cli("build", "--replay")
    assert result.exit_code == 1
    assert "doubled  1        new" in result.stdout
    assert "Error: replay: it does not start here" in result.stderr
