"""Pushes to a real S3 server: what is sent, what stays, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest

from modelwright.errors import LockedError, RemoteConflictError, RemoteError, RepositoryError
from modelwright.remotes.index import INDEX
from modelwright.remotes.lock import LOCK, push_lock
from modelwright.remotes.push import carry_out, take
from modelwright.remotes.store import part_bytes
from modelwright.repository.move import carry_out as move
from modelwright.repository.moves import rollback
from tests.remotes.buckets import Bucket
from tests.remotes.repositories import MadeRepository, content
from tests.remotes.s3 import Answer, Fault, Hang, Request, Reset, Truncate
from tests.remotes.scenarios import first, moved_pipeline, push


@contextmanager
def watched(bucket: Bucket) -> Iterator[None]:
    """Look at what is there after every request that changes something."""

    def check(_: Request) -> None:
        assert bucket.unready() == []

    bucket.proxy.after_write = check
    yield
    bucket.proxy.reset()


def sent(bucket: Bucket) -> list[str]:
    """The objects that were written since the last reset, in order."""
    start = f"/bucket/{bucket.prefix}/"
    return [request.path.removeprefix(start) for request in bucket.proxy.requests if request.method == "PUT"]


def test_only_what_differs_is_sent(bucket: Bucket, made: MadeRepository) -> None:
    first(made)
    with watched(bucket):
        assert push(bucket.store, made) == ["hold", "manifests", "files", "switch"]
    assert bucket.served() == {"digits": [2], "both": [1], "gone": [1]}
    assert push(bucket.store, made) == []
    assert [name for name in sent(bucket) if "/" in name] == []
    moved_pipeline(made)
    with watched(bucket):
        push(bucket.store, made)
        names = sent(bucket)
    assert bucket.served() == {"digits": [3], "both": [2], "gone": [1]}
    assert not any(name.startswith(("digits/1/", "digits/2/", "gone/")) for name in names)
    configs = [name for name in names if name.endswith("/config.pbtxt") and name.count("/") == 1]
    assert configs[-3:] == ["digits/config.pbtxt", "both/config.pbtxt", "digits/config.pbtxt"]
    ours = {name: digest for name, digest in content(made.repository.root).items() if "/" in name}
    assert bucket.objects().keys() - {INDEX} == ours.keys()


def test_what_is_there_already_is_known_by_its_checksum(bucket: Bucket, made: MadeRepository) -> None:
    """Also where the index was lost, or does not know it yet."""
    first(made)
    push(bucket.store, made)
    bucket.remove(INDEX)
    bucket.write("digits/1/golden.npz", b"GOLDEN")  # of the same size
    bucket.proxy.reset()
    push(bucket.store, made)
    assert {name for name in sent(bucket) if name.count("/") == 2} == {"digits/1/golden.npz"}
    assert json.loads(bucket.read(INDEX))["objects"].keys() == bucket.objects().keys() - {INDEX}


def test_a_large_file_comes_in_parts_and_odd_names_arrive(bucket: Bucket, made: MadeRepository) -> None:
    large = os.urandom(1000) * (part_bytes(0) // 1000 * 2 + 5000)
    made.version("digits", 1, extra={"weights.bin": large, "a b/#1?+é%20&.txt": b"odd"})
    push(bucket.store, made)
    assert sum("partNumber=" in request.query for request in bucket.proxy.requests) == 3
    assert bucket.objects()["digits/1/weights.bin"] == len(large)
    bucket.remove(INDEX)
    bucket.proxy.reset()
    push(bucket.store, made)
    assert [name for name in sent(bucket) if "/" in name] == []


@pytest.mark.parametrize("name", ["a\nb", "x?versionId=1"])
def test_a_name_that_stores_do_not_hold_is_refused(name: str, bucket: Bucket, made: MadeRepository) -> None:
    made.version("digits", 1, extra={name: b"odd"})
    with pytest.raises(RemoteError, match="cannot be the name of an object"):
        push(bucket.store, made)
    assert bucket.objects() == {}


def test_a_damaged_file_is_not_sent(bucket: Bucket, made: MadeRepository) -> None:
    first(made)
    path = made.repository.folder("digits", 2) / "model.onnx"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(RepositoryError, match=r"digits/2/model\.onnx: is not what its manifest says"):
        push(bucket.store, made)
    assert "digits" not in bucket.served()


def test_what_others_put_there_stays(bucket: Bucket, made: MadeRepository) -> None:
    bucket.write("theirs/config.pbtxt", b'name: "theirs"')
    bucket.write("theirs/1/model.onnx", b"theirs")
    first(made)
    push(bucket.store, made, delete=True)
    bucket.write("digits/7/model.onnx", b"theirs")
    push(bucket.store, made, delete=True)
    assert {"theirs/config.pbtxt", "theirs/1/model.onnx", "digits/7/model.onnx"} <= bucket.objects().keys()
    assert bucket.served()["digits"] == [2]


def test_a_model_of_the_same_name_that_others_made_is_refused(bucket: Bucket, made: MadeRepository) -> None:
    bucket.write("digits/config.pbtxt", b'name: "digits"')
    bucket.write("digits/7/model.onnx", b"theirs")
    before = bucket.objects()
    made.version("digits", 1)
    with pytest.raises(RemoteConflictError, match="digits: a model of this name is there"):
        push(bucket.store, made)
    assert bucket.objects() == before


def test_models_of_another_repository_are_refused(
    bucket: Bucket, made: MadeRepository, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = MadeRepository(tmp_path_factory.mktemp("other"))
    other.version("fraud", 1)
    push(bucket.store, other)
    made.version("digits", 1)
    with pytest.raises(RemoteConflictError, match="holds models of another repository: fraud"):
        push(bucket.store, made)
    carry_out(bucket.store, take(made.repository), share=True, delete=True)
    assert bucket.served() == {"digits": [1], "fraud": [1]}


def test_a_number_is_never_used_for_something_else(
    bucket: Bucket, made: MadeRepository, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = MadeRepository(tmp_path_factory.mktemp("other"))
    other.version("digits", 1, content=b"other")
    push(bucket.store, other)
    before = bucket.objects()
    made.version("digits", 1)
    with pytest.raises(RemoteConflictError, match=r"(?s)same numbers:\n  digits: version 1 is another one there"):
        push(bucket.store, made)
    assert bucket.objects() == before


def test_a_version_that_left_is_not_served_and_goes_on_request(bucket: Bucket, made: MadeRepository) -> None:
    first(made)
    moved_pipeline(made)
    push(bucket.store, made)
    move(made.repository, rollback(made.repository, "both"))
    with watched(bucket):
        push(bucket.store, made)
    assert bucket.served()["both"] == [1]
    assert bucket.served()["digits"] == made.served("digits")
    assert "both/2/ensemble.json" in bucket.objects()
    bucket.proxy.reset()
    with watched(bucket):
        push(bucket.store, made, delete=True)
        assert sent(bucket)[-2:] == ["both/config.pbtxt", INDEX]  # a deletion alone is not noticed
    assert "both/2/ensemble.json" not in bucket.objects()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "damaged"),
        (b'{"schema": 1}', "damaged"),
        (b'{"schema": 99, "modelwright": "9.0"}', r"schema 99: written by a newer Modelwright \(9\.0\)"),
    ],
    ids=["not JSON", "incomplete", "newer"],
)
def test_an_index_that_cannot_be_read_is_named(data: bytes, message: str, bucket: Bucket, made: MadeRepository) -> None:
    made.version("digits", 1)
    bucket.write(INDEX, data)
    with pytest.raises(RemoteError, match=message):
        push(bucket.store, made)
    assert list(bucket.objects()) == [INDEX]


def test_a_manifest_of_a_newer_modelwright_is_named(bucket: Bucket, made: MadeRepository) -> None:
    first(made)
    push(bucket.store, made)
    text = json.loads(bucket.read("digits/2/manifest.json")) | {"schema": 99, "modelwright": "9.0"}
    bucket.write("digits/2/manifest.json", json.dumps(text).encode())
    with pytest.raises(RepositoryError, match=r"s3://.*/digits/2/manifest\.json: schema 99: written by a newer"):
        push(bucket.store, made)


# --- two at once ------------------------------------------------------------------------------------------------------


def test_one_push_at_a_time(bucket: Bucket, made: MadeRepository) -> None:
    made.version("digits", 1)
    with push_lock(bucket.store, wait=False, say=print):
        with pytest.raises(LockedError, match="pushes there") as raised:
            push(bucket.store, made)
        assert "--wait" in raised.value.hint
    push(bucket.store, made)
    assert LOCK not in bucket.objects()


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({"started": 1}, True),
        ({"host": "another"}, False),
        ({"host": "another", "renewed": "2026-01-01T00:00:00+00:00"}, True),
    ],
    ids=["a process that ended", "another machine", "another machine, long ago"],
)
def test_a_lock_that_was_left_behind(
    change: dict[str, object], taken: bool, bucket: Bucket, made: MadeRepository
) -> None:
    made.version("digits", 1)
    with push_lock(bucket.store, wait=False, say=print):
        lock = json.loads(bucket.read(LOCK))
    bucket.write(LOCK, json.dumps({**lock, **change}).encode())
    if taken:
        push(bucket.store, made)
        return
    with pytest.raises(LockedError):
        push(bucket.store, made)


def test_a_push_whose_lock_was_taken_stops_before_the_next_config(bucket: Bucket, made: MadeRepository) -> None:
    """What stores are left with that do not refuse to create an object that is there."""
    first(made)
    other = {"id": "x", "who": "somebody@else", "host": "h", "process": 1, "started": 1}

    def take_over(request: Request) -> None:
        if request.path.endswith("/digits/2/model.onnx"):
            renewed = datetime.now(timezone.utc) + timedelta(minutes=1)
            bucket.write(LOCK, json.dumps({**other, "renewed": renewed.isoformat()}).encode())

    bucket.proxy.after_write = take_over
    with pytest.raises(RemoteError, match="somebody@else pushes there, too"):
        push(bucket.store, made)
    assert bucket.served() == {}
    assert LOCK in bucket.objects()  # which is not ours


def test_a_push_that_was_killed_is_completed_by_the_next(bucket: Bucket, made: MadeRepository) -> None:
    """benchmarks/remotes.py kills it at every request."""
    first(made)
    (made.folder / "modelwright.toml").write_text('triton = "26.07"\n')
    command = [sys.executable, "-m", "modelwright.cli.main", "push", bucket.url]
    pushing = subprocess.Popen(command, cwd=made.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(request: Request) -> None:
        if request.path.endswith("/digits/2/model.onnx"):
            pushing.kill()

    bucket.proxy.after_write = kill
    assert pushing.wait() == -signal.SIGKILL
    bucket.proxy.reset()
    assert LOCK in bucket.objects()
    assert bucket.unready() == []
    push(bucket.store, made)
    assert bucket.served() == {"digits": [2], "both": [1], "gone": [1]}
    assert LOCK not in bucket.objects()


# --- faults -----------------------------------------------------------------------------------------------------------

FAULTS: dict[str, Fault] = {
    "500": Answer(500, "InternalError"),
    "500 after it was done": Answer(500, "InternalError", done=True),
    "503 SlowDown": Answer(503, "SlowDown"),
    "a reset": Reset(),
    "a reset after it was done": Reset(done=True),
    "half an answer": Truncate(),
    "half of what was sent": Truncate(upload=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_repeated(fault: Fault, bucket: Bucket, made: MadeRepository) -> None:
    """benchmarks/remotes.py makes each of them at each request."""
    made.version("digits", 1)
    hit: set[str] = set()

    def at(request: Request) -> Fault:
        name = request.path.rpartition("/")[2]
        # A real store refuses a body that its checksum does not fit; this one keeps it.
        is_upload = isinstance(fault, Truncate) and fault.upload
        if name in hit or name not in (("model.onnx",) if is_upload else (LOCK, "model.onnx", "config.pbtxt")):
            return None
        if isinstance(fault, Truncate) and request.method != ("PUT" if is_upload else "GET"):
            return None
        hit.add(name)
        return fault

    with watched(bucket):
        bucket.proxy.on_request = at
        push(bucket.store, made)
    assert hit
    assert bucket.served() == {"digits": [1]}
    assert bucket.objects().keys() - {INDEX} == {name for name in content(made.repository.root) if "/" in name}


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "InvalidAccessKeyId", "wrong or missing credentials"),
        (403, "SignatureDoesNotMatch", "wrong or missing credentials"),
        (403, "AccessDenied", "not allowed"),
        (404, "NoSuchBucket", "there is no bucket 'bucket'"),
    ],
)
def test_what_the_store_refuses_is_said(
    status: int, code: str, message: str, bucket: Bucket, made: MadeRepository
) -> None:
    made.version("digits", 1)
    bucket.proxy.on_request = lambda _: Answer(status, code)
    with pytest.raises(RemoteError, match=message) as raised:
        push(bucket.store, made)
    assert raised.value.hint


def test_a_store_that_does_not_answer_ends_in_a_message(
    bucket: Bucket, made: MadeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 0.2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    made.version("digits", 1)
    bucket.proxy.on_request = lambda _: Hang()
    with pytest.raises(RemoteError, match="the store does not answer"):
        push(bucket.new_store(), made)
    bucket.proxy.reset()
    push(bucket.store, made)
    assert bucket.served() == {"digits": [1]}


def test_without_credentials(bucket: Bucket, made: MadeRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    made.version("digits", 1)
    with pytest.raises(RemoteError, match="wrong or missing credentials") as raised:
        push(bucket.new_store(), made)
    assert "AWS_ACCESS_KEY_ID" in raised.value.hint
