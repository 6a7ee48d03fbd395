"""Triton Python model: sentences in, token ids out, for a BERT-like encoder behind it.

Runs inside the server. `tokenizers` is vendored beside this file by the build, tokenizer.json comes from the model's
package. Each request is padded to its own longest sentence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

MAX_TOKENS = 256  # max_seq_length in the model's sentence_bert_config.json; tokenizer.json itself says 128


class TritonPythonModel:
    """TEXT, strings (N, 1) → input_ids and attention_mask, int64 (N, longest)."""

    def initialize(self, args: dict[str, str]) -> None:
        # One thread an instance: the server scales by instances, and threads of several would only compete.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(Path(__file__).parent / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        """A request that fails takes no other one of its batch with it."""
        try:
            texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            tensors = [pb_utils.Tensor(name, array) for name, array in self.encode(texts).items()]
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def encode(self, texts: np.ndarray) -> dict[str, np.ndarray]:
        # A client can send any bytes; what is no UTF-8 becomes U+FFFD instead of an error.
        sentences = [bytes(text).decode("utf-8", errors="replace") for text in texts.ravel()]
        encodings = self.tokenizer.encode_batch(sentences)
        return {
            "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
        }
