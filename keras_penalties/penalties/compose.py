"""Penalties made of other penalties."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from keras_penalties import checks
from keras_penalties.numerics import Tensor
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.separable import L1, L2
from keras_penalties.registry import register
from keras_penalties.strengths import Strength


@register(string_name=False)  # `sum` says too little to stand alone in a slot.
class Sum(Penalty):
    """Several penalties on one tensor: `Σ strengthᵢ · valueᵢ(x)`.

    `L1(0.1) + L2(0.01)` makes one, and `2 * (...)` multiplies each strength.

    Args:
        penalties: Two penalties or more. Sums among them are flattened.

    Example:
        >>> import keras_penalties as kp
        >>> both = kp.penalties.L1(0.5) + kp.penalties.L2(0.25)
        >>> float(both([3.0, -1.0]))
        4.5

    Raises:
        ValueError: if there is nothing to sum, or something is not a penalty.
    """

    strength = 1.0

    def __init__(self, penalties: Iterable[Penalty]) -> None:
        self.penalties = flattened(penalties)

    def value(self, x: Tensor) -> Tensor:
        """The sum of the parts, each with its own strength."""
        return self._applied(x, 1.0)

    def _applied(self, x: Tensor, slot_divisor: Tensor) -> Tensor:
        return sum(part._applied(x, slot_divisor) for part in self.penalties)

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

    def with_strength(self, strength: Strength) -> Self:
        """Refused: each part of a sum has a strength of its own."""
        raise TypeError("A Sum has no strength of its own: multiply it instead.")

    @classmethod
    def examples(cls) -> list[Self]:
        """A sum of a kinked and a smooth penalty."""
        return [cls([L1(0.5), L2(0.25)])]


def flattened(penalties: Iterable[Penalty]) -> list[Penalty]:
    """The parts of all penalties, in order."""
    given = list(penalties)
    for penalty in given:
        checks.instance("penalties", penalty, Penalty)
    if not given:
        checks.refuse("penalties", "at least one penalty", given)
    return [part for penalty in given for part in penalty.parts()]
