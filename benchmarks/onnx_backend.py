"""The backend tests of the package onnx: which of them are served, and why the others are not.

Each is built by a builder of its own, whose samples and reference are the test's inputs and expected outputs. What was
published is loaded by the real server, one by one, and asked over both protocols. What the server answers is held
against the test's outputs again, here and not by Modelwright.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import projects
from benchmarks.onnx_cases import BackendTest, backend_tests
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.build.build import build
from modelwright.build.inline import InlineExecutor
from modelwright.build.listener import Listener
from modelwright.build.outcome import Outcome
from modelwright.errors import BugError, ModelwrightError
from modelwright.onnx.runtime import load_session, run_session
from modelwright.project.project import ProjectConfig
from modelwright.project.project import load as load_project
from modelwright.server.session import serve
from modelwright.triton.client import Client, connect

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_QUICK = 60  # every so manieth
_TIMEOUT_S = 600
_A_SERVER, _TRIES = 200, 3  # models a server loads and unloads; times that one is asked when its server ends
_AT_ONCE = 4  # loads: each waits for a process of its own to start
_SERVED, _REFUSED, _CRASHED = "served, equal", "refused with a reason", "crashed"
_NOT_LOADED, _DIFFERENT = "published, refused by the server", "published, another answer"
_LOST = "the server ended"
_VERDICTS = (_SERVED, _REFUSED, _CRASHED, _NOT_LOADED, _DIFFERENT)

# What a message says, why that is, and what a person can do. The first that is found counts.
_REASONS = (
    (
        r"is of (element type|BFLOAT16|FLOAT8|FLOAT4|U?INT4|U?INT2|COMPLEX)\w*",
        "an element type that Triton does not have",
        "cast it in the model",
    ),
    (r"is (of|a|an) (sequence|optional)", "a sequence or optional: Triton takes only tensors", "return tensors"),
    (
        r"Could not find an implementation for",
        "onnxruntime has no CPU kernel for the operator, at that opset and of these types",
        "export with a later opset, or cast",
    ),
    (
        r"is not a registered function/op",
        "an operator that onnxruntime does not know: those of training",
        "leave them out of what is served",
    ),
    (
        r"construct locale",
        "a locale that this machine and containers lack, en_US for instance",
        "set the node's locale to C.UTF-8",
    ),
    (
        r"Batchwise recurrent",
        "a recurrent node with the batch first: not in onnxruntime",
        "layout 0, and transpose",
    ),
    (r"onnxruntime does not load it", "onnxruntime refuses the graph for another reason", "see its message"),
    (r"onnxruntime fails on inputs", "onnxruntime fails on the test's inputs", "see its message"),
    (r"size 0|: 0 in dims", "a tensor of the fixed size 0, which Triton refuses", "make the dimension dynamic"),
    (r"NaN", "the expected output has NaN, with which nothing can be compared", "other samples"),
    (
        r" differs (by|in) |infinite in one of source and result|has shape .* the source",
        "onnxruntime does not give what the test expects",
        "raise the tolerance, or leave out the output",
    ),
    (r"got no tensors", "a graph without inputs: there are no samples", "nothing to serve"),
)
_OTHER = "another reason"


@dataclass(frozen=True)
class _Result:
    test: BackendTest
    verdict: str
    detail: str = ""
    passes_alone: bool = True  # whether onnxruntime itself gives what the test expects

    @property
    def reason(self) -> str:
        return next((why for pattern, why, _ in _REASONS if re.search(pattern, self.detail)), _OTHER)


def measure(options: Options) -> list[Section]:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="modelwright-onnx-") as folder:
        tests = backend_tests(Path(folder) / "light")[:: _QUICK if options.quick else 1]
        root = projects.empty_project(Path(folder) / "project")
        for test in tests:
            test.write_builder(root / "builders" / test.builder)
        project = load_project(root)
        outcomes = build(project, [], Listener(), start_executor=InlineExecutor)
        build_s = time.perf_counter() - started
        results = _judged(project, tests, {outcome.model: outcome for outcome in outcomes})
    serve_s = time.perf_counter() - started - build_s
    return [_verdicts(results, build_s, serve_s), _reasons(results), *_faults(results)]


def _judged(project: ProjectConfig, tests: Sequence[BackendTest], outcomes: Mapping[str, Outcome]) -> list[_Result]:
    failed = [_failed(test, outcomes[test.builder]) for test in tests if outcomes[test.builder].error]
    published = [test for test in tests if not outcomes[test.builder].error]
    return [*failed, *_served(project, published)]


def _served(project: ProjectConfig, tests: Sequence[BackendTest]) -> Iterator[_Result]:
    """A server for every few hundred. What a server that ended did not answer is asked again, a few times."""
    waiting, tries = list(tests), Counter[str]()
    while waiting:
        part, waiting = waiting[:_A_SERVER], waiting[_A_SERVER:]
        for result in _asked_all(project, part):
            tries[result.test.name] += 1
            if result.verdict == _LOST and tries[result.test.name] < _TRIES:
                waiting.append(result.test)
            else:
                yield result if result.verdict != _LOST else replace(result, verdict=_NOT_LOADED)


def _asked_all(project: ProjectConfig, tests: Sequence[BackendTest]) -> list[_Result]:
    log = project.logs / "server.log"
    with (
        serve(project.server, project.target, project.repository, log=log, say=print, load=[]) as served,
        connect(served.grpc, _TIMEOUT_S) as grpc,
        connect(served.http, _TIMEOUT_S) as http,
        ThreadPoolExecutor(_AT_ONCE) as threads,
    ):
        results = list(threads.map(lambda test: _asked(test, (grpc, http)), tests))
        if served.alive:
            return results
    end = " ".join(log.read_text(errors="replace").splitlines()[-5:])
    print(f"a server ended: {end}", file=sys.stderr)
    return [result if result.verdict == _SERVED else replace(result, verdict=_LOST) for result in results]


def _failed(test: BackendTest, outcome: Outcome) -> _Result:
    error = outcome.error
    assert error is not None
    return _Result(test, _CRASHED if isinstance(error, BugError) else _REFUSED, error.message, _passes_alone(test))


def _passes_alone(test: BackendTest) -> bool:
    """Whether onnxruntime, without a server, gives what the test expects. It takes only tensors, as a server does."""
    if not test.has_tensors_only:
        return False
    try:
        answers = run_session(load_session(test.model), test.tensors("input"))
        _check(test, {name: _on_the_wire(array) for name, array in answers.items()})
    except (ModelwrightError, AssertionError, TypeError, ValueError, RuntimeError):  # of numpy: FLOAT8 and its like
        return False
    return True


def _asked(test: BackendTest, clients: Sequence[Client]) -> _Result:
    """Load the model, ask it over each protocol, unload it."""
    try:
        clients[0].load(test.builder)
    except ModelwrightError as error:
        return _Result(test, _NOT_LOADED, error.message)
    try:
        for client in clients:
            inputs = {name: _on_the_wire(array) for name, array in test.tensors("input").items()}
            _check(test, client.infer(test.builder, inputs))
        clients[0].unload(test.builder)
    except (ModelwrightError, AssertionError) as error:
        return _Result(test, _DIFFERENT, str(error))
    return _Result(test, _SERVED)


def _on_the_wire(array: Array) -> Array:
    """Triton has no scalars: one is a tensor of shape [1]."""
    return array.reshape(1) if array.ndim == 0 else array


def _check(test: BackendTest, answers: Mapping[str, Array]) -> None:
    """As the package's own runner compares. Raises AssertionError."""
    import numpy as np

    for name, wanted in test.tensors("output").items():
        expected, answer = _on_the_wire(wanted), answers[name]
        np.testing.assert_equal(answer.shape, expected.shape)
        if expected.dtype == object:
            np.testing.assert_equal([item.decode() for item in answer.ravel()], expected.ravel().tolist())
            continue
        np.testing.assert_equal(answer.dtype, expected.dtype)
        if expected.dtype.kind == "V":  # bfloat16
            answer, expected = answer.astype(np.float32), expected.astype(np.float32)
        np.testing.assert_allclose(answer, expected, test.rtol, test.atol, err_msg=name)


def _verdicts(results: Sequence[_Result], build_s: float, serve_s: float) -> Section:
    kinds = list(dict.fromkeys(result.test.kind for result in results))
    rows = [_row(kind, [result for result in results if result.test.kind == kind]) for kind in kinds]
    rows.append(_row("all", results))
    crashed, not_loaded = (sum(result.verdict == verdict for result in results) for verdict in (_CRASHED, _NOT_LOADED))
    return Section(
        "onnx_backend: what becomes of the backend tests of onnx",
        f"{len(results):,} tests, a builder each, max_batch_size 0; built in one process in {build_s / 60:.0f} minutes,"
        f" loaded one by one and asked over HTTP and gRPC in {serve_s / 60:.0f}. Load average {load()}.",
        ["kind", "tests", "onnxruntime alone passes", *_VERDICTS],
        rows,
        [f"{crashed} crashed, {not_loaded} were published and refused by the server; the aims are 0."],
    )


def _row(kind: str, results: Sequence[_Result]) -> list[str]:
    counts = Counter(result.verdict for result in results)
    numbers = [len(results), sum(result.passes_alone for result in results), *(counts[name] for name in _VERDICTS)]
    return [kind, *(f"{number:,}" for number in numbers)]


def _reasons(results: Sequence[_Result]) -> Section:
    refused = [result for result in results if result.verdict == _REFUSED]
    counts = Counter(result.reason for result in refused)
    alone = Counter(result.reason for result in refused if result.passes_alone)
    helps = {why: remedy for _, why, remedy in _REASONS}
    examples = {result.reason: result.test.name for result in reversed(refused)}
    rows = [
        [why, f"{count:,}", f"{alone[why]:,}", helps.get(why, "-"), f"`{examples[why]}`"]
        for why, count in counts.most_common()
    ]
    return Section(
        "onnx_backend: why tests are refused",
        "By what the builder's error says. None of them is published. Onnxruntime alone: no server, no Modelwright.",
        ["reason", "tests", "onnxruntime alone passes", "what helps", "such as"],
        rows,
    )


def _faults(results: Sequence[_Result]) -> list[Section]:
    """What should not be: each with what was said."""
    wrong = [result for result in results if result.verdict in (_CRASHED, _NOT_LOADED, _DIFFERENT)]
    wrong += [result for result in results if result.verdict == _REFUSED and result.reason == _OTHER]
    if not wrong:
        return []
    rows = [[f"`{item.test.name}`", item.verdict, " ".join(item.detail.split())[:200]] for item in wrong]
    return [Section("onnx_backend: faults", "Each with what was said.", ["test", "verdict", "message"], rows)]
