"""The client against servers that are no Triton, or mean harm: nothing hangs, fills the memory or ends in a traceback."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest

from modelwright.errors import ServerError, ServerTimeoutError
from modelwright.triton.access import Access
from modelwright.triton.client import Client, connect
from tests.triton.hostile import Hostile, http_answer

OUTPUT = {"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
CONFIG = {
    "name": "m",
    "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
    "output": [],
}


def as_json(value: Any, *headers: str) -> bytes:
    return http_answer(json.dumps(value).encode(), *headers)


def inferred(output: dict[str, Any], data: bytes = b"\0\0\0\0") -> bytes:
    head = json.dumps({"outputs": [output]}).encode()
    return http_answer(head + data, f"Inference-Header-Content-Length: {len(head)}")


def ask(client: Client, call: str) -> Any:
    if call == "infer":
        return client.infer("m", {"x": np.ones((1, 4), np.float32)})
    return getattr(client, call)(*(["m"] if call in ("config", "metadata", "statistics", "load") else []))


@pytest.mark.parametrize(
    ("call", "answer", "why"),
    [
        pytest.param("index", as_json(None), "answer to POST /v2/repository/index: is missing", id="null"),
        pytest.param("config", as_json([CONFIG]), "answer to GET /v2/models/m/config: is a list", id="a list"),
        pytest.param("server", http_answer(b'{"name": "triton"'), "which is not JSON", id="broken JSON"),
        pytest.param("server", http_answer(b"[" * 200_000), "JSON that is nested too deep", id="deep JSON"),
        pytest.param("server", http_answer(b"\xff\xfe\0"), "which is not JSON", id="not UTF-8"),
        pytest.param("server", http_answer(b""), "it answers with nothing", id="empty body"),
        pytest.param("server", http_answer(b"<html>\x1b[2J</html>"), r"'<html>\\x1b\[2J</html>', which is not", id="HTML"),
        pytest.param(
            "server", http_answer(gzip.compress(b"{}"), "Content-Encoding: gzip"), "encoding 'gzip'", id="gzip"
        ),
        pytest.param(
            "server",
            http_answer(b"", "Location: https://x/\x1b[1m", status="302 Found"),
            r"HTTP 302 Found, to https://x/\\x1b\[1m",
            id="redirect",
        ),
        pytest.param("server", http_answer(b"no", status="502 Bad Gateway"), "HTTP 502 Bad Gateway", id="gateway"),
        pytest.param("server", http_answer(b'{"error": 1}', status="400 X"), "it answers HTTP 400 X", id="odd error"),
        pytest.param("server", http_answer(b"", status="401 X"), r"401 X\n  hint: .*--header", id="login"),
        pytest.param(
            "server",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nrubbish",
            "ends before it is complete",
            id="chunked garbage",
        ),
        pytest.param("server", b"HTTP/1.1 200 OK\r\n", "it answers with nothing", id="a status line only"),
        pytest.param("server", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "ends before", id="too short"),
        pytest.param("server", b"SSH-2.0-OpenSSH_9.2\r\n", "it answers 'SSH-2.0-OpenSSH_9.2'", id="SSH"),
        pytest.param("server", b"\0\0\x12\x04\0\0\0\0\0\n", r"it speaks HTTP/2: is this its gRPC port\?\n  hint: .*grpc://", id="HTTP/2"),
        pytest.param("server", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200, "not HTTP: got more than", id="many headers"),
        pytest.param("index", as_json([{"name": 1}]), r"\[0\].name is a number", id="index: name"),
        pytest.param("index", as_json([{"name": "m", "reason": {}}]), "other fields than Triton's", id="index: reason"),
        pytest.param("index", as_json([{"name": "m", "version": "x"}]), "m has the version 'x'", id="index: version"),
        pytest.param("metadata", as_json({"name": "m", "inputs": [{}]}), r"inputs\[0\].name is missing", id="metadata"),
        pytest.param("config", as_json(CONFIG | {"max_batch_size": "8"}), "max_batch_size is a text", id="config: type"),
        pytest.param("config", as_json(CONFIG | {"parameters": [1]}), "config of a model is not", id="config: table"),
        pytest.param("statistics", as_json({"model_stats": [{"name": "m"}]}), "version is missing", id="statistics"),
        pytest.param("load", http_answer(b"<html>"), "not JSON", id="load"),
        pytest.param("infer", as_json([]), "answer to an inference cannot be read", id="infer: a list"),
        pytest.param("infer", as_json({"outputs": [{}]}), "cannot be read: 'datatype'", id="infer: no fields"),
        pytest.param("infer", inferred(OUTPUT, b"\0"), "fewer bytes than it says", id="infer: too few bytes"),
        pytest.param("infer", inferred(OUTPUT | {"shape": [10**12]}), "cannot reshape", id="infer: large shape"),
        pytest.param("infer", inferred(OUTPUT | {"shape": [-1]}), r"has the shape \[-1\]", id="infer: open shape"),
        pytest.param("infer", inferred(OUTPUT | {"datatype": "FP33"}), "'FP33'", id="infer: unknown type"),
        pytest.param("infer", inferred(OUTPUT | {"datatype": "BYTES"}, b"\xff" * 4), "cannot be read", id="infer: strings"),
    ],
)  # fmt: skip
def test_what_is_not_triton_is_named_as_such(call: str, answer: bytes, why: str) -> None:
    with (
        Hostile(answer) as hostile,
        connect(hostile.url) as client,
        pytest.raises(ServerError, match=rf"^what answers at {hostile.url} is not a Triton server: .*{why}"),
    ):
        ask(client, call)


def test_a_server_that_closes_without_a_word_cannot_be_reached() -> None:
    with (
        Hostile(b"") as hostile,
        connect(hostile.url) as client,
        pytest.raises(ServerError, match="cannot be reached: it closes the connection without an answer"),
    ):
        client.index()


@pytest.mark.parametrize(
    ("answer", "endless"),
    [
        pytest.param(b"", b"\r\n", id="empty lines"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"x", id="a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x", id="a body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"x", id="a body of known length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="not yet"),
    ],
)
def test_an_answer_that_drips_in_ends_at_the_deadline(answer: bytes, endless: bytes) -> None:
    with (
        Hostile(answer, endless, every_s=0.02) as hostile,
        connect(hostile.url, timeout_s=0.2) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.index()
    # An empty line is no status line, so that is known at once.
    assert isinstance(caught.value, ServerTimeoutError) or "not a Triton server" in caught.value.message


@pytest.mark.parametrize(
    ("answer", "endless"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096, id="a body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n", b"x", id="a length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"8\r\nxxxxxxxx\r\n" * 99, id="chunks"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999, id="not yet"),
    ],
)
@pytest.mark.parametrize("call", ["index", "infer"])
def test_an_answer_without_an_end_is_taken_in_up_to_the_limit(call: str, answer: bytes, endless: bytes) -> None:
    with (
        Hostile(answer, endless) as hostile,
        connect(hostile.url, access=Access(max_answer_bytes=20_000)) as client,
        pytest.raises(ServerError, match=r"answer is larger than 20.0 kB\n  hint: .*--max-answer GB"),
    ):
        ask(client, call)


def test_a_connection_is_used_again_and_opened_again() -> None:
    with Hostile(as_json([{"name": "m", "version": "1", "state": "READY"}])) as hostile, connect(hostile.url) as client:
        # The server closes each connection after its answer, without saying so.
        assert [entry.name for _ in range(3) for entry in client.index()] == ["m"] * 3
