"""That the benchmarks measure what they say; how fast things are is for `python -m benchmarks`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import projects, timing
from benchmarks.noop import fitted
from benchmarks.table import Section


def test_synthetic_builders_share_no_artefact(tmp_path: Path) -> None:
    project = projects.empty_project(tmp_path / "project")
    for number in range(2):
        projects.add_onnx_builder(project, number)
    timing.build(project)
    records = (project / ".modelwright" / "store").glob("??/*/artifact.json")
    steps = [json.loads(record.read_text())["payload"]["step"] for record in records]
    assert sorted(steps) == sorted(["samples", "onnx_file", "verify"] * 2)


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3\nout of luck"):
        timing.run([timing.PYTHON, "-c", "print('out of luck'); raise SystemExit(3)"], tmp_path)


def test_candidates_take_turns_and_each_is_first_as_often() -> None:
    order: list[str] = []

    def candidate(name: str) -> float:
        order.append(name)
        return float(len(order))

    taken = timing.interleaved({"a": lambda: candidate("a"), "b": lambda: candidate("b")}, 4)
    assert "".join(order) == "abbaabba"
    assert taken == {"a": [1.0, 4.0, 5.0, 8.0], "b": [2.0, 3.0, 6.0, 7.0]}


@pytest.mark.parametrize(("most_cores", "runs"), [(1000.0, 1), (-1.0, 3)], ids=["quiet", "never quiet"])
def test_a_disturbed_run_is_repeated_up_to_a_limit(most_cores: float, runs: int) -> None:
    taken = iter([0.3, 0.2, 0.1])
    timing.undisturbed(lambda: next(taken), 3, most_cores)
    assert len(list(taken)) == 3 - runs


def test_the_fit_finds_the_fixed_and_the_growing_part() -> None:
    fixed, each = fitted([(10, 0.31), (100, 0.4), (1000, 1.3)])
    assert fixed == pytest.approx(0.3)
    assert each == pytest.approx(0.001)


def test_a_section_is_markdown_with_numbers_to_the_right() -> None:
    section = Section(
        "noop", "Five rounds.", ["command", "best"], [["`build`", "0.25 s"], ["`make`", "1 s"]], ["Good."]
    )
    assert section.markdown().splitlines() == [
        "### noop",
        "",
        "Five rounds.",
        "",
        "| command |   best |",
        "|---------|-------:|",
        "| `build` | 0.25 s |",
        "| `make`  |    1 s |",
        "",
        "- Good.",
    ]


def test_writing_replaces_one_benchmark_and_nothing_else() -> None:
    readme = "a\n<!-- begin noop -->\nold\n<!-- end noop -->\nb\n"
    once = command.replaced(readme, "noop", "new")
    assert once == "a\n<!-- begin noop -->\n\nnew\n\n<!-- end noop -->\nb\n"
    assert command.replaced(once, "noop", "new") == once
    with pytest.raises(ValueError, match="the markers of cold are missing"):
        command.replaced(readme, "cold", "new")


@pytest.mark.parametrize("name", command.NAMES)
def test_the_readme_has_a_place_for_each_benchmark(name: str) -> None:
    readme = command.README.read_text()
    assert command.replaced(readme, name, "") != readme
