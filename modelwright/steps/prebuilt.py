"""source.kind prebuilt: versions that were made elsewhere, staged by their digests; and what can be said of them.

versions/<N>/…    what each version holds
top/…             what lies beside config.pbtxt
golden/<N>.npz    samples that an adopted version brought along

There is nothing to compare a prebuilt model with, unless it has golden samples of its own, or `samples` in its
model.yaml. With neither, its manifest says that it was compared with nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from modelwright.config.model_config import tensors_of
from modelwright.digest import copy_hashed
from modelwright.errors import StepError, VerifyError, located
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.made import Made
from modelwright.facts.verified import GoldenComparison, Verified, VerifiedVersions
from modelwright.kinds.prebuilt import GoldenRecord, PrebuiltSource
from modelwright.steps.context import StepContext
from modelwright.steps.ensemble import composing_digests, newest_version, version_digest
from modelwright.steps.samples import load_samples
from modelwright.triton.layout import GOLDEN
from modelwright.triton.reasons import is_missing_here
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.golden import load_golden
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import scalars_of

_HINT = "a version never changes: put the file back, or publish the new one under another number"


def run(context: StepContext, out: Path) -> Made:
    """Copy every file out of the builder's folder, and check that it is what model.yaml says."""
    source = context.source(PrebuiltSource)
    places = {f"{number}/{GOLDEN}": f"golden/{number}.npz" for number in source.golden}
    for number, files in source.versions.items():
        (out / "versions" / str(number)).mkdir(parents=True)
        places |= {f"{number}/{name}": f"versions/{number}/{name}" for name in files}
    places |= {name: f"top/{name}" for name in source.files}
    for name, digest in source.digests.items():
        target = out / places[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy_hashed(context.builder.folder / name, target) != digest:
            raise StepError(f"{context.builder.file}: source: {name} is not what its digest says", _HINT)
    return Made(prebuilt=True, composing_models=composing_digests(context))


def verify(context: StepContext, out: Path) -> VerifiedVersions:
    """Facts for each version: what it was compared with, if anything. Keeps `<N>/golden.npz` of those that were."""
    source = context.source(PrebuiltSource)
    with located(f"{context.builder.name}: verify"):
        versions = {number: _verify_version(context, source, number, out) for number in source.versions}
    return VerifiedVersions(versions=versions)


def _verify_version(context: StepContext, source: PrebuiltSource, number: int, out: Path) -> Verified:
    record = source.golden.get(number)
    if context.builder.spec.samples:
        return _served(context, number, out, None)
    if record is None:
        return _not_compared()
    _keep_golden(context, number, out)
    changed = _changed_member(context, record)
    if changed:
        return _not_compared(f"it ran another version of {changed} when its samples were recorded", record)
    return _served(context, number, out, record)


def _served(context: StepContext, number: int, out: Path, record: GoldenRecord | None) -> Verified:
    """One version in the real server: its golden samples again, or those of model.yaml."""
    from modelwright.steps.trial import NotLoadedError, trial
    from modelwright.steps.verify import SERVED_BATCH, served_runner, verify_samples

    spec = context.builder.spec
    try:
        with trial(_with_version(context, number), out.parent) as client:
            runner = served_runner(context, client, str(number))
            if record:
                return _replayed(context, number, record, runner)
            folder = out / str(number)
            folder.mkdir()
            samples = load_samples(context, tensors_of(context.builder).input_types)
            return verify_samples(context, runner, samples, min(spec.max_batch_size, SERVED_BATCH), folder).facts
    except NotLoadedError as error:
        # Versions that the newest one's config does not fit are kept, as they are where they come from.
        is_old = record is not None and number != max(context.source(PrebuiltSource).versions)
        if not is_missing_here(error.reason) and not is_old:
            raise VerifyError(error.message, error.hint) from None
        return _not_compared(f"not served here: {error.reason}", record)


def _replayed(context: StepContext, number: int, record: GoldenRecord, runner: SampleRunner) -> Verified:
    inputs, expected = load_golden(context.inputs["model"] / f"golden/{number}.npz")
    batch = min(record.batch, context.builder.spec.max_batch_size)
    runner = replace(runner, scalars=frozenset(scalars_of(expected)))
    errors = compare_outputs(expected, runner.ask_all(inputs, batch), record.tolerance)
    return Verified(
        compared_with=ComparedWith.GOLDEN_SAMPLES,
        max_abs_error=errors,
        samples=len(inputs),
        golden=_comparison(record),
    )


def _not_compared(reason: str = "", record: GoldenRecord | None = None) -> Verified:
    return Verified(compared_with=ComparedWith.NOTHING, reason=reason, golden=_comparison(record) if record else None)


def _comparison(record: GoldenRecord) -> GoldenComparison:
    return GoldenComparison(batch=record.batch, tolerance=record.tolerance)


def _keep_golden(context: StepContext, number: int, out: Path) -> None:
    (out / str(number)).mkdir()
    shutil.copyfile(context.inputs["model"] / f"golden/{number}.npz", out / str(number) / GOLDEN)


def _changed_member(context: StepContext, record: GoldenRecord) -> str:
    """A model that an ensemble runs and that is not what it was when the samples were recorded; '' if all are."""
    for name, digest in record.members.items():
        folder = context.inputs.get(f"member {name}")
        if folder is None or version_digest(newest_version(folder)) != digest:
            return name
    return ""


def _with_version(context: StepContext, number: int) -> StepContext:
    served = [
        replace(model, versions={number: model.versions[number]}) if model.name == context.builder.name else model
        for model in context.served
    ]
    return replace(context, served=tuple(served))
