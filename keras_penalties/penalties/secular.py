"""The length of a group after a proximal step in an optimizer's metric."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_penalties.numerics import fold_axis, folded
from keras_penalties.typing import Tensor


class Secular:
    """The length r of each group with `Σ x²/(r + t)² = 1`, or 0 if there is none.

    What costs is passes over memory. Three give a length below r, and a bound on how
    far below. If that shows somewhere, a sum more brings all closer, from below again,
    or tells that there is no r; and if that still shows, Newton's method does the rest.
    """

    tiny = 1e-30

    def __init__(self, x: Tensor, t: Tensor, axes: tuple[int, ...]) -> None:
        self.x, self.t, self.axes = x, t, axes
        limits = np.finfo(keras.backend.standardize_dtype(x.dtype))
        self.eps, most = float(limits.eps), float(limits.max)
        # Squares that both shared would be written to memory.
        squares, pulled = self._total(x * x), self._total(x * (x * t))
        # Products with t that are no numbers of float32 are lost in sums above 1e-16.
        self.exact = (squares > 1e-16) & (squares <= most) & (pulled <= most)
        self.norm = ops.sqrt(ops.minimum(squares, most))
        self.mean = pulled / ops.maximum(squares, 1e-16)  # of t, weighted by x²
        self.largest = ops.max(t, axis=axes, keepdims=True)
        self.below = self.norm - ops.where(self.exact, self.mean, self.largest)

    def root(self) -> Tensor:
        """r, exact to rounding."""
        size, far = self._estimate()
        size, far = ops.cond(far, lambda: self._closer(size), lambda: (size, far))
        found, _ = ops.while_loop(
            lambda _, far: far, self._newton, (size, far), maximum_iterations=20
        )
        return found

    def _estimate(self) -> tuple[Tensor, Tensor]:
        """`‖x‖ − m`, m the mean of t, and 0 where r is small or none; whether it shows.

        r is above by `1.5·‖x‖·v/(‖x‖ − m)²` at most, from the remainder of Taylor's
        series at m, and v, the variance of t, is `m·(max t − m)` at most.
        """
        trusted = ops.logical_and(self.exact, self.below > 1e-3 * self.norm)
        size = ops.where(trusted, self.below, 0.0)
        floor = ops.maximum(size, self.tiny)
        spread = self.largest - self.mean + 4.0 * self.eps * self.largest  # rounded
        error = 1.5 * (self.norm / floor) * (self.mean / floor) * (spread / floor)
        far = ops.where(size > 0, self._shows(size, error), self.norm > 0)
        return size, ops.any(far)

    def _closer(self, size: Tensor) -> tuple[Tensor, Tensor]:
        """From the estimate, by the sum there; whether what is left shows.

        `1/√Σ` is concave in r. Its slope times ‖x‖ is 1 at least, and from `‖x‖ − m` on
        `slope` at most: the more t varies, the larger is the sum.
        """
        floor = ops.maximum(size, self.tiny)
        excess = self._total(ops.square(self.x / (floor + self.t)))
        lost = ops.logical_and(size <= 0, excess > 1.0)
        root, ratio = ops.sqrt(ops.maximum(excess, 1.0)), self.norm / floor
        slope = (1.0 + 2.0 * ratio * (root * root - 1.0)) / (root * root * root)
        step = ratio * (1.0 - 1.0 / root) / slope
        far = ops.where(size > 0, self._shows(size, step * (slope - 1.0)), lost)
        size = ops.where(size > 0, size * (1.0 + step), 0.0)
        size = ops.cond(
            ops.any(lost),
            lambda: ops.where(lost, self._start(), size),
            lambda: size,
        )
        return size, ops.any(far)

    def _start(self) -> Tensor:
        """Below r, and so large that no x/(r + t) overflows."""
        alone = ops.max(ops.absolute(self.x) - self.t, axis=self.axes, keepdims=True)
        return ops.maximum(ops.maximum(self.below, alone), 0.0)

    def _newton(self, size: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """A step for `1/√Σ`, from below; whether the next one shows.

        The curvature bounds that by `1.5·share²·change²`, if the change is small.
        """
        floor = ops.maximum(size, self.tiny)
        sums = floor + self.t
        squares = ops.square(self.x / sums)
        excess, bend = self._total(squares), self._total(squares / sums)
        step = excess * (ops.sqrt(excess) - 1.0) / ops.where(bend > 0, bend, 1.0)
        new = ops.maximum(size + step, 0.0)
        change = ops.absolute(new - size) / floor
        share = self.largest / (floor + self.largest)
        far = self._shows(size, 2.0 * ops.square(share * change))
        return new, ops.any(ops.logical_or(far, change > 0.125))

    def _shows(self, size: Tensor, error: Tensor) -> Tensor:
        """Whether a relative error of r does in `x·r/(r + t)`, and in `‖x‖ − m`."""
        share = self.largest / (ops.maximum(size, self.tiny) + self.largest)
        part = ops.minimum(share, size / ops.maximum(self.norm, self.tiny))
        return ops.logical_not(error * part <= 0.5 * self.eps)

    def _total(self, values: Tensor) -> Tensor:
        """The sum over each group."""
        axis = fold_axis(values, self.axes)
        if axis is not None:
            values = folded(lambda v: v, values, axis)
        return ops.sum(values, axis=self.axes, keepdims=True)
