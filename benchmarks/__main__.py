"""`python -m benchmarks [NAME…]`: run them, print their tables; `--write` puts those into README.md."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.options import Options
from benchmarks.table import Section, machine

NAMES = (
    "noop",
    "cold",
    "parallel",
    "verify",
    "fleet",
    "swap",
    "chaos",
    "pipelines",
    "router",
    "tabular",
    "remotes",
    "lint",
    "install",
    "agreement",
    "generator",
    "gate",
    "real_models",
    "onnx_backend",
    "optimise",
    "compress",
    "quantise",
    "training",
)
README = Path(__file__).with_name("README.md")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="little and few times: whether they run at all")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {README.name}")
    parser.add_argument("--perf-analyzer", type=Path, metavar="FILE", help="its binary, for a comparison in generator")
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in NAMES:
            parser.error(f"no benchmark '{name}': one of {', '.join(NAMES)}")
    if given.quick and given.write:
        parser.error("--quick measures nothing worth writing down")
    for name in given.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        text = markdown(measure(name, Options(given.quick, given.perf_analyzer)))
        print(f"{text}\n", flush=True)
        if given.write:
            README.write_text(replaced(README.read_text(), name, text))


def measure(name: str, options: Options) -> list[Section]:
    sections: list[Section] = importlib.import_module(f"benchmarks.{name}").measure(options)
    return sections


def markdown(sections: list[Section]) -> str:
    return "\n\n".join([*(section.markdown() for section in sections), f"Measured {machine()}."])


def replaced(readme: str, name: str, text: str) -> str:
    """The README with the part between a benchmark's two markers replaced. Raises ValueError without the markers."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    head, found_begin, rest = readme.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{README.name}: the markers of {name} are missing: {begin.strip()} … {end.strip()}")
    return f"{head}{begin}\n{text}\n\n{end}{tail}"


if __name__ == "__main__":
    main()
