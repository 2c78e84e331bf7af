"""Thresholds that come from ranking the entries of a row."""

from __future__ import annotations

from keras import ops

from keras_penalties.numerics import positive_part, scaled
from keras_penalties.typing import Tensor


def threshold(rows: Tensor, t: Tensor, total: Tensor, room: float) -> Tensor:
    """The τ of each row with `Σ max(x − t·τ, 0) = total + room·τ`, as a column.

    Any set S of entries has `Σ_S (x − t·τ)` at most equal to the right side, so τ is
    the largest of `(Σ_S x − total) / (room + Σ_S t)`; and the best S takes the entries
    with the largest x/t first.
    """
    order = ops.argsort(-rows / ops.maximum(t, 1e-30), axis=1)
    sums = ops.cumsum(ops.take_along_axis(rows, order, axis=1), axis=1)
    steps = ops.cumsum(ops.take_along_axis(t, order, axis=1), axis=1)
    return ops.max((sums - total) / (room + steps), axis=1, keepdims=True)


def onto_simplex(rows: Tensor, t: Tensor, total: Tensor) -> Tensor:
    """`max(x − t·τ, 0)` with the τ for which each row sums to `total`.

    No entry is above `total` in the end, so `max((x − total) / t)` is a τ from below.
    From there the entries that stay above 0 are small numbers, whose sum rounds little,
    however large x is and however widely t is spread.
    """
    small, scale = scaled(rows, axis=1)
    least = ops.max((small - total / scale) / t, axis=1, keepdims=True)
    rows = positive_part(ops.minimum(scale * (small - t * least), total))
    rows = positive_part(rows - t * threshold(rows, t, total, room=0.0))
    # What rounding took from the sum, shared as t is among the entries above 0.
    missing = total - ops.sum(rows, axis=1, keepdims=True)
    free = ops.where(rows > 0, t, ops.zeros_like(t))
    shares = ops.sum(free, axis=1, keepdims=True)  # 0 where the total is
    shares = ops.where(shares > 0, shares, ops.ones_like(shares))
    return positive_part(rows + free * (missing / shares))
