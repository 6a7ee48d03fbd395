"""How long a server takes to follow a promoted version, and how long it takes to put three of them back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.servers import Mode, serving
from benchmarks.table import Section, load
from modelwright.errors import FleetError, VerifyError
from modelwright.fleet.follow import Servers, follow
from modelwright.fleet.watcher import Stage, Watcher
from modelwright.project.project import ProjectConfig
from modelwright.project.project import load as load_project
from modelwright.repository import moves
from modelwright.repository.move import carry_out
from modelwright.repository.repository import Repository

_MODEL = "table"
_SERVERS = 3
_SIZES = {"1 kB": 64, "90 MB": 11_250_000}  # rows of the model's table: two floats each
_YAML = """\
source: {kind: onnx, path: model.onnx}
samples: data:samples
serving: {max_batch_size: 8}
"""
_DATA = """\
import numpy as np


def samples():
    return {"x": np.arange(8, dtype=np.float32).reshape(4, 2)}
"""


@dataclass
class _Refuses(Watcher):
    """The last server's answers count as wrong, at the moment at which they would be asked for."""

    url: str
    at_s: float = field(default=0.0)

    def server(self, url: str, stage: Stage, text: str = "") -> None:
        if (url, stage) == (self.url, "replaying"):
            self.at_s = time.monotonic()
            raise VerifyError(f"{url}: as if its answers were wrong")


def measure(options: Options) -> list[Section]:
    rounds = options.rounds(3)
    rows = []
    for size, count in _SIZES.items():
        for mode, words in (("explicit", "told to load"), ("poll", "polling every second")):
            with tempfile.TemporaryDirectory(prefix="modelwright-fleet-") as folder:
                project = _project(Path(folder) / "project", 64 if options.quick else count)
                follows, backs = _times(project, "explicit" if mode == "explicit" else "poll", rounds)
            cells = [timing.seconds(value) for times in (follows, backs) for value in timing.best_and_median(times)]
            rows.append([f"{size}, {words}", *cells, timing.seconds(max(backs))])
    method = (
        f"{_SERVERS} local servers of one repository; version 2 of a model is promoted. *Follows*: one server, from "
        "being told, or from its turn to be looked at, until its golden samples were answered. *Put back*: all three "
        "have changed, and the last one's answers count as wrong; from then until all serve version 1 again. "
        f"{rounds} rounds. Load average {load()}."
    )
    header = ["", "follows: best", "median", "put back: best", "median", "worst"]
    return [Section("fleet: three servers follow, or are put back", method, header, rows)]


def _times(project: ProjectConfig, mode: Mode, rounds: int) -> tuple[list[float], list[float]]:
    follows: list[float] = []
    backs: list[float] = []
    repository = Repository.of(project)
    with _servers(project, mode) as urls:
        for _ in range(rounds):
            move = moves.promote(repository, _MODEL, 2)
            refuses = _Refuses(urls[-1])
            try:
                follow(project, repository, move, Servers(tuple(urls), watcher=refuses))
            except FleetError as error:
                if "not put back" in error.message:
                    raise
                backs.append(time.monotonic() - refuses.at_s)
            follows += [item.seconds for item in follow(project, repository, move, Servers(tuple(urls)))]
            follow(project, repository, moves.promote(repository, _MODEL, 1), Servers(tuple(urls)))
    return follows, backs


@contextmanager
def _servers(project: ProjectConfig, mode: Mode) -> Iterator[list[str]]:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(project, mode, f"fleet-{number}", stop_grace_s=0)) for number in range(_SERVERS)
        ]
        yield [f"http://{server.http}" for server in servers]


def _project(root: Path, rows: int) -> ProjectConfig:
    """Versions 1 and 2, of which 1 is promoted."""
    projects.empty_project(root)
    folder = root / "builders" / _MODEL
    folder.mkdir()
    (folder / "model.yaml").write_text(_YAML)
    (folder / "data.py").write_text(_DATA)
    for version in (1, 2):
        _save_table(folder / "model.onnx", float(version), rows)
        timing.build(root)
    project = load_project(root)
    repository = Repository.of(project)
    carry_out(repository, moves.promote(repository, _MODEL, 1))
    return project


def _save_table(path: Path, factor: float, rows: int) -> None:
    """y = x · factor + a row of a table, which input chooses: so the table stays in memory."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(int(factor)).standard_normal((rows, 2), dtype=np.float32)
    constants = {
        "factor": np.array([factor], dtype=np.float32),
        "table": table,
        "zero": np.array([0.0, 0.0], dtype=np.float32).reshape(2, 1),
        "axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("MatMul", ["x", "zero"], ["nothing"]),
        helper.make_node("Squeeze", ["nothing", "axis"], ["row"]),
        helper.make_node("Cast", ["row"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["chosen"]),
        helper.make_node("Add", ["product", "chosen"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "xy")
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "table", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
