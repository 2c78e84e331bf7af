"""Maths that is right on every backend: kinks, tiny and huge values, thresholds.

Autodiff of the plain formulas differs between backends at a kink (|x| at 0 has
slope 1 on JAX, 0 on TensorFlow and torch; a norm at 0 gives NaN). Every penalty
is written with the functions here, whose subgradient at a kink is 0.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties.autodiff import gradient, own_gradient
from keras_penalties.compiling import fused, pays_to_fuse
from keras_penalties.typing import Pullback, Tensor


def widened(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 where it came so: half floats overflow in sums."""
    x = ops.convert_to_tensor(x)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)  # Keras lets a `tf.Variable` through
    dtype = keras.backend.standardize_dtype(x.dtype)
    return x if dtype in ("float32", "float64") else ops.cast(x, "float32")


def absolute(x: Tensor) -> Tensor:
    """|x| with slope 0 at 0, where that of JAX is 1."""
    return _absolute(x) if keras.backend.backend() == "jax" else ops.absolute(x)


@own_gradient
def _absolute(x: Tensor) -> tuple[Tensor, Pullback]:
    return ops.absolute(x), lambda upstream: upstream * ops.sign(x)


def positive_part(x: Tensor) -> Tensor:
    """max(x, 0) with slope 0 at 0. NaN stays NaN."""
    return ops.where(x <= 0, ops.zeros_like(x), x)


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """sign(x)·max(|x| - threshold, 0): the proximal map of |x|."""
    return x - ops.clip(x, -threshold, threshold)


def bounded(x: Tensor, bound: float = 30.0) -> Tensor:
    """`x` held within ±bound, with slope 1 everywhere.

    For a parameter that is a logarithm: its exp and the square of that are finite, and
    a parameter that has left the range still has a gradient that brings it back.
    """
    inside = ops.stop_gradient(ops.clip(x, -bound, bound))
    return inside + (x - ops.stop_gradient(x))


def stirling_error(x: Tensor) -> Tensor:
    """`log Γ(x) − [(x − ½)·log x − x + ½·log 2π]` for x > 0, with its gradient.

    Keras has no log-gamma. Log-likelihoods are differences of log-gammas. There the
    brackets cancel on paper, and only these small rests are computed, so that no digits
    are lost.
    """
    small = x < 8.0
    # Below 8, from the value at x + 8: Γ(x + 8) = x·(x + 1)·…·(x + 7)·Γ(x).
    low = ops.where(small, x, ops.ones_like(x))
    high = ops.where(small, low + 8.0, x)
    steps = math.prod((low + k) / (low + 8.0) for k in range(8))
    shift = (low - 0.5) * ops.log1p(8.0 / low) - 8.0 - ops.log(steps)
    inverse = 1.0 / high
    series = ops.zeros_like(x)
    for coefficient in reversed(_STIRLING_SERIES):
        series = series * ops.square(inverse) + coefficient
    return series * inverse + ops.where(small, shift, ops.zeros_like(x))


# Bernoulli numbers: B(2k) / (2k·(2k − 1)).
_STIRLING_SERIES = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)


def norm(
    x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False
) -> Tensor:
    """The Euclidean norm over `axis`, with gradient 0 at 0 and no overflow inside."""
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    largest = ops.stop_gradient(ops.max(ops.absolute(x), axis=axis, keepdims=True))
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(x / scale), axis=axis, keepdims=True)
    # Both branches of a `where` are differentiated: sqrt must never see a 0.
    zero = squares == 0
    root = ops.sqrt(ops.where(zero, ops.ones_like(squares), squares))
    result = scale * ops.where(zero, ops.zeros_like(squares), root)
    return result if keepdims else ops.squeeze(result, axis)


def joined(weights: Sequence[Any]) -> Tensor:
    """All numbers of some weights as one vector."""
    return ops.concatenate([ops.reshape(widened(w), (-1,)) for w in weights])


def parted(vector: Tensor, like: Sequence[Any]) -> list[Tensor]:
    """What `joined` made one vector of, in the shapes and dtypes of the weights."""
    sizes = [math.prod(w.shape) for w in like]
    ends = np.cumsum(sizes[:-1]).tolist()  # TensorFlow can't split at no place
    parts = ops.split(vector, ends) if ends else [vector]
    pairs = zip(parts, like, strict=True)
    return [ops.cast(ops.reshape(part, w.shape), w.dtype) for part, w in pairs]


def as_matrix(x: Tensor) -> Tensor:
    """A weight of any rank as (all other axes, output axis), usual for kernels."""
    return ops.reshape(x, (-1, x.shape[-1]))


def as_rows(x: Tensor, axis: int | Sequence[int] | None) -> Tensor:
    """(vectors, entries): one vector for each index on `axis`; None is one vector."""
    order, count = index_first(x, axis)
    sizes = [x.shape[a] for a in order]  # in a graph the batch has None
    if None in sizes[:count]:
        shape = -1, math.prod(sizes[count:])
    else:
        shape = math.prod(sizes[:count]), -1
    return ops.reshape(ops.transpose(x, order), shape)


def from_rows(rows: Tensor, like: Tensor, axis: int | Sequence[int] | None) -> Tensor:
    """The inverse of `as_rows`: the rows as a tensor of the shape of `like`."""
    order, _ = index_first(like, axis)
    shape = [like.shape[a] for a in order]
    return ops.transpose(
        ops.reshape(rows, shape), [*map(order.index, range(len(order)))]
    )


def index_first(x: Tensor, axis: int | Sequence[int] | None) -> tuple[list[int], int]:
    """The axes, those of `axis` first, and how many these are."""
    given = () if axis is None else (axis,) if isinstance(axis, int) else axis
    rank = len(x.shape)
    for a in given:
        if not -rank <= a < rank:
            raise ValueError(f"There is no axis {a} in shape {tuple(x.shape)}.")
    first = [a % rank for a in given]
    return [*first, *(a for a in range(rank) if a not in first)], len(first)


_SLICES = 8


def folded(fn: Callable[[Tensor], Tensor], x: Tensor, axis: int) -> Tensor:
    """`fn` of eight slices along an axis, added up; the caller sums over the rest.

    XLA sums one entry after another where it fuses the sum with `fn`, and takes another
    pass over memory where it does not. To add eight slices, it works on many entries at
    once, in the same pass as `fn`.
    """
    count = x.shape[axis] // _SLICES
    *slices, rest = ops.split(x, [count * (k + 1) for k in range(_SLICES)], axis)
    few = ops.sum(fn(rest), axis, keepdims=True) / count
    return functools.reduce(operator.add, map(fn, slices)) + few


def fold_axis(x: Tensor, axes: Sequence[int]) -> int | None:
    """The axis along which `folded` pays, for a sum over these axes."""
    longest = max(axes, key=lambda a: x.shape[a] or 0)
    pays = pays_to_fuse(x) and x.shape[longest] >= 8 * _SLICES
    return longest if pays else None


def fused_sum(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`Σ fn(x)` over entries, on TensorFlow: one pass for it, one for its gradient.

    The gradient computes from `x` again what it needs: to keep it from the first pass
    would take passes over memory too.
    """

    def slope(x: Tensor, upstream: Tensor) -> Tensor:
        return upstream * gradient(lambda x: ops.sum(fn(x)), x)

    forward, backward = fused(functools.partial(folded, fn, axis=0)), fused(slope)

    @own_gradient
    def total(x: Tensor) -> tuple[Tensor, Pullback]:
        sums = forward(ops.reshape(x, (-1,)))
        return ops.sum(sums), lambda upstream: backward(x, upstream)

    return total


def length(x: Tensor, axis: Sequence[int]) -> Tensor:
    """The Euclidean norm over `axis`, which stays as an axis of size 1.

    It takes as few passes over memory as possible. In float32 a norm below 1e-19 comes
    out as 0, and one above 1.8e19 as 1.8e19; `norm` has no such limits. The gradient at
    0 is 0.
    """
    largest = float(np.finfo(keras.backend.standardize_dtype(x.dtype)).max)

    @own_gradient
    def whole(x: Tensor) -> tuple[Tensor, Pullback]:
        squares = ops.sum(_squares(x, axis), axis=tuple(axis), keepdims=True)
        size = ops.sqrt(ops.minimum(squares, largest))

        def pullback(upstream: Tensor) -> Tensor:
            return x * (upstream / ops.where(size > 0, size, ops.ones_like(size)))

        return size, pullback

    return whole(x)


def _squares(x: Tensor, axis: Sequence[int]) -> Tensor:
    """Each entry's square, or sums of some of them along one of the axes."""
    longest = fold_axis(x, axis)
    if longest is None:
        return ops.square(x)
    return _fused_squares(longest, tuple(x.shape), x.dtype)(x)


@functools.lru_cache(64)
def _fused_squares(axis: int, *shape: Any) -> Callable[[Tensor], Tensor]:
    """One compiled function for all tensors of a shape; the last few are kept."""
    return fused(functools.partial(folded, ops.square, axis=axis))
