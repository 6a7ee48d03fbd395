import numpy as np
from convert import fitted


def samples():
    return {"text": np.array([["claim your free prize"], ["lunch is at ten"], ["the report is free"]], object)}


def reference(samples):
    texts = [text.decode() for text in samples["text"][:, 0]]
    model = fitted()
    return {"label": model.predict(texts).astype(object), "probabilities": model.predict_proba(texts).astype("f4")}
