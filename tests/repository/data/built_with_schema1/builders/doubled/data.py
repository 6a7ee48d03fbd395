import numpy as np


def samples():
    return {"x": np.arange(8, dtype=np.float32).reshape(4, 2)}


def evaluate(infer):
    answer = infer(samples())["y"]
    return {"accuracy": float(np.isclose(answer, samples()["x"] * 2, rtol=1e-2).mean())}
