"""wording.py: numbers in sentences."""

from __future__ import annotations

import pytest

from modelwright.loadtest.wording import change, number, percent


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.01234, "0.0123"), (0.5, "0.500"), (4.567, "4.57"), (12.34, "12.3"), (999.6, "1,000"), (-2.5, "-2.50"), (12345.6, "12,346")],
)  # fmt: skip
def test_a_number_has_three_digits_that_count(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"), [(1.1, "+10.0 %"), (0.8, "-20.0 %"), (0.99999, "+0.0 %"), (4.2, "4.20 times")]
)
def test_a_change_is_in_percent_until_it_is_a_multiple(ratio: float, shown: str) -> None:
    assert change(ratio) == shown


@pytest.mark.parametrize(("share", "shown"), [(0.05, "5 %"), (0.975, "97.5 %"), (1, "100 %")])
def test_a_share_in_percent(share: float, shown: str) -> None:
    assert percent(share) == shown
