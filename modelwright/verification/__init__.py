"""Whether a model answers as it should: golden samples, comparison within tolerances, metrics against gates.

Nothing here knows how a model is run: callers pass an `Infer`, a function from inputs to outputs.
"""
