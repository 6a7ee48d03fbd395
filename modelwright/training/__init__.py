"""The training kit of builders: `fit` trains a module, `k_fold` says how far its metrics spread.

    from modelwright.training import fit, k_fold

Importing it is cheap: torch and Lightning are imported when something is trained.
"""

from __future__ import annotations

from modelwright.training.fitting import fit
from modelwright.training.folding import Folds, k_fold

__all__ = ["Folds", "fit", "k_fold"]
