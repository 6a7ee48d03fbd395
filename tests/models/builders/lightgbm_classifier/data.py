import numpy as np
from convert import fitted
from sklearn.datasets import load_wine


def samples():
    return {"features": load_wine().data[::20].astype(np.float32)}


def reference(samples):
    model, features = fitted(), samples["features"]
    return {"label": model.predict(features).astype("i8"), "probabilities": model.predict_proba(features).astype("f4")}
