"""The options of `locust -f loadtest/locustfile.py` in addition to Locust's own."""

from __future__ import annotations

import math
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.triton.access import Access, headers_of

GROUP = "Triton"


def add_to(parser: Any) -> None:
    """For Locust's `init_command_line_parser` event."""
    group = parser.add_argument_group(GROUP)
    group.add_argument("--model", default="", help="the model to ask; needed unless user classes name one")
    group.add_argument("--model-version", default="", help="a version of it; default: the server chooses")
    group.add_argument("--protocol", choices=("http", "grpc"), default="http", help="which users there are")
    group.add_argument(
        "--payload", default="", help="golden, random, zero, or a file or folder; default: golden if any"
    )
    group.add_argument("--repository", default="model_repository", help="where golden samples are")
    group.add_argument("--batch", type=int, default=1, help="rows a request")
    group.add_argument("--shape", action="append", default=[], help="INPUT:1,128 or NAME:128 for dynamic dimensions")
    group.add_argument(
        "--range", action="append", default=[], help="INPUT=0:20 for random numbers; default: of golden samples if any"
    )
    group.add_argument(
        "--check-every", type=int, default=100, help="compare one answer in N with the golden one; 0: none"
    )
    group.add_argument("--api", choices=("raw", "tritonclient"), default="raw", help="tritonclient: its own infer()")
    group.add_argument("--sequence-length", type=int, default=10, help="requests a sequence, of sequence models")
    group.add_argument("--rate", type=float, default=0.0, help="open loop: requests a second of all users together")
    group.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson", help="of an open loop")
    group.add_argument(
        "--warmup", type=float, default=1.0, help="seconds that do not count, after all users have started"
    )
    group.add_argument(
        "--header", action="append", default=[], help="NAME=VALUE with every request; its value is recorded nowhere"
    )
    group.add_argument("--ca-cert", default="", help="who signed the server's certificate, in PEM, for https, grpcs")
    group.add_argument("--client-cert", default="", help="what this client shows of itself, in PEM")
    group.add_argument("--client-key", default="", help="the key of --client-cert, if it is not in there")
    group.add_argument(
        "--output", default="", help="folder for result.json, CSV and report; default: .modelwright/load/…"
    )


_LEAST = {"rate": 0, "warmup": 0, "check_every": 0, "batch": 1, "sequence_length": 1}


def workload(options: Any, host: str) -> Workload:
    """Raises ModelwrightError for options that mean nothing."""
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if not (math.isfinite(value) and value >= least):
            raise ModelwrightError(f"--{name.replace('_', '-')} {value:g}: must be a number of at least {least}")
    return Workload(
        url=host,
        model=options.model,
        version=options.model_version,
        payload=options.payload,
        repository=options.repository,
        batch=options.batch,
        shapes=shapes(options.shape),
        ranges=ranges(options.range),
        check_every=options.check_every,
        api=options.api,
        sequence_length=options.sequence_length,
        access=Access(headers_of(options.header), options.ca_cert, options.client_cert, options.client_key),
    )


def shape(options: Any, users: int, duration_s: float) -> LoadShape:
    """`users`: how many Locust spawns altogether."""
    if options.rate:
        return LoadShape(None, options.rate, options.arrivals, options.warmup, duration_s)
    return LoadShape(users, None, "poisson", options.warmup, duration_s)


def shapes(given: Any) -> dict[str, int | list[int]]:
    """`--shape input_ids:128`, `--shape image:3,224,224`. Raises ModelwrightError for anything else."""
    made: dict[str, int | list[int]] = {}
    for item in given:
        name, colon, sizes = str(item).rpartition(":")
        try:
            numbers = [int(size) for size in sizes.split(",")]
        except ValueError:
            numbers = []
        if not (name and colon and numbers) or min(numbers) < 0:
            raise ModelwrightError(f"--shape {item}: must be NAME:SIZES", "such as input_ids:128 or image:3,8,8")
        made[name] = numbers[0] if len(numbers) == 1 else numbers
    return made


def ranges(given: Any) -> dict[str, list[float]]:
    """`--range ids=0:20`, `--range image=-1:1`. Raises ModelwrightError for anything else."""
    made: dict[str, list[float]] = {}
    for item in given:
        name, _, ends = str(item).rpartition("=")
        try:
            low, high = (_number(end) for end in ends.split(":"))
            is_range = math.isfinite(low) and math.isfinite(high) and low <= high
        except (ValueError, OverflowError):
            is_range = False
        if not (name and is_range):
            raise ModelwrightError(f"--range {item}: must be NAME=LOW:HIGH", "such as input_ids=0:20 or image=-1:1")
        made[name] = [low, high]
    return made


def _number(text: str) -> float:
    """An int where it is one: large ones are exact. Raises ValueError."""
    try:
        return int(text)
    except ValueError:
        return float(text)
