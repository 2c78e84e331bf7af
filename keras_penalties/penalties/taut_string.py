"""Ordered and fused fits: a string pulled tight through a tube."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_penalties.compiling import compiled
from keras_penalties.typing import Tensor


@compiled
def taut_string(y: Tensor, low: Tensor, high: Tensor, weights: Tensor) -> Tensor:
    """The x that minimises `½·Σw·(x − y)²` with bounded running sums, on the last axis.

    The running sums of `w·(x − y)` stay in [low, high] and the whole sum is 0: x is the
    slope of a string pulled tight through a tube around the running sums of `w·y`. With
    (−t, t) that is the proximal map of total variation, with (0, ∞) the nearest
    decreasing sequence.

    Exact up to rounding. Each round draws straight lines between the points that the
    string is known to touch, and adds those where a line leaves the tube by most: the
    string touches there, too. So there are fewer rounds than entries, mostly a few more
    than their logarithm, each on the whole array at once.
    """
    shape = y.shape
    y, w = (ops.reshape(z, (-1, shape[-1])) for z in (y, weights))
    low, high = (
        ops.broadcast_to(ops.cast(bound, y.dtype), y.shape) for bound in (low, high)
    )
    last = ops.broadcast_to(ops.arange(shape[-1]) == shape[-1] - 1, y.shape)
    epsilon = np.finfo(keras.backend.standardize_dtype(y.dtype)).eps
    rounding = 4.0 * epsilon * ops.max(ops.absolute(y), axis=1, keepdims=True)

    def tighten(
        touched: Tensor, offset: Tensor, banned: Tensor, more: Tensor
    ) -> tuple[Tensor, ...]:
        x, sums, pieces = _lines(y, w, touched, offset)
        free = ops.logical_not(ops.logical_or(touched, banned))
        over = ops.where(free, sums - high, 0.0 * sums)
        under = ops.where(free, low - sums, 0.0 * sums)
        leaves = ops.any(ops.maximum(over, under) > 0, axis=1, keepdims=True)
        # A taut string bends downwards only at the lower bound and upwards only at the
        # upper bound. Any other bend is a rounding error and is removed.
        bend = ops.roll(x, -1, axis=1) - x
        bend = ops.where(offset == low, bend, -bend)
        wrong = (bend > rounding) & touched & ~last & ~leaves
        for excess, bound in ((over, high), (under, low)):
            peak = piecewise(ops.segment_max, excess, pieces)
            touches = (excess > 0) & (excess == peak)
            touched = touched | touches
            offset = ops.where(touches, bound, offset)
        offset = ops.where(wrong, 0.0 * offset, offset)
        more = ops.any(leaves) | ops.any(wrong)
        return touched & ~wrong, offset, banned | wrong, more

    start = (last, 0.0 * y, ops.zeros_like(last), ops.any(last))
    touched, offset, *_ = ops.while_loop(lambda *now: now[-1], tighten, start)
    return ops.reshape(_lines(y, w, touched, offset)[0], shape)


def _lines(
    y: Tensor, w: Tensor, touched: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The slopes between touched points, the running sums, the ids of the pieces."""
    first = ops.roll(touched, 1, axis=1)
    pieces = ops.cumsum(ops.cast(ops.reshape(first, (-1,)), "int32")) - 1
    start = ops.roll(offset, 1, axis=1)
    total = piecewise(ops.segment_sum, w, pieces)
    mean = piecewise(ops.segment_sum, w * y, pieces) / total
    rest = w * (mean - y)  # apart from its mean, so that huge weights don't round it
    shift = piecewise(ops.segment_sum, offset - start - rest, pieces) / total
    rest = rest + w * shift
    sums = ops.cumsum(rest, axis=1)
    slip = ops.where(first, start - (sums - rest), 0.0 * sums)
    return mean + shift, sums + piecewise(ops.segment_sum, slip, pieces), pieces


def piecewise(reduce: Callable[..., Tensor], x: Tensor, pieces: Tensor) -> Tensor:
    """Each entry's own piece of the flat `x`, reduced."""
    flat = ops.reshape(x, (-1,))
    reduced = reduce(flat, pieces, num_segments=flat.shape[0])
    return ops.reshape(ops.take(reduced, pieces), x.shape)
