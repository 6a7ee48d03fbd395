"""Lines of text, upright and upside down."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def samples():
    upright = [line("Invoice 4711"), line("Thank you")]
    return {"x": np.stack([*upright, *(image[:, ::-1, ::-1] for image in upright)])}


def line(text):
    image = Image.new("RGB", (192, 48), "white")
    ImageDraw.Draw(image).text((8, 8), text, "black", ImageFont.load_default(size=28))
    return (np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
