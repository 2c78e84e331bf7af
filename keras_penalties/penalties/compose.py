"""Penalties made of other penalties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from keras_penalties import checks
from keras_penalties.numerics import soft_threshold
from keras_penalties.penalties.base import Penalty, one_step
from keras_penalties.penalties.concave import MCP
from keras_penalties.penalties.grouped import Grouped
from keras_penalties.penalties.order import TotalVariation
from keras_penalties.penalties.separable import L1, L2
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


@register(string_name=False)  # `sum` says too little to stand alone in a slot.
class Sum(Penalty):
    """Several penalties on one tensor: `Σ strengthᵢ · valueᵢ(x)`.

    `L1(0.1) + L2(0.01)` makes one, and `2 * (...)` multiplies each strength.

    The proximal map is known where all parts but one at most are L1, L2 or ElasticNet
    and the one has a map: exactly, by completing the square for L2. Beside an L1 the
    one must be a `Grouped` (the sparse group lasso), a `TotalVariation` (the fused
    lasso), `NonNegative` or a `Box`.

    Args:
        penalties: Two penalties or more. Sums among them are flattened.

    Example:
        >>> import keras_penalties as kp
        >>> both = kp.penalties.L1(0.5) + kp.penalties.L2(0.25)
        >>> float(both([3.0, -1.0]))
        4.5

    Raises:
        ValueError: if there is nothing to sum, or something is not a penalty.

    Source: for the order of the maps Yu, "On Decomposing the Proximal Map", 2013.
    """

    strength = 1.0

    def __init__(self, penalties: Iterable[Penalty]) -> None:
        self.penalties = flattened(penalties)

    def value(self, x: Tensor) -> Tensor:
        """The sum of the parts, each with its own strength."""
        return self._applied(x, 1.0)

    def _applied(self, x: Tensor, slot_divisor: Tensor) -> Tensor:
        return sum(part._applied(x, slot_divisor) for part in self.penalties)

    def prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The map of the elastic parts and that of the other, in the right order."""
        for part in self.penalties:
            checks.instance("strength", part.strength, float)
        return self.prox_parts(x, [t * part.strength for part in self.penalties])

    def prox_parts(self, x: Tensor, ts: Sequence[Tensor]) -> Tensor:
        """The same with a t for each part."""
        if not self.has_prox:
            return super().prox(x, ts[0])
        pairs = list(zip(self.penalties, ts, strict=True))
        elastic = [(*part.elastic, t) for part, t in pairs if part.elastic]
        scale = 1.0 + sum(b * t for _, b, t in elastic)
        x, threshold = x / scale, sum(a * t for a, _, t in elastic) / scale
        if self._other is None:
            return soft_threshold(x, threshold)
        (t,) = (t / scale for part, t in pairs if part is self._other)
        if not self._kinked:
            return self._other.prox(x, t)
        if self._other.soft_threshold == "before":
            return self._other.prox(soft_threshold(x, threshold), t)
        return soft_threshold(self._other.prox(x, one_step(self, t)), threshold)

    @property
    def _other(self) -> Penalty | None:
        """The part that is no L1, L2 or ElasticNet."""
        return next((p for p in self.penalties if not p.elastic), None)

    @property
    def _kinked(self) -> bool:
        """Whether an L1 is among the parts."""
        return any(part.elastic and part.elastic[0] > 0 for part in self.penalties)

    @property
    def has_prox(self) -> bool:
        """Whether the parts' maps can be put together."""
        others = [part for part in self.penalties if not part.elastic]
        orders = [part.soft_threshold for part in others]
        known = all(part.has_prox for part in others)
        return len(others) <= 1 and known and not (self._kinked and orders == [None])

    @property
    def per_entry(self) -> bool:  # type: ignore[override]
        """Whether every part is, and the order of the maps holds for it."""
        fused = self._other is not None and self._other.soft_threshold == "after"
        return all(p.per_entry for p in self.penalties) and not (fused and self._kinked)

    @property
    def concavity(self) -> float:
        """No more than the parts' together, where a schedule counts as 1."""
        total = 0.0
        for part in self.penalties:
            factor = part.strength if isinstance(part.strength, float) else 1.0
            bend = part.elastic[1] if part.elastic else -part.concavity
            total -= factor * bend if factor else 0.0
        return max(total, 0.0)

    @property
    def convex(self) -> bool:  # type: ignore[override]
        """Whether every part is."""
        return all(part.convex for part in self.penalties)

    @property
    def even(self) -> bool:  # type: ignore[override]
        """Whether every part is."""
        return all(part.even for part in self.penalties)

    @property
    def rank(self) -> int:  # type: ignore[override]
        """The largest rank that a part asks for."""
        return max(part.rank for part in self.penalties)

    @property
    def domain(self) -> tuple[float, float]:  # type: ignore[override]
        """The entries for which every part is meant."""
        lows, highs = zip(*(part.domain for part in self.penalties), strict=True)
        return max(lows), min(highs)

    @property
    def statistic(self) -> str | None:  # type: ignore[override]
        """What the parts agree on: a host takes the parts one by one."""
        kinds = {part.statistic for part in self.penalties}
        return kinds.pop() if len(kinds) == 1 else "batch"

    def parts(self) -> list[Penalty]:
        """The penalties in the sum."""
        return list(self.penalties)

    def __mul__(self, factor: float) -> Any:
        return Sum([part * factor for part in self.penalties])

    __rmul__ = __mul__

    def with_strength(self, strength: StrengthLike) -> Self:
        """Refused: each part of a sum has a strength of its own."""
        raise TypeError("A Sum has no strength of its own: multiply it instead.")

    @classmethod
    def examples(cls) -> list[Self]:
        """Elastic parts, the sparse group lasso, the fused lasso, MCP and L2."""
        return [
            cls([L1(0.5), L2(0.25)]),
            cls([L1(0.25), Grouped(L1(0.5), axis=0)]),
            cls([TotalVariation(0.5, axis=-1), L1(0.25), L2(0.25)]),
            cls([MCP(0.5), L2(0.1)]),
        ]


def flattened(penalties: Iterable[Penalty]) -> list[Penalty]:
    """The parts of all penalties, in order."""
    given = list(penalties)
    for penalty in given:
        checks.instance("penalties", penalty, Penalty)
    if not given:
        checks.refuse("penalties", "at least one penalty", given)
    return [part for penalty in given for part in penalty.parts()]
