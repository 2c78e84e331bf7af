"""The nearest sequence that never decreases."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from keras_penalties.compiling import compiled
from keras_penalties.typing import Tensor


@compiled
def rising(y: Tensor, weights: Tensor) -> Tensor:
    """The x that minimises `Σw·(x − y)²` with `xᵢ ≤ xᵢ₊₁`, on the last axis.

    By pooling: neighbouring blocks of entries whose means fall become one block, until
    none do. Each round pools all such blocks at once, so there are fewer rounds than
    entries, mostly a few more than their logarithm. A mean of weights above 0 rounds
    little, however widely these are spread.
    """
    shape = y.shape
    y, w = (ops.reshape(z, (-1, shape[-1])) for z in (y, weights))
    first = ops.broadcast_to(ops.arange(shape[-1]) == 0, y.shape)

    def means(starts: Tensor) -> Tensor:
        pieces = ops.cumsum(ops.cast(ops.reshape(starts, (-1,)), "int32")) - 1
        total = piecewise(ops.segment_sum, w, pieces)
        return piecewise(ops.segment_sum, w / total * y, pieces)

    def pool(starts: Tensor, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        falls = starts & (ops.roll(x, 1, axis=1) > x) & ~first
        starts = starts & ~falls
        return starts, means(starts), ops.any(falls)

    start = (ops.ones_like(first), y, ops.any(first))
    _, x, _ = ops.while_loop(lambda *now: now[-1], pool, start)
    return ops.reshape(x, shape)


def piecewise(reduce: Callable[..., Tensor], x: Tensor, pieces: Tensor) -> Tensor:
    """Each entry's own piece of the flat `x`, reduced."""
    flat = ops.reshape(x, (-1,))
    reduced = reduce(flat, pieces, num_segments=flat.shape[0])
    return ops.reshape(ops.take(reduced, pieces), x.shape)
