"""Maths that is right on every backend: kinks, tiny and huge values, thresholds.

Autodiff of the plain formulas differs between backends at a kink (|x| at 0 has
slope 1 on JAX, 0 on TensorFlow and torch; a norm at 0 gives NaN). Every penalty
is written with the functions here, whose subgradient at a kink is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties.autodiff import own_gradient
from keras_penalties.typing import Pullback, Tensor

HUGE = 1e18
"""From here on the squares of a float32, and sums of these, may overflow."""


def plain_tensor(x: Any) -> Tensor:
    """A tensor of the backend, of whatever has numbers: never a variable."""
    x = ops.convert_to_tensor(x)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)  # Keras lets a `tf.Variable` through
    return x


def widened(x: Any) -> Tensor:
    """`x` in float32, or in float64 where it came so: half floats overflow in sums."""
    x = plain_tensor(x)
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
    a parameter that has left the range still has a gradient that brings it back. An
    infinite one has none.
    """
    inside = ops.stop_gradient(ops.clip(x, -bound, bound))
    largest = largest_of(x)
    x = ops.clip(x, -largest, largest)  # infinity less infinity would be NaN
    return inside + (x - ops.stop_gradient(x))


def scaled(x: Tensor, axis: int | None = None) -> tuple[Tensor, Tensor]:
    """`x` over a scale, and the scale: 1 unless sums of the entries overflow.

    With an axis there is a scale for each vector along the axis.
    """
    largest = ops.max(ops.absolute(x), axis=axis, keepdims=axis is not None)
    largest = ops.stop_gradient(largest)
    # Not the largest entry itself: XLA multiplies by 1/scale, which would be 0.
    scale = ops.where(largest > HUGE, 2.0**-32 * largest, ops.ones_like(largest))
    return x / scale, scale


def singular_values(
    x: Tensor, most: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U, σ, Vᵀ and a scale: `x = scale·U·σ·Vᵀ`, also of huge entries.

    Only the `most` largest if a number is given, by a randomised method: in a subspace
    of more than twice as many dimensions, unless that would be the whole space.
    """
    x, scale = scaled(x)
    size = None if most is None else 2 * most + 8
    if size is None or size >= min(x.shape):
        u, s, vt = ops.svd(x, full_matrices=False)
    else:
        basis = _leading_basis(x, size)
        u, s, vt = ops.svd(ops.matmul(ops.transpose(basis), x), full_matrices=False)
        u = ops.matmul(basis, u)
    return u[:, :most], s[:most], vt[:most], scale


def _leading_basis(x: Tensor, size: int, iterations: int = 4) -> Tensor:
    """Orthonormal columns that span nearly what the largest singular vectors span.

    By subspace iteration from a fixed random start, so that no state is kept.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    basis = keras.random.normal((x.shape[1], size), dtype=dtype, seed=0)
    basis = ops.qr(ops.matmul(x, basis))[0]
    for _ in range(iterations):
        basis = ops.qr(ops.matmul(ops.transpose(x), basis))[0]
        basis = ops.qr(ops.matmul(x, basis))[0]
    return basis


def largest_of(x: Tensor) -> float:
    """The largest number of the dtype of `x`."""
    return float(np.finfo(keras.backend.standardize_dtype(x.dtype)).max)


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
    sizes = ops.absolute(x)
    largest = ops.stop_gradient(ops.max(sizes, axis, True, initial=0.0))
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(x / scale), axis=axis, keepdims=True)
    # Both branches of a `where` are differentiated: sqrt must never see a 0.
    zero = squares == 0
    root = ops.sqrt(ops.where(zero, ops.ones_like(squares), squares))
    result = scale * ops.where(zero, ops.zeros_like(squares), root)
    return result if keepdims else ops.squeeze(result, axis)


def unless_empty(value: Tensor, x: Tensor) -> Tensor:
    """The scalar `value`, or 0 where `x` has no entry, as a graph may learn late."""
    if None not in x.shape:
        return value
    return ops.where(ops.size(x) == 0, ops.zeros_like(value), value)


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
