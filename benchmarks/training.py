"""The training kit against a plain loop: the same network, the same batches, the same steps of the optimiser."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.options import Options
from benchmarks.table import Section

_AIM = 1.1
_EPOCHS, _QUICK_EPOCHS = 15, 2
_BATCH, _LR, _SEED = 64, 0.005, 7
_DIGITS = Path(__file__).resolve().parent.parent / "builders" / "digits"


def measure(options: Options) -> list[Section]:
    epochs, rounds = (_QUICK_EPOCHS, 2) if options.quick else (_EPOCHS, 5)
    command = [sys.executable, "-m", "benchmarks.training", str(epochs), str(rounds)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    kit, kept, plain = found["kit"], found["kept"], found["plain"]
    rows = [
        [name, timing.seconds(min(times)), timing.seconds(statistics.median(times)), _ratio(times, plain)]
        for name, times in (("a plain loop", plain), ("`fit`", kit), ("`fit`, with checkpoints", kept))
    ]
    return [
        Section(
            "training: the kit against a plain loop",
            f"The network of `builders/digits`, {epochs} epochs of batches of {_BATCH}, one thread: the same network, "
            "batches and steps, and the weights that come out are equal. Time of the CPU, in one process, "
            f"{rounds} rounds in turns; the ratio is the median of the rounds' own.",
            ["", "best", "median", "to the plain loop"],
            rows,
            [
                f"The aim is ≤ {_AIM}.",
                f"Importing Lightning takes {found['import_s']:.1f} s beside torch, once a process; a training of less "
                "than that is better off with a loop of its own.",
            ],
        )
    ]


def _ratio(times: list[float], plain: list[float]) -> str:
    return f"{statistics.median(one / other for one, other in zip(times, plain, strict=True)):.2f}"


def main(epochs: int, rounds: int) -> dict[str, Any]:
    from time import process_time

    sys.path.insert(0, str(_DIGITS))
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    started = process_time()
    import lightning.fabric  # noqa: F401

    import_s = process_time() - started
    found: dict[str, Any] = {"kit": [], "kept": [], "plain": [], "import_s": import_s}
    weights = {}
    runs = {"plain": _plain, "kit": _kit, "kept": _kept}
    for number in range(rounds + 1):  # the first warms up
        for name, run in runs.items():
            started = process_time()
            weights[name] = run(epochs).state_dict()
            if number:
                found[name].append(process_time() - started)
    for name, tensor in weights["plain"].items():
        assert torch.equal(tensor, weights["kit"][name]), name
        assert torch.equal(tensor, weights["kept"][name]), name
    return found


def _kit(epochs: int) -> Any:
    from data import split  # type: ignore[import-not-found]
    from train import DigitsNet  # type: ignore[import-not-found]

    from modelwright.training import fit

    images, _, labels, _ = split()
    return fit(DigitsNet, (images, labels), epochs=epochs, batch_size=_BATCH, lr=_LR, label_smoothing=0.05, seed=_SEED)


def _kept(epochs: int) -> Any:
    from modelwright.training.session import session

    with tempfile.TemporaryDirectory() as folder, session("", Path(folder), lambda text: None):
        return _kit(epochs)


def _plain(epochs: int) -> Any:
    """What one would write by hand; seeds and the order of the samples are the kit's, so that the work is equal."""
    import torch
    from data import split
    from torch.nn import functional
    from train import DigitsNet

    from modelwright.training.loop import seed_everything, seed_of
    from modelwright.training.optimisers import parameter_groups

    images, labels = torch.from_numpy(split()[0]), torch.from_numpy(split()[2])
    seed_everything(_SEED, 0)
    model = DigitsNet().train()
    optimiser = torch.optim.AdamW(parameter_groups(model, 0.01), lr=_LR)
    steps = epochs * -(-len(images) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_LR, total_steps=steps)
    for epoch in range(1, epochs + 1):
        seed_everything(_SEED, epoch)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed_of(_SEED, epoch)))
        for batch in order.split(_BATCH):
            loss = functional.cross_entropy(model(images[batch]), labels[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
