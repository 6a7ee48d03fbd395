"""What stock Locust's command line says of a load test."""

from __future__ import annotations

import argparse

import pytest

from modelwright.errors import ModelwrightError
from modelwright.loadtest.locust import options
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.triton.access import Access


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_to(parser)
    return parser.parse_args(arguments)


def test_without_options_a_workload_is_as_everywhere_else() -> None:
    made = options.workload(parsed("--model", "m"), "http://x:1")
    assert made == Workload("http://x:1", "m", repository="model_repository")
    assert Workload.from_json(made.as_json()) == made


def test_every_option_reaches_the_workload() -> None:
    given = parsed(
        *("--model", "m", "--model-version", "3", "--payload", "zero", "--repository", "r", "--batch", "4"),
        *("--shape", "ids:128", "--shape", "image:3,8,8", "--check-every", "0", "--api", "tritonclient"),
        *("--sequence-length", "5", "--range", "ids=-3:20", "--range", "a=b:0=0.5:1e3"),
    )
    assert options.workload(given, "grpc://x:1") == Workload(
        "grpc://x:1",
        "m",
        version="3",
        payload="zero",
        repository="r",
        batch=4,
        shapes={"ids": 128, "image": [3, 8, 8]},
        ranges={"ids": [-3, 20], "a=b:0": [0.5, 1000]},
        check_every=0,
        api="tritonclient",
        sequence_length=5,
    )


def test_a_server_behind_a_gateway_gets_headers_and_certificates() -> None:
    given = parsed(
        *("--header", "Authorization=Bearer x", "--header", "X-Team=a=b", "--ca-cert", "ca.pem"),
        *("--client-cert", "c.pem", "--client-key", "k.pem"),
    )
    access = options.workload(given, "https://x:1").access
    assert access == Access((("Authorization", "Bearer x"), ("X-Team", "a=b")), "ca.pem", "c.pem", "k.pem")
    with pytest.raises(ModelwrightError, match="--header: must be NAME=VALUE"):
        options.workload(parsed("--header", "secret"), "https://x:1")


def test_a_rate_makes_an_open_loop() -> None:
    assert not options.shape(parsed(), 8, 60).is_open
    assert options.shape(parsed(), 8, 60).concurrency == 8
    shape = options.shape(parsed("--rate", "100", "--arrivals", "constant", "--warmup", "2"), 8, 60)
    assert shape == LoadShape(None, 100.0, "constant", 2, 60)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rate", "-1"), ("--rate", "nan"), ("--warmup", "inf"), ("--check-every", "-1"), ("--sequence-length", "0")],
)
def test_a_number_that_means_nothing_is_refused(option: str, value: str) -> None:
    with pytest.raises(ModelwrightError, match=rf"{option} {value}: must be a number of at least"):
        options.workload(parsed("--model", "m", option, value), "http://x:1")


@pytest.mark.parametrize("shape", ["ids", "ids:", ":3", "ids:x", "ids:3,", "ids:-1", ""])
def test_an_invalid_shape_is_refused(shape: str) -> None:
    with pytest.raises(ModelwrightError, match=r"--shape .*: must be NAME:SIZES\n  hint: such as input_ids:128"):
        options.shapes([shape])


@pytest.mark.parametrize("given", ["ids", "ids=3", "=1:2", "ids=5:1", "ids=1:2:3", "ids=nan:1", "ids=0:inf", "ids=0:x"])
def test_an_invalid_range_is_refused(given: str) -> None:
    with pytest.raises(ModelwrightError, match=r"--range .*: must be NAME=LOW:HIGH\n  hint: such as input_ids=0:20"):
        options.ranges([given])


def test_a_name_may_have_colons() -> None:
    assert options.shapes(["a:b:3"]) == {"a:b": 3}
