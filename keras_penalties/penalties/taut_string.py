"""Ordered and fused fits: a string pulled tight through a tube."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_penalties.compiling import compiled
from keras_penalties.numerics import scaled
from keras_penalties.penalties.isotonic import piecewise
from keras_penalties.typing import Tensor


@compiled
def taut_string(
    y: Tensor, low: Tensor, high: Tensor, weights: Tensor | None = None
) -> Tensor:
    """The x that minimises `½·Σw·(x − y)²` with bounded running sums, on the last axis.

    The running sums of `w·(x − y)` stay in [low, high] and the whole sum is 0: x is the
    slope of a string pulled tight through a tube around the running sums of `w·y`. With
    (−t, t) that is the proximal map of total variation, with (0, ∞) the nearest
    decreasing sequence. Weights, of any spread, need a tube with two finite bounds.

    Exact up to rounding. Each round draws straight lines between the points that the
    string is known to touch, and adds those where a line leaves the tube by most: the
    string touches there, too. So there are fewer rounds than entries, mostly a few more
    than their logarithm, each on the whole array at once.
    """
    shape, (y, scale) = y.shape, scaled(y)
    low, high = low / scale, high / scale
    y = ops.reshape(y, (-1, shape[-1]))
    w = None if weights is None else ops.reshape(weights, y.shape)
    low, high = (
        ops.broadcast_to(ops.cast(bound, y.dtype), y.shape) for bound in (low, high)
    )
    last = ops.broadcast_to(ops.arange(shape[-1]) == shape[-1] - 1, y.shape)
    epsilon = np.finfo(keras.backend.standardize_dtype(y.dtype)).eps
    rounding = 4.0 * epsilon * ops.max(ops.absolute(y), axis=1, keepdims=True)

    def lines(touched: Tensor, offset: Tensor) -> tuple[Tensor, ...]:
        """The slopes, the running sums, what these may be wrong by, and the pieces."""
        if w is None:
            return _lines(y, touched, offset)
        return _weighed_lines(y, w, touched, offset)

    def tighten(
        touched: Tensor, offset: Tensor, no_high: Tensor, no_low: Tensor, more: Tensor
    ) -> tuple[Tensor, ...]:
        x, sums, error, pieces = lines(touched, offset)
        over = ops.where(touched | no_high, 0.0 * sums, sums - high - error)
        under = ops.where(touched | no_low, 0.0 * sums, low - sums - error)
        leaves = ops.any(ops.maximum(over, under) > 0, axis=1, keepdims=True)
        # A taut string bends downwards only at the lower bound and upwards only at the
        # upper bound. Any other bend is a rounding error and is removed.
        bend = ops.roll(x, -1, axis=1) - x
        at_low = offset == low
        bend = ops.where(at_low, bend, -bend)
        wrong = (bend > rounding) & touched & ~last & ~leaves
        for excess, bound in ((over, high), (under, low)):
            peak = piecewise(ops.segment_max, excess, pieces)
            touches = (excess > 0) & (excess == peak)
            touched = touched | touches
            offset = ops.where(touches, bound, offset)
        no_high, no_low = no_high | wrong & (offset == high), no_low | wrong & at_low
        offset = ops.where(wrong, 0.0 * offset, offset)
        more = ops.any(leaves) | ops.any(wrong)
        return touched & ~wrong, offset, no_high, no_low, more

    none = ops.zeros_like(last)
    start = (last, 0.0 * y, none, none, ops.any(last))
    touched, offset, *_ = ops.while_loop(lambda *now: now[-1], tighten, start)
    return scale * ops.reshape(lines(touched, offset)[0], shape)


def _lines(y: Tensor, touched: Tensor, offset: Tensor) -> tuple[Tensor, ...]:
    """For equal weights; the error is left to the loop's test of bends."""
    first, pieces = _pieces(touched)
    start = ops.roll(offset, 1, axis=1)
    size = piecewise(ops.segment_sum, ops.ones_like(y), pieces)
    mean = piecewise(ops.segment_sum, y, pieces) / size
    rest = mean - y
    shift = piecewise(ops.segment_sum, offset - start - rest, pieces) / size
    rest = rest + shift
    sums = ops.cumsum(rest, axis=1)
    slip = ops.where(first, start - (sums - rest), 0.0 * sums)
    sums = sums + piecewise(ops.segment_sum, slip, pieces)
    return mean + shift, sums, ops.zeros_like(sums), pieces


def _weighed_lines(
    y: Tensor, w: Tensor, touched: Tensor, offset: Tensor
) -> tuple[Tensor, ...]:
    """For weights of any spread, by differences from each piece's heaviest entry.

    The slope is within rounding of that entry's y, so a product of its weight and the
    difference would be noise. What that entry adds to the running sums follows from the
    others: before it, the sums run from the start of the piece, and after it, back from
    the end.
    """
    first, pieces = _pieces(touched)
    begin = ops.where(first, ops.roll(offset, 1, axis=1), 0.0 * offset)
    place = ops.broadcast_to(ops.arange(y.shape[1], dtype="int32"), y.shape)

    def total(x: Tensor) -> Tensor:
        return piecewise(ops.segment_sum, x, pieces)

    heavy = w == piecewise(ops.segment_max, w, pieces)
    behind = ops.where(heavy, place, ops.full_like(place, y.shape[1]))
    at = piecewise(ops.segment_min, behind, pieces)
    heaviest = place == at
    nearest = total(ops.where(heaviest, y, 0.0 * y))
    apart, weight = y - nearest, total(w)
    lightly = ops.where(heaviest, 0.0 * w, w)
    slope = total(lightly / weight * apart) + total(offset - begin) / weight
    rest = lightly * (slope - apart)
    sums = ops.cumsum(rest, axis=1)
    ahead = total(begin - ops.where(first, sums - rest, 0.0 * sums)) + sums
    back = total(ops.where(touched, offset - sums, 0.0 * sums)) + sums
    epsilon = np.finfo(keras.backend.standardize_dtype(y.dtype)).eps
    largest = ops.max(ops.absolute(sums), axis=1, keepdims=True)
    error = 8.0 * epsilon * (largest + ops.max(ops.absolute(offset)))
    found = ops.where(place < at, ahead, back)
    return nearest + slope, found, error + 0.0 * found, pieces


def _pieces(touched: Tensor) -> tuple[Tensor, Tensor]:
    """The first entries of the pieces between touched points, and the pieces' ids."""
    first = ops.roll(touched, 1, axis=1)
    return first, ops.cumsum(ops.cast(ops.reshape(first, (-1,)), "int32")) - 1
