"""Which layers stay in float: the fewest with which a model passes its gates.

Layers are ranked by the harm that each does alone. The number of the worst that must stay in float is found by
bisection; then those that harm least are tried in INT8 again, one by one, while the budget lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

L = TypeVar("L")


@dataclass(frozen=True)
class Ranked(Generic[L]):
    """A layer, and how far the answers move when it alone is quantised."""

    layer: L
    harm: float


def ranked(layers: Sequence[L], harm_of: Callable[[L], float]) -> list[Ranked[L]]:
    """Worst first; layers that do equal harm keep their order."""
    return sorted((Ranked(layer, harm_of(layer)) for layer in layers), key=lambda item: -item.harm)


@dataclass
class FloatSearch(Generic[L]):
    """A search for the smallest set of layers in float, within a number of evaluations.

    `passes` evaluates a model with these layers in float. It is not asked twice about one set, nor about none in float:
    that failed before.
    """

    passes: Callable[[Sequence[L]], bool]
    budget: int
    _known: dict[tuple[L, ...], bool] = field(default_factory=dict)

    @property
    def evaluations(self) -> int:
        return len(self._known)

    def fewest(self, worst_first: Sequence[L]) -> list[L] | None:
        """The layers to leave in float, worst first; None where no candidate passed. One at least is quantised."""
        count = self._bisected(worst_first)
        if count is None:
            return None
        kept = list(worst_first[:count])
        for layer in reversed(worst_first[:count]):
            if self.evaluations >= self.budget or len(kept) == 1:
                break
            fewer = [other for other in kept if other != layer]
            if self._asked(fewer):
                kept = fewer
        return kept

    def _bisected(self, worst_first: Sequence[L]) -> int | None:
        """How many of the worst must be in float: 1, 2, 4, … until it passes, then between the last two."""
        fails, passing, probe, most = 0, None, 1, len(worst_first) - 1
        while most and self.evaluations < self.budget:
            if self._asked(worst_first[:probe]):
                passing = probe
                break
            fails = probe
            if probe == most:
                return None
            # The last evaluation goes to what is most likely to pass.
            probe = most if self.evaluations + 1 == self.budget else min(2 * probe, most)
        while passing is not None and passing - fails > 1 and self.evaluations < self.budget:
            middle = (passing + fails) // 2
            if self._asked(worst_first[:middle]):
                passing = middle
            else:
                fails = middle
        return passing

    def _asked(self, in_float: Sequence[L]) -> bool:
        key = tuple(in_float)
        if key not in self._known:
            self._known[key] = self.passes(in_float)
        return self._known[key]
