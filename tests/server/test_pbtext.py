"""tritonserver's verdict on every text of `pbtext_cases`, and on random ones."""

from __future__ import annotations

import http.client
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.server.local import RunningServer
from modelwright.triton.pbtext import PbtxtError, parse_message
from tests.server.models import config, double, publish
from tests.triton import pbtext_cases as cases
from tests.triton.test_pbtext import mutated

_COMPLAINT = re.compile(r"Error parsing text-format [\w.]+: (.*)")
_ENSEMBLE = b"""
platform: "ensemble"
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
ensemble_scheduling {
  step { model_name: "member" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } }
}
"""


class Asked:
    def __init__(self, server: RunningServer, repository: Path) -> None:
        self._server, self._repository = server, repository
        host, _, port = server.http.rpartition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=120)

    def complaints(self, text: bytes) -> list[str]:
        """What its parser has against a text. An unknown field at the end keeps it from going on to load it."""
        at = self._server.log.stat().st_size
        self.load("pbtext_case", text + b"\nno_such_field: 1")
        with self._server.log.open("rb") as log:
            log.seek(at)
            found = _COMPLAINT.findall(log.read().decode(errors="replace"))
        assert found, text
        return found if len(found) > 1 or 'ModelConfig" has no field named "no_such_field"' not in found[0] else []

    def load(self, name: str, text: bytes) -> None:
        (self._repository / name / "1").mkdir(parents=True, exist_ok=True)
        (self._repository / name / "config.pbtxt").write_bytes(text)
        self.request("POST", f"/v2/repository/models/{name}/load")

    def request(self, method: str, path: str) -> bytes:
        self.connection.request(method, path)
        return self.connection.getresponse().read()


@pytest.fixture(scope="module")
def asked(server: RunningServer, repository: Path) -> Iterator[Asked]:
    asked = Asked(server, repository)
    yield asked
    asked.connection.close()


@pytest.mark.parametrize("text", cases.TAKEN + cases.PYTHON_REFUSES, ids=ascii)
def test_it_takes(asked: Asked, text: bytes) -> None:
    assert asked.complaints(text) == []


@pytest.mark.parametrize("text", cases.REFUSED + cases.PYTHON_TAKES, ids=ascii)
def test_it_refuses(asked: Asked, text: bytes) -> None:
    assert asked.complaints(text)


def test_its_verdict_on_random_texts_is_ours(asked: Asked) -> None:
    chance = random.Random(3)  # not hypothesis: a server's answer depends on its past, and there is nothing to shrink
    texts = cases.TAKEN + cases.PYTHON_REFUSES + cases.REFUSED + cases.PYTHON_TAKES
    differ = [text for _ in range(1000) if _differs(asked, text := mutated(chance, chance.choice(texts)))]
    assert differ == []


def _differs(asked: Asked, text: bytes) -> bool:
    try:
        parse_message(text)
    except PbtxtError:
        return not asked.complaints(text)
    return bool(asked.complaints(text))


def test_its_strings_are_ours(asked: Asked, repository: Path) -> None:
    publish(repository, "member", double(), config())
    asked.request("POST", "/v2/repository/models/member/load")
    entries = b"\n".join(
        b"parameters { key: '%d' value { string_value: %s } }" % (number, literal)
        for number, literal in enumerate(cases.STRINGS)
    )
    asked.load("pbtext_strings", _ENSEMBLE + entries)
    found = json.loads(asked.request("GET", "/v2/models/pbtext_strings/config"))["parameters"]
    assert [found[str(number)]["string_value"] for number in range(len(found))] == list(cases.STRINGS.values())
