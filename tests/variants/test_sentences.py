"""What the shipped `minilm_int8` is measured on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.torch


@pytest.fixture
def sentences(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the builder, imported as a build imports it."""
    monkeypatch.syspath_prepend(str(ROOT / "builders" / "minilm"))
    yield importlib.import_module("sentences")
    for name in ("sentences", "model"):
        del sys.modules[name]


def test_it_is_measured_on_many_sentences_and_calibrated_on_others(sentences: ModuleType) -> None:
    known = sentences.sentences()
    evaluated = sentences._spread(known, sentences._EVALUATED)
    assert len(set(evaluated)) == 600
    assert all(6 <= len(sentence.split()) <= 40 and sentence[-1] in ".!?" for sentence in evaluated)
    given = sentences.calibration()
    assert given["input_ids"].shape == given["attention_mask"].shape
    assert len(given["input_ids"]) == len(sentences.SENTENCES) + 128
    seen = {tuple(row[mask == 1]) for row, mask in zip(given["input_ids"], given["attention_mask"], strict=True)}
    tokens = sentences._tokens(evaluated)
    assert not seen & {tuple(row[mask == 1]) for row, mask in zip(*tokens.values(), strict=True)}


def test_the_correlation_is_spearmans(sentences: ModuleType) -> None:
    from scipy.stats import spearmanr  # type: ignore[import-untyped]

    rng = np.random.default_rng(0)
    table = rng.normal(size=(40000, 384)).astype(np.float32)

    def plain(given: Any) -> dict[str, Any]:
        vectors = (table[given["input_ids"]] * given["attention_mask"][:, :, None]).sum(axis=1)
        return {"embedding": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}

    def other(given: Any) -> dict[str, Any]:
        vectors = plain(given)["embedding"]
        vectors = vectors + 0.02 * np.sin(1000 * vectors)
        return {"embedding": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}

    assert sentences.similarity(plain, plain)["similarity_spearman"] == pytest.approx(1)
    chosen = sentences._spread(sentences.sentences(), sentences._EVALUATED)
    one, two = (sentences.embeddings(infer, chosen) for infer in (plain, other))
    pairs = np.triu_indices(len(chosen), 1)
    expected = spearmanr((one @ one.T)[pairs], (two @ two.T)[pairs]).statistic
    assert expected < 0.999
    assert sentences.similarity(other, plain)["similarity_spearman"] == pytest.approx(expected, abs=1e-4)
