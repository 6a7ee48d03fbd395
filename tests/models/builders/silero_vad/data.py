"""Chunks of 32 ms at 16 kHz with their context of 4 ms: silence, a voice's harmonics, noise."""

import numpy as np

RATE, LENGTH = 16000, 512 + 64


def samples():
    time = np.arange(LENGTH) / RATE
    voice = sum(np.sin(2 * np.pi * 140 * harmonic * time) / harmonic for harmonic in range(1, 12))
    noise = np.random.default_rng(1).normal(size=LENGTH)
    chunks = np.stack([0 * time, 0.2 * voice, 0.05 * noise]).astype(np.float32)
    return {
        "input": chunks[:, None],
        "state": np.zeros((3, 2, 1, 128), np.float32),
        "sr": np.full(3, RATE),
    }
