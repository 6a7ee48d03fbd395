"""The steps of a base directory of TensorFlow Serving: every version converted, and every version verified.

versions/<N>/model.onnx   what each version holds
expected/<N>.npz          what TensorFlow answers to the golden samples
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelwright.digest import list_tree, sha256_file, tree_digest
from modelwright.errors import StepError, located
from modelwright.facts.made import Made, OnnxSignature, OnnxTensor
from modelwright.facts.verified import Verified, VerifiedVersions
from modelwright.kinds.tf_serving import TfServingSource
from modelwright.onnx.check import read_signature
from modelwright.steps.context import StepContext
from modelwright.steps.files import source_path
from modelwright.steps.onnx import made
from modelwright.steps.tensorflow import check_saved_model, convert
from modelwright.steps.verify import run as verify_onnx

_SAVED = "saved_model.pb"
_WARMUP = "assets.extra/tf_serving_warmup_requests"
_LARGEST = 2**63 - 1  # of a version, here and there


def run(context: StepContext, out: Path) -> Made:
    """Convert every version. Raises StepError for versions whose tensors differ: a model has one config."""
    source = context.source(TfServingSource)
    base = source_path(context, "source.path", source.path, folder=True)
    where = f"{context.builder.file}: source.path: '{source.path}'"
    with located(where):
        folders = version_folders(base)
    facts: dict[int, Made] = {}
    for number, folder in folders.items():
        with located(f"{where}: version {number}"):
            check_saved_model(folder)
            request = {
                "form": "saved_model",
                "model": str(folder.resolve()),
                "signature": source.signature,
                "tags": source.tags,
                "threads": source.threads,
            }
            file = convert(context, request, out / "versions" / str(number), out / f"expected/{number}.npz")
        if (folder / _WARMUP).is_file():
            context.say(f"version {number}: its warm-up requests ({_WARMUP}) are not carried: serving.model_warmup")
        facts[number] = made(read_signature(file), file, context)
    with located(where):
        _check_alike({number: fact.signature for number, fact in facts.items() if fact.signature})
    sources: dict[str, str] = {str(number): _digest(folder) for number, folder in folders.items()}
    return facts[max(facts)].model_copy(update={"details": {"sources": sources}})


def verify(context: StepContext, out: Path) -> VerifiedVersions:
    """Facts for each version, as of an ONNX model. Keeps `<N>/golden.npz`."""
    folder = context.inputs["model"]
    numbers = sorted(int(path.name) for path in (folder / "versions").iterdir())
    return VerifiedVersions(versions={number: _verify_version(context, folder, number, out) for number in numbers})


def version_folders(base: Path) -> dict[int, Path]:
    """{number: SavedModel} of a base directory; other folders in it are passed over, as TensorFlow Serving does.

    Raises StepError where there is none.
    """
    found: dict[int, Path] = {}
    for path in sorted(base.iterdir()):
        if not (path.is_dir() and path.name.isascii() and path.name.isdecimal()):
            continue
        number = int(path.name)
        if number in found:
            raise StepError(f"'{path.name}' and '{found[number].name}' are the same version", "remove one of them")
        if not 0 < number <= _LARGEST:
            raise StepError(f"'{path.name}': Triton has versions from 1 to {_LARGEST}", "give it another number")
        found[number] = path
    if found:
        return dict(sorted(found.items()))
    if (base / _SAVED).is_file():
        raise StepError("is a SavedModel, with no versions in it", "source.kind tensorflow takes it")
    raise StepError("has no numbered folders", "a base directory holds versions: 1/saved_model.pb, 2/saved_model.pb, …")


def _check_alike(signatures: Mapping[int, OnnxSignature]) -> None:
    newest = max(signatures)
    wanted = _tensors(signatures[newest])
    for number, signature in signatures.items():
        found = _tensors(signature)
        if found == wanted:
            continue
        differing = sorted({*found.items()} ^ {*wanted.items()})
        name = differing[0][0]
        raise StepError(
            f"version {number} has other tensors than version {newest}: {name} is {found.get(name, 'not there')} in "
            f"version {number}, {wanted.get(name, 'not there')} in version {newest}",
            "a model has one config, for all its versions: give those with other tensors a builder of their own",
        )


def _tensors(signature: OnnxSignature) -> dict[str, str]:
    def shown(tensor: OnnxTensor) -> str:
        return f"{tensor.dtype} {list(tensor.dims)}"

    inputs = {f"input '{tensor.name}'": shown(tensor) for tensor in signature.inputs}
    return inputs | {f"output '{tensor.name}'": shown(tensor) for tensor in signature.outputs}


def _verify_version(context: StepContext, folder: Path, number: int, out: Path) -> Verified:
    kept = out / str(number)
    kept.mkdir()
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        alone = Path(name)
        (alone / "version").symlink_to(folder / "versions" / str(number))
        (alone / "expected.npz").symlink_to(folder / f"expected/{number}.npz")
        with located(f"version {number}"):
            return verify_onnx(replace(context, inputs={**context.inputs, "model": alone}), kept)


def _digest(folder: Path) -> str:
    return tree_digest({name: sha256_file(path) for name, path in list_tree(folder).items()})
