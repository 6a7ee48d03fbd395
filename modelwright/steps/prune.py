"""The technique `prune`: fewer channels, fine-tuned, in rounds until the target is reached or a gate is missed."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydantic import Field

from modelwright.errors import StepError, VerifyError, located
from modelwright.facts.part import Facts, Integer, Number, Part
from modelwright.steps.channels import (
    UNTRACED,
    Cost,
    Forward,
    Group,
    Prunable,
    channels_of,
    cost_of,
    prunable,
    scores,
    smallest_cut,
)
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.evaluation import baseline_metrics, check_gates_known, metrics_of, onnx_runner, plain_if_asked
from modelwright.steps.modules import (
    export_to,
    finetuned,
    forward_of,
    module_runner,
    place_of,
    prepare_torch,
    sample_arrays,
)
from modelwright.steps.sparsity import bake_masks, is_sparse, mask_layers
from modelwright.steps.train import load_module, save_module
from modelwright.triton.tensors import Tensors
from modelwright.variants.technique import SOURCE
from modelwright.variants.techniques.prune import PruneOptions
from modelwright.verification.gates import missed_gates
from modelwright.verification.pace import interleaved, ratio
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import request_of, unstacked

if TYPE_CHECKING:
    from torch import Tensor, nn

_GENTLER = "take more rounds, so that each cuts less; fine-tune longer; or leave a larger share"


class PruneRound(Part):
    """What one round left, as shares of the module that pruning started from."""

    flops: Number
    size: Number
    latency: Number | None = None
    metrics: dict[str, Number]
    missed: str = ""  # the gates that it misses; it is then thrown away


class Pruned(Facts):
    parameters: Integer
    parameters_before: Integer
    flops: Integer  # for one sample
    flops_before: Integer
    rounds: tuple[PruneRound, ...] = ()
    stopped: str = ""  # why there was no further round
    channels: dict[str, tuple[Integer, Integer]]  # layer → output channels before and after, where they differ
    left: dict[str, str] = Field(default_factory=dict)  # layer → why its channels stay
    sparse: tuple[str, ...] = ()  # layers with 2:4 sparsity


def run(context: StepContext, out: Path) -> Pruned:
    """Prune the module of the step before; keep `module.pt`."""
    options = context.options(PruneOptions)
    prepare_torch(options.threads)
    module = load_module(context, context.inputs[SOURCE])
    with located(place_of(context)), TemporaryDirectory(prefix="prune-") as scratch:
        check_gates_known(context)
        pruning = _Pruning(context, options, module, Path(scratch))
        if options.target:
            pruning.cut()
        if options.sparsity:
            pruning.thin()
        save_module(pruning.module, out, place_of(context))
        return pruning.facts()


class _Pruning:
    """One module on its way to the target. `module` is the last that passed."""

    def __init__(self, context: StepContext, options: PruneOptions, module: nn.Module, scratch: Path) -> None:
        self.module = module
        self._context = context
        self._options = options
        self._samples = sample_arrays(context)
        self._forward: Forward = forward_of(context, self._samples)
        self._plain = plain_if_asked(context)
        self._clock = _Clock(context, self._samples, module, scratch, options.batch) if options.latency else None
        self._original = channels_of(module)
        self._before = self._cost = cost_of(module, self._forward)
        self._left: dict[str, str] = {}
        self._rounds: list[PruneRound] = []
        self._stopped = ""
        self._sparse: tuple[str, ...] = ()

    def cut(self) -> None:
        """Rounds: cut channels, fine-tune, evaluate."""
        found = prunable(self.module, self._forward, self._options.keep)
        self._left = dict(found.left)
        self._check_reachable(found)
        for number in range(self._options.rounds):
            candidate = self._smaller(found.groups, self._aim(number))
            if channels_of(candidate) == channels_of(self.module):
                continue  # the round before cut enough for this one, too
            done, tuned = self._tried(candidate)
            self._rounds.append(done)
            self._context.say(f"round {len(self._rounds)}: {_told(done)}")
            if done.missed:
                self._stopped = self._kept_before(done)
                return
            self.module, self._cost = tuned, cost_of(tuned, self._forward)
            if self._share(done) <= self._target:
                self._stopped = f"the target is reached: {self._told_share(done)}"
                return
        self._stopped = f"all rounds are done: {self._told_share(self._rounds[-1])}"

    def thin(self) -> None:
        """Zero two of every four weights, and fine-tune what is left."""
        thinned = copy.deepcopy(self.module)
        layers = mask_layers(thinned)
        done, tuned = self._tried(thinned)
        bake_masks(tuned)
        found = dict(tuned.named_modules())
        dense = [name for name in layers if name not in found or not is_sparse(found[name].weight.detach())]
        if dense:
            hint = "train the module that it is given, with an optimiser over module.parameters()"
            raise StepError(f"entry: the sparsity 2:4 of '{dense[0]}' is lost", hint)
        if done.missed:
            raise VerifyError(f"sparsity 2:4: {done.missed}", "fine-tune longer, or leave sparsity out")
        self.module, self._sparse = tuned, tuple(layers)

    def facts(self) -> Pruned:
        now = channels_of(self.module)
        return Pruned(
            parameters=self._cost.parameters,
            parameters_before=self._before.parameters,
            flops=self._cost.flops,
            flops_before=self._before.flops,
            rounds=tuple(self._rounds),
            stopped=self._stopped,
            channels={name: (count, now[name]) for name, count in self._original.items() if now[name] != count},
            left=self._left,
            sparse=self._sparse,
        )

    @property
    def _target(self) -> float:
        assert self._options.target is not None
        return self._options.target

    def _share(self, of: PruneRound) -> float:
        share = getattr(of, self._options.goal)
        assert isinstance(share, float)
        return share

    def _told_share(self, of: PruneRound) -> str:
        return f"{self._options.goal} is {self._share(of):.3g} of what it was, the target {self._target:g}"

    def _part(self, cost: Cost) -> float:
        """What is cut down in small steps: bytes, or operations, which time follows."""
        if self._options.goal == "size":
            return cost.size_bytes / self._before.size_bytes
        return cost.flops / self._before.flops

    def _aim(self, number: int) -> float:
        """The share to cut down to in this round. Each round cuts the same factor; time is measured as it goes."""
        if self._options.goal != "latency":
            return math.pow(self._target, (number + 1) / self._options.rounds)
        reached = self._share(self._rounds[-1]) if self._rounds else 1.0
        return self._part(self._cost) * math.pow(self._target / reached, 1 / (self._options.rounds - number))

    def _smaller(self, groups: Sequence[Group], aim: float) -> nn.Module:
        now = channels_of(self.module)
        current = [replace(group, channels=now[group.root]) for group in groups]
        return smallest_cut(
            self.module,
            self._forward,
            current,
            scores(self.module, self._forward, current, self._options.importance, self._loss),
            lambda cost: self._part(cost) <= aim,
            ranking=self._options.ranking,
            multiple=self._options.multiple_of,
        )

    def _check_reachable(self, found: Prunable) -> None:
        """Before anything is trained: the smallest module that can be cut must reach the target."""
        left = "; ".join(f"{name}: {why}" for name, why in found.left.items())
        if self._options.goal == "flops" and not self._before.flops:
            raise StepError("flops: the module has no convolution and no matrix product that counts", "use size")
        if not found.groups:
            raise StepError(f"nothing can be pruned: {left}", f"leave prune out; or, if it should work: {UNTRACED}")
        smallest = self._smaller(found.groups, 0.0)
        share = self._clock.ratio(smallest) if self._clock else self._part(cost_of(smallest, self._forward))
        if share > self._target:
            hint = f"ask for less, set multiple_of below {self._options.multiple_of}, or keep less"
            what = f"{self._options.goal}: {self._target:g} cannot be reached: {share:.3g} is the smallest"
            raise StepError(f"{what}; what stays: {left}" if left else what, hint)

    def _tried(self, candidate: nn.Module) -> tuple[PruneRound, nn.Module]:
        """Fine-tune a candidate and measure it."""
        expected = channels_of(candidate)
        tuned = candidate
        if self._options.entry:
            tuned = finetuned(self._context, self._options.entry, candidate, self._options.params)
        if channels_of(tuned) != expected:
            raise StepError("entry: it returned a module with other layers than it was given", "train that module")
        cost = cost_of(tuned, self._forward)
        metrics = metrics_of(self._context, module_runner(self._context, tuned), self._plain)
        missed = missed_gates(self._context.builder.spec.gates, metrics, baseline_metrics(self._context))
        done = PruneRound(
            flops=round(cost.flops / max(self._before.flops, 1), 4),
            size=round(cost.size_bytes / self._before.size_bytes, 4),
            latency=round(self._clock.ratio(tuned), 3) if self._clock else None,
            metrics=metrics,
            missed="; ".join(gate.text for gate in missed),
        )
        return done, tuned

    def _kept_before(self, failed: PruneRound) -> str:
        if len(self._rounds) == 1:
            raise VerifyError(f"the first round misses a gate, {_told(failed)}", _GENTLER)
        return f"round {len(self._rounds)} misses a gate, round {len(self._rounds) - 1} is kept: {failed.missed}"

    def _loss(self, module: nn.Module) -> Tensor:
        assert self._options.loss is not None
        field = f"variant {self._context.builder.name}: prune.loss"
        loss: Tensor = call(self._context, field, self._options.loss, module)
        return loss


class _Clock:
    """Time of a module in onnxruntime, as a share of the time of the one that pruning started from."""

    def __init__(self, context: StepContext, samples: Tensors, module: nn.Module, scratch: Path, batch: int) -> None:
        self._context, self._samples, self._scratch = context, samples, scratch
        rows = list(islice(cycle(unstacked(samples)), batch))
        batched = context.builder.spec.batched
        self._request = request_of(rows if batched else rows[:1], batched=batched)
        self._start = self._runner(module, "start")

    def ratio(self, module: nn.Module) -> float:
        runner = self._runner(module, "candidate")
        times = interleaved(
            {"new": lambda: runner.infer(self._request), "old": lambda: self._start.infer(self._request)}
        )
        return ratio(times["new"], times["old"])

    def _runner(self, module: nn.Module, name: str) -> SampleRunner:
        file = self._scratch / f"{name}.onnx"
        export_to(self._context, module, self._samples, file)
        return onnx_runner(self._context, file)


def _told(done: PruneRound) -> str:
    shares = [("flops", done.flops), ("size", done.size), ("latency", done.latency)]
    text = ", ".join(f"{name} {share:.3g}" for name, share in shares if share is not None)
    metrics = ", ".join(f"{name} {value:.6g}" for name, value in done.metrics.items())
    return f"{text} of what it was; {metrics}" + (f": {done.missed}" if done.missed else "")
