"""text.py: numbers and sizes as people read them."""

from __future__ import annotations

import pytest

from modelwright import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (0.01234, "0.0123"), (0.5, "0.500"), (5.934, "5.93"), (12.34, "12.3"), (999.4, "999"), (999.6, "1,000"),
        (12345.6, "12,346"), (5_012_400.0, "5,012,400"), (-2.5, "-2.50"), (1e-9, "0.000000"),
        (None, "n/a"), (float("nan"), "n/a"), (float("inf"), "n/a"),
    ],
)  # fmt: skip
def test_a_number_has_three_digits_that_count(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(20.0, "20"), (0.05, "0.05"), (1234.5, "1,234.5")])
def test_a_number_that_was_written_down_is_shown_as_written(value: float, shown: str) -> None:
    assert text.exact(value) == shown


@pytest.mark.parametrize(
    ("value_s", "shown"),
    [(-1, "0 s"), (0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (7_199, "1 h"), (86_399, "23 h"), (4e6, "46 d")],
)
def test_an_age_is_rounded_down_to_its_unit(value_s: float, shown: str) -> None:
    assert text.age(value_s) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (4_200, "4.2 kB"),
        (148_000_000, "148.0 MB"),
        (1 << 30, "1.1 GB"),
        (5e13, "50000.0 GB"),
    ],
)
def test_a_size_has_the_unit_that_fits(size_bytes: float, shown: str) -> None:
    assert text.size(size_bytes) == shown


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.milliseconds(5.934), "5.93 ms"),
        (text.milliseconds(None), "n/a"),
        (text.seconds(30), "30.0 s"),
        (text.rate(5012.4), "5,012 req/s"),
        (text.rate(None), "n/a"),
        (text.with_unit(0.5, "µs"), "0.500 µs"),
    ],
)
def test_a_unit_follows_its_number(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [
        (1.1, "+10.0 %"),
        (0.877, "-12.3 %"),
        (1.0, "0.0 %"),
        (0.99999, "0.0 %"),
        (2.4, f"{text.TIMES} 2.40"),
        (float("inf"), f"{text.TIMES} n/a"),
    ],
)
def test_a_ratio_is_a_change_in_percent_until_it_is_a_multiple(ratio: float, shown: str) -> None:
    assert text.change(ratio) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0.05, "5 %"), (0.975, "97.5 %"), (1, "100 %"), (0.00028, "0.028 %"), (0.6666, "66.7 %")]
)
def test_a_share_is_in_percent(share: float, shown: str) -> None:
    assert text.percent(share) == shown


@pytest.mark.parametrize(("count", "shown"), [(0, "0 rounds"), (1, "1 round"), (2000, "2,000 rounds")])
def test_what_is_counted_is_one_or_more(count: int, shown: str) -> None:
    assert text.counted(count, "round") == shown


@pytest.mark.parametrize(("given", "shown"), [("no answer", "No answer."), ("Done.", "Done."), ("", "")])
def test_a_message_becomes_a_sentence(given: str, shown: str) -> None:
    assert text.sentence(given) == shown


@pytest.mark.parametrize(
    ("values", "shown"),
    [({}, "-"), ({"accuracy": 0.99444, "f1": 1}, "0.9944"), ({"cosine_min": 1.0}, "cosine_min 1.0000")],
)
def test_the_first_metric_is_enough_in_a_table(values: dict[str, float], shown: str) -> None:
    assert text.metrics(values) == shown
