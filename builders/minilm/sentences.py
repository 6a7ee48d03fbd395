"""Real English sentences, and how well a variant keeps what the plain model says of their similarity.

They are taken from the documentation that scikit-learn carries in its modules: prose about statistics, data sets and
programming, the same for each of its versions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import sklearn
from model import SENTENCES, Tensors, tokenizer
from numpy.typing import NDArray

Infer = Callable[[Tensors], dict[str, NDArray[np.float32]]]

_EVALUATED, _CALIBRATED = 600, 128
_BATCH = 32
_WORDS = range(6, 41)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_CODE = re.compile(r"[`:=<>\\|_{}\[\]*#~^+$/(]|--|\d{4}")


def similarity(infer: Infer, source: Infer) -> dict[str, float]:
    """Spearman's correlation of the cosine similarities of all pairs, the variant's with the plain model's; and the
    cosine between the two embeddings of a sentence, the lowest of all."""
    chosen = _spread(sentences(), _EVALUATED)
    own, plain = embeddings(infer, chosen), embeddings(source, chosen)
    pairs = np.triu_indices(len(chosen), 1)
    ranks = [_ranks((vectors @ vectors.T)[pairs]) for vectors in (own, plain)]
    return {
        "similarity_spearman": float(np.corrcoef(*ranks)[0, 1]),
        "lowest_cosine": float((own * plain).sum(axis=1).min()),
    }


def calibration() -> Tensors:
    """Sentences that `similarity` does not use, and those of the samples, which are of other kinds; padded to the
    longest."""
    rest = sorted(set(sentences()) - set(_spread(sentences(), _EVALUATED)))
    return _tokens([*SENTENCES, *_spread(rest, _CALIBRATED)])


def embeddings(infer: Infer, texts: list[str]) -> NDArray[np.float32]:
    """(N, 384) unit vectors, in requests of sentences of about one length."""
    order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), texts[index]))
    found = np.empty((len(texts), 384), np.float32)
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        found[part] = infer(_tokens([texts[index] for index in part]))["embedding"]
    return found


@cache
def sentences() -> list[str]:
    """All sentences, in alphabetical order, each once."""
    return sorted({sentence for text in _documentation() for sentence in _sentences_of(text)})


def _documentation() -> Iterator[str]:
    folder = Path(sklearn.__file__).parent
    for path in sorted((folder / "datasets" / "descr").glob("*.rst")):
        yield path.read_text(encoding="utf-8")
    for package in ("cluster", "datasets", "decomposition", "ensemble", "linear_model", "metrics", "tree"):
        for path in sorted((folder / package).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    yield ast.get_docstring(node) or ""


def _sentences_of(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
            prose = re.match(r"[A-Z][a-z]", sentence) and sentence.endswith((".", "!", "?"))
            if prose and len(sentence.split()) in _WORDS and not _CODE.search(sentence):
                yield sentence


def _spread(items: list[str], count: int) -> list[str]:
    """As many of the items, from all of them."""
    return [items[index * len(items) // count] for index in range(count)] if len(items) > count else items


def _tokens(texts: list[str]) -> Tensors:
    encodings = tokenizer().encode_batch(texts)
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
    }


def _ranks(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """0 for the smallest; equal values, of which there are hardly any among floats, in the order of the pairs."""
    return values.argsort(kind="stable").argsort(kind="stable")
