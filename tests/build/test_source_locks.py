"""URIs of sources in a project: a build locks what they stand for, fetches what is locked, and nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from modelwright.digest import sha256
from tests.conftest import ONNX_YAML, Recorder, Sandbox, doubling_onnx
from tests.triton.test_file_types import POINTER
from tests.web import Answer, Status, Truncated, WebFiles, WithoutRanges

LOCK = "builders/doubled/source.lock"
GRAPH = "/models/m.onnx"


@pytest.fixture
def web() -> Iterator[WebFiles]:
    with WebFiles({}) as made:
        yield made


def graph_with_weights(folder: Path, factor: float = 2.0) -> dict[str, Answer]:
    """What a server gives: a graph, and the file with its weights beside it."""
    folder.mkdir(exist_ok=True)
    doubling_onnx(folder / "m.onnx", factor)
    model = onnx.load(folder / "m.onnx")
    onnx.save(
        model,
        folder / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
        convert_attribute=True,
    )
    return {f"/models/{name}": (folder / name).read_bytes() for name in ("m.onnx", "m.data")}


def builder(sandbox: Sandbox, uri: str) -> None:
    """A builder of what lies at a URI: its folder has no model."""
    folder = sandbox.onnx_builder(yaml=ONNX_YAML.replace("path: model.onnx", f"path: '{uri}'"))
    (folder / "model.onnx").unlink()


def lock_of(sandbox: Sandbox) -> str:
    return (sandbox.root / LOCK).read_text()


def forget(sandbox: Sandbox) -> None:
    """The store, as another checkout has it."""
    shutil.rmtree(sandbox.root / ".modelwright/store")


def test_a_build_locks_and_fetches_the_file_and_its_weights_once(
    sandbox: Sandbox, web: WebFiles, tmp_path: Path
) -> None:
    web.answers = graph_with_weights(tmp_path / "from")
    builder(sandbox, web.url(GRAPH))
    result = sandbox.cli("build")
    assert result.exit_code == 0, result.output
    assert f"{LOCK}: fetching {web.url(GRAPH)}" in result.output
    assert f"{LOCK}: written, commit it\n" in result.output
    digests = {name: sha256(bytes(web.answers[f"/models/{name}"])) for name in ("m.onnx", "m.data")}  # type: ignore[arg-type]
    assert [line for line in lock_of(sandbox).splitlines() if not line.startswith("#") and line] == [
        f"uri: {web.url(GRAPH)}",
        f"resolved: {web.url(GRAPH)}",
        *(f"file: {digests[name]} {len(web.answers[f'/models/{name}'])} {name}" for name in ("m.data", "m.onnx")),  # type: ignore[arg-type]
    ]
    assert {"doubled/1/model.onnx", "doubled/1/m.data"} <= sandbox.published().keys()
    # Nothing asks the network again, but a checkout without a store.
    web.requests.clear()
    recorder = Recorder()
    assert sandbox.build(listener=recorder)["doubled"].status == "unchanged"
    assert "doubled/source.lock: 2 files; up to date" in sandbox.cli("lock").output
    assert (recorder.ran, web.requests) == ([], [])
    forget(sandbox)
    before = lock_of(sandbox)
    assert sandbox.build()["doubled"].status == "unchanged"
    assert sorted(path for path, _ in web.requests) == ["/models/m.data", "/models/m.onnx"]
    assert lock_of(sandbox) == before
    assert not list((sandbox.root / ".modelwright/cache/sources").iterdir())


def test_a_file_that_changed_at_the_other_end_is_refused_until_it_is_updated(
    sandbox: Sandbox, web: WebFiles, tmp_path: Path
) -> None:
    web.answers = graph_with_weights(tmp_path / "from")
    builder(sandbox, web.url(GRAPH))
    assert sandbox.build()["doubled"].status == "new"
    before = lock_of(sandbox)
    web.answers = graph_with_weights(tmp_path / "newer", 2.001)
    assert f"{web.url(GRAPH)}: m.data changed" in sandbox.cli("update", "doubled", "--dry-run").output
    assert lock_of(sandbox) == before
    assert sandbox.build()["doubled"].status == "unchanged"
    forget(sandbox)
    shutil.rmtree(sandbox.root / ".modelwright/cache/sources")
    error = sandbox.error()
    expected = r"source.path: .*m.onnx: m.data: expected SHA-256 \w{64} \(4 bytes\), got \w{64} \(4 bytes\)"
    assert re.search(expected, error), error
    web.answers |= {name: bytes(8) for name in web.answers if name.endswith("m.data")}
    assert re.search(r"\(4 bytes\), got more bytes\n", sandbox.error())
    web.answers = graph_with_weights(tmp_path / "newer", 2.001)
    assert re.search(r"hint: it was changed after it was locked: .*modelwright .*update doubled", error)
    assert sandbox.cli("update", "doubled").exit_code == 0
    assert sandbox.build()["doubled"].version == 2


def test_an_interrupted_download_goes_on_where_it_was(sandbox: Sandbox, web: WebFiles, tmp_path: Path) -> None:
    sandbox.onnx_builder()
    data = (sandbox.root / "builders/doubled/model.onnx").read_bytes()
    web.answers = {GRAPH: data}
    builder(sandbox, web.url(GRAPH))
    assert sandbox.cli("lock").exit_code == 0
    shutil.rmtree(sandbox.root / ".modelwright/cache/sources")
    later_answers: tuple[Answer, ...] = (data, WithoutRanges(data), data[:100] + bytes(len(data) - 100))
    for number, later in enumerate(later_answers):
        web.answers = {GRAPH: Truncated(data, after=100)}
        assert f"the connection ended {len(data) - 100} bytes too early" in sandbox.error()
        web.answers, web.requests = {GRAPH: later}, []
        if number < 2:
            assert sandbox.build()["doubled"].error is None
            forget(sandbox)
        else:  # the rest is not of the same file: it is fetched anew, and refused
            assert "expected SHA-256" in sandbox.error()
        assert web.requests == [(GRAPH, "bytes=100-"), *([(GRAPH, "")] if number else [])]


def test_another_uri_in_model_yaml_is_locked_anew(sandbox: Sandbox, web: WebFiles, tmp_path: Path) -> None:
    web.answers = graph_with_weights(tmp_path / "from")
    builder(sandbox, web.url(GRAPH))
    result = sandbox.cli("build", "--locked")
    assert re.search(f"{LOCK}: does not have {web.url(GRAPH)}.*\n.*hint: .*modelwright .*lock doubled", result.output)
    assert not (sandbox.root / LOCK).exists()
    assert sandbox.cli("build").exit_code == 0
    web.answers.update({path.replace("models", "newer"): data for path, data in web.answers.items()})
    builder(sandbox, web.url("/newer/m.onnx"))
    assert sandbox.build()["doubled"].status == "unchanged"
    assert web.url(GRAPH) not in lock_of(sandbox)


def test_a_damaged_lock_stops_a_build(sandbox: Sandbox, web: WebFiles, tmp_path: Path) -> None:
    web.answers = graph_with_weights(tmp_path / "from")
    builder(sandbox, web.url(GRAPH))
    assert sandbox.cli("lock").exit_code == 0
    file = sandbox.root / LOCK
    file.write_text(f"<<<<<<< HEAD\n{file.read_text()}")
    assert f"{LOCK}:1: damaged: not a line of such a file, or there twice: <<<<<<< HEAD\n" in sandbox.error()
    assert sandbox.cli("update").exit_code == 0
    assert sandbox.build()["doubled"].status == "new"


ANSWERS: dict[str, tuple[Answer, str]] = {
    "a web page": (b"<!doctype html><p>Log in", r"m.onnx is a web page \(HTML\)\n.*hint: open it in a browser"),
    "a pointer": (POINTER, "m.onnx is a Git LFS pointer, not the file\n.*hint: git lfs pull"),
    "nothing": (b"", "m.onnx is empty"),
    "no such file": (Status(404), "m.onnx: the server answers 404 Not Found\n.*hint: see to the address"),
    "a login": (Status(403), "the server answers 403 Forbidden\n.*hint: the file needs a login, which is not supported"),
    "a way to a file": (Status(302, "file:///etc/hostname"), "Redirection to url 'file:.*\n.*hint: only redirects to https:// are followed"),
    "a way to another host": (Status(302, "http://example.com/m"), "m.onnx: leads to http://example.com"),
    "a cut": (Truncated(b"x" * 100, after=10), "the connection ended 90 bytes too early"),
    "a circle": (Status(302, GRAPH), "m.onnx: the server answers 302 .*infinite loop"),
}  # fmt: skip


def test_what_is_not_a_model_at_a_url_is_named(sandbox: Sandbox, web: WebFiles) -> None:
    builder(sandbox, web.url(GRAPH))
    for answer, message in ANSWERS.values():
        web.answers = {GRAPH: answer}
        error = sandbox.error()
        assert re.search(f"Error: builders/doubled/model.yaml: source.path: .*{message}", error), error
        assert not (sandbox.root / LOCK).exists()
        assert not list((sandbox.root / ".modelwright/cache/sources").iterdir())
    web.answers = {GRAPH: b"x" * 3000}
    with (sandbox.root / "modelwright.toml").open("a") as file:
        file.write("\n[sources]\nmax_gb = 0.000002\n")
    assert re.search("m.onnx: 3.0 kB, 2e-06 GB at most\n.*hint: .*max_gb", sandbox.error())
    toml = sandbox.root / "modelwright.toml"
    toml.write_text(toml.read_text().replace("max_gb = 0.000002", "timeout = 0.0000001"))
    assert re.search("m.onnx: not there after 1e-07 s: 3,000 bytes came\n.*hint: .*timeout", sandbox.error())


def test_a_server_that_is_down_is_named(sandbox: Sandbox) -> None:
    with WebFiles({}) as web:
        uri = web.url(GRAPH)
    builder(sandbox, uri)
    assert re.search(f"{uri}: .*Connection refused\n.*hint: see to the address and the network", sandbox.error())


REFUSED = {
    "http://example.com/m.onnx": "http:// is taken from this machine alone",
    "https://me:secret@example.com/m.onnx": "credentials do not belong in a URI",
    "https://example.com/m.onnx?X-Amz-Signature=1": "credentials do not belong in a URI",
    "https://example.com": "names no file",
    "ftp://example.com/m.onnx": "ftp:// is no scheme that files are fetched by",
    "s3:/bucket/m.onnx": "is no URI: write such as s3://bucket/models/m.onnx",
    "file://srv/m.onnx": "write file:///srv/models/m.onnx",
}


def test_uris_that_nothing_is_fetched_by_are_refused(sandbox: Sandbox) -> None:
    for uri, message in REFUSED.items():
        builder(sandbox, uri)
        assert re.search(f"source.path: .*{message}", sandbox.error()), uri


def test_a_folder_where_a_file_is_needed_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    doubling_onnx(tmp_path / "net/m.onnx")
    builder(sandbox, f"file://{tmp_path}/net")
    assert f"source.path: file://{tmp_path}/net is a folder, and a file is needed" in sandbox.error()
    (tmp_path / "net/link").symlink_to("m.onnx")
    (sandbox.root / LOCK).unlink()
    assert "net: 'link' is a link, which may lead anywhere" in sandbox.error()
