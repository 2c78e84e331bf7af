"""Sums over the entries of large weights: few passes over memory, and little of it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

from keras import ops

from keras_penalties.autodiff import gradient, own_gradient
from keras_penalties.compiling import fused, kept, pays_to_fuse
from keras_penalties.numerics import largest_of, widened
from keras_penalties.typing import Pullback, Tensor

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


BLOCK = 2**20
"""How many entries of a weight in half floats are in float32 at a time."""


def sum_by_blocks(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The sum of `fn`, a sum over entries, of blocks of `x` in float32, each in turn.

    Half floats overflow in sums, and a float32 copy of a large weight takes twice the
    memory of the weight. The gradient has the dtype of `x`.
    """

    def blocks(x: Tensor) -> list[Tensor]:
        entries = ops.reshape(x, (-1,))
        starts = range(0, entries.shape[0], BLOCK)
        return [entries[start : start + BLOCK] for start in starts]

    @own_gradient
    def total(x: Tensor) -> tuple[Tensor, Pullback]:
        def pullback(upstream: Tensor) -> Tensor:
            slopes = (
                gradient(lambda part: upstream * fn(part), widened(part))
                for part in blocks(x)
            )
            whole = ops.concatenate([ops.cast(s, x.dtype) for s in slopes])
            return ops.reshape(whole, x.shape)

        return sum(fn(widened(part)) for part in blocks(x)), pullback

    return total


def length(x: Tensor, axis: Sequence[int]) -> Tensor:
    """The Euclidean norm over `axis`, which stays as an axis of size 1.

    It takes as few passes over memory as possible. In float32 a norm below 1e-19 comes
    out as 0, and one above 1.8e19 as 1.8e19; `norm` has no such limits. The gradient at
    0 is 0.
    """
    largest = largest_of(x)

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
    key = "squares", longest, tuple(x.shape), x.dtype
    squares = functools.partial(folded, ops.square, axis=longest)
    return kept(key, lambda: fused(squares), ops.square)(x)
