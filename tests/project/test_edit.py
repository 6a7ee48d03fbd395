"""One value of a model.yaml changes, and nothing else does."""

from __future__ import annotations

import pytest

from modelwright.project.edit import with_value

PATH = ("source", "serves")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("source: {kind: alias, of: a, serves: a} # why\n", "source: {kind: alias, of: a, serves: a_int8} # why\n"),
        ("source:\n  serves: 'a'   # today\n  of: a\n", "source:\n  serves: a_int8   # today\n  of: a\n"),
        ("# über\nsource:\r\n  serves: a\r\n", "# über\nsource:\r\n  serves: a_int8\r\n"),
    ],
    ids=["flow", "quoted", "other letters and line ends"],
)
def test_everything_else_stays(before: str, after: str) -> None:
    assert with_value(before, PATH, "a_int8") == after


def test_a_name_that_yaml_would_misread_is_quoted() -> None:
    assert with_value("source: {serves: a}\n", PATH, "1.0") == 'source: {serves: "1.0"}\n'


@pytest.mark.parametrize("text", ["source: {of: a}\n", "source: a\n", "source: {serves: [a]}\n"])
def test_where_there_is_no_such_value_it_says_so(text: str) -> None:
    with pytest.raises(KeyError):
        with_value(text, PATH, "b")
