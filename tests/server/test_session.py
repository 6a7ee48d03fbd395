"""Serving a repository for a while: what is loaded, with which config, and what became of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelwright.errors import ServerError
from modelwright.server.local import Ports
from modelwright.server.session import Load, serve
from modelwright.triton.client import connect
from tests.server.models import RELEASE, STATE, config, double, identity, publish

pytestmark = pytest.mark.server


@pytest.fixture
def repository(tmp_path: Path, environment: Any) -> Path:
    folder = tmp_path / "repository"
    publish(folder, "doubled", double(), config())
    shutil.copytree(folder / "doubled/1", folder / "doubled/2")
    publish(folder, "wrong", identity(), config(extra="dynamic_batching { preferred_batch_size: [ 9 ] }"))
    return folder


def _said(text: str) -> None:
    raise AssertionError(f"the environment is there, and yet: {text}")


def _only(*versions: int) -> str:
    tensor = {"data_type": "TYPE_FP32", "dims": [4]}
    return json.dumps(
        {
            "backend": "onnxruntime",
            "max_batch_size": 8,
            "input": [{"name": "x"} | tensor],
            "output": [{"name": "y"} | tensor],
            "version_policy": {"specific": {"versions": versions}},
        }
    )


def test_without_a_list_every_model_is_loaded_and_refusals_have_reasons(repository: Path, tmp_path: Path) -> None:
    with serve(STATE, RELEASE, repository, log=tmp_path / "log", say=_said) as served:
        assert served.ready() == [("doubled", 2)]
        assert list(served.refused) == ["wrong"]
        assert "preferred size must be <= max batch size" in served.refused["wrong"]
        assert served.alive
        assert served.urls == (served.http, served.grpc)
        for url in served.urls:
            with connect(url) as client:
                assert client.model_ready("doubled")
    assert not served.alive


def test_with_a_list_only_those_are_loaded_each_with_its_configs_in_turn(repository: Path, tmp_path: Path) -> None:
    load = [Load("doubled", (None, _only(1, 2)))]
    with serve(STATE, RELEASE, repository, log=tmp_path / "log", say=_said, load=load) as served:
        assert served.ready() == [("doubled", 1), ("doubled", 2)]
        assert served.refused == {}


def test_a_config_after_one_that_is_refused_is_not_tried(repository: Path, tmp_path: Path) -> None:
    load = [Load("wrong", (None, _only(1))), Load("doubled", (_only(1),))]
    with serve(STATE, RELEASE, repository, log=tmp_path / "log", say=_said, load=load) as served:
        assert served.ready() == [("doubled", 1)]
        assert list(served.refused) == ["wrong"]


def test_a_model_that_takes_too_long_is_a_refusal_and_the_next_is_loaded(repository: Path, tmp_path: Path) -> None:
    (repository / "slow/1").mkdir(parents=True)
    (repository / "slow/1/model.py").write_text(
        "import time\n\n\nclass TritonPythonModel:\n    def initialize(self, args):\n        time.sleep(600)\n"
    )
    (repository / "slow/config.pbtxt").write_text(config().replace("onnxruntime", "python"))
    load = [Load("slow"), Load("doubled")]
    with serve(STATE, RELEASE, repository, log=tmp_path / "log", say=_said, load=load, startup_timeout_s=10) as served:
        assert served.ready() == [("doubled", 2)]
        assert served.refused["slow"].startswith("it was still loading after 10 s; give it longer: --startup-timeout")


def test_a_config_that_the_server_cannot_parse_is_a_refusal(repository: Path, tmp_path: Path) -> None:
    load = [Load("doubled", ("{not json",)), Load("nowhere")]
    with serve(STATE, RELEASE, repository, log=tmp_path / "log", say=_said, load=load) as served:
        assert served.ready() == []
        assert set(served.refused) == {"doubled", "nowhere"}
        assert not any("http://" in reason for reason in served.refused.values())


def test_a_port_that_is_taken_is_an_error(repository: Path, tmp_path: Path) -> None:
    with serve(STATE, RELEASE, repository, log=tmp_path / "log", say=_said, load=[]) as first:
        port = int(first.http.rpartition(":")[2])
        second = serve(STATE, RELEASE, repository, log=tmp_path / "log2", say=_said, ports=Ports(port, port, port))
        with pytest.raises(ServerError, match=str(port)), second:
            pass
