"""Compiled sums and proximal maps of large weights, on TensorFlow.

Penalties that are alike share them, so that a model with many equal layers compiles one
function for all.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_penalties.compiling import fused, kept
from keras_penalties.sums import fused_sum
from keras_penalties.typing import Tensor


class _Alike:
    """A penalty as a key, equal to the keys of penalties that are alike."""

    def __init__(self, penalty: Any) -> None:
        self.penalty = penalty

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alike) and self.penalty.alike(other.penalty)

    def __hash__(self) -> int:
        return hash(type(self.penalty))


def fused_map(penalty: Any, x: Tensor, t: Tensor) -> Tensor:
    """`penalty.compute_prox(x, t)`, compiled as one function."""
    key = "map", _Alike(penalty), tuple(x.shape), tuple(t.shape), x.dtype
    plain = penalty.compute_prox
    return kept(key, lambda: fused(plain), plain)(x, t)


def fused_total(penalty: Any, x: Tensor) -> Tensor:
    """The sum of `penalty.entrywise(x)`, compiled as one function."""
    key = "total", _Alike(penalty), tuple(x.shape), x.dtype
    each = penalty.entrywise
    return kept(key, lambda: fused_sum(each), lambda x: ops.sum(each(x)))(x)
