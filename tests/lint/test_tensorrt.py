"""TensorRT rules at their bounds: no server here can be asked, so no recorded case holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelwright.lint.engine import lint
from modelwright.lint.examples import base_text
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.triton.releases import release

_TENSORRT = "10.5.0.18"  # of 24.10
_CC = 'cc_model_filenames { key: "8.0" value: "a.plan" }\ncc_model_filenames { key: "8.9" value: "b.plan" }\n'


def header(version: str = _TENSORRT) -> bytes:
    return b"ftrt" + bytes(20) + bytes(map(int, version.split(".")))


def built(**fields: Any) -> dict[str, Any]:
    return {"version": _TENSORRT, "compute_capability": "8.9", **fields}


def profile(low: list[int], high: list[int]) -> dict[str, Any]:
    return {"inputs": {"x": {"min": low, "opt": high, "max": high}}}


def rules(root: Path, made: Any, more: str = "", files: tuple[str, ...] = ("model.plan",)) -> set[str]:
    """The ids of what lint finds in a repository with one model: max_batch_size 8, x and y of dims [2]."""
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "config.pbtxt").write_text(base_text("tensorrt") + more)
    for name in files:
        (root / "m" / "1" / name).write_bytes(header())
    (root / "m" / "1" / "manifest.json").write_text(json.dumps({"made": made}))
    report = lint(RepositoryTree.read(root), Options(release("24.10")))
    return {found.rule.id for found in report.findings}


def test_a_plan_that_fits_its_config_is_clean(tmp_path: Path) -> None:
    assert rules(tmp_path, {"tensorrt": built(profiles=[profile([1, 2], [8, 2])])}) == set()


@pytest.mark.parametrize(("rows", "expected"), [(7, {"MW805"}), (8, set()), (9, set())])
def test_rows_of_a_profile(tmp_path: Path, rows: int, expected: set[str]) -> None:
    assert rules(tmp_path, {"tensorrt": built(profiles=[profile([1, 2], [rows, 2])])}) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [([1, 1], [8, 1], {"MW806"}), ([1, 3], [8, 4], {"MW806"}), ([1, 1], [8, 2], set()), ([1, 2], [8, 9], set())],
    ids=["too small", "too large", "at its max", "at its min"],
)
def test_dims_against_a_profile(tmp_path: Path, low: list[int], high: list[int], expected: set[str]) -> None:
    assert rules(tmp_path, {"tensorrt": built(profiles=[profile(low, high)])}) == expected


@pytest.mark.parametrize(("index", "expected"), [(0, set()), (1, set()), (2, {"MW807"})])
def test_profiles_of_instances(tmp_path: Path, index: int, expected: set[str]) -> None:
    two = [profile([1, 2], [8, 2])] * 2
    group = f'instance_group [ {{ kind: KIND_GPU, profile: [ "{index}" ] }} ]\n'
    assert rules(tmp_path, {"tensorrt": built(profiles=two)}, group) == expected


def test_only_the_profiles_that_instances_use_count(tmp_path: Path) -> None:
    """Without `profile` an instance uses the first."""
    few, many = profile([1, 2], [4, 2]), profile([1, 2], [8, 2])
    group = 'instance_group [ { kind: KIND_GPU, profile: [ "1" ] } ]\n'
    assert rules(tmp_path / "first", {"tensorrt": built(profiles=[few, many])}) == {"MW805"}
    assert rules(tmp_path / "listed", {"tensorrt": built(profiles=[few, many])}, group) == set()


@pytest.mark.parametrize(
    ("of_a", "of_b", "expected"),
    [
        ({"compute_capability": "8.0"}, {}, set()),
        ({"compute_capability": "8.0"}, {"compute_capability": "8.0"}, {"MW808"}),
        ({"compute_capability": "8.0"}, {"compute_capability": "8.0", "hardware_compatibility": "ampere_plus"}, set()),
        ({}, {}, {"MW808"}),
    ],
    ids=["each its own", "one twice", "one that is hardware compatible", "the other twice"],
)
def test_plans_by_compute_capability(
    tmp_path: Path, of_a: dict[str, Any], of_b: dict[str, Any], expected: set[str]
) -> None:
    made = {"plans": {"a.plan": built(**of_a), "b.plan": built(**of_b)}}
    assert rules(tmp_path, made, _CC, ("a.plan", "b.plan", "model.plan")) == expected


def test_each_of_several_plans_is_read(tmp_path: Path) -> None:
    """A plan of another TensorRT, and a file that is no plan, are found by whatever capability they are named."""
    made = {"plans": {"a.plan": built(compute_capability="8.0"), "b.plan": built()}}
    rules(tmp_path, made, _CC, ("a.plan", "b.plan", "model.plan"))
    (tmp_path / "m" / "1" / "a.plan").write_bytes(header("10.0.1.6"))
    (tmp_path / "m" / "1" / "b.plan").write_text("<html>404</html>")
    report = lint(RepositoryTree.read(tmp_path), Options(release("24.10")))
    assert {(found.rule.id, found.file) for found in report.findings} == {
        ("MW801", "m/1/a.plan"),
        ("MW803", "m/1/b.plan"),
    }


@pytest.mark.parametrize(
    "profiles",
    ["none", 3, [3], [{"inputs": 3}], [{"inputs": {}}], [{"inputs": {"x": {"min": [], "opt": [], "max": []}}}], [{}]],
    ids=str,
)
def test_a_manifest_of_another_maker_breaks_nothing(tmp_path: Path, profiles: Any) -> None:
    assert rules(tmp_path, {"tensorrt": built(profiles=profiles)}) <= {"MW806"}
