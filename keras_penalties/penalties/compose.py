"""Penalties made of other penalties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import widened
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.concave import MCP
from keras_penalties.penalties.grouped import Grouped
from keras_penalties.penalties.joint import Joint
from keras_penalties.penalties.order import TotalVariation
from keras_penalties.penalties.quadratic import ToReference
from keras_penalties.penalties.separable import L1, L2, NonNegative
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike, constant
from keras_penalties.typing import Tensor


@register(string_name=False)  # `sum` says too little to stand alone in a slot.
class Sum(Penalty):
    """Several penalties on one tensor: `Σ strengthᵢ · valueᵢ(x)`.

    `L1(0.1) + L2(0.01)` makes one, and `2 * (...)` multiplies each strength.

    The proximal map is known, and exact, where the parts allow it:

    - Any number of L2, ElasticNet and `ToReference`, beside any part that has a map.
    - Parts that are equal except for their strengths.
    - Any number of L1, `NonNegative` and `Box` with bounds at 0, beside one of: a
      `Grouped` (the sparse group lasso), a ball, or an even sum over entries.
    - A `TotalVariation` (the fused lasso) or `Monotone` beside convex sums over entries
      and a `Box`, for one t.

    Other sums, such as of groups along two axes, have no known map: `Penalized` applies
    them, by their gradient.

    Args:
        penalties: Two penalties or more. Sums among them are flattened.

    Shapes: any that suits every part.

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

    def compute_value(self, x: Tensor) -> Tensor:
        """The sum of the parts, each with its own strength."""
        return sum(part.weighed(x) for part in self.penalties)

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same sum of the parts' masked values."""
        return sum(
            part.strength * part.compute_masked_value(x, mask)
            for part in self.penalties
            if checks.instance("strength", part.strength, float)
        )

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The maps of the parts, put together: `joint.py` has the rules."""
        for part in self.penalties:
            checks.instance("strength", part.strength, float)
        return self.prox_parts(x, [t * part.strength for part in self.penalties])

    def prox_parts(self, x: Tensor, ts: Sequence[Tensor]) -> Tensor:
        """The same with a t for each part."""
        joint = Joint(self.penalties)
        if not joint.known:
            names = " + ".join(type(part).__name__ for part in self.penalties)
            raise NotImplementedError(
                f"The Sum {names} has no known proximal map, so `Proximal` can't apply "
                "it. `keras_penalties.layers.Penalized` applies it, by its gradient."
            )
        x = widened(x)
        return joint.prox(x, [ops.convert_to_tensor(t, x.dtype) for t in ts])

    @property
    def has_prox(self) -> bool:
        """Whether the parts' maps can be put together."""
        return Joint(self.penalties).known

    @property
    def per_entry(self) -> bool:  # type: ignore[override]
        """Whether every part is, and the order of the maps holds for it."""
        return Joint(self.penalties).per_entry

    @property
    def indicator(self) -> bool:  # type: ignore[override]
        """Whether a part is one."""
        return any(part.indicator for part in self.penalties)

    @property
    def has_slope(self) -> bool:  # type: ignore[override]
        """Whether every part has one."""
        return all(part.has_slope for part in self.penalties)

    @property
    def concavity(self) -> float:
        """No more than the parts' together, where a schedule counts as 1."""
        total = 0.0
        for part in self.penalties:
            known = constant(part.strength)
            factor = 1.0 if known is None else known
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
        """Elastic parts, sparse groups of one sign, the fused lasso, MCP, anchors."""
        return [
            cls([L1(0.5), L2(0.25)]),
            cls([L1(0.25), Grouped(L1(0.5), axis=0)]),
            cls([Grouped(L1(0.5), axis=0), NonNegative(0.25)]),
            cls([TotalVariation(0.5, axis=-1), L1(0.25), L2(0.25)]),
            cls([MCP(0.5), L2(0.1)]),
            cls([ToReference(0.5, 0.3), ToReference(0.25, -1.0), L1(0.1)]),
        ]


def flattened(penalties: Iterable[Penalty]) -> list[Penalty]:
    """The parts of all penalties, in order."""
    given = list(penalties)
    for penalty in given:
        checks.instance("penalties", penalty, Penalty)
    if not given:
        checks.refuse("penalties", "at least one penalty", given)
    return [part for penalty in given for part in penalty.parts()]
