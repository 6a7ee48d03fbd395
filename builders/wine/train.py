"""A logistic regression on scaled measurements."""

from __future__ import annotations

from data import split
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def train(c: float) -> Pipeline:
    """The entry: called with source.params."""
    measurements, _, growers, _ = split()
    return make_pipeline(StandardScaler(), LogisticRegression(C=c)).fit(measurements, growers)
