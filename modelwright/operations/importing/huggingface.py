"""Hugging Face directories: a builder of kind huggingface, by what config.json says the model is.

The tensors of the usual text and image models follow from the name of the architecture. Golden samples are sentences
where a tokenizer came along, else random ids. What config.json does not tell is left to a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.digest import parse_json
from modelwright.fsops import read_file
from modelwright.operations.importing.recogniser import NewBuilder, Recogniser, Seen, Written
from modelwright.project.spec import FILE
from modelwright.project.writer import as_yaml
from modelwright.text import counted, printable
from modelwright.text import size as size_text

WEIGHTS = "weights"
_DATA = "data.py"
_TOKENIZER = "tokenizer.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.ot")
_LARGEST_CONFIG = 10_000_000

Tensor = tuple[str, str, tuple[int | str, ...]]  # name, type, shape without the batch


@dataclass(frozen=True)
class _Architecture:
    auto_class: str
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Directory:
    """What config.json says, as far as a builder needs it."""

    config: Mapping[str, Any]
    name: str  # of the architecture: "BertForSequenceClassification"; '' where it says none
    has_tokenizer: bool

    def number(self, *keys: str, default: int = 0) -> int:
        found = (self.config.get(key) for key in keys)
        return next((value for value in found if type(value) is int and value > 0), default)

    @property
    def labels(self) -> int:
        names = self.config.get("id2label")
        return len(names) if isinstance(names, dict) and names else self.number("num_labels", default=2)

    @property
    def is_text(self) -> bool:
        return self.number("vocab_size") > 0 and not self.config.get("is_encoder_decoder")

    @property
    def is_image(self) -> bool:
        return not self.is_text and self.number("num_channels") > 0


def recognise(path: Path) -> Seen | None:
    """A directory with config.json and safetensors."""
    weights = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    config = path / "config.json"
    if not weights or not config.is_file() or config.stat().st_size > _LARGEST_CONFIG:
        return None
    try:
        said = parse_json(read_file(config))
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    names = said.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    found = _Directory(said, name, (path / _TOKENIZER).is_file())
    size = size_text(sum(file.stat().st_size for file in weights))
    what = printable(name or str(said.get("model_type") or "model of no name"))[:80]
    return Seen(
        "huggingface",
        f"a Hugging Face directory: {what}, {counted(len(weights), 'file')} of weights, {size}",
        path,
        found,
    )


def _write(seen: Seen, new: NewBuilder) -> Written:
    found: _Directory = seen.details
    path = new.take(seen.path, WEIGHTS, leave_out=(*_PICKLES, ".git", ".cache"))
    known = _architecture(found)
    inputs = _inputs(found)
    tokenizer = found.has_tokenizer and found.is_text and new.is_taken
    auto_class = known.auto_class if known else "AutoModel"
    outputs = (
        known.outputs
        if known
        else (("last_hidden_state", "FP32", ("sequence", found.number("hidden_size", default=1))),)
    )
    new.write(FILE, _model_yaml(new, seen, path, auto_class, inputs, outputs, tokenizer=tokenizer))
    new.write(_DATA, _text_data(new.name) if tokenizer else _random_data(new.name, inputs, found))
    notes = [f"auto_class is {auto_class}: {found.name or 'config.json names no architecture'}"]
    if any(file for pattern in _PICKLES for file in seen.path.glob(pattern)):
        notes.append("weights in other formats than safetensors stay behind: a pickle can run code")
    if known is None or not inputs:
        why = f"{found.name or 'the model'} is not one whose tensors are known here"
        return Written(tuple(notes), (f"inputs and outputs in {FILE}: {why}", f"samples in {_DATA}"), False, FILE)
    samples = "sentences" if tokenizer else "random"
    return Written((*notes, f"golden samples are {samples}: replace them by what clients send"))


def _architecture(found: _Directory) -> _Architecture | None:
    """The class of transformers that loads it, and what it answers; None where that is not known."""
    name, labels = found.name, found.labels
    if found.is_image:
        if name.endswith("ForImageClassification"):
            return _Architecture("AutoModelForImageClassification", (("logits", "FP32", (labels,)),))
        return None
    if not found.is_text:
        return None
    if name.endswith("ForSequenceClassification"):
        return _Architecture("AutoModelForSequenceClassification", (("logits", "FP32", (labels,)),))
    if name.endswith("ForTokenClassification"):
        return _Architecture("AutoModelForTokenClassification", (("logits", "FP32", ("sequence", labels)),))
    if name.endswith("ForQuestionAnswering"):
        logits: tuple[Tensor, ...] = tuple((f"{end}_logits", "FP32", ("sequence",)) for end in ("start", "end"))
        return _Architecture("AutoModelForQuestionAnswering", logits)
    if name.endswith("ForMaskedLM"):
        return _Architecture("AutoModelForMaskedLM", (("logits", "FP32", ("sequence", found.number("vocab_size"))),))
    hidden = found.number("hidden_size", "dim", "d_model")
    if name.endswith("Model") and hidden:
        return _Architecture("AutoModel", (("last_hidden_state", "FP32", ("sequence", hidden)),))
    return None


def _inputs(found: _Directory) -> tuple[Tensor, ...]:
    if found.is_image:
        side = found.number("image_size", default=224)
        return (("pixel_values", "FP32", (found.number("num_channels"), side, side)),)
    return tuple((name, "INT64", ("sequence",)) for name in ("input_ids", "attention_mask"))


def _model_yaml(
    new: NewBuilder,
    seen: Seen,
    path: str,
    auto_class: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    *,
    tokenizer: bool,
) -> str:
    lines = [
        *new.head,
        f"description: {as_yaml(f'{seen.details.name or seen.path.name}, exported from its Hugging Face directory.')}",
        "source:",
        "  kind: huggingface",
        f"  path: {as_yaml(path)} # config.json and *.safetensors",
        f"  auto_class: {auto_class} # of transformers",
        "  # entry: model:wrap # a function of model.py: (the loaded model) → the one to export, to pool for instance",
        "# Tensors as clients see them, without the batch dimension. A named dimension varies, and is the same",
        "# wherever it stands.",
        "inputs:",
        *map(_tensor, inputs),
        "outputs: # by their names in what the model returns",
        *map(_tensor, outputs),
        "samples: data:samples # golden inputs: the served model must answer them as the PyTorch one does",
        *([f"files: [{WEIGHTS}/{_TOKENIZER}] # what the code reads: a change of it rebuilds"] if tokenizer else []),
        "serving: # Triton's ModelConfig, field by field: every field of it may stand here",
        "  max_batch_size: 16 # rows in one run of the model",
        "  # Wait this long for more requests of the same shape, then run them together.",
        "  dynamic_batching: {max_queue_delay_microseconds: 500}",
    ]
    return "\n".join([*lines, ""])


def _tensor(tensor: Tensor) -> str:
    name, dtype, shape = tensor
    return f"  - {{name: {name}, dtype: {dtype}, shape: [{', '.join(map(str, shape))}]}}"


def _text_data(name: str) -> str:
    return _TEXT_DATA.replace("NAME", name)


def _random_data(name: str, inputs: tuple[Tensor, ...], found: _Directory) -> str:
    if found.is_image:
        return _IMAGE_DATA.replace("NAME", name).replace("SHAPE", ", ".join(map(str, inputs[0][2])))
    return _IDS_DATA.replace("NAME", name).replace("VOCABULARY", str(found.number("vocab_size", default=2)))


_HEAD = '''"""Golden samples of NAME: the served model must answer them as the PyTorch one does."""

from __future__ import annotations

'''
_TEXT_DATA = (
    _HEAD
    + '''from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOKENIZER = Path(__file__).parent / "weights/tokenizer.json"

# Use sentences like those that clients send, the odd ones included.
SENTENCES = (
    "The cat sat on the mat.",
    "How do I reset my password?",
    "Yes.",
    "The committee will publish its report next spring, after hearing from towns on both sides of the river.",
)


def samples() -> dict[str, list[NDArray[np.int64]]]:
    """The sentences as the tokeniser gives them, each of its own length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    encodings = tokenizer.encode_batch(list(SENTENCES))
    return {
        "input_ids": [np.array(encoding.ids, dtype=np.int64) for encoding in encodings],
        "attention_mask": [np.array(encoding.attention_mask, dtype=np.int64) for encoding in encodings],
    }
'''
)
_IDS_DATA = (
    _HEAD
    + '''import numpy as np
from numpy.typing import NDArray

LENGTHS = (8, 8, 21, 21)


def samples() -> dict[str, list[NDArray[np.int64]]]:
    """Random token ids: replace them by what clients send."""
    random = np.random.default_rng(0)
    return {
        "input_ids": [random.integers(0, VOCABULARY, length, dtype=np.int64) for length in LENGTHS],
        "attention_mask": [np.ones(length, dtype=np.int64) for length in LENGTHS],
    }
'''
)
_IMAGE_DATA = (
    _HEAD
    + '''import numpy as np
from numpy.typing import NDArray


def samples() -> dict[str, NDArray[np.float32]]:
    """Random images, as a preprocessor scales them: replace them by what clients send."""
    random = np.random.default_rng(0)
    return {"pixel_values": random.standard_normal((4, SHAPE), dtype=np.float32)}
'''
)

RECOGNISER = Recogniser(takes="Hugging Face directories", recognise=recognise, write=_write)
