import numpy as np
from convert import fitted
from sklearn.datasets import load_diabetes


def samples():
    return {"features": load_diabetes().data[::40].astype(np.float32)}


def reference(samples):
    return {"variable": fitted().predict(samples["features"]).reshape(-1, 1).astype("f4")}
