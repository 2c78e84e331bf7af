"""The length of a group after a proximal step with a t for each of its entries."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_penalties.compiling import compiled
from keras_penalties.sums import fold_axis, folded
from keras_penalties.typing import Tensor


@functools.cache
def root_over(axes: tuple[int, ...]) -> Callable[..., Tensor]:
    """`Secular.root` of x and t with groups over these axes, compiled once a shape."""
    return compiled(lambda x, t: Secular(x, t, axes).root())


class Secular:
    """The length r of each group with `Σ x²/(r + t)² = 1`, or 0 if there is none.

    The cost is that of passes over memory, so the method takes as few as it can. Three
    passes give an estimate below r, and a bound on its error. If the error of any group
    could change its result by more than rounding, one more pass improves all estimates,
    which stay below r, or finds that there is no r. If the error is then still too
    large in any group, Newton's method goes on from the estimates.
    """

    tiny = 1e-30
    """The least length that anything is divided by."""

    def __init__(self, x: Tensor, t: Tensor, axes: tuple[int, ...]) -> None:
        self.x, self.t, self.axes = x, t, axes
        limits = np.finfo(keras.backend.standardize_dtype(x.dtype))
        self.eps, self.most = float(limits.eps), float(limits.max)
        # Two separate products: one shared by both sums would be written to memory.
        squares, pulled = self._total(x * x), self._total(x * (x * t))
        # In sums above 1e-16, a product with t that is too small for float32 is lost.
        self.exact = (squares > 1e-16) & (squares <= self.most) & (pulled <= self.most)
        self.norm = ops.sqrt(ops.minimum(squares, self.most))
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
        """The first estimate of r, and whether it is too far from r in any group.

        It is `‖x‖ − m`, with m the mean of t, and 0 where r may be small or may not
        exist. r is larger by at most `1.5·‖x‖·v/(‖x‖ − m)²`, the remainder of Taylor's
        series at m, where v, the variance of t, is at most `m·(max t − m)`.
        """
        trusted = ops.logical_and(self.exact, self.below > 1e-3 * self.norm)
        size = ops.where(trusted, self.below, 0.0)
        floor = ops.maximum(size, self.tiny)
        spread = self.largest - self.mean + 4.0 * self.eps * self.largest  # rounded
        error = 1.5 * (self.norm / floor) * (self.mean / floor) * (spread / floor)
        far = ops.where(size > 0, self._matters(size, error), self.norm > 0)
        return size, ops.any(far)

    def _closer(self, size: Tensor) -> tuple[Tensor, Tensor]:
        """A better estimate by one more sum, and whether it is still too far from r.

        `1/√Σ` is concave in r. Its slope times ‖x‖ is at least 1, and beyond `‖x‖ − m`
        at most `slope`, because the sum is larger the more t varies.
        """
        floor = ops.maximum(size, self.tiny)
        excess = self._total(ops.square(self.x / (floor + self.t)))
        lost = ops.logical_and(size <= 0, excess > 1.0)
        root, ratio = ops.sqrt(ops.maximum(excess, 1.0)), self.norm / floor
        slope = (1.0 + 2.0 * ratio * (root * root - 1.0)) / (root * root * root)
        step = ratio * (1.0 - 1.0 / root) / slope
        far = ops.where(size > 0, self._matters(size, step * (slope - 1.0)), lost)
        size = ops.where(size > 0, size * (1.0 + step), 0.0)
        size = ops.cond(
            ops.any(lost),
            lambda: ops.where(lost, self._start(), size),
            lambda: size,
        )
        return size, ops.any(far)

    def _start(self) -> Tensor:
        """An estimate below r that is so large that no x/(r + t) overflows."""
        alone = ops.max(ops.absolute(self.x) - self.t, axis=self.axes, keepdims=True)
        return ops.maximum(ops.maximum(self.below, alone), 0.0)

    def _newton(self, size: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """A step of Newton's method for `1/√Σ`, and whether another step is needed.

        The next step is at most `1.5·share²·change²`, from the curvature, if this one's
        change is small.
        """
        floor = ops.maximum(size, self.tiny)
        halves = 0.5 * floor + 0.5 * self.t  # r + t may overflow, its half does not
        squares = ops.square(0.5 * self.x / halves)
        excess, bend = self._total(squares), self._total(squares / halves)
        step = 2.0 * excess * (ops.sqrt(excess) - 1.0) / ops.where(bend > 0, bend, 1.0)
        new = ops.clip(size + step, 0.0, self.most)  # r itself may overflow
        change = ops.absolute(new - size) / floor
        share = self.largest / (floor + self.largest)
        far = self._matters(size, 2.0 * ops.square(share * change))
        return new, ops.any(ops.logical_or(far, change > 0.125))

    def _matters(self, size: Tensor, error: Tensor) -> Tensor:
        """Whether a relative error of r changes `x·r/(r + t)` by more than rounding."""
        share = self.largest / (ops.maximum(size, self.tiny) + self.largest)
        part = ops.minimum(share, size / ops.maximum(self.norm, self.tiny))
        return ops.logical_not(error * part <= 0.5 * self.eps)

    def _total(self, values: Tensor) -> Tensor:
        """The sum over each group."""
        axis = fold_axis(values, self.axes)
        if axis is not None:
            values = folded(lambda v: v, values, axis)
        return ops.sum(values, axis=self.axes, keepdims=True)
