"""The names of a model repository: what the server takes for a version, and what Modelwright does."""

from __future__ import annotations

import pytest

from modelwright.triton.layout import (
    environment_config,
    environment_of,
    in_range,
    version_number,
    version_served,
)


@pytest.mark.parametrize(
    ("folder", "number", "served"),
    [
        ("1", 1, 1),
        ("9223372036854775807", 2**63 - 1, 2**63 - 1),
        ("5.tmp", None, 5),
        ("5-old", None, 5),
        (" 7", None, 7),
        ("+3", None, 3),
        ("-1", None, -1),
        ("0", 0, 0),
        ("00", None, None),
        ("-0", None, 0),
        ("007", None, None),
        ("warmup", None, None),
        ("initial_state", None, None),
        ("configs", None, None),
        ("v1", None, None),
        ("", None, None),
        ("٣", None, None),  # a digit, and not one of C's
        ("9223372036854775808", None, 2**63),
    ],
)
def test_what_counts_as_a_version(folder: str, number: int | None, served: int | None) -> None:
    assert (version_number(folder), version_served(folder)) == (number, served)


def test_the_server_holds_numbers_of_64_bits() -> None:
    assert in_range(2**63 - 1)
    assert in_range(-(2**63))
    assert not in_range(2**63)
    assert not in_range(-(2**63) - 1)


@pytest.mark.parametrize(
    ("file", "environment"),
    [
        ("configs/cpu.pbtxt", "cpu"),
        ("configs/a.b.pbtxt", "a.b"),
        ("configs/.pbtxt", None),
        ("configs/cpu.txt", None),
        ("configs/old/cpu.pbtxt", None),
        ("config.pbtxt", None),
    ],
)
def test_configs_of_environments(file: str, environment: str | None) -> None:
    assert environment_of(file) == environment
    assert environment is None or environment_config(environment) == file
