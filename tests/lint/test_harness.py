"""The harness tells what a server does, and the record of it is that of today's cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lint.cases import EXCUSED, Case, all_cases
from tests.lint.cases.build import ensemble, onnx, python, step
from tests.lint.generator import generated
from tests.lint.harness import Servers
from tests.lint.record import recorded
from tests.lint.trees import Dir, Link, Tree, clear, models, write
from tests.server.models import shared_environment

EVERY = 20  # of the hand-made cases, this one is shown to the server again; `differential` shows them all
KIND_OF: dict[str, tuple[Tree, dict[str, str]]] = {
    "loads": (python(), {"m": "loads"}),
    "refused when it is polled": (python(batch=-1), {"m": "refused"}),
    "refused when it is loaded": (onnx(b"nonsense"), {"m": "refused"}),
    "ends the server": ({**python(), "m/99999999999999999999": Dir()}, {"m": "aborts"}),
    "hangs": ({"m/config.pbtxt": 'backend: "python"', "m/1/keep": ""}, {"m": "hangs"}),
    "an ensemble": (
        ensemble(step("a", "x: x", "y: y"), members=python(name="a")),
        {"a": "loads", "e": "loads"},
    ),
    "an ensemble of a model that is refused": (
        ensemble(step("a", "x: x", "y: y"), members=python(name="a", batch=-1)),
        {"a": "refused", "e": "refused"},
    ),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One server for all tests of the module: what one case leaves behind would show in the next."""
    folder = tmp_path_factory.mktemp("servers")
    with Servers(shared_environment(), folder, auto_complete=False, count=1) as servers:
        yield servers


@pytest.mark.parametrize("name", KIND_OF)
def test_the_kind_of_a_verdict(servers: Servers, name: str) -> None:
    tree, kinds = KIND_OF[name]
    ((_, verdicts),) = servers.run([Case(name, tree)])
    assert {model: verdict.kind for model, verdict in verdicts.items()} == kinds


def test_a_model_that_is_not_polled_is_refused_with_the_reason_of_the_log(servers: Servers) -> None:
    ((_, verdicts),) = servers.run([Case("negative", python(batch=-1))])
    assert verdicts["m"].reason == "'max_batch_size' must be non-negative value for m"


def test_a_server_that_ended_is_replaced_for_the_next_case(servers: Servers) -> None:
    ends, _ = KIND_OF["ends the server"]
    kinds = [verdicts["m"].kind for _, verdicts in servers.run([Case("ends", ends), Case("good", python())])]
    assert kinds == ["aborts", "loads"]


@pytest.mark.timeout(600)
@pytest.mark.server
def test_the_server_still_says_what_is_recorded(tmp_path: Path) -> None:
    cases = all_cases()[::EVERY]
    changed = []
    with Servers(shared_environment(), tmp_path, auto_complete=False, count=4) as servers:
        for case, verdicts in servers.run(cases):
            loads = {model: kind == "loads" for model, kind in recorded()[case.id].off.items()}
            if loads != {model: not verdict.is_fault for model, verdict in verdicts.items()}:
                changed.append((case.id, loads, verdicts))
    assert changed == []


def test_every_case_is_recorded_and_nothing_else() -> None:
    assert sorted(recorded()) == sorted(case.id for case in all_cases())


def test_there_is_a_case_on_both_sides() -> None:
    loads = [kind == "loads" for entry in recorded().values() for kind in entry.off.values()]
    assert loads.count(True) > 400
    assert loads.count(False) > 400


def test_what_is_excused_is_a_case() -> None:
    assert set(EXCUSED) <= {case.id for case in all_cases()}


def test_a_tree_is_written_and_cleared(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    tree: Tree = {
        "m/1/link": Link("../../../outside/file"),
        "../outside/file": "text",
        "m/2": Dir(),
        "m/1/hard": Link("real", hard=True),
        "m/1/real": b"\xff",
        "gone": Link("nowhere"),
    }
    write(tree, root)
    assert (root / "m/1/link").read_text() == "text"
    assert (root / "m/1/hard").stat().st_nlink == 2
    assert (root / "m/2").is_dir()
    clear(root)
    assert list(tmp_path.rglob("*")) == [root]


def test_models_are_the_folders_of_the_root_in_order() -> None:
    assert models({"b/1/x": "", "README.md": "", "a": Dir(), "../outside/c/x": "", "link": Link("b")}) == [
        "b",
        "a",
        "link",
    ]


def test_the_same_seed_gives_the_same_repositories() -> None:
    assert generated(30, 5) == generated(30, 5)
    assert generated(30, 5) != generated(30, 6)


def test_generated_repositories_differ() -> None:
    assert len({repr(case.tree) for case in generated(60, 1)}) == 60
