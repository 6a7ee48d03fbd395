"""s3:// URIs of sources, from a real S3 server. gs:// and az:// go the same way, by other libraries of fsspec's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from modelwright.errors import ModelwrightError
from modelwright.steps.sources.resolve import Resolver, Selection
from tests.conftest import ONNX_YAML, Sandbox, doubling_onnx
from tests.ports import free_port
from tests.remotes.buckets import Bucket
from tests.remotes.s3 import BUCKET, Truncate


def put(bucket: Bucket, files: Any, names: dict[str, bytes]) -> str:
    """Write objects below the bucket's prefix, and return the URI of that prefix."""
    for name, data in names.items():
        files.pipe_file(f"{BUCKET}/{bucket.prefix}/{name}", data)
    return f"s3://http://127.0.0.1:{bucket.proxy.port}/{BUCKET}/{bucket.prefix}"


def test_a_model_of_an_object_is_built_and_one_that_changed_is_refused(
    sandbox: Sandbox, bucket: Bucket, s3_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []
    for factor in (2.0, 2.001):
        doubling_onnx(tmp_path / "m.onnx", factor)
        graphs.append((tmp_path / "m.onnx").read_bytes())
    root = put(bucket, s3_files, {"m.onnx": graphs[0]})
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.proxy.port}")
    uri = f"s3://{BUCKET}/{root.partition(f'/{BUCKET}/')[2]}/m.onnx"
    folder = sandbox.onnx_builder(yaml=ONNX_YAML.replace("model.onnx", uri))
    (folder / "model.onnx").unlink()
    assert sandbox.build()["doubled"].status == "new"
    assert f"\nuri: {uri}\n" in (folder / "source.lock").read_text()
    put(bucket, s3_files, {"m.onnx": graphs[1]})
    update = sandbox.cli("update", "doubled", "--json")
    assert f'"changes": [\n   "{uri}: m.onnx changed"\n  ]' in update.output
    assert sandbox.build()["doubled"].version == 2


def test_a_folder_keeps_its_paths_and_names_that_leave_it_are_refused(
    bucket: Bucket, s3_files: Any, tmp_path: Path
) -> None:
    uri = put(bucket, s3_files, {"config.json": b"{}", "a/b/w.bin": b"1", "a/w.safetensors": b"22"})
    lock = Resolver(tmp_path).resolve(uri, Selection(leaves_out=["*.bin"]))
    assert (lock.is_folder, {name: file.size_bytes for name, file in lock.files.items()}) == (
        True,
        {"a/w.safetensors": 2, "config.json": 2},
    )
    put(bucket, s3_files, {"a\\..\\..\\w": b""})
    with pytest.raises(ModelwrightError, match=r"models: '.*w' is no name of a file in a folder"):
        Resolver(tmp_path).resolve(uri, Selection())


def test_what_is_not_there_and_what_ends_early_is_named(
    bucket: Bucket, s3_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, s3_files, {"m.onnx": bytes(1000)})

    def error(uri: str) -> str:
        with pytest.raises(ModelwrightError) as caught:
            Resolver(tmp_path).resolve(uri, Selection())
        return f"{caught.value.message}\n{caught.value.hint}"

    assert f"{uri}/n.onnx: there is nothing under this name" in error(f"{uri}/n.onnx")
    assert "there is no bucket 'nobucket'" in error(f"s3://http://127.0.0.1:{bucket.proxy.port}/nobucket/m.onnx")
    bucket.proxy.on_request = lambda request: (
        Truncate() if request.method == "GET" and "m.onnx" in request.path else None
    )
    assert re.search("models/m.onnx: .*(not completed|Connection reset)", error(f"{uri}/m.onnx"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "the store does not answer" in error(f"s3://http://127.0.0.1:{free_port()}/{BUCKET}/m.onnx")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert re.search("wrong or missing credentials: .*\nset AWS_ACCESS_KEY_ID", error(f"{uri}/m.onnx"))
