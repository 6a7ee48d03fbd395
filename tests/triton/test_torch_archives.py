"""Headers of PyTorch's files, which are read without PyTorch."""

from __future__ import annotations

import resource
import zipfile
from pathlib import Path

from modelwright.triton.torch_archives import checkpoint_header


def test_a_pickle_that_says_that_it_is_huge_takes_no_memory(tmp_path: Path) -> None:
    """It stores None under a number of 28 bits: the unpickler in C makes room for all numbers up to that one."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02Nr\xff\xff\xff\x0f.")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert checkpoint_header(tmp_path / "x.pt").weights == ()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
