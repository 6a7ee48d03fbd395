"""'Did you mean …?' over few names and many."""

from __future__ import annotations

import difflib

import pytest

from modelwright.suggest import Names, did_you_mean

FAMILIES = ("bert", "resnet50", "yolov8", "whisper")
MANY = [f"{family}_{kind}_{number}" for family in FAMILIES for kind in ("large", "v2", "fp16") for number in range(40)]
WORDS = (
    "bert_large_7_trt",
    "bret_v2_17",
    "whisper_fp16",
    "yolo8_large_39",
    "resnet_fp16_3",
    "resnet50-v2-11",
    "nothing",
)


@pytest.mark.parametrize("word", WORDS)
def test_the_nearest_of_many_names_is_that_of_a_comparison_with_each(word: str) -> None:
    assert Names(MANY).nearest(word) == next(iter(difflib.get_close_matches(word, MANY, n=1)), None)


def test_names_that_are_left_out_are_not_suggested() -> None:
    assert Names(MANY).nearest("bert_large_7x", ["bert_large_7"]) not in (None, "bert_large_7")
    assert Names(["part"]).nearest("prat", ["part"]) is None


def test_without_a_near_name_all_are_listed() -> None:
    assert did_you_mean("zebra", ["b", "a"]) == "known: a, b"
    assert did_you_mean("prat", ["part", "stream"]) == "did you mean 'part'?"
