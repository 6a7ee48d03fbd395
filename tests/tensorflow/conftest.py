from __future__ import annotations

import gzip
import subprocess
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

from modelwright.environments.folders import clean_variables
from modelwright.environments.own import OwnEnvironment, ensure
from modelwright.environments.tensorflow import TENSORFLOW
from tests.conftest import ROOT

STATE = ROOT / ".modelwright" / "environments"


@pytest.fixture(scope="session")
def tensorflow_environment() -> OwnEnvironment:
    """Made once, in this checkout, as a project makes its own."""
    return ensure(STATE, TENSORFLOW, print)


@pytest.fixture(scope="session")
def models(tensorflow_environment: OwnEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the models that `make_models` makes."""
    folder = tmp_path_factory.mktemp("models")
    images, labels = bundled_digits()
    np.savez(folder / "digits.npz", image=images, digit=labels)
    program = Path(__file__).with_name("make_models.py")
    command = [str(tensorflow_environment.python), "-c", program.read_text()]
    done = subprocess.run(command, cwd=folder, env=clean_variables(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def bundled_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits, (N, 8, 8, 1) from 0 to 1; its package is not imported."""
    packages = distribution("scikit-learn")
    with gzip.open(Path(str(packages.locate_file("sklearn/datasets/data/digits.csv.gz"))), "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    return (table[:, :-1].reshape(-1, 8, 8, 1) / 16).astype(np.float32), table[:, -1].astype(np.int64)
