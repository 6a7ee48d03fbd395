"""Small Triton models that behave in one way each, and misbehave in one: for load tests against the real server.

    decoupled_repeat    IN (-1), COUNT (1), DELAY_MS (1) → OUT: IN, COUNT times, DELAY_MS before each; requests overlap
    sequence_sum        IN (1) → OUT (1): the sum of what its sequence sent so far; at most 4 sequences have a slot
    sequence_by_name    the same with strings as correlation ids, which server 2.51.0 loads and then refuses to run:
                        it hands them over padded to 128 bytes, and its own check finds more than one string in that
    flaky               IN (-1) → OUT (-1); every tenth request fails
    slow                DELAY_MS (1) → OUT (1), after so many milliseconds; one request at a time
    identity            NUMBERS (-1), TEXTS (-1) → SAME_NUMBERS, SAME_TEXTS
    optional            IN (1), BIAS (1), which may be left out → OUT (1): their sum
    two_versions        9 and 10, both served: DELAY_MS (1) → OUT (1), as slow
    ensemble_of_sum     an ensemble whose one composing model is sequence_sum
    broken              does not load

IN, OUT and NUMBERS are FP32, INT32 in sequences; TEXTS are strings. Batched are flaky, identity (at most 8 rows) and
the sequences (at most 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Tensor = tuple[str, str, int]  # name, data type without its TYPE_, the one dim

_HEADER = """\
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils


def value(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def answer(**outputs):
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])


"""

_REPEAT = """\
class TritonPythonModel:
    def initialize(self, args):
        self.threads = []

    def execute(self, requests):
        for request in requests:
            arguments = (request.get_response_sender(), value(request, "IN"), value(request, "COUNT"), value(request, "DELAY_MS"))
            self.threads = [thread for thread in self.threads if thread.is_alive()]
            self.threads.append(threading.Thread(target=self.repeat, args=arguments))
            self.threads[-1].start()

    def repeat(self, sender, array, count, delay_ms):
        for _ in range(int(count[0])):
            time.sleep(int(delay_ms[0]) / 1000)
            sender.send(answer(OUT=array))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        for thread in self.threads:
            thread.join()
"""

_SUM = """\
class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.add(request) for request in requests]

    def add(self, request):
        if not value(request, "READY").ravel()[0]:  # a slot that has no request now
            return answer(OUT=np.zeros((1, 1), np.int32))
        name = value(request, "CORRID").ravel()[0]
        if value(request, "START").ravel()[0]:
            self.sums[name] = 0
        self.sums[name] += int(value(request, "IN").ravel()[0])
        total = self.sums[name]
        if value(request, "END").ravel()[0]:
            del self.sums[name]
        return answer(OUT=np.array([[total]], np.int32))
"""

_FLAKY = """\
class TritonPythonModel:
    def initialize(self, args):
        self.count = 0

    def execute(self, requests):
        return [self.one(request) for request in requests]

    def one(self, request):
        self.count += 1
        if self.count % 10 == 0:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("every tenth request fails"))
        return answer(OUT=value(request, "IN"))
"""

_SLOW = """\
class TritonPythonModel:
    def execute(self, requests):
        return [self.one(value(request, "DELAY_MS")) for request in requests]

    def one(self, delay_ms):
        time.sleep(float(delay_ms[0]) / 1000)
        return answer(OUT=delay_ms)
"""

_IDENTITY = """\
class TritonPythonModel:
    def execute(self, requests):
        return [answer(SAME_NUMBERS=value(r, "NUMBERS"), SAME_TEXTS=value(r, "TEXTS")) for r in requests]
"""

_SEQUENCE = """\
sequence_batching {{
  max_sequence_idle_microseconds: 5000000
  direct {{ }}
  control_input [
    {{ name: "START" control [{{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }}] }},
    {{ name: "END" control [{{ kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] }}] }},
    {{ name: "READY" control [{{ kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] }}] }},
    {{ name: "CORRID" control [{{ kind: CONTROL_SEQUENCE_CORRID data_type: {id_type} }}] }}
  ]
}}
"""

_OPTIONAL = """\
class TritonPythonModel:
    def execute(self, requests):
        return [self.one(value(r, "IN"), pb_utils.get_input_tensor_by_name(r, "BIAS")) for r in requests]

    def one(self, array, bias):
        return answer(OUT=array if bias is None else array + bias.as_numpy())
"""

_BROKEN = """\
class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("fails on purpose")
"""

_ENSEMBLE = """\
platform: "ensemble"
max_batch_size: 4
input [{ name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }]
output [{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }]
ensemble_scheduling {
  step [{
    model_name: "sequence_sum" model_version: -1
    input_map { key: "IN" value: "IN" }
    output_map { key: "OUT" value: "OUT" }
  }]
}
"""

MODELS = (
    *("decoupled_repeat", "sequence_sum", "sequence_by_name", "flaky", "slow", "identity", "optional", "two_versions"),
    *("ensemble_of_sum", "broken"),
)


def write_models(repository: Path) -> Path:
    """Write all of MODELS into a folder, which may not exist yet; returns it."""
    repeat = [("IN", "FP32", -1), ("COUNT", "INT32", 1), ("DELAY_MS", "INT32", 1)]
    decoupled = "model_transaction_policy { decoupled: true }"
    _write(repository, "decoupled_repeat", _REPEAT, 0, repeat, [("OUT", "FP32", -1)], decoupled)
    for name, id_type in (("sequence_sum", "TYPE_UINT64"), ("sequence_by_name", "TYPE_STRING")):
        controls = _SEQUENCE.format(id_type=id_type)
        _write(repository, name, _SUM, 4, [("IN", "INT32", 1)], [("OUT", "INT32", 1)], controls)
    _write(repository, "flaky", _FLAKY, 8, [("IN", "FP32", -1)], [("OUT", "FP32", -1)])
    _write(repository, "slow", _SLOW, 0, [("DELAY_MS", "FP32", 1)], [("OUT", "FP32", 1)])
    both = [("NUMBERS", "FP32", -1), ("TEXTS", "STRING", -1)]
    _write(repository, "identity", _IDENTITY, 8, both, [(f"SAME_{name}", kind, dim) for name, kind, dim in both])
    optional = [("IN", "FP32", 1), ("BIAS", "FP32", 1)]
    config = _write(repository, "optional", _OPTIONAL, 0, optional, [("OUT", "FP32", 1)])
    config.write_text(config.read_text().replace('name: "BIAS"', 'name: "BIAS" optional: true'))
    for version in (9, 10):
        every = "version_policy { all { } }"
        _write(repository, "two_versions", _SLOW, 0, [("DELAY_MS", "FP32", 1)], [("OUT", "FP32", 1)], every, version)
    _write(repository, "broken", _BROKEN, 0, [("IN", "FP32", 1)], [("OUT", "FP32", 1)])
    (repository / "ensemble_of_sum" / "1").mkdir(parents=True)
    (repository / "ensemble_of_sum" / "config.pbtxt").write_text(_ENSEMBLE)
    return repository


def _write(
    repository: Path,
    name: str,
    code: str,
    max_batch_size: int,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    extra: str = "",
    version: int = 1,
) -> Path:
    """One version of one model; returns where its config is."""
    lines = ['backend: "python"', f"max_batch_size: {max_batch_size}", "instance_group [{ count: 1 kind: KIND_CPU }]"]
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for tensor, data_type, dim in tensors:
            lines.append(f'{kind} [{{ name: "{tensor}" data_type: TYPE_{data_type} dims: [ {dim} ] }}]')
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(_HEADER + code)
    config = folder.parent / "config.pbtxt"
    config.write_text("\n".join([*lines, extra]))
    return config
