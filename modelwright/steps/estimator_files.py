"""Files with fitted estimators: what XGBoost, LightGBM and skops write, which run no code, and pickles, which may."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.errors import StepError, one_line
from modelwright.kinds.trust import check_trusted
from modelwright.steps.lightgbm_booster import LightGbmBooster
from modelwright.triton.estimator_files import LIGHTGBM, PICKLES, SKOPS, XGBOOST, EstimatorFile, estimator_file

_FORMATS = {
    "sklearn": (SKOPS, *PICKLES),
    "xgboost": (XGBOOST,),
    "lightgbm": (LIGHTGBM,),
}
_KINDS = {SKOPS: "sklearn", XGBOOST: "xgboost", LIGHTGBM: "lightgbm"} | dict.fromkeys(PICKLES, "sklearn")
_WRITTEN_BY = {
    "sklearn": "a .skops file (skops.io.dump), or a pickle with trusted: true",
    "xgboost": "a .json or .ubj file, as model.save_model(…) writes it",
    "lightgbm": "a .txt file, as booster.save_model(…) writes it",
}


def load_estimator(file: Path, kind: str, where: str, *, trusted: bool = False) -> Any:
    """The estimator in a file of a kind: sklearn, xgboost, lightgbm.

    Raises StepError for another kind of file, for a pickle that is not trusted, for a damaged file, and for one that
    another version of scikit-learn wrote.
    """
    found = estimator_file(file)
    if found not in _FORMATS[kind]:
        raise _other_file(found, kind, where)
    with _readable(found, where):
        if found is XGBOOST:
            return xgboost_estimator(file)
        if found is LIGHTGBM:
            return lightgbm_estimator(file)
        if found is SKOPS:
            return _from_skops(file, where, trusted)
        check_trusted(trusted, where, found.what, "save it with skops.io.dump, whose files run no code")
        return _from_pickle(file, where)


def as_estimator(fitted: Any) -> Any:
    """A Booster of XGBoost or LightGBM as an estimator; of a search its best one; anything else as it is."""
    if hasattr(fitted, "best_estimator_"):
        return as_estimator(fitted.best_estimator_)
    module = type(fitted).__module__.partition(".")[0]
    if type(fitted).__name__ != "Booster" or module not in ("lightgbm", "xgboost"):
        return fitted
    return LightGbmBooster(fitted) if module == "lightgbm" else _xgboost_from(fitted)


def xgboost_estimator(file: Path) -> Any:
    """An XGBClassifier, XGBRanker or XGBRegressor, by the objective that the file names."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(file.read_bytes()))  # it tells the format by the name of a file
    return _xgboost_from(booster)


def _xgboost_from(booster: Any) -> Any:
    import xgboost

    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    classes = {"binary": xgboost.XGBClassifier, "multi": xgboost.XGBClassifier, "rank": xgboost.XGBRanker}
    estimator = classes.get(objective.partition(":")[0], xgboost.XGBRegressor)()
    estimator.load_model(bytearray(booster.save_raw("ubj")))
    return estimator


def lightgbm_estimator(file: Path) -> LightGbmBooster:
    import lightgbm

    return LightGbmBooster(lightgbm.Booster(model_str=file.read_text(encoding="utf-8")))


def _from_skops(file: Path, where: str, trusted: bool) -> Any:
    try:
        from skops import io
    except ImportError:
        raise StepError(f"{where}: a .skops file needs skops: not installed", "pip install skops") from None
    unknown = io.get_untrusted_types(file=file)
    if unknown and not trusted:
        listed = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        reason = f"{where}: skops does not know the types {listed}, whose code runs when they are loaded"
        raise StepError(reason, "if you trust whoever made it: source.trusted: true")
    with _same_version(where):
        return io.load(file, trusted=unknown)


def _from_pickle(file: Path, where: str) -> Any:
    import joblib

    with _same_version(where):
        return joblib.load(file)  # reads plain pickles, too


@contextlib.contextmanager
def _same_version(where: str) -> Iterator[None]:
    """Raise StepError for an estimator of another scikit-learn: it may answer otherwise, and nothing can tell here."""
    import sklearn
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", InconsistentVersionWarning)
        try:
            yield
        except InconsistentVersionWarning as warning:
            theirs = warning.original_sklearn_version
            reason = (
                f"{where}: {warning.estimator_name} was saved by scikit-learn {theirs}, here is {sklearn.__version__}"
            )
            hint = f"pip install scikit-learn=={theirs}; or fit and save it again: other versions may answer otherwise"
            raise StepError(reason, hint) from None


@contextlib.contextmanager
def _readable(found: EstimatorFile, where: str) -> Iterator[None]:
    """What a library raises for a damaged file: each has its own exceptions."""
    try:
        yield
    except StepError:
        raise
    except ModuleNotFoundError as error:
        hint = f"pip install {error.name}; a module of your own belongs beside model.yaml, under this name"
        raise StepError(f"{where}: {found.what} needs the module '{error.name}'", hint) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:300]}"
        raise StepError(f"{where}: {found.what} cannot be read: {reason}", "copy or write it again") from error


def _other_file(found: EstimatorFile | None, kind: str, where: str) -> StepError:
    wanted = _WRITTEN_BY[kind]
    if found is None:
        return StepError(f"{where}: not a file that source.kind {kind} takes", f"{wanted} is")
    return StepError(f"{where}: is {found.what}, source.kind {kind} takes {wanted}", f"source.kind {_KINDS[found]}")
