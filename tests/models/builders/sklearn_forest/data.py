import numpy as np
from convert import fitted
from sklearn.datasets import load_iris


def samples():
    return {"X": load_iris().data[::15].astype(np.float32)}


def reference(samples):
    forest = fitted()
    features = samples["X"]
    return {"label": forest.predict(features), "probabilities": forest.predict_proba(features).astype(np.float32)}


def evaluate(infer):
    iris = load_iris()
    return {"accuracy": float(np.mean(infer({"X": iris.data.astype(np.float32)})["label"] == iris.target))}
