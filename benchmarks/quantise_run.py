"""A program for `benchmarks.quantise`: what models of one builder answer, and how long they take in turns.

    python -m benchmarks.quantise_run BUILDER ROUNDS NAME=FILE…    the others are held against the first

It writes JSON: {name: {"metrics": …, "times_s": {batch: [seconds of CPU, a value a round]}}}. It runs in a process of
its own, since the kernels of onnxruntime are chosen when it is loaded.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.onnx.runtime import load_session

_WARM_UP = 3
# Builder → its batches, the module and function of its folder that evaluates, whether that takes the source, too.
_BUILDERS: Mapping[str, tuple[tuple[int, ...], str, str, bool]] = {
    "minilm": ((1, 8), "sentences", "similarity", True),
    "digits": ((1, 8, 64), "data", "evaluate", False),
}
_TOKENS = 64


def main(builder: Path, files: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    batches, module, function, compares = _BUILDERS[builder.name]
    sys.path.insert(0, str(builder))
    evaluate = getattr(importlib.import_module(module), function)
    sessions = {name: load_session(file) for name, file in files.items()}
    infer = {name: _infer_of(session) for name, session in sessions.items()}
    first = next(iter(infer.values()))
    result: dict[str, Any] = {}
    for name, own in infer.items():
        metrics = evaluate(own, first) if compares else evaluate(own)
        result[name] = {"metrics": metrics, "times_s": {}}
    for batch in batches:
        feed = _feed(builder.name, batch)
        for name, times in _in_turns(sessions, feed, rounds).items():
            result[name]["times_s"][str(batch)] = times
    return result


def _infer_of(session: Any) -> Any:
    names = [output.name for output in session.get_outputs()]

    def infer(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return infer


def _in_turns(sessions: Mapping[str, Any], feed: Mapping[str, Any], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of one run, so that other programs do not count; each has one thread."""
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds + _WARM_UP):
        for name in list(sessions)[:: 1 if number % 2 == 0 else -1]:
            started = time.thread_time()
            sessions[name].run(None, feed)
            if number >= _WARM_UP:
                taken[name].append(time.thread_time() - started)
    return taken


def _feed(builder: str, batch: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    if builder == "digits":
        return {"image": rng.random((batch, 1, 8, 8), np.float32)}
    ids = rng.integers(1000, 30000, (batch, _TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[3:])
    measured = main(Path(sys.argv[1]), {name: Path(file) for name, file in given.items()}, int(sys.argv[2]))
    print(json.dumps(measured))
