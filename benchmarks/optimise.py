"""The variants that change the graph alone, over real models: what `optimise` keeps, and how near FP16 and BF16 stay.

One row a model: those of other packages (`make test-models` installs them) and the shipped ones. `optimise` measures
the time of its own thread, in turns with the plain graph, so that other steps may run beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import projects
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.project.project import load as load_project
from modelwright.repository.manifest import Manifest
from modelwright.repository.repository import Repository
from tests.models import project as models

_SHIPPED = ("digits", "minilm")
_GPU = {"instance_group": [{"kind": "KIND_GPU"}]}
_CANDIDATES = ("onnxslim", "onnxruntime", "transformers", "onnxscript")


def measure(options: Options) -> list[Section]:
    if not models.installed():
        raise RuntimeError("the packages of the models are not installed: make test-models")
    with tempfile.TemporaryDirectory(prefix="modelwright-optimise-") as folder:
        shipped = projects.shipped_project(Path(folder) / "shipped", _SHIPPED)
        found = _built(shipped, _SHIPPED)
        if not options.quick:
            others = projects.empty_project(Path(folder) / "others")
            models.write_builders(others)
            found |= _built(others, models.NAMES)
    return [_optimised(found), _halved(found)]


class _Variants:
    """What became of the variants of one model: a manifest, or why there is none."""

    def __init__(self, root: Path, name: str, outcomes: Mapping[str, Any]) -> None:
        self._outcomes = {kind: outcomes[f"{name}_{kind}"] for kind in ("optimise", "fp16", "bf16")}
        project = load_project(root)
        repository = Repository.of(project)
        self.manifests: dict[str, Manifest] = {}
        for kind, outcome in self._outcomes.items():
            manifest = repository.manifest(f"{name}_{kind}", 1) if outcome["status"] == "new" else None
            if manifest:
                self.manifests[kind] = manifest

    def facts(self, kind: str) -> dict[str, Any]:
        manifest = self.manifests[kind]
        return dict(next(step for step in manifest.lineage if step.step == kind).facts)

    def reason(self, kind: str) -> str:
        """Why it was not made, without the place, which is the model's own file."""
        outcome = self._outcomes[kind]
        said = outcome.get("error") or outcome.get("reason") or ""
        message = said["message"] if isinstance(said, dict) else str(said)
        return message.partition("\n")[0].rpartition(f": {kind}: ")[2]


def _built(root: Path, names: Iterable[str]) -> dict[str, _Variants]:
    for name in names:
        file = root / "builders" / name / "model.yaml"
        spec = yaml.safe_load(file.read_text())
        spec["variants"] = [
            {"name": f"{name}_optimise", "steps": ["optimise"]},
            {"name": f"{name}_fp16", "steps": ["fp16"]},
            {"name": f"{name}_bf16", "steps": ["bf16"], "serving": _GPU},
        ]
        file.write_text(yaml.safe_dump(spec, sort_keys=False))
    outcomes = models.build(root, packages=root.name == "others")
    return {name: _Variants(root, name, outcomes) for name in names}


def _optimised(found: Mapping[str, _Variants]) -> Section:
    rows = []
    gained = 0
    for name, variants in found.items():
        if "optimise" not in variants.manifests:
            rows.append([name, variants.reason("optimise"), *["-"] * len(_CANDIDATES)])
            continue
        facts = variants.facts("optimise")
        gained += facts["kept"] != "plain"
        tried = {item["candidate"]: item for item in facts["tried"]}
        rows.append([name, facts["kept"], *(_candidate(tried[kind]) for kind in _CANDIDATES)])
    return Section(
        "optimise: time as a share of the plain graph's, for one row and for a batch",
        "CPU time of one thread in the target's onnxruntime at the server's level, in turns; a batch is 8 rows or the"
        f" model's most. A candidate without figures was dropped before. Load average {load()}.",
        ["model", "kept", *_CANDIDATES],
        rows,
        [f"{gained} of {len(rows)} models are faster by a candidate; for the others the plain graph stays."],
    )


def _candidate(tried: Mapping[str, Any]) -> str:
    ratios: Mapping[str, float] = tried.get("ratios", {})
    if ratios:
        return " · ".join(f"{ratio:.2f}" for ratio in ratios.values())
    result = str(tried["result"])
    known = (
        ("changes nothing", "nothing to do"),
        ("not tried", "architecture not known"),
        ("CUDA provider", "not for GPUs"),
        ("does not load", "does not load"),
        ("fails on this graph", "fails"),
        ("has shape", "other shapes"),
        ("differs", "other answers"),
    )
    return next((short for text, short in known if text in result), result)


def _halved(found: Mapping[str, _Variants]) -> Section:
    rows = [
        [name, *(cell for kind in ("fp16", "bf16") for cell in _half(variants, kind))]
        for name, variants in found.items()
    ]
    made = sum(row[1] != "-" for row in rows)
    return Section(
        "optimise: FP16 and BF16",
        "Nodes in half precision, and of those that could be, nodes that stay in float32; the largest difference from"
        " the export as a share of what is allowed (1 % and 5 % of the output's largest value); size against the plain"
        " model's.",
        ["model", "FP16 nodes", "error", "size", "BF16 nodes", "error", "size"],
        rows,
        [f"{made} of {len(rows)} models have something to convert.", *_reasons(found)],
    )


def _half(variants: _Variants, kind: str) -> Sequence[str]:
    if kind not in variants.manifests:
        return "-", "-", "-"
    facts, verified = variants.facts(kind), variants.manifests[kind].verification
    return (
        f"{facts['nodes']} + {len(facts['kept'])}",
        f"{_share(variants.manifests[kind]):.0%}",
        f"{verified.size_ratio:.2f}",
    )


def _share(manifest: Manifest) -> float:
    verified = manifest.verification
    assert verified.golden is not None
    allowed = verified.golden.tolerance
    return max(
        (error / allowed[name].atol for name, error in verified.max_abs_error.items() if allowed[name].atol),
        default=0.0,
    )


def _reasons(found: Mapping[str, _Variants]) -> list[str]:
    """Why models have no version in half precision, each reason once."""
    reasons: dict[str, list[str]] = {}
    for name, variants in found.items():
        for kind in ("fp16", "bf16"):
            if kind not in variants.manifests:
                reasons.setdefault(variants.reason(kind), []).append(f"{name} ({kind})")
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
