"""Captchas in grey, 64 pixels high and of two widths."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def samples():
    return {"input1": [captcha("7d4k", 160), captcha("3fpqx", 200)]}


def captcha(text, width):
    image = Image.new("L", (width, 64), 230)
    draw = ImageDraw.Draw(image)
    draw.text((14, 10), text, 30, ImageFont.load_default(size=40))
    draw.line((0, 20, width, 50), 120)
    return np.asarray(image, np.float32)[None, None] / 255
