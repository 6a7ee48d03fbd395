"""Bad input is a finding or a clear error: never a traceback, a hang or unbounded memory."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.cli.main import main
from modelwright.lint.engine import LintReport, lint
from modelwright.lint.examples import PYTHON_MODEL, base_text, files_of, onnx_bytes, write
from modelwright.lint.registry import all_rules
from modelwright.lint.rule import Folder, Onnx, TensorRtPlan
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.triton.releases import release

OPTIONS = Options(release("26.07"))
GOOD = base_text("python")


def linted(root: Path) -> LintReport:
    return lint(RepositoryTree.read(root), OPTIONS)


def with_config(root: Path, data: bytes) -> LintReport:
    write({"m/config.pbtxt": data, "m/1/model.py": PYTHON_MODEL}, root)
    return linted(root)


def rules_of(report: LintReport) -> set[str]:
    return {item.rule.id for item in report.findings}


_SLOTS = GOOD.encode() + b"sequence_batching { direct { minimum_slot_utilization: %s } }"
CONFIGS: dict[str, tuple[bytes, str]] = {
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "MW001"),
    "zeros": (b"\0" * 1000, "MW001"),
    "invalid UTF-8 outside a string": (b'backend: "python"\n\xff\xfe', "MW001"),
    "invalid UTF-8 in a string": (GOOD.encode() + b'parameters { key: "a" value { string_value: "\xff" } }', "MW008"),
    "UTF-16": (GOOD.encode("utf-16"), "MW001"),
    "deep nesting": (b"input {" * 100_000, "MW001"),
    "deep nesting, closed": (b"input {" * 10_000 + b"}" * 10_000, "MW001"),
    "deep lists": (b"dims: " + b"[" * 50_000, "MW001"),
    "an open string": (b'name: "' + b"a" * 500_000, "MW001"),
    "a string of escapes": (b'name: "' + b"\\x41" * 200_000 + b'"', "MW101"),
    "a number of many digits": (b"max_batch_size: " + b"9" * 100_000, "MW001"),
    "a float of many digits": (_SLOTS % (b"9" * 100_000), "MW316"),
    "a page of unknown fields": (b"".join(b"field_%d: 1\n" % number for number in range(20_000)), "MW002"),
    "a megabyte and more": (b"# a comment\n" * 100_000, "MW004"),
    "fifty megabytes": (b"# " + b"x" * 50_000_000, "MW004"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_is_none_is_a_finding(case: str, tmp_path: Path) -> None:
    data, rule = CONFIGS[case]
    assert rule in rules_of(with_config(tmp_path, data))


def test_a_config_may_be_a_folder_a_pipe_or_a_link_to_itself(tmp_path: Path) -> None:
    for name in ("folder", "pipe", "loop"):
        write({f"{name}/1/model.py": PYTHON_MODEL}, tmp_path)
    (tmp_path / "folder/config.pbtxt").mkdir()
    os.mkfifo(tmp_path / "pipe/config.pbtxt")
    (tmp_path / "loop/config.pbtxt").symlink_to("config.pbtxt")
    found = {(item.model, item.rule.id) for item in linted(tmp_path).findings}
    assert found >= {("folder", "MW004"), ("pipe", "MW004"), ("loop", "MW508")}


@pytest.mark.parametrize(
    ("backend", "file", "rule"),
    [
        ("python", "model.py", "MW106"),
        ("onnxruntime", "model.onnx", "MW601"),
        ("tensorrt", "model.plan", "MW106"),
        ("python", "manifest.json", None),
    ],
)
def test_a_pipe_is_not_read(backend: str, file: str, rule: str | None, tmp_path: Path) -> None:
    write({"m/1/model.py": PYTHON_MODEL, "m/config.pbtxt": base_text(backend)}, tmp_path)
    (tmp_path / "m/1" / file).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "m/1" / file)
    assert {item.rule.id for item in linted(tmp_path).findings if item.file == f"m/1/{file}"} == {rule} - {None}


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(path.parent, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # the name of a socket is short
        os.close(folder)


SOMETHING_ELSE: dict[str, Callable[[Path], object]] = {
    "pipes": os.mkfifo,
    "sockets": _socket,
    "devices": lambda path: path.symlink_to("/dev/zero"),
    "the log of the kernel": lambda path: path.symlink_to("/proc/kmsg"),  # looks regular, and reading it waits
    "unreadable": lambda path: path.write_text("not read"),
}


@pytest.mark.parametrize("kind", SOMETHING_ELSE)
def test_whichever_file_is_none_linting_ends(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of a rule, once for each of its files, with something else in the place of that file."""
    wrong = set()
    for rule in all_rules().values():
        files = {name: content for name, content in files_of(rule.example, fault=False).items() if name[:2] == "m/"}
        for number, chosen in enumerate(name for name, content in files.items() if not isinstance(content, Folder)):
            model = tmp_path / f"{rule.id}-{number}"
            write({name[2:]: content for name, content in files.items() if name != chosen}, model)
            (model / chosen[2:]).parent.mkdir(parents=True, exist_ok=True)
            SOMETHING_ELSE[kind](model / chosen[2:])
            wrong.add(str(model / chosen[2:]))
    if kind == "unreadable":  # for root, every file is readable
        monkeypatch.setattr(os, "open", _denied(os.open, wrong))
    with within(120):
        report = linted(tmp_path)
    assert report.models == len(wrong)
    assert len({item.model for item in report.errors}) > len(all_rules())


def _denied(opened: Callable[..., int], wrong: set[str]) -> Callable[..., int]:
    def denied(path: object, *more: object, **options: object) -> int:
        if str(path) in wrong:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *more, **options)

    return denied


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Interrupts what would wait for ever, and says where."""

    def stop(*_: object) -> None:
        raise AssertionError("still waiting")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_an_endless_device_is_not_read(tmp_path: Path) -> None:
    write({"m/1/model.py": PYTHON_MODEL}, tmp_path)
    (tmp_path / "m/config.pbtxt").symlink_to("/dev/zero")
    assert "MW004" in rules_of(linted(tmp_path))


def test_a_file_whose_size_lies_is_read_to_the_bound_only(tmp_path: Path) -> None:
    """Files under /proc state a size of 0, whatever they hold."""
    write({"m/1/model.py": PYTHON_MODEL}, tmp_path)
    (tmp_path / "m/config.pbtxt").symlink_to("/proc/self/maps")
    assert linted(tmp_path).errors


@pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "."}, {"a": ".."}, {"a": "m"}], ids=str)
def test_links_in_circles_end(links: dict[str, str], tmp_path: Path) -> None:
    write({"m/config.pbtxt": GOOD, "m/1/model.py": PYTHON_MODEL}, tmp_path)
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
        (tmp_path / "m" / name).symlink_to(target)
        (tmp_path / "m/1" / name).symlink_to(target)
    assert linted(tmp_path).models >= 1


def test_names_that_are_no_text_are_shown_all_the_same(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"m\xff\xfe") / os.fsdecode(b"1\xff")).mkdir(parents=True)
    result = CliRunner().invoke(main, ["lint", str(tmp_path)])
    assert result.exit_code == 1
    assert "MW501" in result.output or "MW503" in result.output
    for format_name in ("json", "github", "sarif"):
        assert CliRunner().invoke(main, ["lint", str(tmp_path), "--format", format_name]).exit_code == 1


def test_a_thousand_levels_of_ensembles_end(tmp_path: Path) -> None:
    tensors = GOOD.replace('backend: "python"', 'platform: "ensemble"')
    for number in range(1000):
        step = f'model_name: "e{number + 1}", model_version: -1, input_map {{ key: "x" value: "x" }}'
        step += ', output_map { key: "y" value: "y" }'
        write({f"e{number}/config.pbtxt": f"{tensors}ensemble_scheduling {{ step [ {{ {step} }} ] }}"}, tmp_path)
        (tmp_path / f"e{number}/1").mkdir()
    write({"e1000/config.pbtxt": GOOD, "e1000/1/model.py": PYTHON_MODEL}, tmp_path)
    assert rules_of(linted(tmp_path)) == set()


ONNX: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "cut short": lambda data: data[: len(data) // 2],
    "text": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a length of 2^63": lambda data: b"\x3a" + b"\xff" * 8 + b"\x7f",
    "a varint without end": lambda data: b"\x08" + b"\xff" * 100,
    "graphs in graphs": lambda data: _nested(200),
    "zeros": lambda data: b"\0" * 1000,
}


def _nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    data = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            data = tag + _varint(len(data)) + data
    return b"\x08\x08\x3a" + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])


@pytest.mark.parametrize("case", ONNX)
def test_an_onnx_file_that_is_none_is_a_finding(case: str, tmp_path: Path) -> None:
    data = ONNX[case](onnx_bytes(Onnx()))
    write({"m/config.pbtxt": base_text("onnxruntime"), "m/1/model.onnx": data}, tmp_path)
    assert "MW601" in rules_of(linted(tmp_path))


MANIFESTS: dict[str, bytes] = {
    "empty": b"",
    "cut short": b'{"made": {"tensorrt": {"vers',
    "not UTF-8": b'{"made": "\xff\xfe"}',
    "a list": b"[]",
    "null": b"null",
    "deep nesting": b"[" * 1_000_000,
    "numbers for parts": b'{"made": 1, "files": 2}',
    "lists for parts": b'{"made": [], "files": []}',
    "lists within": b'{"made": {"tensorrt": []}, "files": {"model.plan": []}}',
    "null within": b'{"made": {"tensorrt": null}, "files": {"model.plan": null}}',
    "values of other types": b'{"made": {"tensorrt": {"version": [1], "compute_capability": {}, "version_compatible": []}}}',
    "endless sizes": b'{"files": {"model.plan": {"size_bytes": Infinity}}}',
    "sizes in words": b'{"files": {"model.plan": {"size_bytes": "four"}}}',
    "names that no file has": b'{"files": {"\\u0000": {"size_bytes": 1}}}',
    "names too long for a file": b'{"files": {"' + b"a" * 5000 + b'": {"size_bytes": 1}}}',
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_damaged_manifest_is_a_finding(case: str, tmp_path: Path) -> None:
    config = base_text("tensorrt") + "response_cache { enable: true }\n"
    write(
        {"m/config.pbtxt": config, "m/1/model.plan": TensorRtPlan("11.0.0.1"), "m/1/manifest.json": MANIFESTS[case]},
        tmp_path,
    )
    found = rules_of(linted(tmp_path))
    assert "MW904" in found
    assert found & {"MW801", "MW802"}


def test_a_manifest_may_be_a_folder(tmp_path: Path) -> None:
    config = base_text("tensorrt") + "response_cache { enable: true }\n"
    write({"m/config.pbtxt": config, "m/1/model.plan": TensorRtPlan("11.0.0.1"), "m/1/manifest.json/x": b""}, tmp_path)
    assert {"MW802", "MW904"} <= rules_of(linted(tmp_path))


def test_memory_and_time_are_bounded(tmp_path: Path) -> None:
    """In a process of its own, with 400 MB of address space more than an empty one has, and ten seconds."""
    for number, (data, _) in enumerate(CONFIGS.values()):
        write({f"m{number}/config.pbtxt": data, f"m{number}/1/model.py": PYTHON_MODEL}, tmp_path)

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (700_000_000, 700_000_000))

    command = [sys.executable, "-m", "modelwright.cli.main", "lint", str(tmp_path), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, preexec_fn=bound, check=False)
    assert done.returncode == 1, done.stderr[-2000:]


SEEDS = [
    files_of(rule.example, fault=fault).get("m/config.pbtxt")
    for rule in all_rules().values()
    for fault in (True, False)
]
TEXTS = [text.encode() for text in SEEDS if isinstance(text, str)]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real config with pieces cut out, doubled, swapped with another's, or overwritten."""
    data = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        other = draw(st.sampled_from(TEXTS))
        piece = draw(
            st.sampled_from(
                [b"", data[start:end] * 2, other[start:end], b"\xff", b"{", b"}", b"-1", b'"', b"[", b"9" * 30]
            )
        )
        data = data[:start] + piece + data[end:]
    return data


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=mutated())
def test_no_mutated_config_ends_in_a_traceback(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    report = with_config(tmp_path_factory.mktemp("m"), data)
    assert report.models == 1


def test_code_that_warns_is_no_fault(tmp_path: Path) -> None:
    code = 'PATTERN = "\\d"\nONE = 1if True else 0\n' + PYTHON_MODEL
    write({"m/config.pbtxt": GOOD, "m/1/model.py": code}, tmp_path)
    assert rules_of(linted(tmp_path)) == set()


@pytest.mark.parametrize("backend", ["python", "onnxruntime", "tensorrt", "pytorch"])
def test_a_file_outside_the_models_folder_is_not_opened(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config names it, and a config may come from anybody: none of it shows in a message."""
    (tmp_path / "secret").write_text("hunter2\n")
    config = f'{base_text(backend)}default_model_filename: "../../../secret"\n'
    config += 'cc_model_filenames { key: "9.0" value: "../../../secret" }\n'
    write({"m/config.pbtxt": config, "m/1/keep": ""}, tmp_path / "repository")
    monkeypatch.setattr(os, "open", _watched(os.open, tmp_path / "secret"))
    report = linted(tmp_path / "repository")
    assert "MW118" in rules_of(report)
    assert not [item for item in report.findings if "hunter2" in item.message]


def _watched(opened: Callable[..., int], secret: Path) -> Callable[..., int]:
    def watched(path: Path, *more: object, **options: object) -> int:
        assert Path(path).resolve() != secret
        return opened(path, *more, **options)

    return watched
