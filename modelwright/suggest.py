"""'Did you mean …?'"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import nlargest

_FEW = 64  # so many names are compared one by one
_CLOSEST = 32  # of more names, those that share the most letters
_CUTOFF = 0.6


class Names:
    """Names that a word may stand for. Many of them are prepared once, so that a search is quick."""

    def __init__(self, known: Iterable[str]) -> None:
        self._names = list(known)
        self._letters = [_letters(name) for name in self._names] if len(self._names) > _FEW else []

    def nearest(self, word: str, besides: Collection[str] = ()) -> str | None:
        """The name that is most like the word; None if none is near. Names of `besides` are left out."""
        import difflib

        matcher = difflib.SequenceMatcher(b=word)
        best, least = "", _CUTOFF
        for bound, name in self._sharing(word) if self._letters else ((1.0, name) for name in self._names):
            if bound < least:
                break
            matcher.set_seq1(name)
            if name not in besides and matcher.quick_ratio() >= least:
                least, best = max((matcher.ratio(), name), (least, best))
        return best or None

    def _sharing(self, word: str) -> list[tuple[float, str]]:
        """(what its likeness is at most, name) of those that share the most letters with the word, best first."""
        letters, length = _letters(word), len(word)
        bounds = (
            (2 * (letters & theirs).bit_count() / (length + len(name)), name)
            for name, theirs in zip(self._names, self._letters, strict=True)
        )
        return nlargest(_CLOSEST, bounds)


_BUCKETS, _MOST = 64, 8  # letters are told apart by their code, and counted up to eight


def _letters(name: str) -> int:
    """How often each letter occurs, as bits: those that two words share are the bits that both have."""
    counts: dict[int, int] = {}
    for letter in name:
        bucket = ord(letter) % _BUCKETS
        counts[bucket] = counts.get(bucket, 0) + 1
    return sum(((1 << min(count, _MOST)) - 1) << bucket * _MOST for bucket, count in counts.items())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word, or with all known words if none is near."""
    names = list(known)
    near = Names(names).nearest(word)
    if near is not None:
        return f"did you mean '{near}'?"
    return f"known: {', '.join(sorted(names))}" if names else ""
