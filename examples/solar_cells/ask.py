"""Sends a photograph of a solar cell to a server and prints its class: `python ask.py [FILE] [--url HOST:PORT]`.

Without a file it is a photograph of the installed data set. Only NVIDIA's client and Pillow are used.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from PIL import Image

_SIZE = (300, 300)


def main() -> None:
    parser = argparse.ArgumentParser(description="The class of a photograph of a solar cell, and its probability.")
    parser.add_argument("file", nargs="?", type=Path, help="any picture; it is made grey and 300x300")
    parser.add_argument("--model", default="solar_cells")
    parser.add_argument("--url", default="localhost:8000")
    given = parser.parse_args()
    name, probability = ask(given.file or _a_photograph(), given.model, given.url)
    print(f"{name} {probability:.2f}")


def ask(file: Path, model: str, url: str) -> tuple[str, float]:
    """The most probable class of a photograph, and how probable it is."""
    with Image.open(file) as picture:
        photograph = np.asarray(picture.convert("L").resize(_SIZE))
    tensor = triton.InferInput("photograph", [1, *photograph.shape], "UINT8")
    tensor.set_data_from_numpy(photograph[None])
    wanted = triton.InferRequestedOutput("probabilities", class_count=1)
    client = triton.InferenceServerClient(url)
    try:
        answer = client.infer(model, [tensor], outputs=[wanted]).as_numpy("probabilities")
    finally:
        client.close()
    probability, _, name = answer[0, 0].decode().split(":")
    return name, float(probability)


def _a_photograph() -> Path:
    """The first one of the data set."""
    package = find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise SystemExit("no photograph given, and elpv-dataset is not installed: pip install elpv-dataset")
    return Path(package.origin).parent / "data/images/cell0001.png"


if __name__ == "__main__":
    main()
