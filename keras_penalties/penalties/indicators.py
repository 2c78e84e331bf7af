"""Sets that a weight is kept in: the proximal map is the nearest point of the set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import as_rows, from_rows
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.isotonic import rising
from keras_penalties.penalties.ranked import onto_simplex
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor

SMALLEST = 1e-12
"""The share of the largest t that an entry with a smaller t, or 0, counts as having."""


class Indicator(Penalty):
    """0 in a convex set, up to rounding, and infinite outside.

    A multiple of 0 and infinity is the same, so there is no strength. A step t = 0
    leaves x where it is; every other gives the nearest point of the set, nearest by
    `Σ(u − x)²/t` where t is a number for each entry. There an entry with t = 0 moves
    only as far as the set makes it, where the others can't do that. Only `Proximal`
    applies it: a Keras slot or a layer, which go by the gradient, refuse it.

    A subclass writes `nearest`, and `largest_step` where the set ties entries together.
    """

    indicator = True
    has_slope = False
    per_entry = True
    strength = 1.0

    def nearest(self, x: Tensor, t: Tensor) -> Tensor:
        """The point u of the set with the least `Σ(u − x)²/t`; t has the shape of x."""
        raise NotImplementedError

    def largest_step(self, t: Tensor) -> Tensor:
        """For each entry the largest t of those that the set ties to it."""
        return t

    def compute_value(self, x: Tensor) -> Tensor:
        """0 in the set, infinite outside."""
        away = ops.max(ops.absolute(self.nearest(x, ops.ones_like(x)) - x))
        return unless_beyond(away, x)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The nearest point of the set, or x where t is 0."""
        if math.prod(t.shape) == 1:  # then all entries move alike
            return ops.where(t > 0, self.nearest(x, ops.ones_like(x)), x)
        t = ops.broadcast_to(t, x.shape)
        largest = self.largest_step(t)
        share = t / ops.where(largest > 0, largest, ops.ones_like(largest))
        near = self.nearest(x, ops.clip(share, SMALLEST, 1.0))
        return ops.where(largest > 0, near, x)

    def with_strength(self, strength: StrengthLike) -> Self:
        """Refused: a multiple of 0 or infinity is the same."""
        raise TypeError(f"{type(self).__name__} is a constraint: it has no strength.")


def largest_of_rows(t: Tensor, axis: int | Sequence[int] | None) -> Tensor:
    """For each entry the largest t of its vector, of those that `axis` indexes."""
    rows = as_rows(t, axis)
    largest = ops.max(rows, axis=1, keepdims=True)
    return from_rows(ops.broadcast_to(largest, rows.shape), t, axis)


def unless_beyond(away: Tensor, x: Tensor) -> Tensor:
    """0, or infinity if `away` is more than rounding of x."""
    rounding = 100.0 * np.finfo(keras.backend.standardize_dtype(x.dtype)).eps
    inside = away <= rounding * ops.max(ops.absolute(x))
    return ops.where(inside, ops.zeros_like(away), math.inf)


@register
class Box(Indicator):
    """Every entry between two bounds: `low ≤ x ≤ high`.

    `Box()` is the non-negative tensors, `Box(-r, r)` the ball of the largest magnitude.

    Args:
        low: The least value, or None for no such bound. Default 0.
        high: The greatest value, or None for no such bound. Default None.

    Shapes: any, also a scalar.

    Example:
        >>> import keras_penalties as kp
        >>> box = kp.penalties.Box(-1.0, 1.0)
        >>> [round(float(u), 4) for u in box.prox([3.0, 0.5, -2.0], 1.0)]
        [1.0, 0.5, -1.0]

    Raises:
        ValueError: if both bounds are None, or `low` is above `high`.

    Source: Parikh and Boyd, "Proximal Algorithms", 2014, section 6.2.
    """

    even = False

    def __init__(self, low: float | None = 0.0, high: float | None = None) -> None:
        self.low = None if low is None else checks.number("low", low)
        self.high = None if high is None else checks.number("high", high)
        if self.low is None and self.high is None:
            checks.refuse("high", "a bound, as `low` is None", high)
        if self.low is not None and self.high is not None and self.low > self.high:
            checks.refuse("high", f"{low} or more, as `low` is that", high)

    @property
    def joint(self) -> str:  # type: ignore[override]
        """A cone, where the bounds are 0 or none."""
        return "bounds" if self.low or self.high else "cone"

    def nearest(self, x: Tensor, t: Tensor) -> Tensor:
        """Each entry moved to the bound that it lies beyond."""
        x = x if self.low is None else ops.maximum(x, self.low)
        return x if self.high is None else ops.minimum(x, self.high)

    @classmethod
    def examples(cls) -> list[Self]:
        """Non-negative, a box and a half-space."""
        return [cls(), cls(-1.0, 0.5), cls(None, 0.25)]


@register
class Simplex(Indicator):
    """Shares of a whole: `x ≥ 0, Σx = total`.

    Args:
        total: The sum, above 0. Default 1: probabilities.
        axis: The axis, or axes, that index the vectors of shares: 0 makes each row of a
            matrix one. Default None: all of x is one vector.

    Shapes: any that has the axes of `axis`.

    Example:
        >>> import keras_penalties as kp
        >>> shares = kp.penalties.Simplex()
        >>> [round(float(u), 4) for u in shares.prox([1.0, 0.5, -1.0], 1.0)]
        [0.75, 0.25, 0.0]

    Raises:
        ValueError: if `total` is not above 0, or `axis` names no axes.

    Source: Held, Wolfe and Crowder, "Validation of Subgradient Optimization", 1974.
    """

    even = False

    def __init__(
        self, total: float = 1.0, axis: int | Sequence[int] | None = None
    ) -> None:
        self.total = checks.positive("total", total)
        self.axis = None if axis is None else checks.axes("axis", axis)

    def compute_value(self, x: Tensor) -> Tensor:
        """0 if nothing is negative and the sums are right, else infinite."""
        rows = as_rows(x, self.axis)
        missing = ops.max(ops.absolute(ops.sum(rows, axis=1) - self.total))
        below = -ops.min(rows)
        return unless_beyond(ops.maximum(missing, below), self.total + 0.0 * x)

    def nearest(self, x: Tensor, t: Tensor) -> Tensor:
        """The nearest shares."""
        rows, t = as_rows(x, self.axis), as_rows(t, self.axis)
        return from_rows(onto_simplex(rows, t, self.total), x, self.axis)

    def largest_step(self, t: Tensor) -> Tensor:
        """That of its vector."""
        return largest_of_rows(t, self.axis)

    @classmethod
    def examples(cls) -> list[Self]:
        """One vector, and one for each row."""
        return [cls(), cls(2.0, axis=0)]


@register
class Monotone(Indicator):
    """Never decreasing along an axis: `xᵢ ≤ xᵢ₊₁`.

    The proximal map is isotonic regression, exact up to rounding.

    Args:
        axis: Along which axis. Default 0: along the inputs of a dense kernel.
        decreasing: Whether x must never increase, in place of never decrease. Default
            False.

    Shapes: any that has the axis `axis`, from rank 1 on.

    Example:
        >>> import keras_penalties as kp
        >>> rising = kp.penalties.Monotone()
        >>> [round(float(u), 4) for u in rising.prox([1.0, 3.0, 2.0, 4.0], 1.0)]
        [1.0, 2.5, 2.5, 4.0]

    Raises:
        ValueError: if `axis` is not a whole number.

    Source: Barlow et al., "Statistical Inference under Order Restrictions", 1972.
    """

    even = False
    joint = "order"
    rank = 1

    def __init__(self, axis: int = 0, decreasing: bool = False) -> None:
        self.axis = checks.integer("axis", axis, low=-(2**31))
        self.decreasing: bool = checks.instance("decreasing", decreasing, bool)

    def compute_value(self, x: Tensor) -> Tensor:
        """0 if no entry is beyond the next, else infinite."""
        x = ops.moveaxis(x, self.axis, 0)
        falls = x[1:] - x[:-1] if self.decreasing else x[:-1] - x[1:]
        return unless_beyond(ops.max(ops.append(falls, 0.0 * x[0])), x)

    def nearest(self, x: Tensor, t: Tensor) -> Tensor:
        """The isotonic regression with weights 1/t."""
        y, weights = (ops.moveaxis(z, self.axis, -1) for z in (x, SMALLEST / t))
        found = -rising(-y, weights) if self.decreasing else rising(y, weights)
        return ops.moveaxis(found, -1, self.axis)

    def largest_step(self, t: Tensor) -> Tensor:
        """That along the axis."""
        largest = ops.max(t, axis=self.axis, keepdims=True)
        return ops.broadcast_to(largest, t.shape)

    @classmethod
    def examples(cls) -> list[Self]:
        """Increasing along the first axis, decreasing along the last."""
        return [cls(), cls(axis=-1, decreasing=True)]
