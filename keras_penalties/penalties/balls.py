"""Balls that a weight is kept in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from keras import ops

from keras_penalties import checks
from keras_penalties.compiling import compiled
from keras_penalties.numerics import as_rows, from_rows, norm, positive_part
from keras_penalties.penalties.indicators import (
    Indicator,
    largest_of_rows,
    unless_beyond,
)
from keras_penalties.penalties.ranked import onto_simplex
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


class _Ball(Indicator):
    """A ball around 0 for each index on some axes."""

    joint = "groups"

    def __init__(
        self, radius: float = 1.0, axis: int | Sequence[int] | None = None
    ) -> None:
        self.radius = checks.positive("radius", radius)
        self.axis = None if axis is None else checks.axes("axis", axis)

    def compute_value(self, x: Tensor) -> Tensor:
        """0 if no length is beyond the radius, else infinite."""
        beyond = ops.max(self._length(as_rows(x, self.axis))) - self.radius
        return unless_beyond(beyond, self.radius + 0.0 * x)

    def nearest(self, x: Tensor, t: Tensor) -> Tensor:
        """The nearest points of the balls, x where it lies inside."""
        rows, t = as_rows(x, self.axis), as_rows(t, self.axis)
        inside = self._length(rows) <= self.radius
        return from_rows(ops.where(inside, rows, self._shrunk(rows, t)), x, self.axis)

    def largest_step(self, t: Tensor) -> Tensor:
        """That of its vector."""
        return largest_of_rows(t, self.axis)

    def _length(self, rows: Tensor) -> Tensor:
        """The norm of each row, as a column."""
        raise NotImplementedError

    def _shrunk(self, rows: Tensor, t: Tensor) -> Tensor:
        """Rows outside the ball, moved to its surface."""
        raise NotImplementedError

    @classmethod
    def examples(cls) -> list[Self]:
        """One ball, and one for each output unit."""
        return [cls(), cls(0.5, axis=-1)]


@register
class L1Ball(_Ball):
    """A bounded sum of magnitudes: `Σ|x| ≤ radius`.

    Args:
        radius: The bound, above 0. Default 1.
        axis: The axis, or axes, that index the vectors that are bounded: -1 bounds the
            weights of each output unit. Default None: all of x is one vector.

    Shapes: any that has the axes of `axis`.

    Example:
        >>> import keras_penalties as kp
        >>> ball = kp.penalties.L1Ball(2.0)
        >>> [round(float(u), 4) for u in ball.prox([3.0, -1.0, 0.5], 1.0)]
        [2.0, 0.0, 0.0]

    Raises:
        ValueError: if `radius` is not above 0, or `axis` names no axes.

    Source: Duchi et al., "Efficient Projections onto the l1-Ball for Learning in High
    Dimensions", 2008.
    """

    def _length(self, rows: Tensor) -> Tensor:
        return ops.sum(ops.absolute(rows), axis=1, keepdims=True)

    def _shrunk(self, rows: Tensor, t: Tensor) -> Tensor:
        return ops.sign(rows) * onto_simplex(ops.absolute(rows), t, self.radius)


@register
class L2Ball(_Ball):
    """A bounded Euclidean norm: `‖x‖ ≤ radius`.

    `L2Ball(radius, axis=-1)` is the max-norm constraint of each output unit.

    Args:
        radius: The bound, above 0. Default 1.
        axis: The axis, or axes, that index the vectors that are bounded: -1 bounds the
            weights of each output unit. Default None: all of x is one vector.

    Shapes: any that has the axes of `axis`.

    Example:
        >>> import keras_penalties as kp
        >>> ball = kp.penalties.L2Ball(1.0)
        >>> [round(float(u), 4) for u in ball.prox([3.0, 4.0], 1.0)]
        [0.6, 0.8]

    Raises:
        ValueError: if `radius` is not above 0, or `axis` names no axes.

    Source: Srebro and Shraibman, "Rank, Trace-Norm and Max-Norm", 2005; Hinton et al.,
    "Improving Neural Networks by Preventing Co-adaptation of Feature Detectors", 2012.
    """

    def _length(self, rows: Tensor) -> Tensor:
        return norm(rows, axis=1, keepdims=True)

    def _shrunk(self, rows: Tensor, t: Tensor) -> Tensor:
        return _shortened(rows, t, self.radius)


@compiled
def _shortened(rows: Tensor, t: Tensor, radius: float) -> Tensor:
    """`x/(1 + λt)` with the λ ≥ 0 for which each row has the length `radius`.

    Newton's method for 1/‖u‖, which is almost linear in λ, and linear where t is one
    number.
    """

    def step(_: Tensor, multiplier: Tensor) -> Tensor:
        shrink = 1.0 / (1.0 + multiplier * t)
        length = norm(rows * shrink, axis=1, keepdims=True)
        unit = rows * shrink / ops.where(length > 0, length, ops.ones_like(length))
        rate = ops.sum(ops.square(unit) * t * shrink, axis=1, keepdims=True)
        rate = ops.where(rate > 0, rate, ops.ones_like(rate))
        return positive_part(multiplier + (length / radius - 1.0) / rate)

    return rows / (1.0 + ops.fori_loop(0, 20, step, 0.0 * rows[:, :1]) * t)
