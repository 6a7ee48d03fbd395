"""Lines of text in two widths, and how many of them are read without a mistake."""

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

LINES = {"Invoice 4711": 320, "Total: 12.80 EUR": 400, "Thank you": 320, "Due 2026-12-31": 320}


def samples():
    return {"x": [line(text, width) for text, width in LINES.items()]}


def evaluate(infer):
    characters = {item.key: item.value for item in onnx.load("model.onnx").metadata_props}["character"]
    alphabet = ["", *characters.splitlines(), " "]
    found = [read(answer, alphabet) for answer in infer(samples())["fetch_name_0"]]
    return {"accuracy": float(np.mean([text == wanted for text, wanted in zip(found, LINES, strict=True)]))}


def line(text, width):
    image = Image.new("RGB", (width, 48), "white")
    ImageDraw.Draw(image).text((8, 4), text, "black", ImageFont.load_default(size=34))
    return (np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5


def read(probabilities, alphabet):
    """The text of a CTC answer: repeated characters count once, and 0 separates."""
    best = probabilities.argmax(-1)
    return "".join(
        alphabet[item] for item, before in zip(best, [0, *best[:-1]], strict=True) if item not in (0, before)
    )
