"""Seconds of sound at 16 kHz, in the range of 16-bit samples."""

import numpy as np


def samples():
    time = np.arange(16000) / 16000
    tone = 8000 * np.sin(2 * np.pi * 440 * time)
    noise = np.random.default_rng(1).normal(0, 500, 16000)
    return {"input": np.stack([tone, noise])[:, None].astype(np.float32)}
